"""How fast the tester is compared with Qlib's executor: the same rules on the same market, interleaved.

Both hold the best 50 of 300 by score with a rank buffer of 25, rebalanced every day, with costs, a price limit and
lots. The time of Qlib is that of `qlib.backtest.backtest` with `KronosWeightStrategy` over a cached data directory,
that of the tester of `backtest_rules` from the long signals; "weights" is `run_backtest` on weights that are given.
`sweep` runs many settings over four years of 300 instruments in this process, from signals to the evaluation.
Signals of one date and portfolios over joint scenarios are timed alone.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from kronos.bars import FEATURES
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance
from kronos_strategies.backtest import TradingRules, backtest_rules, run_backtest
from kronos_strategies.backtest.inputs import BacktestInputs, BacktestPrices
from kronos_strategies.backtest.search import SweepConfig
from kronos_strategies.backtest.sweep import run_trials
from kronos_strategies.backtest.trials import evaluate_trials
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.portfolio import (
    SCENARIO_WEIGHTINGS,
    MarketInputs,
    PortfolioRules,
    SampledPaths,
    target_weights,
)
from kronos_strategies.progress import no_progress
from kronos_strategies.signal import signals
from tests.benchmarks.measure import Record, timed

SUPPORTED = find_spec("qlib") is not None
NAMES, DAYS, CASH = 300, 120, 1e8
SWEEP_DAYS = 4 * 252
RULES: dict[str, Any] = {"topk": 50, "rank_buffer": 25, "cash_buffer": 0.05}
COSTS = {"open_cost": 0.0005, "close_cost": 0.0015, "min_cost": 5}
TRADING = TradingRules("close", **COSTS, limit=0.095, lot=100, cash=CASH, delisted_after=0)


def compare(repeats: int, names: int = NAMES, days: int = DAYS) -> Record:
    """Qlib and the tester interleaved; CPU and wall seconds of each run.

    Raises:
        RuntimeError: their final equity differs by more than 1e-4.
    """
    tidy, score = market(names, days)
    prices = PricePanel.from_bars(tidy.set_index(["datetime", "instrument"]).sort_index())
    factors = prices.closes * 0 + 1
    rules = PortfolioRules(**RULES)
    with TemporaryDirectory() as folder:
        in_qlib = qlib_backtest(Path(folder), tidy, score)
        ours = backtest_rules(score, rules, prices, TRADING, factors=factors)
        dates = prices.calendar
        held = ours.weights.unstack("instrument").reindex(columns=prices.closes.columns).fillna(0.0)
        theirs = float(in_qlib()["account"].iloc[-1])
        apart = float((1 + ours.returns["net"]).prod()) * CASH / theirs - 1
        if not abs(apart) < 1e-4:
            raise RuntimeError(
                f"Equity differs from Qlib's by {apart:.1e}, so their times are not comparable."
            )
        ways = {
            "qlib": in_qlib,
            "rules": lambda: backtest_rules(score, rules, prices, TRADING, factors=factors),
            "weights": lambda: run_backtest(held, prices, TRADING, factors),
        }
        record: Record = {"names": names, "days": len(dates), "runs": {way: [] for way in ways}}
        for _ in range(repeats):
            for way, call in ways.items():
                record["runs"][way].append(timed(call))
    return record


def path_statistics(repeats: int, names: int = NAMES, samples: int = 100, horizon: int = 10) -> Record:
    """All signals of one date."""
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 0.02, (names, samples, horizon)).cumsum(axis=2)
    paths = np.repeat(100 * np.exp(steps)[..., None], len(FEATURES), axis=-1).astype(np.float32)
    index = pd.MultiIndex.from_product(
        [[pd.Timestamp("2024-01-02")], [f"S{i:03}" for i in range(names)]], names=["datetime", "instrument"]
    )
    times = np.tile(pd.bdate_range("2024-01-03", periods=horizon).to_numpy(), (names, 1))
    known = Provenance(
        "random", None, None, None, SampleConfig(), "none", 512, 5, "recompute", "float32", "last_close", ""
    )
    forecast = Forecast(paths, index, times, np.full((names, len(FEATURES)), 100, np.float32), known)
    signals(forecast, 5)
    runs = [timed(lambda: signals(forecast, 5)) for _ in range(max(5, repeats))]
    return {"names": names, "samples": samples, "horizon": horizon, "runs": runs}


def sweep(settings: int = 200, names: int = NAMES, days: int = SWEEP_DAYS) -> Record:
    """Settings of a grid, rebalanced every 1 to 20 bars, with their results on disk, intervals, DSR and PBO.

    Raises:
        RuntimeError: a setting has no result.
    """
    tidy, score = market(names, days)
    panel = PricePanel.from_bars(tidy.set_index(["datetime", "instrument"]).sort_index())
    prices = BacktestPrices(panel, panel.closes * 0 + 1, TRADING)
    volatility = np.random.default_rng(1).uniform(0.01, 0.04, len(score))
    inputs = BacktestInputs.of(score.assign(volatility=volatility), prices)
    grid = {
        "topk": [20, 30, 50, 75, 100],
        "rank_buffer": [0, 10, 25, 50],
        "weighting": ["equal", "inverse_volatility"],
    }
    trials = SweepConfig(rules=grid, every=[1, 2, 5, 10, 20]).trials(TRADING)[:settings]
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{place:04}.parquet" for place in range(len(trials))]

        def run() -> None:
            due = {file: trial.settings for file, trial in zip(files, trials, strict=True)}
            failed = run_trials(due, {trials[0].settings.signals: inputs}, 1, no_progress)
            if evaluate_trials(trials, files, failed).trials != len(trials):
                raise RuntimeError("Some settings have no result, so their time is not comparable.")

        seconds = timed(run)
    return {"settings": len(trials), "names": names, "days": days, "runs": [seconds]}


def scenario_portfolios(repeats: int, names: int = NAMES, samples: int = 100, horizon: int = 5) -> Record:
    """Weights of all names at one rebalance, joint scenarios and optimization included, by weighting."""
    rng = np.random.default_rng(0)
    labels = pd.Index([f"S{i:03}" for i in range(names)], name="instrument")
    beta, days = rng.uniform(0.5, 1.5, names), pd.bdate_range("2023-01-02", periods=251)
    moves = rng.normal(0, 0.01, (len(days), 1)) * beta + rng.normal(0, 0.015, (len(days), names))
    closes = pd.DataFrame(100 * np.exp(moves.cumsum(axis=0)), days, labels)
    steps = rng.normal(0, 0.02, (names, samples, horizon)) * beta[:, None, None]
    paths = SampledPaths(labels, np.exp(steps.cumsum(axis=2)) - 1)
    scores = pd.DataFrame({"score": rng.normal(size=names)}, labels)
    inputs, held = MarketInputs(closes=closes, paths=paths), pd.Series(1 / names, labels)
    record: Record = {"names": names, "samples": samples, "horizon": horizon, "runs": {}}
    for weighting in SCENARIO_WEIGHTINGS:
        rules = PortfolioRules(topk=names, weighting=weighting, max_weight=0.05)
        target_weights(scores, held, rules, market=inputs)  # imports the solver
        record["runs"][weighting] = [
            timed(lambda rules=rules: target_weights(scores, held, rules, market=inputs))
            for _ in range(max(3, repeats))
        ]
    return record


def market(names: int, days: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tidy bars of random walks, and slowly changing random scores by (datetime, instrument)."""
    rng = np.random.default_rng(0)
    dates = pd.bdate_range("2022-01-03", periods=days)
    labels = [f"SH{600000 + i}" for i in range(names)]
    close = np.round(20 * np.exp(rng.normal(0, 0.02, (days, names)).cumsum(axis=0)), 2)
    index = pd.MultiIndex.from_product([dates, labels], names=["datetime", "instrument"])
    columns = dict.fromkeys(("open", "high", "low", "close"), close.ravel())
    tidy = pd.DataFrame(columns, index).assign(volume=1e6, factor=1.0).reset_index()
    score = pd.DataFrame(rng.normal(size=close.shape)).ewm(halflife=5).mean().to_numpy()
    return tidy, pd.DataFrame({"score": score.ravel()}, index)


