"""backtests/head_compared.py from start to end, in small."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("qlib")
pytest.importorskip("lightgbm")

from tests.kronos_strategies.warm import run_warm

from .conftest import TINY

SCRIPT = Path(__file__).parents[3] / "backtests" / "head_compared.py"


def test_a_head_is_compared_with_paths_and_bar_features_and_their_means(small_store, tmp_path):
    output = tmp_path / "out"
    span = ("--start", "2023-05-08", "--end", "2023-05-31")
    fit = ("--fit", "ridge", "--train-until", "2022-11-30", "--valid-until", "2023-02-28")
    size = (
        "--train-start",
        "2022-07-01",
        "--samples",
        "2",
        "--every",
        "4",
        "--rank-every",
        "2",
        "--no-alpha158",
    )
    words = [
        SCRIPT, "--data", small_store, "--market", "all", "--model", TINY, *span, *fit, *size,
        "--device", "cpu", "--output", output,
    ]  # fmt: skip
    done = run_warm(words, tmp_path, os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((output / "compare.json").read_text())
    names = ["head", "paths", "bar features"]
    assert result["versions"] == [*names, *(f"head and {name}" for name in names[1:])]
    assert "difference" in result["metrics"]["rank_ic"]["paths"]
    assert (output / "compare.html").is_file()
    dates = pd.read_parquet(output / "head.parquet").index.get_level_values("datetime").unique()
    days = pd.read_parquet(output / "labels.parquet").index.get_level_values("datetime").unique()
    assert len(dates) == len(days) == 9  # of the 18 days of the span
