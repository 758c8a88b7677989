"""Qlib, Backtrader and the tester share one pure function: the same signals, the same targets, the same portfolios.

One simulated market, with late listings, suspensions and splits; all size orders at the close of the
signal's day and deal them at the next open. Costs, lots and limits, which each engine has of its own, are off,
and cash is kept to pay for all purchases when a sale does not trade: each engine would cut others of them. Weights
then agree to 1e-6, and the worth of the book to one part in a million: Qlib's prices are of single precision.
"""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("qlib")
pytest.importorskip("backtrader")
import backtrader as bt
from qlib.backtest import backtest

from kronos.postprocessing import Postprocessing
from kronos.windows import Windows
from kronos_strategies.backtest import TradingRules, backtest_rules
from kronos_strategies.backtrader import KronosRankStrategy, LotSizeCommission
from kronos_strategies.data.simulate import MarketConfig, SimulatedMarket, simulate_market
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.portfolio import (
    MarketInputs,
    PortfolioRules,
    SampledPaths,
    past_bars,
    target_weights,
)
from kronos_strategies.qlib.strategy import KronosWeightStrategy
from kronos_strategies.signal import sampled_paths
from kronos_strategies.store import ForecastSet, ForecastStore

from .backtest.walks import SPEC, RandomWalks
from .qlib.conftest import store_of, use_store

pytestmark = pytest.mark.integration

# Bars from HISTORY on: at the first rebalance they have too few windows of 7 bars for joint scenarios.
HISTORY, START, END, CASH = "2022-04-25", "2022-06-01", "2022-09-30", 1e7
COLUMNS = ("score", "volatility")
Decision = tuple[pd.DataFrame, pd.Series, pd.Index, pd.Series]  # signals, previous, tradable, chosen
SCENARIOS = {"scenario_bars": 30, "cvar_tail": 0.4, "turnover_cost": 0.0005}

SETTINGS = [
    ({"topk": 5}, 1),
    ({"topk": 4, "rank_buffer": 3, "weighting": "inverse_volatility", "no_trade_band": 0.02}, 3),
    ({"topk": 6, "weighting": "volatility_target", "target_volatility": 0.1, "max_weight": 0.12}, 5),
    ({"topk": 6, "weighting": "score", "n_drop": 1, "max_turnover": 0.3}, 2),
    ({"topk": 6, "weighting": "risk_parity", "correlation_bars": 15}, 3),
    ({"topk": 8, "weighting": "min_cvar", "max_weight": 0.2, **SCENARIOS}, 3),
    ({"topk": 8, "weighting": "mean_drawdown_cvar", "max_weight": 0.3, **SCENARIOS}, 3),
    ({"topk": 6, "weighting": "min_variance", **SCENARIOS}, 3),
]


class FromQlib(KronosWeightStrategy):
    """Keeps its decisions by the day that they were taken on."""

    def __init__(self, **arguments) -> None:
        super().__init__(**arguments)
        self.decided: dict[pd.Timestamp, Decision] = {}

    def weights(self, signals, previous, tradable):
        chosen = super().weights(signals, previous, tradable)
        self.decided[self.trade_calendar.get_step_time(shift=1)[0]] = (signals, previous, tradable, chosen)
        return chosen


class SignalFeed(bt.feeds.PandasData):
    lines = COLUMNS
    params = tuple((name, name) for name in COLUMNS)


class FromBacktrader(KronosRankStrategy):
    """Keeps its decisions by the day that they were taken on, and what it was worth at each close."""

    params = (("rank_by", "score"),)  # a line of the feeds

    def __init__(self) -> None:
        super().__init__()
        self.decided: dict[pd.Timestamp, Decision] = {}
        self.worth: dict[pd.Timestamp, float] = {}

    def weights(self, signals, previous, tradable):
        chosen = super().weights(signals, previous, tradable)
        self.decided[pd.Timestamp(self.datetime.date())] = (signals, previous, tradable, chosen)
        return chosen

    def next(self):
        super().next()
        self.worth[pd.Timestamp(self.datetime.date())] = self.broker.getvalue()


@pytest.fixture(scope="module")
def market() -> SimulatedMarket:
    return simulate_market(
        MarketConfig(seed=15, instruments=20, sectors=4, start="2022-01-03", end="2022-12-30")
    )


@pytest.fixture(scope="module")
def bars(market) -> pd.DataFrame:
    """Adjusted bars by (datetime, instrument), with signals that change slowly and sometimes are missing."""
    table = market.bars.set_index(["datetime", "instrument"]).sort_index()
    prices = table[["open", "high", "low", "close"]].mul(table["factor"], axis=0)
    wide = prices["close"].unstack("instrument")
    rng = np.random.default_rng(0)
    score = pd.DataFrame(rng.normal(size=wide.shape), wide.index, wide.columns).ewm(halflife=8).mean()
    score = score.mask(rng.random(wide.shape) < 0.03)
    volatility = pd.DataFrame(rng.uniform(0.01, 0.04, wide.shape), wide.index, wide.columns)
    signals = pd.concat({"score": score.stack(), "volatility": volatility.stack()}, axis=1)
    table = prices.join(signals.sort_index().loc[START:]).assign(volume=table["volume"] / table["factor"])
    return table.loc[HISTORY:END]


@pytest.fixture(scope="module")
def store(market, tmp_path_factory):
    bars = market.bars[market.bars["datetime"] >= HISTORY]
    return store_of(market, bars, tmp_path_factory.mktemp("engines") / "store")


