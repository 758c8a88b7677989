"""The page on training: its commands work, and its quotes are what is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import yaml

from kronos.training.__main__ import train_both
from kronos.training.config import read_yaml
from kronos.training.model_card import cleaning_table
from kronos.training.sources import RULES
from tests.kronos.builders import make_bars
from tests.kronos.training.test_model_card import INFO

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code on the page in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_recipe_goes_from_a_csv_file_to_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bars = make_bars(1500, freq="5min").drop(columns="amount")
    bars.to_csv("five_min.csv", index_label="datetime")
    (command,) = (block for block in blocks("bash") if block.startswith("kronos train --data five_min.csv"))
    tokens = shlex.split(command.replace("--max-steps 500", "--max-steps 2"))
    assert tokens[:2] == ["kronos", "train"]
    train_both([*tokens[2:], "--validation-windows", "16", "--batch-size", "8", "--device", "cpu"])
    mpl.use("agg")
    exec(blocks("python")[0], scope := {})
    assert scope["closes"].shape == (100, 11)
    assert np.array_equal(scope["times"], bars.index[-11:].to_numpy())
    assert mpl.image.imread("forecast.png").ndim == 3


def test_the_table_on_the_page_is_the_one_that_is_printed() -> None:
    assert f"```text\n{cleaning_table(INFO, 101, 8000, 1900)}\n```" in PAGE


def test_the_limits_on_the_page_are_those_of_the_rules() -> None:
    rows = re.findall(r"^\| ([\w, ]+) \| (\d+) % \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    limits = {name: tuple(map(int, row[1:])) for row in rows for name in row[0].split(", ")}
    assert limits == {
        name: (round(100 * rule.max_gap), rule.max_illiquid, rule.max_stagnant)
        for name, rule in RULES.items()
    }


def test_the_settings_on_the_page_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "finetune.yaml").write_text(blocks("yaml")[0])
    assert read_yaml(tmp_path / "finetune.yaml", "predictor")["pretrained"] == "/home/me/weights/Kronos-small"
    assert yaml.safe_load(blocks("yaml")[0])["stages"]["tokenizer"]["max_steps"] == 400
