"""`backtests/score_model.py` from bars to tables, on a few simulated names and dates."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from kronos_strategies.data.simulate import MarketConfig, simulate_market

SCRIPT = Path(__file__).parents[2] / "backtests" / "score_model.py"


def score_model(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def bars(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("bars") / "bars.parquet"
    simulate_market(MarketConfig(names=12)).bars.to_parquet(file)
    return file


@pytest.mark.slow
def test_a_grid_of_settings_is_scored_and_written(bars: Path, tmp_path: Path) -> None:
    days = pd.DatetimeIndex(pd.read_parquet(bars)["datetime"].unique()).sort_values()
    done = score_model(
        "kronos-nano", bars, "--since", days[-60].date(), "--until", days[-5].date(), "--every", 10,
        "--samples", 4, "--T", 0.6, 1.0, "--top-p", 0.9, "--horizons", 1, 2, "--lookback", 40, "--device", "cpu",
        "--output", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "kronos-nano" in done.stdout
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores["settings"]) == ["T=0.6, top_p=0.9", "T=1, top_p=0.9"]
    assert {card["dates"] for card in scores["settings"].values()} == {6}
    assert [ranking["horizon"] for ranking in scores["settings"]["T=1, top_p=0.9"]["rankings"][::5]] == [1, 2]
    text = (tmp_path / "scores.md").read_text()
    assert text.count("**Returns**") == text.count("**Distribution**") == 2
    by_date = pd.read_csv(tmp_path / "by_date.csv", parse_dates=["datetime"])
    assert set(by_date["datetime"]) == set(days[-60:-4:10])


@pytest.mark.integration
def test_a_mistake_is_one_sentence(bars: Path, tmp_path: Path) -> None:
    missing = score_model("kronos-nano", tmp_path / "none.parquet", "--since", "2021-01-04")
    assert (missing.returncode, missing.stderr.strip()) == (
        2,
        f"{tmp_path}/none.parquet is neither a file nor a folder of bars. Check the path.",
    )
    late = score_model("kronos-nano", bars, "--since", "2090-01-01", "--output", tmp_path)
    assert late.returncode == 2
    assert len(late.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
