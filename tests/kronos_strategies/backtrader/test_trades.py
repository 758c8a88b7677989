"""The trades of a run, against those that were planned and against Backtrader's own analyzer."""

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("statsmodels")

from kronos_strategies.backtrader import KronosTearSheet, SteppedCommission
from kronos_strategies.evaluation.portfolio.trades import evaluate_trades
from tests.kronos_strategies.backtrader.test_analyzers import CASH, DAYS, FEE, Orders, ScoreFeed, bars_of, run


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


def test_an_order_that_turns_a_position_ends_a_trade_and_begins_one():
    bars = bars_of()
    first, second = trades_of({3: {"A": 10}, 6: {"A": -15}, 9: {"A": 5}}, bars).to_dict("records")
    assert [(each["side"], each["size"]) for each in (first, second)] == [("long", 10), ("short", 5)]
    assert first["closed"] == second["opened"] == DAYS[6]
    opens = bars["A"]["open"]
    assert second["profit"] + second["cost"] == pytest.approx(5 * (opens.iloc[6] - opens.iloc[9]))


def test_what_is_still_held_is_open_and_counts_for_nothing():
    study = evaluate_trades(trades_of({3: {"A": 10}, 6: {"B": 5}, 9: {"B": -5}}))
    assert study.open == 1
    assert study.table.loc["all", "trades"] == 1
    assert pd.isna(study.trades.set_index("instrument").loc["A", "closed"])


def random_plan(seed: int = 0) -> dict[int, dict[str, float]]:
    rng = np.random.default_rng(seed)
    return {bar: {str(rng.choice(list("ABC"))): float(rng.choice([-6, -3, 3, 6]))} for bar in range(2, 38)}


def test_figures_are_those_of_backtraders_own_analyzer():
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


def test_profits_of_all_trades_are_what_the_account_has_gained():
    plan = random_plan(1)
    held = {name: sum(orders.get(name, 0) for orders in plan.values()) for name in "ABC"}
    plan[38] = {name: -size for name, size in held.items() if size}
    ran = run(bars_of(), plan=plan)
    assert ran.analyzers.sheet.trades["profit"].sum() == pytest.approx(ran.broker.getvalue() - CASH)


def test_a_future_earns_its_multiple():
    bars = bars_of()
    commission = SteppedCommission(commission=2.0, margin=100.0, mult=5.0, step=1)
    (trade,) = trades_of({3: {"A": 2}, 9: {"A": -2}}, bars, commission=commission).to_dict("records")
    entry, exit_ = bars["A"]["open"].iloc[[3, 9]]
    assert trade["profit"] == pytest.approx(2 * 5 * (exit_ - entry) - 8)
    assert trade["return"] == pytest.approx(trade["profit"] / (2 * 5 * entry))


def test_trades_within_the_day_tell_their_times_in_the_feeds_zone():
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


def test_figures_of_the_trades_are_in_the_analysis():
    found = run(bars_of(), plan=random_plan()).analyzers.sheet.get_analysis()
    assert found["trades"] > 5
    assert 0 <= found["trade_hit_rate"] <= 1
    assert found["trade_profit_factor"] > 0


def test_without_a_trade_figures_are_undefined_and_the_count_is_zero():
    study = evaluate_trades(trades_of({}))
    assert study.metrics()["trades"] == 0
    assert np.isnan(study.metrics()["trade_hit_rate"])
