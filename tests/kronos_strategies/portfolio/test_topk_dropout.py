"""The n_drop rule holds what Qlib's TopkDropoutStrategy holds, in real backtests on a simulated market.

Without suspensions both hold the same instruments on every day, also after sales that a price limit has blocked.
They differ on purpose in three points. An instrument without a score is sold at once, not within n_drop. What is
suspended at the decision takes a slot and is not traded, while Qlib decides as if everything traded. And all
positions have target weights, while Qlib divides its cash among purchases and never trades a position in between;
`no_trade_band=1` does that.
"""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("qlib")
from qlib.backtest import backtest
from qlib.contrib.strategy import TopkDropoutStrategy

from kronos_strategies.backtest import TradingRules, backtest_rules
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.portfolio import PortfolioRules

from ..qlib.conftest import use_store

pytestmark = pytest.mark.integration

NAMES, DAYS, LIMIT = 24, 70, 0.095
FREE = {"open_cost": 0.0, "close_cost": 0.0}
Held = dict[pd.Timestamp, set[str]]


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> tuple[PricePanel, pd.DataFrame]:
    """Prices with falls to the price limit, and scores that drop for two weeks on the day before such a fall."""
    rng = np.random.default_rng(4)
    dates = pd.bdate_range("2023-01-02", periods=DAYS)
    names = [f"SH{600000 + i}" for i in range(NAMES)]
    moves = np.clip(rng.normal(0, 0.02, (DAYS, NAMES)), -0.05, 0.05)
    score = pd.DataFrame(rng.normal(size=moves.shape)).ewm(halflife=5).mean().to_numpy()
    for day, name in zip(rng.integers(5, DAYS, 40), rng.integers(0, NAMES, 40), strict=True):
        moves[day, name] = np.log(0.9)
        score[day - 1 : day + 10, name] -= 10
    close = np.round(20 * np.exp(moves.cumsum(axis=0)), 4)
    index = pd.MultiIndex.from_product([dates, names], names=["datetime", "instrument"])
    columns = dict.fromkeys(("open", "high", "low", "close"), close.ravel())
    tidy = pd.DataFrame(columns, index).assign(volume=1e6, factor=1.0).reset_index()
    spans = pd.DataFrame({"instrument": names, "start": dates[0], "end": dates[-1]})
    benchmark = tidy[tidy["instrument"] == names[0]].assign(instrument="SH000300")
    folder = tmp_path_factory.mktemp("dropout") / "store"
    write_store(tidy, folder, membership={"csi300": spans}, benchmarks=benchmark, source={"kind": "test"})
    use_store(folder)
    prices = PricePanel.from_bars(tidy.set_index(["datetime", "instrument"]))
    return prices, pd.DataFrame({"score": score.ravel()}, index)


def held_by_qlib(signals: pd.DataFrame, topk: int, n_drop: int, limit: float) -> Held:
    dates = signals.index.get_level_values("datetime")
    portfolio, _ = backtest(
        start_time=dates.min(),
        end_time=dates.max(),
        strategy=TopkDropoutStrategy(signal=signals, topk=topk, n_drop=n_drop, risk_degree=0.5),
        executor={
            "class": "SimulatorExecutor",
            "module_path": "qlib.backtest.executor",
            "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
        },
        benchmark="SH000300",
        account=1e8,
        exchange_kwargs={
            "deal_price": "close", "limit_threshold": limit, "trade_unit": None, "min_cost": 0.0, **FREE
        },
    )  # fmt: skip
    books = portfolio["1day"][1]
    return {day: set(books[day].get_stock_list()) for day in sorted(books)}


def held_by_rules(signals: pd.DataFrame, prices: PricePanel, topk: int, n_drop: int, limit: float) -> Held:
    rules = PortfolioRules(topk=topk, n_drop=n_drop, cash_buffer=0.5, no_trade_band=1.0)
    trading = TradingRules("close", **FREE, limit=min(limit, 0.99), cash=1e8, delisted_after=0)
    weights = backtest_rules(signals, rules, prices, trading).weights
    return {day: set(own.index.get_level_values("instrument")) for day, own in weights.groupby("datetime")}


@pytest.mark.parametrize(("topk", "n_drop"), [(8, 1), (8, 3), (5, 5)])
@pytest.mark.parametrize("limit", [9.0, LIMIT])
def test_both_hold_the_same_instruments_every_day(market, topk, n_drop, limit):
    prices, signals = market
    theirs = held_by_qlib(signals, topk, n_drop, limit)
    ours = held_by_rules(signals, prices, topk, n_drop, limit)
    days = [day for day in theirs if theirs[day]]
    assert days == list(ours)
    assert len(days) > DAYS - 3
    assert {day: sorted(theirs[day]) for day in days} == {day: sorted(ours[day]) for day in days}
    most = max(map(len, ours.values()))
    assert (most > topk) == (limit == LIMIT), "blocked sales leave one too many until the next rebalance"


def test_an_instrument_without_a_score_is_sold_at_once_and_in_qlib_within_n_drop(market):
    prices, signals = market
    date = prices.calendar[20]
    before = signals.loc[:date]
    gone = sorted(held_by_rules(before, prices, 8, 1, 9.0)[date])[:3]
    later = signals.index.get_level_values("datetime") >= date
    left = signals[~(later & signals.index.get_level_values("instrument").isin(gone))]
    days = prices.calendar[21:24]
    ours, theirs = held_by_rules(left, prices, 8, 1, 9.0), held_by_qlib(left, 8, 1, 9.0)
    assert [len(ours[day] & set(gone)) for day in days] == [0, 0, 0]
    assert [len(theirs[day] & set(gone)) for day in days] == [2, 1, 0]
    assert all(len(each[day]) == 8 for each in (ours, theirs) for day in days)