@pytest.fixture(scope="module")
def forecasts(bars, tmp_path_factory) -> ForecastSet:
    """Random walks of every instrument that trades, from START on."""
    panel = {name: own.droplevel("instrument") for name, own in bars.groupby(level="instrument")}
    windows = Windows.rolling(panel, SPEC.lookback, SPEC.horizon, "B", start=START)
    store = ForecastStore(tmp_path_factory.mktemp("engines") / "forecasts")
    return store.fill(RandomWalks(), windows, SPEC).forecast_set


def in_qlib(store, bars, rules, every, forecasts) -> tuple[FromQlib, pd.DataFrame, dict]:
    use_store(store)
    signal = bars.loc[START:, list(COLUMNS)]
    strategy = FromQlib(signal=signal, rules=rules, every=every, forecasts=str(forecasts.folder))
    portfolio, _ = backtest(
        start_time=START,
        end_time=END,
        strategy=strategy,
        executor={
            "class": "SimulatorExecutor",
            "module_path": "qlib.backtest.executor",
            "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
        },
        benchmark="SH000300",
        account=CASH,
        exchange_kwargs={
            "deal_price": "open",
            "open_cost": 0.0,
            "close_cost": 0.0,
            "min_cost": 0.0,
            "limit_threshold": 9.0,
            "trade_unit": None,
        },
    )
    return strategy, *portfolio["1day"]


def in_backtrader(bars, rules, every, forecasts) -> FromBacktrader:
    cerebro = bt.Cerebro(stdstats=False)
    for name, own in bars.groupby(level="instrument"):
        cerebro.adddata(SignalFeed(dataname=own.droplevel("instrument")), name=name)
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(LotSizeCommission(commission=0.0))
    # Qlib never learns that a share has been delisted.
    cerebro.addstrategy(
        FromBacktrader, every=every, delisted_after=10**6, store=str(forecasts.folder), **rules
    )
    return cerebro.run()[0]


def in_tester(bars, rules, every, forecasts):
    trading = TradingRules("open", open_cost=0.0, close_cost=0.0, delisted_after=0, cash=CASH)
    signals = bars.loc[START:, list(COLUMNS)]
    return backtest_rules(
        signals,
        rules,
        PricePanel.from_bars(bars),
        trading,
        every,
        paths=lambda date: paths_of(forecasts, date),
    )


def paths_of(forecasts: ForecastSet, date: pd.Timestamp) -> SampledPaths:
    return sampled_paths(Postprocessing()(forecasts.read(date)))


@pytest.mark.parametrize(("rules", "every"), SETTINGS)
def test_both_engines_hold_the_targets_of_the_pure_function(store, bars, rules, every, forecasts):
    named = PortfolioRules(**rules, cash_buffer=0.3)
    rules = {**rules, "cash_buffer": 0.3}
    ours, account, books = in_qlib(store, bars, rules, every, forecasts)
    theirs = in_backtrader(bars, rules, every, forecasts)
    tested = in_tester(bars, named, every, forecasts)

    days = pd.DatetimeIndex(bars.loc[START:].index.get_level_values("datetime").unique())
    due = list(days[:-1:every])
    decided = [day for day in due if day not in tested.unsolved]
    assert list(ours.decided) == [day for day in theirs.decided if day < days[-1]] == decided
    assert list(ours.unsolved) == [day.normalize() for day in theirs.unsolved] == list(tested.unsolved)
    assert list(tested.unsolved) == (due[:1] if named.uses_scenarios else [])

    worth = pd.Series(theirs.worth).loc[START:]
    np.testing.assert_allclose(worth, account["account"].reindex(worth.index), rtol=1e-6)
    assert worth.iloc[-1] != pytest.approx(CASH, rel=1e-3)
    equity = CASH * (1 + tested.returns["net"]).cumprod()
    np.testing.assert_allclose(equity, account["account"].reindex(equity.index), rtol=1e-6)
    for day, weights in tested.weights.groupby(level="datetime"):
        in_books = pd.Series(books[day].get_stock_weight_dict(), dtype=float).sort_index()
        pd.testing.assert_series_equal(
            weights.droplevel("datetime"), in_books, check_names=False, check_index_type=False, atol=1e-6
        )

    frozen = 0
    for day, (signals, previous, tradable, chosen) in ours.decided.items():
        seen, before, open_now, target = theirs.decided[day]
        rows = bars.loc[day]
        # One function, asked the same by both, and answering what it answers when asked alone.
        pd.testing.assert_frame_equal(
            signals[list(COLUMNS)].sort_index(), rows[list(COLUMNS)].sort_index(), check_names=False
        )
        np.testing.assert_array_equal(seen.loc[rows.index, list(COLUMNS)], rows[list(COLUMNS)])
        assert set(tradable) == set(open_now) == set(rows.index)
        held = pd.Series(books[day].get_stock_weight_dict(), dtype=float)
        for weights in (previous, held):
            pd.testing.assert_series_equal(
                weights.sort_index(), before.sort_index(), check_names=False, atol=1e-6
            )
        market = MarketInputs()
        if past_bars(named):
            closes = bars["close"].unstack("instrument").loc[:day]
            market = MarketInputs(closes=closes, paths=paths_of(forecasts, day))
        alone = target_weights(rows[list(COLUMNS)], before, named, rows.index, market)
        pd.testing.assert_series_equal(target, alone, check_names=False)
        pd.testing.assert_series_equal(chosen, alone, check_names=False, atol=1e-6)
        frozen += len(before.index.difference(rows.index))
    assert frozen > 0, "an instrument is suspended while held"
