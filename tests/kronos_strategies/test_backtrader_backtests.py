"""The Backtrader scripts in `backtests/`, in small: from files or a store to a report and a picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("backtrader")
pytest.importorskip("plotly")
pytest.importorskip("statsmodels")

from kronos.utils import run_command
from kronos_strategies.comparison_inputs import load_artifacts
from kronos_strategies.data.simulate import MarketConfig, write_simulated
from tests.kronos.builders import make_bars, make_panel

pytestmark = pytest.mark.integration

BACKTESTS = Path(__file__).parents[2] / "backtests"
NAMES = [f"N{i:02}" for i in range(12)]
SMALL = ["--lookback", "20", "--horizon", "3", "--samples", "4", "--every", "5", "--device", "cpu"]


@pytest.fixture(scope="module")
def topk():
    return script("backtrader_topk")


@pytest.fixture(scope="module")
def crypto():
    return script("backtrader_crypto")


def script(name: str):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BACKTESTS), *sys.path])
        return __import__(name)


@pytest.fixture(scope="module")
def tidy(tmp_path_factory) -> Path:
    """One parquet file of daily bars."""
    file = tmp_path_factory.mktemp("bars") / "bars.parquet"
    parts = make_panel(60, *NAMES)
    pd.concat(parts, names=["instrument"]).reset_index().drop(columns="amount").to_parquet(file)
    return file


@pytest.fixture(scope="module")
def minutes(tmp_path_factory) -> Path:
    """One CSV file of five-minute bars around the clock."""
    file = tmp_path_factory.mktemp("minutes") / "bars.csv"
    parts = {
        f"{name}USDT": make_bars(400, i, "2024-04-08", "5min") for i, name in enumerate(("BTC", "ETH", "SOL"))
    }
    pd.concat(parts, names=["instrument"]).reset_index().drop(columns="amount").to_csv(file, index=False)
    return file


def run(script, capsys, *words) -> str:
    """Output of a script."""
    with pytest.raises(SystemExit) as stopped:
        run_command(script.app, [str(word) for word in words])
    assert not stopped.value.code
    return capsys.readouterr().out


def refusal(script, capsys, *words) -> str:
    """The one line that a script refuses with."""
    with pytest.raises(SystemExit) as stopped:
        run_command(script.app, [str(word) for word in words])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def check_results(folder: Path, judged: str = "signal") -> dict[str, float]:
    """Check that report and picture exist, and return its metrics."""
    page = (folder / "report.html").read_text()
    assert all(f'<section id="{each}"' in page for each in (judged, "distribution", "portfolio", "trades"))
    assert (folder / "run.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((folder / "metrics.json").read_text())


def test_topk_trades_a_file_with_one_of_its_instruments_as_benchmark(topk, capsys, tidy, tmp_path):
    printed = run(topk, capsys, tidy, *SMALL, "--topk", 3, "--benchmark", "N05", "--output", tmp_path / "out")
    metrics = check_results(tmp_path / "out")
    assert metrics["turnover"] > 0
    assert "N05_sharpe" in metrics
    assert "Top 3 of 11 by Kronos" in printed
    artifacts = load_artifacts(str(tmp_path / "out"), "")
    assert "N05" not in artifacts.scores.index.get_level_values("instrument")
    assert "N05" in artifacts.result.benchmarks


def test_topk_trades_a_folder_of_csv_files_with_other_rules(topk, capsys, tmp_path):
    for name, bars in make_panel(50, *NAMES[:5]).items():
        bars.drop(columns="amount").to_csv(tmp_path / f"{name}.csv")
    rules = ["--rank-by", "prob_up", "--side", "long_short", "--weighting", "inverse_volatility", "--topk", 2]
    run(topk, capsys, tmp_path, *SMALL, *rules, "--start", "2024-01-05", "--output", tmp_path / "out")
    artifacts = load_artifacts(str(tmp_path / "out"), "")
    assert next(iter(artifacts.scores)) == "Kronos prob_up"
    assert artifacts.result.weights.min() < 0
    assert artifacts.market.calendar[0] == pd.Timestamp("2024-01-05")


def test_topk_trades_a_store_and_says_that_its_market_is_simulated(topk, capsys, tmp_path):
    config = MarketConfig(instruments=16, sectors=2, start="2023-01-02", end="2023-04-28")
    write_simulated(tmp_path / "store", config, "csi300")
    words = [tmp_path / "store", *SMALL, "--benchmark", "SH000300", "--topk", 3, "--output", tmp_path / "out"]
    printed = run(topk, capsys, *words)
    assert "SIMULATED" in printed
    assert "SH000300" in load_artifacts(str(tmp_path / "out"), "").result.benchmarks


@pytest.mark.parametrize("style", ["long_flat", "rank"])
def test_crypto_trades_parts_of_coins_around_the_clock(crypto, capsys, minutes, tmp_path, style):
    words = ["--style", style, "--topk", 1, "--fee", 0.0001, "--cash", 100, "--output", tmp_path]
    run(crypto, capsys, minutes, *SMALL, *words)
    check_results(tmp_path, judged="time-series")  # a coin or two make no cross-section
    result = load_artifacts(str(tmp_path), "").result
    assert result.bars_per_year == 105_120
    assert result.positions.max() >= 1
    assert 0 < result.weights.max() < 1  # of 100 in coins that cost 50 or so


def test_long_flat_holds_equal_weights_of_instruments_with_a_forecast_above_the_threshold(
    crypto, capsys, minutes, tmp_path
):
    run(crypto, capsys, minutes, *SMALL, "--fee", 0.0, "--output", tmp_path)
    artifacts = load_artifacts(str(tmp_path), "")
    calendar = artifacts.result.returns.index
    held = artifacts.result.weights.unstack().reindex(calendar).fillna(0.0)
    rises = (artifacts.scores["Kronos expected_return"] > 0).unstack()
    after = {date: calendar[calendar > date][0] for date in rises.index if date < calendar[-1]}
    for date, following in after.items():
        assert list(held.loc[following] > 0) == list(rises.loc[date])
        entered = (held.loc[following] > 0) & (held.loc[date] == 0 if date in calendar else True)
        np.testing.assert_allclose(held.loc[following][entered], 0.98 / 3, rtol=0.1)
    assert len(after) > 50


@pytest.mark.parametrize("name", ["topk", "crypto"])
def test_help_names_every_option(name, request, capsys):
    printed = run(request.getfixturevalue(name), capsys, "--help")
    for option in ("--model", "--every", "--samples", "--fee", "--trials", "--output", "--draw"):
        assert option in printed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.csv"], "nowhere.csv is neither a file nor a folder of bars"),
        (["TIDY", "--benchmark", "SPY"], "has no benchmark 'SPY'"),
        (["TIDY", "--instruments", "N01", "XX"], "does not contain ['XX']"),
        (["TIDY", "--start", "2030-01-01"], "has no bar from 2030-01-01"),
        (["TIDY", "--draw", "XX"], "no 'XX' to draw"),
        (["TIDY", "--rank-by", "luck"], "no line 'luck' to rank by"),
        (["TIDY", "--model", "unknown"], "unknown"),
        (["TIDY", "--lookback", "500"], "Run on more bars than its lookback"),
        (["TIDY", "--side", "short"], "side"),
    ],
)
def test_bad_input_is_one_sentence(topk, capsys, tidy, tmp_path, words, says):
    words = [str(tidy) if word == "TIDY" else word for word in words]
    assert says in refusal(topk, capsys, *words, "--output", tmp_path / "out")
