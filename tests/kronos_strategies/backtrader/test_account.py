"""The account and the trades of a run, compared with planned orders and with Backtrader's own analyzers."""

from __future__ import annotations

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("statsmodels")

from kronos_strategies.backtrader import KronosTearSheet, LotSizeCommission
from kronos_strategies.evaluation.portfolio.returns import evaluate_trades
from tests.kronos_strategies.backtrader.builders import MODES
from tests.kronos_strategies.backtrader.planned_orders import (
    CASH,
    DAYS,
    FEE,
    Orders,
    ScoreFeed,
    bars_of,
    result_of,
    run,
)

NAMES = [f"N{i:02}" for i in range(12)]


def test_returns_costs_turnover_and_weights_are_those_of_the_trades():
    bars = bars_of()
    plan = {3: {"A": 100, "B": -20}, 6: {"A": -40.5}, 9: {"B": 20, "C": 10.25}}
    result = result_of(bars, plan=plan)
    cash, held, before = CASH, dict.fromkeys(bars, 0.0), CASH
    for number, day in enumerate(DAYS):
        traded = {name: size * bars[name].loc[day, "open"] for name, size in plan.get(number, {}).items()}
        paid = FEE * sum(map(abs, traded.values()))
        cash -= sum(traded.values()) + paid
        held = {name: size + plan.get(number, {}).get(name, 0) for name, size in held.items()}
        worth = {name: size * bars[name].loc[day, "close"] for name, size in held.items() if size}
        value = cash + sum(worth.values())
        if number < 3:
            assert day not in result.returns.index
            continue
        assert result.returns.loc[day, "net"] == pytest.approx(value / before - 1, abs=1e-12)
        assert result.returns.loc[day, "gross"] == pytest.approx((value + paid) / before - 1, abs=1e-12)
        assert result.cost[day] == pytest.approx(paid / before, abs=1e-12)
        assert result.turnover[day] == pytest.approx(sum(map(abs, traded.values())) / before, abs=1e-12)
        shares = {name: each / value for name, each in worth.items()}
        assert dict(result.weights[day]) == pytest.approx(shares, abs=1e-12)
        before = value
    assert result.positions.max() == 2
    assert result.weights.min() < 0


def test_a_fall_on_the_first_bar_counts():
    bars = bars_of()
    bars["A"].loc[DAYS[3], ["open", "high"]] = 2 * bars["A"].loc[DAYS[3], "close"]
    result = result_of(bars, plan={3: {"A": 90}})
    assert result.returns.index[0] == DAYS[3]
    assert result.returns["net"].iloc[0] < -0.3


def test_the_result_starts_with_the_first_purchase_and_benchmarks_earn_nothing_up_to_its_close():
    bars = bars_of()
    result = result_of(bars, plan={5: {"B": 10}}, sheet={"benchmark": "C"})
    assert result.returns.index[0] == DAYS[5]
    assert list(result.benchmarks) == ["C", "equal weight"]
    assert (result.benchmarks.iloc[0] == 0).all()
    closes = pd.DataFrame({name: frame["close"] for name, frame in bars.items()})
    moves = closes.pct_change().loc[DAYS[6] :]
    np.testing.assert_allclose(result.benchmarks["C"].iloc[1:], moves["C"])
    np.testing.assert_allclose(result.benchmarks["equal weight"].iloc[1:], moves.mean(axis=1))


def test_a_strategy_that_never_trades_has_a_flat_result():
    result = result_of(bars_of())
    assert len(result.returns) == len(DAYS)
    assert (result.returns == 0).all(axis=None)
    assert result.weights.empty


def test_a_held_feed_without_a_price_counts_at_its_last_one():
    bars = bars_of()
    bars["A"].loc[DAYS[10:13], ["open", "high", "low", "close"]] = np.nan
    ran = run(bars, plan={3: {"A": 50}})
    result = ran.analyzers.sheet.result
    assert np.isnan(ran.worth[DAYS[11]])
    assert (result.returns.loc[DAYS[10:13]] == 0).all(axis=None)
    close = bars["A"]["close"].ffill()
    values = {day: ran.cash[day] + 50 * close[day] for day in DAYS[3:]}
    np.testing.assert_allclose((1 + result.returns["net"]).cumprod() * CASH, list(values.values()))


