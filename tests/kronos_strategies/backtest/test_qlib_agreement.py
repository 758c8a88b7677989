"""The tester agrees with Qlib's executor with lots, price limits, suspensions and all of its costs.

Both trade at the next close in lots of 100 shares, with a limit of 9.5 %, costs of .05 % and .15 % and a minimum of
5, on a simulated market with splits. Qlib reads prices of single precision, so that a lot more or less is possible
where a target lies at the edge of one; equity agrees to 2e-5, the costs of a bar to 2e-6 of it. Where cash does not
pay for all purchases, Qlib fills some orders of a bar and the tester lowers all, so the test keeps cash.
"""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("qlib")
from qlib.backtest import backtest

from kronos_strategies.backtest import TradingRules, backtest_rules, run_backtest
from kronos_strategies.data.simulate import MarketConfig, SimulatedMarket, simulate_market
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.portfolio import PortfolioRules
from kronos_strategies.qlib.strategy import KronosWeightStrategy, backtest_in_qlib

from ..qlib.conftest import store_of, use_store

pytestmark = pytest.mark.integration

START, END, CASH = "2022-06-01", "2022-12-01", 1e7
RULES = {"topk": 6, "rank_buffer": 2, "cash_buffer": 0.1, "weighting": "inverse_volatility"}
TRADING = TradingRules(
    "close",
    open_cost=0.0005,
    close_cost=0.0015,
    min_cost=5,
    limit=0.095,
    lot=100,
    cash=CASH,
    delisted_after=0,
)


@pytest.fixture(scope="module")
def market() -> SimulatedMarket:
    return simulate_market(
        MarketConfig(seed=15, instruments=30, sectors=4, start="2022-01-03", end="2022-12-30")
    )


@pytest.fixture(scope="module")
def bars(market) -> pd.DataFrame:
    """Adjusted bars by (datetime, instrument) as Qlib reads them, factors and signals."""
    table = market.bars.set_index(["datetime", "instrument"]).sort_index()
    prices = table[["open", "high", "low", "close"]].mul(table["factor"], axis=0).astype("float32")
    rng = np.random.default_rng(0)
    wide = prices["close"].unstack("instrument")
    score = pd.DataFrame(rng.normal(size=wide.shape), wide.index, wide.columns).ewm(halflife=5).mean()
    volatility = pd.DataFrame(rng.uniform(0.01, 0.04, wide.shape), wide.index, wide.columns)
    signals = pd.concat({"score": score.stack(), "volatility": volatility.stack()}, axis=1)
    joined = prices.astype(float).join(signals)
    return joined.assign(volume=table["volume"] / table["factor"], factor=table["factor"])


@pytest.fixture(scope="module")
def in_qlib(market, bars, tmp_path_factory):
    use_store(store_of(market, market.bars, tmp_path_factory.mktemp("agreement") / "store"))
    signals = bars.loc[START:END, ["score", "volatility"]]
    portfolio, _ = backtest(
        start_time=START,
        end_time=END,
        strategy=KronosWeightStrategy(signal=signals, rules=RULES, every=2),
        executor={
            "class": "SimulatorExecutor",
            "module_path": "qlib.backtest.executor",
            "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
        },
        benchmark="SH000300",
        account=CASH,
        exchange_kwargs={
            "deal_price": "close",
            "open_cost": 0.0005,
            "close_cost": 0.0015,
            "min_cost": 5,
            "limit_threshold": 0.095,
            "trade_unit": 100,
        },
    )
    return portfolio["1day"]


def assert_agreement(result, account, books):
    days = result.returns.index
    account = account.loc[days[0] : days[-1]]
    assert len(account) == len(days) > 100
    equity = CASH * (1 + result.returns["net"]).cumprod()
    np.testing.assert_allclose(equity, account["account"], rtol=2e-5)
    np.testing.assert_allclose(result.cost, account["cost"], atol=2e-6)
    np.testing.assert_allclose(result.turnover, account["turnover"], atol=1e-3)
    for day in days:
        book = pd.Series(books[day].get_stock_weight_dict(only_stock=False), dtype=float).sort_index()
        held = result.weights.xs(day, level="datetime")
        assert list(held.index) == list(book.index)
        np.testing.assert_allclose(held, book, atol=1e-4)


def test_rules_trade_as_in_qlib(bars, in_qlib):
    account, books = in_qlib
    span = bars.loc[START:END]
    prices = PricePanel.from_bars(span)
    factors = bars["factor"].unstack("instrument")
    signals = span[["score", "volatility"]]
    result = backtest_rules(signals, PortfolioRules(**RULES), prices, TRADING, 2, factors)
    assert_agreement(result, account, books)
    locked = (prices.closes / prices.last_close.shift() - 1).abs() >= 0.095
    assert locked.to_numpy().any(), "some instruments are at their limit"
    assert (result.cost * CASH).gt(5).sum() > 30


def test_qlib_s_own_weights_as_targets_are_traded_as_in_qlib(bars, in_qlib):
    """Weights that were held at a close, as targets of the close before, give the same portfolio."""
    account, books = in_qlib
    held = {day: pd.Series(book.get_stock_weight_dict(), dtype=float) for day, book in books.items()}
    prices = PricePanel.from_bars(bars.loc[START:END])
    wide = pd.DataFrame(held).T.reindex(columns=prices.closes.columns).fillna(0.0)
    days = prices.calendar
    growth = (prices.closes / prices.last_close.shift()).fillna(1.0)
    net = account["account"] / account["account"].shift(fill_value=CASH)
    # The weight at the close before that becomes the held one by the moves of one bar.
    before = (wide.shift(-1).mul(net.shift(-1), axis=0) / growth.shift(-1)).dropna(how="all").iloc[:-1]
    traded = account["turnover"].reindex(days).shift(-1).fillna(0) > 0
    result = run_backtest(
        before[traded.reindex(before.index)], prices, TradingRules("close", cash=CASH, delisted_after=0)
    )
    equity = (1 + result.returns["gross"]).cumprod()
    theirs = (1 + account["return"].loc[equity.index]).cumprod()
    np.testing.assert_allclose(equity, theirs, rtol=2e-4)


def test_backtest_in_qlib_is_the_run_of_a_configuration(bars, in_qlib):
    account, _ = in_qlib
    signals = bars.loc[START:END, ["score", "volatility"]]
    equal = PricePanel.from_bars(bars.loc[START:END]).closes.pct_change(fill_method=None).mean(axis=1)
    end = pd.Timestamp(END)
    found = backtest_in_qlib(signals, PortfolioRules(**RULES), TRADING, 2, equal, end)
    days = found.returns.index
    np.testing.assert_allclose(found.returns["net"], (account["return"] - account["cost"]).loc[days])
    np.testing.assert_allclose(found.benchmarks["equal weight"].iloc[1:], equal.loc[days[1:]])
    assert days[-1] == end


@pytest.mark.parametrize("cost", ["stamp_duty", "fixed_cost"])
def test_costs_that_qlib_does_not_have_are_refused(bars, cost):
    trading = TradingRules(**{cost: 0.5})
    with pytest.raises(ValueError, match="no stamp duty and no fixed cost"):
        backtest_in_qlib(
            bars[["score"]], PortfolioRules(), trading, 1, pd.Series(dtype=float), bars.index[-1][0]
        )