def qlib_backtest(folder: Path, tidy: pd.DataFrame, score: pd.DataFrame) -> Any:
    """A function that runs Qlib's backtest and returns its report."""
    import qlib
    from qlib.backtest import backtest

    from kronos_strategies.qlib.strategy import KronosWeightStrategy

    dates = pd.DatetimeIndex(tidy["datetime"].unique())
    spans = pd.DataFrame({"instrument": tidy["instrument"].unique(), "start": dates[0], "end": dates[-1]})
    first = tidy[tidy["instrument"] == tidy["instrument"].iloc[0]].assign(instrument="SH000300")
    write_store(tidy, folder, membership={"csi300": spans}, benchmarks=first, source={"kind": "benchmark"})
    qlib.init(provider_uri=str(folder), region="cn", kernels=1, logging_level=logging.ERROR)
    executor = {
        "class": "SimulatorExecutor",
        "module_path": "qlib.backtest.executor",
        "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
    }
    exchange = {"deal_price": "close", "limit_threshold": 0.095, "trade_unit": 100, **COSTS}

    def run() -> pd.DataFrame:
        portfolio, _ = backtest(
            start_time=dates[0],
            end_time=dates[-1],
            strategy=KronosWeightStrategy(signal=score, rules=RULES),
            executor=executor,
            benchmark="SH000300",
            account=CASH,
            exchange_kwargs=exchange,
        )
        return portfolio["1day"][0]

    return run