@pytest.mark.parametrize("mode", [{}, {"runonce": False}, {"preload": False}, {"live": True}])
def test_feeds_are_neither_scored_nor_valued_before_they_start_and_after_they_end(mode):
    bars = bars_of(NAMES)
    bars["N00"], bars["N01"] = bars["N00"].iloc[15:], bars["N01"].iloc[:19]
    ran = run(bars, plan={3: {"N01": 20}, 17: {"N00": 5}}, mode=mode)
    evidence, result = ran.analyzers.sheet.artifacts, ran.analyzers.sheet.result
    scored = evidence.scores["score"].unstack()
    assert scored["N00"].first_valid_index() == DAYS[15]
    assert scored["N01"].last_valid_index() == DAYS[18]
    np.testing.assert_array_equal(scored["N02"], bars["N02"]["score"])
    worth = pd.Series(ran.worth).loc[DAYS[3] :]
    np.testing.assert_allclose((1 + result.returns["net"]).cumprod() * CASH, worth)
    assert any(each.startswith("N01 had no more bars") for each in evidence.metadata.warnings)
    assert not any("survivorship" in each for each in evidence.metadata.warnings)


def test_feeds_of_which_none_ends_bring_a_warning_of_survivorship_bias():
    days = pd.bdate_range("2024-01-01", periods=130)
    bars = bars_of(NAMES, days)
    bars["N00"] = bars["N00"].iloc[10:-5]  # late, and suspended at the end
    warnings = run(bars).analyzers.sheet.artifacts.metadata.warnings
    assert any("survivorship" in each for each in warnings)
    assert not any("no more bars" in each for each in warnings)


def test_cash_that_is_added_is_not_a_return():
    class Saver(Orders):
        def next(self):
            super().next()
            if len(self) == 8:
                self.broker.add_cash(5_000)

    bars = bars_of()
    plain, more = result_of(bars, plan={3: {"A": 50}}), result_of(bars, Saver, plan={3: {"A": 50}})
    assert more.returns["net"].abs().max() < 0.2
    np.testing.assert_allclose(more.returns["net"].loc[: DAYS[7]], plain.returns["net"].loc[: DAYS[7]])


def test_the_weight_of_a_future_is_its_notional_value():
    future = bt.CommissionInfo(commission=2.0, margin=500.0, mult=10.0, stocklike=False)
    ran = run(bars_of(), commission=future, plan={3: {"A": 2}})
    result = ran.analyzers.sheet.result
    close = bars_of()["A"]["close"]
    expected = {day: 2 * 10 * close[day] / ran.worth[day] for day in DAYS[3:]}
    assert dict(result.weights.xs("A", level="instrument")) == pytest.approx(expected)
    assert result.cost.iloc[0] == pytest.approx(4.0 / CASH)


