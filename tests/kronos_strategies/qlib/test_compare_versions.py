"""The experiment of backtests/compare_versions.py from start to end, in small."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.kronos_strategies.warm import run_warm

from .conftest import TINY

SCRIPT = Path(__file__).parents[3] / "backtests" / "compare_versions.py"


@pytest.mark.slow
def test_two_checkpoints_and_two_settings_are_trained_forecast_and_compared(
    small_store, empty_record, tmp_path
):
    span = ("--start", "2023-05-08", "--end", "2023-05-26")
    (tmp_path / "out").mkdir()
    shutil.copy(empty_record, tmp_path / "out" / "mlflow.db")
    size = ("--steps", "2", "--samples", "2", "--hold", "2", "--gate", "rank_ic>=-1")
    ours = {k: v for k, v in os.environ.items() if not k.startswith("KRONOS_")}
    words = [SCRIPT, "--model", TINY, "--data", small_store, *span, *size, "--output", "out"]
    process = run_warm(words, tmp_path, {**ours, "OMP_NUM_THREADS": "1"})
    assert process.returncode == 0, process.stderr[-3000:]
    result = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert result["versions"] == ["first", "first narrowed", "second", "second narrowed"]
    weights = {name: made["weights sha256"] for name, made in result["provenance"].items()}
    assert weights["first"] == weights["first narrowed"] != weights["second"] == weights["second narrowed"]
    assert "T=0.6, top_p=0.9" in result["provenance"]["second narrowed"]["sampling"]
    assert result["metrics"]["rank_ic"]["first"]["dates"] == 15
    assert result["metrics"]["rank_ic"]["second"]["difference"] != 0
    assert [gate["passed"] for gate in result["gates"]] == [True] * 3
    assert (tmp_path / "out" / "compare.html").is_file()
