"""run_backtest and backtest_rules: accounts by hand, causality, and the pure function asked on every date."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.backtest import TradingRules, backtest_rules, equal_weight_returns, run_backtest
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.portfolio import MarketInputs, PortfolioRules, SampledPaths, target_weights

FREE = {"open_cost": 0.0, "close_cost": 0.0}
DAYS = pd.bdate_range("2024-01-01", periods=6)


def panel(closes: dict[str, list[float]], opens: dict[str, list[float]] | None = None) -> PricePanel:
    """Closes by instrument; opens are the closes unless given."""
    close = pd.DataFrame(closes, DAYS[: len(next(iter(closes.values())))], dtype=float)
    open_ = close if opens is None else close.copy().assign(**opens).astype(float)
    open_ = open_.where(close.notna())
    return PricePanel(open_, close, close * 1e6, close * 0)


def weights(rows: dict[int, dict[str, float]], names: str) -> pd.DataFrame:
    return pd.DataFrame.from_dict({DAYS[i]: row for i, row in rows.items()}, "index").reindex(
        columns=list(names)
    )


# By hand


def test_weights_of_a_date_are_sized_at_its_close_and_trade_at_the_next_open():
    prices = panel({"A": [10, 12, 12]}, {"A": [10, 11, 12]})
    result = run_backtest(weights({0: {"A": 0.5}}, "A"), prices, TradingRules("open", **FREE, cash=1000))
    # 50 shares sized at 10 and bought at 11: cash 450, worth 600 at the close of 12.
    assert list(result.returns.index) == list(DAYS[1:3])
    assert result.returns["net"].tolist() == pytest.approx([0.05, 0.0])
    assert result.turnover.tolist() == pytest.approx([0.55, 0.0])
    assert result.weights.loc[DAYS[1], "A"] == pytest.approx(600 / 1050)


def test_at_the_close_the_next_bar_earns_nothing():
    prices = panel({"A": [10, 12, 15]}, {"A": [10, 11, 12]})
    result = run_backtest(weights({0: {"A": 0.5}}, "A"), prices, TradingRules("close", **FREE, cash=1000))
    assert result.returns["net"].tolist() == pytest.approx([0.0, 50 * 3 / 1000])
    assert result.benchmarks["equal weight"].tolist() == pytest.approx([0.0, 0.25])


def test_every_kind_of_cost_by_hand():
    trading = TradingRules(
        "close", open_cost=0.01, close_cost=0.02, stamp_duty=0.1, min_cost=6, fixed_cost=1, cash=1000
    )
    prices = panel({"A": [10, 10, 10, 10], "B": [10, 10, 10, 10]})
    rows = {0: {"A": 0.7, "B": 0.1}, 1: {"A": 0.0, "B": 0.1}}
    result = run_backtest(weights(rows, "AB"), prices, trading)
    bought = (7 + 1) + (6 + 1)  # 1 % of 700; the minimum on 100
    sold = 14 + 1 + 70
    before = 1000 - bought
    rebalanced = 0.1 * before - 100  # B is lowered to a tenth of what is left
    sold += 6 + 1 + 0.1 * -rebalanced
    assert result.cost.tolist() == pytest.approx([bought / 1000, sold / before, 0.0])
    assert result.returns["net"].tolist() == pytest.approx([-bought / 1000, -sold / before, 0.0])
    assert result.returns["gross"].tolist() == pytest.approx([0, 0, 0], abs=1e-12)


def test_purchases_are_lowered_in_proportion_to_what_cash_pays_for():
    prices = panel({"A": [10, 20], "B": [10, 20]})
    trading = TradingRules("close", open_cost=0.1, close_cost=0.0, cash=1000)
    result = run_backtest(weights({0: {"A": 0.6, "B": 0.2}}, "AB"), prices, trading)
    paid = 1000 / 1.1
    equity = 1000 - paid * 0.1
    assert result.weights.loc[DAYS[1]].tolist() == pytest.approx([paid * 0.75 / equity, paid * 0.25 / equity])


def test_lots_are_of_unadjusted_shares_and_a_position_is_sold_as_a_whole():
    prices = panel({"A": [10.0, 10.0, 10.0]})
    factors = pd.DataFrame({"A": [2.0, 2.0, 2.0]}, DAYS[:3])  # an adjusted share is two real ones
    trading = TradingRules("close", **FREE, lot=100, cash=10_000)
    result = run_backtest(weights({0: {"A": 0.37}, 1: {"A": 0.0}}, "A"), prices, trading, factors)
    assert result.weights.loc[DAYS[1], "A"] == pytest.approx(0.35)  # 370 adjusted are 740 real: 7 lots
    assert result.turnover.tolist() == pytest.approx([0.35, 0.35])
    with pytest.raises(ValueError, match="lot=100 needs the adjustment factors"):
        run_backtest(weights({0: {"A": 0.37}}, "A"), prices, trading)


def test_a_locked_or_suspended_instrument_does_not_trade_and_its_order_expires():
    nan = np.nan
    prices = panel({"A": [10, 11, 11, 11], "B": [10, nan, 10, 10], "C": [10, 10, 10, 10]})
    trading = TradingRules("close", **FREE, limit=0.1)
    rows = {0: {"A": 0.3, "B": 0.3, "C": 0.3}}
    result = run_backtest(weights(rows, "ABC"), prices, trading)
    assert set(result.weights.index.get_level_values("instrument")) == {"C"}


def test_an_instrument_that_closes_at_its_limit_is_not_bought_but_can_be_sold():
    prices = panel({"A": [10, 11, 11.5, 11.5], "B": [10, 11, 11.5, 11.5]})
    trading = TradingRules("close", **FREE, limit=0.1)
    rows = {0: {"A": 0.0, "B": 0.0}, 1: {"A": 0.4, "B": 0.0}}
    with pytest.raises(ValueError, match="No order was executed"):
        run_backtest(weights(rows, "AB"), prices, trading)
    calm = panel({"A": [10, 10, 11, 11.5], "B": [10, 10, 11, 11.5]})
    held = run_backtest(weights({0: {"A": 0.4}, 2: {"A": 0.0}}, "AB"), calm, trading)
    assert DAYS[3] not in held.weights.index.get_level_values("datetime")


def test_a_suspended_position_keeps_its_shares_through_a_rebalance():
    prices = panel({"A": [10, 10, np.nan, 10, 10], "B": [10, 10, 10, 20, 20]})
    rows = {0: {"A": 0.5, "B": 0.4}, 2: {"A": 0.1, "B": 0.4}}
    result = run_backtest(weights(rows, "AB"), prices, TradingRules("close", **FREE, cash=1000))
    at = result.weights.xs("A", level="instrument")
    equity = 1000 * (1 + result.returns["net"]).cumprod()
    assert (at * equity).tolist() == pytest.approx([500.0] * 4)


def test_a_short_position_gains_when_the_price_falls_and_pays_for_borrowing():
    prices = panel({"A": [10, 10, 9, 9]})
    trading = TradingRules("close", **FREE, borrow_cost=0.252, cash=1000)
    result = run_backtest(weights({0: {"A": -0.5}}, "A"), prices, trading)
    assert result.returns["net"].iloc[1] == pytest.approx((50 - 0.5) / 1000)
    assert result.cost.iloc[1] == pytest.approx(0.5 / 1000)
    assert result.cost.iloc[2] == pytest.approx(0.001 * 450 / 1049.5)


def test_a_delisted_position_is_paid_out_at_its_last_close_after_the_bars_that_are_set():
    nan = np.nan
    prices = panel({"A": [10, 10, 10, nan, nan, nan], "B": [10] * 6})
    rows = weights({0: {"A": 0.5}}, "AB")
    result = run_backtest(rows, prices, TradingRules("close", **FREE, delisted_after=2))
    assert result.positions.tolist() == [1, 1, 1, 0, 0]
    assert result.turnover.iloc[1:].eq(0).all(), "no order was executed"
    kept = run_backtest(rows, prices, TradingRules("close", **FREE, delisted_after=0))
    assert kept.positions.tolist() == [1, 1, 1, 1, 1]


@pytest.mark.parametrize("weight", [0.5, -0.5])
@pytest.mark.parametrize("price", ["open", "close"])
def test_a_long_suspension_neither_avoids_nor_invents_a_move(price, weight):
    """Whether the position counts as delisted meanwhile changes no return, only what could be held meanwhile."""
    nan = np.nan
    prices = panel(
        {"A": [10, 10, nan, nan, nan, 6], "B": [10, 10, 10, 12, 12, 12]}, {"A": [10, 10, nan, nan, nan, 7]}
    )
    rows = weights({0: {"A": weight}}, "AB")
    short = {"borrow_cost": 0.0, "cash": 1000}
    sold, kept = (
        run_backtest(rows, prices, TradingRules(price, **FREE, **short, delisted_after=after))
        for after in (2, 0)
    )
    assert sold.positions.tolist() == [1, 1, 0, 0, 1]
    assert kept.positions.tolist() == [1] * 5
    np.testing.assert_allclose(sold.returns["net"], kept.returns["net"], atol=1e-15)
    assert sold.returns["net"].iloc[-1] == pytest.approx(-0.4 * weight)


def test_shares_that_return_from_a_suspension_are_not_traded_by_an_order_of_before():
    nan = np.nan
    prices = panel({"A": [10, 10, nan, nan, nan, 5], "B": [10] * 6})
    rows = {0: {"A": 0.6, "B": 0.4}, 3: {"B": 1.0}, 4: {"B": 0.9}}
    trading = TradingRules("close", **FREE, cash=1000, delisted_after=2)
    result = run_backtest(weights(rows, "AB"), prices, trading)
    equity = 1000 * (1 + result.returns["net"]).cumprod()
    worth = result.weights.unstack("instrument").mul(equity, axis=0)
    assert worth["A"].dropna().tolist() == pytest.approx([600, 600, 300])
    assert worth["B"].tolist() == pytest.approx([400, 400, 400, 1000, 900])
    assert equity.iloc[-1] == pytest.approx(700), "the money for A had bought B, so that 500 are borrowed"


def test_an_account_that_is_ruined_stops_trading():
    prices = panel({"A": [10, 10, 31, 5, 5]})
    result = run_backtest(
        weights({0: {"A": -0.9}, 2: {"A": 0.5}}, "A"), prices, TradingRules("close", **FREE)
    )
    assert result.returns["net"].tolist() == pytest.approx([0, -1, 0, 0])
    assert result.turnover.iloc[2:].eq(0).all()


def test_the_benchmark_holds_the_members_of_the_date_before():
    prices = panel({"A": [10, 11, 11], "B": [10, 10, 12], "C": [10, np.nan, 30]})
    members = pd.MultiIndex.from_tuples(
        [(DAYS[0], "A"), (DAYS[0], "C"), (DAYS[1], "B")], names=["datetime", "instrument"]
    )
    found = equal_weight_returns(prices, members)
    assert np.isnan(found.iloc[0])
    assert found.iloc[1:].tolist() == pytest.approx([0.05, 0.2])  # C has no bar and earns nothing


# Properties


def market(seed: int, bars: int = 60, names: int = 12) -> tuple[pd.DataFrame, PricePanel]:
    """Random signals and prices with suspensions and jumps to limits."""
    rng = np.random.default_rng(seed)
    days = pd.bdate_range("2024-01-01", periods=bars, name="datetime")
    labels = pd.Index([f"S{i:02d}" for i in range(names)], name="instrument")
    close = pd.DataFrame(100 * np.exp(rng.normal(0, 0.03, (bars, names)).cumsum(axis=0)), days, labels)
    open_ = close * np.exp(rng.normal(0, 0.01, close.shape))
    suspended = rng.random(close.shape) < 0.05
    close, open_ = close.mask(suspended), open_.mask(suspended)
    amounts = close * rng.uniform(1e4, 1e6, close.shape)
    shape = close.shape
    wide = {"score": rng.normal(size=shape), "volatility": rng.uniform(0.01, 0.04, shape)}
    wide |= {"risk_adjusted": rng.normal(size=shape), "deviation": rng.uniform(0.02, 0.1, shape)}
    frames = {name: pd.DataFrame(values, days, labels).where(close.notna()) for name, values in wide.items()}
    signals = pd.concat({name: frame.stack() for name, frame in frames.items()}, axis=1)
    return signals, PricePanel(open_, close, amounts, close * 0)


RULES = [
    PortfolioRules(topk=4, rank_buffer=2, weighting="inverse_volatility"),
    PortfolioRules(topk=3, n_drop=1, weighting="score", max_turnover=0.5, no_trade_band=0.01),
    PortfolioRules(quantile=0.25, side="long_short", weighting="kelly", max_weight=0.2),
    PortfolioRules(
        topk=5, weighting="risk_parity", max_industry_weight=0.5, max_participation=0.05, correlation_bars=20
    ),
]
RULES += [PortfolioRules(topk=6, weighting="min_cvar", scenario_bars=30, cvar_tail=0.3)]
INDUSTRIES = {f"S{i:02d}": "XYZ"[i % 3] for i in range(12)}


def paths_at(date: pd.Timestamp) -> SampledPaths:
    """Random walks of 10 paths over 3 bars."""
    rng = np.random.default_rng(date.value // 10**9)
    return SampledPaths(pd.Index(INDUSTRIES), np.exp(rng.normal(0, 0.02, (12, 10, 3)).cumsum(axis=2)) - 1)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("price", ["open", "close"])
def test_bars_after_a_date_change_nothing_on_or_before_it(rules, price):
    signals, prices = market(3)
    trading = TradingRules(price, limit=0.05, min_cost=5, borrow_cost=0.05, cash=1e6)
    settings = {"trading": trading, "industries": INDUSTRIES, "paths": paths_at}
    whole = backtest_rules(signals, rules, prices, **settings)
    last = prices.calendar[35]
    noise = np.random.default_rng(9).uniform(0.5, 2, prices.closes.shape)
    later = np.repeat((prices.calendar > last)[:, None], len(INDUSTRIES), axis=1)
    scrambled = PricePanel(
        prices.opens.where(~later, prices.opens * noise),
        prices.closes.where(~later, prices.closes * noise[::-1]),
        prices.amounts.where(~later, prices.amounts * noise),
        prices.range_variance,
    )
    other = signals.copy()
    other.loc[other.index.get_level_values("datetime") > last, "score"] *= -1
    again = backtest_rules(other, rules, scrambled, **settings)
    for name in ("returns", "turnover", "cost", "benchmarks"):
        before, after = getattr(whole, name).loc[:last], getattr(again, name).loc[:last]
        np.testing.assert_array_equal(before, after)
    held = [each.weights[each.weights.index.get_level_values("datetime") <= last] for each in (whole, again)]
    pd.testing.assert_series_equal(*held, check_exact=True)
    assert not np.array_equal(whole.returns.loc[last:], again.returns.loc[last:])


@pytest.mark.parametrize("rules", RULES)
def test_each_rebalance_trades_the_weights_of_the_pure_function(rules):
    signals, prices = market(5)
    trading = TradingRules("close", **FREE, limit=0.06, cash=1e7)
    result = backtest_rules(signals, rules, prices, trading, every=3, industries=INDUSTRIES, paths=paths_at)
    net = (1 + result.returns["net"]).cumprod()
    equity = pd.Series(1e7, prices.calendar)
    equity.loc[net.index] = 1e7 * net
    wide = result.weights.unstack("instrument").reindex(prices.calendar).reindex(columns=INDUSTRIES)
    change = prices.last_close.pct_change(fill_method=None).abs()
    checked = 0
    for bar in range(0, len(prices.calendar) - 1, 3):
        date, after = prices.calendar[bar], prices.calendar[bar + 1]
        held = wide.loc[date].fillna(0.0)
        traded = prices.closes.loc[date].notna()
        able = traded & (held.ne(0) | (change.loc[date].fillna(0) < 0.06))
        mean = prices.amounts.loc[:date].fillna(0.0).iloc[-20:].mean()
        if date in result.unsolved:
            assert bar < 24, "23 bars before the date have 20 windows of 3 bars"
            continue
        closes = prices.closes.loc[:date]
        inputs = MarketInputs(pd.Series(INDUSTRIES), mean / equity[date], closes=closes, paths=paths_at(date))
        chosen = target_weights(signals.loc[date], held[held != 0], rules, able.index[able], inputs)
        shares = chosen.reindex(held.index, fill_value=0.0) * equity[date] / prices.last_close.loc[date]
        before = held * equity[date] / prices.last_close.loc[date]
        executable = prices.closes.loc[after].notna() & (change.loc[after] < 0.06)
        shares = shares.where(executable & able, before)
        value = shares * prices.last_close.loc[after]
        if value.sum() > equity[after] * (1 - 1e-9):  # purchases were lowered for cash
            continue
        found = wide.loc[after].fillna(0.0) * equity[after]
        np.testing.assert_allclose(found, value.fillna(0.0), atol=1e-4)
        checked += 1
    assert checked > (5 if rules.uses_scenarios else 10)
    assert bool(result.unsolved) == rules.uses_scenarios


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price": "vwap"}, "price='vwap' is unknown"),
        ({"open_cost": -1}, "open_cost=-1 is out of range"),
        ({"limit": 10}, "limit=10 is out of range. Pass a fraction below 1"),
        ({"cash": 0}, "cash=0 buys nothing"),
    ],
)
def test_trading_rules_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TradingRules(**change)


def test_inputs_that_do_not_fit_together_are_refused():
    signals, prices = market(1)
    with pytest.raises(ValueError, match="no column 'prob_up'"):
        backtest_rules(signals, PortfolioRules(rank_by="prob_up"), prices)
    with pytest.raises(ValueError, match=r"max_industry_weight=0.5 needs the industry"):
        backtest_rules(signals, PortfolioRules(max_industry_weight=0.5), prices)
    with pytest.raises(ValueError, match="every must be at least 1"):
        backtest_rules(signals, PortfolioRules(), prices, every=0)
    short = PricePanel(*(each.iloc[:30] for each in vars(prices).values() if isinstance(each, pd.DataFrame)))
    with pytest.raises(ValueError, match="no bar on 2024-02-12"):
        backtest_rules(signals, PortfolioRules(), short)
    few = PricePanel(
        *(each.iloc[:, :3] for each in (prices.opens, prices.closes, prices.amounts, prices.opens))
    )
    with pytest.raises(ValueError, match="9 instruments have no prices, the first is 'S03'"):
        backtest_rules(signals, PortfolioRules(), few)
    silent = PricePanel(prices.opens, prices.closes, prices.amounts * np.nan, prices.opens)
    with pytest.raises(ValueError, match="needs traded amounts"):
        backtest_rules(signals, PortfolioRules(max_participation=0.1), silent)