def test_a_resampled_feed_is_valued_at_its_last_close():
    class Daily(Orders):
        def next(self):
            if len(self.datas[1]):
                share = 100 * self.datas[1].close[0] / self.broker.getvalue()
                self.worth.setdefault(pd.Timestamp(self.datetime.datetime()), share)
            if len(self) == 12:
                self.buy(data=self.datas[1], size=100)

    hours = pd.date_range("2024-01-01 10:00", periods=12 * 4, freq="6h")
    bars = bars_of(("A",), hours)["A"]
    cerebro = bt.Cerebro(stdstats=False)
    feed = ScoreFeed(dataname=bars, timeframe=bt.TimeFrame.Minutes, compression=360)
    cerebro.adddata(feed, name="A 6h")
    cerebro.resampledata(feed, timeframe=bt.TimeFrame.Days, name="A")
    cerebro.broker.setcash(CASH)
    cerebro.addstrategy(Daily)
    cerebro.addanalyzer(KronosTearSheet, _name="sheet", signal="score")
    (ran,) = cerebro.run()
    weights = ran.analyzers.sheet.result.weights.xs("A", level="instrument")
    expected = pd.Series(ran.worth)
    common = weights.index.intersection(expected.index)
    np.testing.assert_allclose(weights[common], expected[common], rtol=1e-12)
    assert len(common) > 30
    assert weights.nunique() > 5


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_all_modes_give_the_same_result_and_the_same_coefficients(mode):
    bars = bars_of(NAMES)
    bars["N03"] = bars["N03"].drop(DAYS[12:15])
    plan = {4: {"N03": 10, "N05": -5}, 20: {"N03": -10}}
    usual, other = run(bars, plan=plan), run(bars, plan=plan, mode=mode)
    assert repr(other.analyzers.ic.get_analysis()) == repr(usual.analyzers.ic.get_analysis())
    ours, theirs = other.analyzers.sheet.result, usual.analyzers.sheet.result
    pd.testing.assert_frame_equal(ours.returns, theirs.returns, check_exact=True)
    pd.testing.assert_series_equal(ours.weights, theirs.weights, check_exact=True)


def test_costs_are_the_same_with_quick_notifications():
    plan = {4: {"A": 10, "B": -5}, 20: {"A": -10}}
    usual, quick = (result_of(bars_of(), plan=plan, mode={"quicknotify": each}) for each in (False, True))
    pd.testing.assert_series_equal(quick.cost, usual.cost)


def trades_of(plan, bars=None, **options) -> pd.DataFrame:
    return run(bars or bars_of(), plan=plan, **options).analyzers.sheet.trades


@pytest.mark.parametrize("mode", [{}, {"runonce": False}, {"exactbars": -2}])
def test_a_trade_lasts_from_purchase_to_sale(mode):
    bars = bars_of()
    (trade,) = trades_of({3: {"A": 10}, 9: {"A": -10}}, bars, mode=mode).to_dict("records")
    entry, exit_ = bars["A"]["open"].iloc[[3, 9]]
    cost = FEE * 10 * (entry + exit_)
    assert (trade["instrument"], trade["side"], trade["size"], trade["bars"]) == ("A", "long", 10, 6)
    assert (trade["opened"], trade["closed"]) == (DAYS[3], DAYS[9])
    assert trade["entry"] == pytest.approx(entry)
    assert trade["exit"] == pytest.approx(exit_)
    assert trade["cost"] == pytest.approx(cost)
    assert trade["profit"] == pytest.approx(10 * (exit_ - entry) - cost)
    assert trade["return"] == pytest.approx(trade["profit"] / (10 * entry))


def test_purchases_and_sales_in_parts_are_one_trade():
    bars = bars_of()
    (trade,) = trades_of({3: {"A": 10}, 5: {"A": 30}, 7: {"A": -15}, 9: {"A": -25}}, bars).to_dict("records")
    opens = bars["A"]["open"]
    assert trade["size"] == 40
    assert trade["entry"] == pytest.approx((10 * opens.iloc[3] + 30 * opens.iloc[5]) / 40)
    assert trade["exit"] == pytest.approx((15 * opens.iloc[7] + 25 * opens.iloc[9]) / 40)
    gained = 15 * opens.iloc[7] + 25 * opens.iloc[9] - 10 * opens.iloc[3] - 30 * opens.iloc[5]
    assert trade["profit"] + trade["cost"] == pytest.approx(gained)


def test_an_order_that_reverses_a_position_ends_a_trade_and_begins_another():
    bars = bars_of()
    first, second = trades_of({3: {"A": 10}, 6: {"A": -15}, 9: {"A": 5}}, bars).to_dict("records")
    assert [(each["side"], each["size"]) for each in (first, second)] == [("long", 10), ("short", 5)]
    assert first["closed"] == second["opened"] == DAYS[6]
    opens = bars["A"]["open"]
    assert second["profit"] + second["cost"] == pytest.approx(5 * (opens.iloc[6] - opens.iloc[9]))


