"""`backtests/score_model.py` evaluates each setting and compares them, on a few simulated instruments and dates."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from kronos_strategies.data.simulate import MarketConfig, simulate_market
from tests.kronos_strategies.warm import run_warm

SCRIPT = Path(__file__).parents[2] / "backtests" / "score_model.py"


def score_model(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_warm([SCRIPT, *arguments], Path.cwd(), os.environ)


@pytest.mark.slow
def test_each_setting_has_a_report_and_is_compared_with_the_first(tmp_path: Path) -> None:
    bars = simulate_market(MarketConfig(instruments=12)).bars
    days = pd.DatetimeIndex(bars["datetime"].unique()).sort_values()
    bars[bars["datetime"] >= days[-200]].to_parquet(tmp_path / "bars.parquet")
    done = score_model(
        "kronos-nano", "--data", tmp_path / "bars.parquet", "--start", days[-60].date(), "--end", days[-12].date(),
        "--every", 10, "--samples", 4, "--temperature", 0.6, 1.0, "--top-p", 0.9, "--lookback", 40,
        "--device", "cpu", "--output", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings = ["temperature-0.6-top-p-0.9", "temperature-1-top-p-0.9"]
    assert all((tmp_path / "out" / name / "report.html").is_file() for name in settings)
    comparison = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert (comparison["reference"], comparison["versions"]) == (settings[0], settings)
    assert {"rank_ic", "crps_h5", "qlike_h5"} <= set(comparison["metrics"])


@pytest.mark.slow
def test_a_mistake_is_one_sentence(tmp_path: Path) -> None:
    missing = score_model("kronos-nano", "--data", tmp_path / "none.parquet", "--start", "2021-01-04")
    assert missing.returncode == 2
    assert len(missing.stderr.strip().splitlines()) == 1
    assert f"{tmp_path}/none.parquet" in missing.stderr
