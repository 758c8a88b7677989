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

from kronos_strategies.backtest import TradingRules, backtest_rules
from kronos_strategies.backtrader import KronosRankStrategy, LotSizeCommission
from kronos_strategies.data.simulate import MarketConfig, SimulatedMarket, simulate_market
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.portfolio import PortfolioRules, target_weights
from kronos_strategies.qlib.strategy import KronosWeightStrategy

from .qlib.conftest import store_of, use_store

pytestmark = pytest.mark.integration

START, END, CASH = "2022-06-01", "2022-09-30", 1e7
COLUMNS = ("score", "volatility")
Decision = tuple[pd.DataFrame, pd.Series, pd.Index, pd.Series]  # signals, previous, tradable, chosen

SETTINGS = [
    ({"topk": 5}, 1),
    ({"topk": 4, "rank_buffer": 3, "weighting": "inverse_volatility", "no_trade_band": 0.02}, 3),
    ({"topk": 6, "weighting": "volatility_target", "target_volatility": 0.1, "max_weight": 0.12}, 5),
    ({"topk": 6, "weighting": "score", "n_drop": 1, "max_turnover": 0.3}, 2),
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
    return simulate_market(MarketConfig(seed=15, names=20, sectors=4, start="2022-01-03", end="2022-12-30"))


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
    return prices.join(signals).assign(volume=table["volume"] / table["factor"]).loc[START:END]


@pytest.fixture(scope="module")
def store(market, tmp_path_factory):
    return store_of(market, market.bars, tmp_path_factory.mktemp("engines") / "store")


def in_qlib(store, bars, rules, every) -> tuple[FromQlib, pd.DataFrame, dict]:
    use_store(store)
    strategy = FromQlib(signal=bars[list(COLUMNS)], rules=rules, every=every)
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


def in_backtrader(bars, rules, every) -> FromBacktrader:
    cerebro = bt.Cerebro(stdstats=False)
    for name, own in bars.groupby(level="instrument"):
        cerebro.adddata(SignalFeed(dataname=own.droplevel("instrument")), name=name)
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(LotSizeCommission(commission=0.0))
    # Qlib never learns that a share has been delisted.
    cerebro.addstrategy(FromBacktrader, every=every, delisted_after=10**6, **rules)
    return cerebro.run()[0]


def in_tester(bars, rules, every):
    trading = TradingRules("open", open_cost=0.0, close_cost=0.0, delisted_after=0, cash=CASH)
    return backtest_rules(bars[list(COLUMNS)], rules, PricePanel.from_bars(bars), trading, every)


@pytest.mark.parametrize(("rules", "every"), SETTINGS)
def test_both_engines_hold_the_targets_of_the_pure_function(store, bars, rules, every):
    named = PortfolioRules(**rules, cash_buffer=0.3)
    rules = {**rules, "cash_buffer": 0.3}
    ours, account, books = in_qlib(store, bars, rules, every)
    theirs = in_backtrader(bars, rules, every)

    days = pd.DatetimeIndex(bars.index.get_level_values("datetime").unique())
    assert list(ours.decided) == [day for day in theirs.decided if day < days[-1]] == list(days[:-1:every])

    worth = pd.Series(theirs.worth)
    np.testing.assert_allclose(worth, account["account"].reindex(worth.index), rtol=1e-6)
    assert worth.iloc[-1] != pytest.approx(CASH, rel=1e-3)
    tested = in_tester(bars, named, every)
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
        alone = target_weights(rows[list(COLUMNS)], before, named, rows.index)
        pd.testing.assert_series_equal(target, alone, check_names=False)
        pd.testing.assert_series_equal(chosen, alone, check_names=False, atol=1e-6)
        frozen += len(before.index.difference(rows.index))
    assert frozen > 0, "somebody is suspended while held"