def test_a_position_that_is_still_held_is_an_open_trade_and_excluded_from_metrics():
    study = evaluate_trades(trades_of({3: {"A": 10}, 6: {"B": 5}, 9: {"B": -5}}))
    assert study.open == 1
    assert study.table.loc["all", "trades"] == 1
    assert pd.isna(study.trades.set_index("instrument").loc["A", "closed"])


def random_plan(seed: int = 0) -> dict[int, dict[str, float]]:
    rng = np.random.default_rng(seed)
    return {bar: {str(rng.choice(list("ABC"))): float(rng.choice([-6, -3, 3, 6]))} for bar in range(2, 38)}


def test_metrics_equal_those_of_backtraders_own_analyzer():
    def prepare(cerebro):
        cerebro.addanalyzer(bt.analyzers.TradeAnalyzer, _name="own")

    ran = run(bars_of(), plan=random_plan(), prepare=prepare)
    own, study = ran.analyzers.own.get_analysis(), evaluate_trades(ran.analyzers.sheet.trades)
    row = study.table.loc["all"]
    assert row["trades"] == own.total.closed > 5
    assert study.open == own.total.open
    assert row["hit_rate"] == pytest.approx(own.won.total / own.total.closed)
    assert row["profit"] == pytest.approx(own.pnl.net.total)
    assert row["profit_factor"] == pytest.approx(-own.won.pnl.total / own.lost.pnl.total)
    assert row["bars"] == pytest.approx(own.len.average)
    assert study.table.loc["long", "trades"] == own.long.total
    assert study.table.loc["short", "trades"] == own.short.total


def test_profits_of_all_trades_add_up_to_the_profit_of_the_account():
    plan = random_plan(1)
    held = {name: sum(orders.get(name, 0) for orders in plan.values()) for name in "ABC"}
    plan[38] = {name: -size for name, size in held.items() if size}
    ran = run(bars_of(), plan=plan)
    assert ran.analyzers.sheet.trades["profit"].sum() == pytest.approx(ran.broker.getvalue() - CASH)


def test_profits_of_a_future_include_its_multiplier():
    bars = bars_of()
    commission = LotSizeCommission(commission=2.0, margin=100.0, mult=5.0, lot_size=1)
    (trade,) = trades_of({3: {"A": 2}, 9: {"A": -2}}, bars, commission=commission).to_dict("records")
    entry, exit_ = bars["A"]["open"].iloc[[3, 9]]
    assert trade["profit"] == pytest.approx(2 * 5 * (exit_ - entry) - 8)
    assert trade["return"] == pytest.approx(trade["profit"] / (2 * 5 * entry))


def test_intraday_trades_are_dated_in_the_time_zone_of_the_feed():
    times = pd.date_range("2024-03-04 14:35", periods=60, freq="5min")
    cerebro = bt.Cerebro(stdstats=False)
    feed = ScoreFeed(
        dataname=bars_of(["A"], times)["A"],
        timeframe=bt.TimeFrame.Minutes,
        compression=5,
        tz="America/New_York",
    )
    cerebro.adddata(feed, name="A")
    cerebro.addstrategy(Orders, plan={10: {"A": 1}, 22: {"A": -1}})
    cerebro.addanalyzer(KronosTearSheet, _name="sheet", signal="score")
    (trade,) = cerebro.run()[0].analyzers.sheet.trades.to_dict("records")
    assert trade["opened"] == pd.Timestamp("2024-03-04 10:25")
    assert trade["closed"] == pd.Timestamp("2024-03-04 11:25")
    assert trade["bars"] == 12


def test_metrics_of_the_trades_are_in_the_analysis():
    found = run(bars_of(), plan=random_plan()).analyzers.sheet.get_analysis()
    assert found["trades"] > 5
    assert 0 <= found["trade_hit_rate"] <= 1
    assert found["trade_profit_factor"] > 0


def test_without_a_trade_metrics_are_undefined_and_the_count_is_zero():
    study = evaluate_trades(trades_of({}))
    assert study.metrics()["trades"] == 0
    assert np.isnan(study.metrics()["trade_hit_rate"])
