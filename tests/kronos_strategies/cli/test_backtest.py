"""`kronos backtest` as a user runs it: from a store and bars to a report, without a model and without Qlib."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("statsmodels")
pytest.importorskip("arch")

from kronos.postprocessing import Postprocessing
from kronos_strategies.backtest import TradingRules, backtest_rules
from kronos_strategies.backtest.inputs import read_prices
from kronos_strategies.portfolio import PortfolioRules, parse_rules
from kronos_strategies.run_artifacts import RunArtifacts
from kronos_strategies.signal import sampled_paths, signals
from kronos_strategies.store import ForecastSet
from kronos_strategies.store.window_outputs import WindowOutputs

from ..backtest.walks import windows_of
from .conftest import run

RULES = "topk=4,rank_buffer=2,weighting=inverse_volatility"


@pytest.fixture(scope="module")
def market(walk_market):
    return walk_market


@pytest.fixture(scope="module")
def folder(walk_folder):
    return walk_folder


def backtest(capsys, folder, data="qlib", *more):
    words = ("backtest", folder / "forecasts", "--rules", RULES, "--data", folder / data)
    return run(capsys, *words, "--output", "out", *more)


def artifacts() -> RunArtifacts:
    return RunArtifacts.read(Path("out/artifacts"))


def test_the_report_is_of_the_rules_on_the_signals_of_the_store(folder, capsys):
    code, out, err = backtest(capsys, folder)
    assert (code, err.strip()) == (0, "")
    assert "strategy, net of costs" in out
    assert "out/report.html" in out
    made = artifacts()
    stored = ForecastSet.find(folder / "forecasts")
    table = pd.concat([signals(stored.read(date), 5) for date in stored.dates]).sort_index()
    names = table.index.get_level_values("instrument").unique()
    prices = read_prices(folder / "qlib", names)
    assert prices.trading == TradingRules(
        open_cost=0.0005, close_cost=0.0015, min_cost=5, limit=0.095, lot=100
    )
    rules = PortfolioRules(topk=4, rank_buffer=2, weighting="inverse_volatility")
    expected = backtest_rules(table, rules, prices.panel, prices.trading, 5, prices.factors)
    known = made.result.returns.index
    assert known[-1] == stored.dates[-1], "the backtest ends with the last forecast"
    pd.testing.assert_frame_equal(made.result.returns, expected.returns.loc[: known[-1]])
    np.testing.assert_array_equal(made.scores["Kronos"], table["score"])
    assert made.metadata.settings["rules"] == "topk=4, rank_buffer=2, weighting=inverse_volatility"
    assert made.paths is not None


def test_scenario_rules_trade_the_stored_paths_and_the_report_counts_what_had_no_result(folder, capsys):
    rules = "topk=6,weighting=min_cvar,cvar_tail=0.3,scenario_bars=300,max_weight=0.3"
    command = ("backtest", folder / "forecasts", "--rules", rules, "--output", "out", "--data")
    code, _, err = run(capsys, *command, folder / "qlib")
    assert (code, err.strip()) == (0, "")
    made = artifacts()
    stored = ForecastSet.find(folder / "forecasts")
    table = pd.concat([signals(stored.read(date), 5) for date in stored.dates]).sort_index()
    prices = read_prices(folder / "qlib", table.index.get_level_values("instrument").unique())

    def paths(date):
        return sampled_paths(Postprocessing()(stored.read(date)))

    expected = backtest_rules(
        table, parse_rules(rules), prices.panel, prices.trading, 5, prices.factors, paths=paths
    )
    known = made.result.returns.index
    pd.testing.assert_frame_equal(made.result.returns, expected.returns.loc[: known[-1]])
    assert not expected.unsolved
    few = f"optimized over {stored.settings.provenance.sampling.samples} scenarios"
    assert any(few in each for each in made.metadata.warnings)

    bars = pd.read_parquet(folder / "bars.parquet")
    bars[bars["datetime"] >= "2022-11-21"].to_parquet("late.parquet")  # too short a past at first
    assert run(capsys, *command, "late.parquet")[0] == 0
    kept = [each for each in artifacts().metadata.warnings if "the optimization had no result" in each]
    assert len(kept) == 1
    assert kept[0].startswith("4 rebalances kept the weights")
    assert "first on 2022-12-01: joint scenarios need 20 past windows of 7 bars" in kept[0]


def test_a_file_of_bars_and_a_qlib_directory_give_the_same_backtest(folder, capsys):
    results = []
    for data in ("qlib", "bars.parquet"):
        assert backtest(capsys, folder, data)[0] == 0
        results.append(artifacts().result.returns)
    pd.testing.assert_frame_equal(*results, rtol=1e-3, atol=2e-6)  # Qlib's prices are of single precision


def test_execution_signals_and_rebalancing_can_be_set(folder, capsys):
    code, _, err = backtest(
        capsys,
        folder,
        "qlib",
        *("--trading", "price=open,lot=0,limit=0,min_cost=0", "--levels", "tail=0.3"),
        *("--hold", 2, "--every", 1, "--benchmark", "SH000300", "--trials", 7, "--end", "2023-01-31"),
    )
    assert (code, err.strip()) == (0, "")
    made = artifacts()
    assert made.metadata.settings["label"] == "open(t+3) / open(t+1) - 1"
    assert made.metadata.settings["rebalanced"] == "every 1 bars"
    assert (made.metadata.trials, made.metadata.hold) == (7, 2)
    assert list(made.result.benchmarks) == ["SH000300", "equal weight"]
    assert made.result.returns.index[-1] == pd.Timestamp("2023-01-31")


def test_stored_scores_of_a_return_head_rank_where_they_fit(market, folder, capsys, tmp_path):
    stored = ForecastSet.find(folder / "forecasts")
    where = stored.folder.parent / "heads" / "ranks-1234"
    described = {
        "head": "ranks",
        "head_sha256": "b" * 64,
        "settings": {"universe": "csi300", "lookback": 20, "horizons": [1, 5]},
    }
    outputs = WindowOutputs(where, ["rank_1", "rank_5"], described)
    windows = windows_of(market)
    values = np.random.default_rng(0).normal(size=(len(windows), 2)).astype(np.float32)
    given = dict(zip(windows.index, values, strict=True))
    try:
        outputs.fill(windows, lambda part, _: np.stack([given[key] for key in part.index]), lambda *_: None)
        assert backtest(capsys, folder)[0] == 0
        made = artifacts()
        expected = pd.Series({key: float(row[1]) for key, row in given.items()})
        pd.testing.assert_series_equal(
            made.scores["Kronos"].sort_index(),
            expected.sort_index(),
            check_names=False,
            check_index_type=False,
        )
        assert made.metadata.settings["score"].startswith("return head ranks (sha256 bbbb")
        assert not made.metadata.score_is_return
        assert backtest(capsys, folder, "qlib", "--score", "paths")[0] == 0
        assert artifacts().metadata.settings["score"] == "sampled paths"
        assert backtest(capsys, folder, "qlib", "--hold", 3)[0] == 0
        assert artifacts().metadata.settings["score"] == "sampled paths", "no output spans three bars"
        code, _, err = backtest(capsys, folder, "qlib", "--hold", 3, "--score", "head")
        assert (code, "has no scores of a return head at 3 bars" in err) == (2, True)
    finally:
        shutil.rmtree(where.parent)


def test_an_industry_cap_holds(folder, capsys, tmp_path, market):
    names = market.bars["instrument"].unique()
    file = tmp_path / "industries.csv"
    pd.DataFrame({"instrument": names, "industry": [f"I{i % 3}" for i in range(len(names))]}).to_csv(
        file, index=False
    )
    words = ("backtest", folder / "forecasts", "--data", folder / "qlib", "--output", "out")
    rules = "topk=6,max_industry_weight=0.2,no_trade_band=0"
    code, _, err = run(capsys, *words, "--rules", rules, "--industry", file, "--every", 1)
    assert (code, err.strip()) == (0, "")
    weights = artifacts().result.weights
    industry = pd.read_csv(file).set_index("instrument")["industry"]
    gross = weights.groupby(["datetime", weights.index.get_level_values(1).map(industry)]).sum()
    # Prices move after the decision, and a sale at a price limit does not trade.
    assert gross.gt(0.21).mean() < 0.1
    assert gross.median() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--rules", "top_k=5"), "Did you mean 'topk'?"),
        (("--trading", "lots=5"), "'lots' is not a field of TradingRules. Did you mean 'lot'?"),
        (("--levels", "tail=2"), "tail=2 is out of range"),
        (("--hold", 7), "--hold 7 needs forecasts of 8 bars"),
        (("--start", "2024-01-02"), "has 0 forecast dates from 2024-01-02"),
        (("--data", "nowhere"), "nowhere is neither a file nor a folder of bars"),
        (("--benchmark", "SH999999"), "has no bars of 'SH999999'"),
        (("--rules", "max_industry_weight=0.3"), "needs the industry of each instrument"),
    ],
)
def test_a_mistake_is_one_sentence(folder, capsys, more, message):
    given = {"--rules": RULES, "--data": folder / "qlib"}
    given |= dict(zip(more[::2], more[1::2], strict=True))
    words = [word for pair in given.items() for word in pair]
    code, out, err = run(capsys, "backtest", folder / "forecasts", *words)
    assert (code, out.strip()) == (2, "")
    assert message in " ".join(err.split())


def test_names_with_a_colon_are_files_and_not_urls(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "bars.parquet", "my:bars.parquet")
    words = ("backtest", folder / "forecasts", "--rules", RULES, "--data", "my:bars.parquet")
    code, _, err = run(capsys, *words, "--output", "baseline:ewma")
    assert code == 0, err
    assert len(RunArtifacts.read(Path("baseline:ewma/artifacts")).scores)


def test_a_store_without_forecasts_is_refused(tmp_path, capsys):
    code, _, err = run(capsys, "backtest", tmp_path, "--data", tmp_path)
    assert (code, "contains no forecasts" in " ".join(err.split())) == (2, True)


def test_neither_qlib_nor_torch_is_imported(folder):
    script = (
        "import sys\nfrom kronos_strategies.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'qlib', 'torch', 'backtrader'} & set(sys.modules)))"
    )
    words = ["backtest", folder / "forecasts", "--rules", RULES, "--data", folder / "qlib", "--output", "out"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
