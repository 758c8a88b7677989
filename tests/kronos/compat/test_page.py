"""The page for upstream's users: its examples run, and the names in it exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from kronos import compat
from kronos.training.config import STAGES, Source, TrainingConfig

PAGE = (Path(__file__).parents[3] / "docs" / "coming_from_upstream.md").read_text(encoding="utf-8")


def test_the_examples_run_one_after_the_other() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert names["pred_df"].shape == (10, 6)  # type: ignore[attr-defined]
    assert names["forecast"].paths.shape == (1, 20, 10, 6)  # type: ignore[attr-defined]


def test_every_training_setting_on_the_page_exists() -> None:
    known = {field.name for kind in (TrainingConfig, Source) for field in fields(kind)} | {*STAGES, "stages"}
    named = re.findall(r"`(\w+):", PAGE[PAGE.index("## Fine-tuning") :])
    assert len(named) > 25
    assert set(named) <= known


@pytest.mark.parametrize("name", compat.__all__)
def test_every_name_of_the_module_is_on_the_page(name: str) -> None:
    assert f"{name}" in PAGE[PAGE.index("## Names") : PAGE.index("## What behaves")]
