"""KronosRankStrategy on feeds of several exchanges, and with futures."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("backtrader")
import backtrader as bt

from kronos_strategies.backtrader import (
    KronosIndicator,
    KronosRankStrategy,
    KronosTearSheet,
    LotSizeCommission,
)
from tests.kronos_strategies.backtrader.test_strategy import (
    DAYS,
    MODES,
    Planted,
    SignalFeed,
    filled,
    market,
    run,
)

CLOSES = {"A": 7, "B": 7, "C": 16, "D": 21}  # hours of UTC at which three exchanges close


def exchanges(names: int = 4, seed: int = 3) -> dict[str, pd.DataFrame]:
    bars = market(names, seed)
    return {
        name: frame.set_axis(frame.index + pd.Timedelta(hours=CLOSES[name])) for name, frame in bars.items()
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("every", [1, 5])
def test_orders_wait_for_the_next_bar_of_their_own_exchange(mode, every):
    bars = exchanges()
    ran = run(bars, mode=mode, every=every)
    assert len(ran.orders) > 20
    # A purchase whose exchange opens before that of the sale that pays for it may stay incomplete.
    assert [status for _, status, size, _ in ran.orders if not size] == []
    assert len(filled(ran)) > 0.9 * len(ran.orders)
    assert {name for name, *_ in filled(ran)} == set(bars)


def test_feeds_of_later_exchanges_are_ranked_by_their_latest_bars():
    bars = exchanges()
    ran = run(bars, every=1)
    days = list(ran.decided)
    assert days == list(DAYS)  # once a day, at the first close, though the strategy has three bars a day
    assert ran.decided[days[0]][2].tolist() == ["A", "B"]
    for at, day in enumerate(days[1:], 1):
        signals, _, tradable, _ = ran.decided[day]
        assert tradable.tolist() == list(bars)
        assert signals["score"].tolist() == [
            bars[name]["score"].iloc[at if CLOSES[name] == 7 else at - 1] for name in bars
        ]


def test_rebalances_are_as_many_bars_apart_for_each_exchange_as_asked():
    ran = run(exchanges(), every=5)
    assert list(ran.decided) == list(DAYS[::5])


def test_an_order_of_an_exchange_on_holiday_trades_after_it():
    bars = exchanges()
    for name, score in {"A": 0.0, "B": 0.0, "C": 1.0, "D": 2.0}.items():
        bars[name]["score"] = score
    after = bars["D"]["open"].iloc[31]
    bars["D"] = bars["D"].drop(bars["D"].index[30])
    ran = run(bars, every=30, topk=1)  # decided at the closes of A and B, the second time on day 30
    assert [price for name, size, price in filled(ran) if name == "D" and size > 0] == [after]


@pytest.mark.parametrize("mode", MODES)
def test_the_rest_of_a_purchase_waits_for_the_sale_of_an_exchange_that_opens_later(mode):
    bars = exchanges()
    for name, score in {"A": 1.0, "B": 0.0, "C": 0.0, "D": 0.0}.items():
        bars[name]["score"] = score
    bars["C"].loc[bars["C"].index[29] :, "score"] = 2.0
    after = bars["C"].index[30:32]  # decided at 7:00 of day 30; A is sold at 7:00 of day 31
    executions: list[tuple[str, pd.Timestamp, float, float]] = []

    class Recording(Planted):
        def notify_order(self, order):
            super().notify_order(order)
            for bit in iter(order.executed.iterpending()):
                if bit is not None and bit.size:
                    time = pd.Timestamp(bt.num2date(bit.dt)).round("s")
                    executions.append((order.data._name, time, bit.size, bit.price))

    ran = run(bars, strategy=Recording, mode=mode, every=30, topk=1, step=0.01)
    bought = [row for row in executions if row[0] == "C"]
    (sold,) = [row for row in executions if row[0] == "A" and row[2] < 0]
    assert [time for _, time, *_ in bought] == list(after)
    assert after[0] < sold[1] == bars["A"].index[31] < after[1]  # the sale trades between the two parts
    assert [price for *_, price in bought] == bars["C"].loc[after, "open"].tolist()
    assert 0 < bought[0][2] < 0.2 * bought[1][2]  # what the 5 % of cash pay for, and the rest
    *_, chosen = ran.decided[DAYS[30]]
    wanted = chosen["C"] * ran.worth[3 * 30] / bars["C"]["close"].iloc[29]
    assert sum(size for *_, size, _ in bought) == pytest.approx(wanted, abs=0.01)
    assert ran.broker.getcash() >= 0


def hours(frame: pd.DataFrame, start: str, count: int) -> pd.DataFrame:
    days = pd.bdate_range("2024-01-01", periods=len(frame) // count)
    index = pd.DatetimeIndex(
        [day + pd.Timedelta(start) + pd.Timedelta(hours=i) for day in days for i in range(count)]
    )
    return frame.iloc[: len(index)].set_axis(index)


@pytest.mark.parametrize("mode", MODES[:2])
def test_a_position_in_an_exchange_that_is_closed_for_the_night_does_not_count_as_delisted(mode):
    days = pd.date_range("2024-01-01", periods=240, freq="h")
    bars = market(3, days=days)
    for name, score in {"A": 3.0, "B": 2.0, "C": 1.0}.items():
        bars[name]["score"] = score
    bars = {
        "A": hours(bars["A"], "00:00:00", 6),
        "B": hours(bars["B"], "12:00:00", 12),
        "C": hours(bars["C"], "12:00:00", 12),
    }
    ran = run(bars, mode=mode, delisted_after=5)
    assert next(size > 0 for name, size, _ in filled(ran) if name == "A")
    held = [previous.get("A", 0.0) for _, previous, *_ in list(ran.decided.values())[1:]]
    assert min(held) > 0


# Futures and leverage


def futures(margin: float = 2_000.0, mult: float = 50.0, **settings):
    bars = market(4, seed=2)
    cerebro = bt.Cerebro(stdstats=False)
    for name, frame in bars.items():
        cerebro.adddata(SignalFeed(dataname=frame), name=name)
    cerebro.broker.setcash(1e6)
    step = settings.pop("step", None)
    kind = {"commission": 2.0, "margin": margin, "mult": mult}
    if step is None:
        cerebro.broker.setcommission(**kind)
    else:
        cerebro.broker.addcommissioninfo(LotSizeCommission(lot_size=step, **kind))
    cerebro.addstrategy(
        Planted, **{"topk": 2, "every": 1, "cash_buffer": 0.05, "no_trade_band": 0.0, **settings}
    )
    return bars, cerebro.run()[0]


@pytest.mark.parametrize("side", ["long", "long_short"])
@pytest.mark.parametrize("margin", [200.0, 2_000.0])
def test_futures_are_sized_by_their_notional_value(side, margin):
    bars, ran = futures(margin=margin, side=side)
    first = DAYS[0]
    chosen = ran.decided[first][3]
    for name, size, _ in filled(ran)[: len(chosen)]:
        assert abs(size) == int(abs(chosen[name]) * 1e6 / (50 * bars[name].loc[first, "close"]))
    gross = [previous.abs().sum() for _, previous, *_ in list(ran.decided.values())[1:]]
    assert 0.85 < np.mean(gross) < 0.96
    assert max(gross) < 1.1
    assert min(ran.worth) > 5e5
    assert {status for _, status, *_ in ran.orders} == {"Completed"}


def test_futures_are_sized_in_multiples_of_the_lot_size():
    _, ran = futures(step=0.1)
    found = np.array([size for _, size, _ in filled(ran)])
    np.testing.assert_allclose(found * 10, np.round(found * 10), atol=1e-6)
    assert (np.abs(found - np.round(found)) > 1e-6).any()


@pytest.mark.parametrize("side", ["long", "long_short"])
def test_no_more_futures_are_bought_than_the_cash_pays_the_margin_of(side):
    _, ran = futures(margin=9_000.0, side=side)  # more than a contract is worth
    assert "Margin" not in {status for _, status, *_ in ran.orders}
    assert ran.broker.getcash() >= 0
    assert filled(ran)


def test_leverage_does_not_enlarge_a_weight():
    bars = market(4, seed=2)
    plain = run(bars)

    def leveraged(leverage):
        cerebro = bt.Cerebro(stdstats=False)
        for name, frame in bars.items():
            cerebro.adddata(SignalFeed(dataname=frame), name=name)
        cerebro.broker.setcash(1e6)
        cerebro.broker.addcommissioninfo(LotSizeCommission(leverage=leverage))
        cerebro.addstrategy(Planted, topk=2, every=1, cash_buffer=0.05, no_trade_band=0.0)
        return cerebro.run()[0]

    ran = leveraged(10.0)
    assert [name for name, *_ in filled(ran)[:2]] == [name for name, *_ in filled(plain)[:2]]
    np.testing.assert_allclose([row[1:] for row in filled(ran)[:2]], [row[1:] for row in filled(plain)[:2]])
    assert max(previous.abs().sum() for _, previous, *_ in ran.decided.values()) < 1.1


# Numbers


def test_numpy_integers_are_valid_parameters(tmp_path):
    four, small = np.int64(4), np.int32(2)
    cerebro = bt.Cerebro(stdstats=False)
    for name, frame in market().items():
        cerebro.adddata(bt.feeds.PandasData(dataname=frame), name=name)
    settings = {
        "lookback": np.int64(20),
        "horizon": np.int16(3),
        "samples": small,
        "every": four,
        "seed": np.int64(1),
    }
    forecast = {
        **settings,
        "level": np.float32(0.8),
        "T": np.float64(1.0),
        "top_k": np.int64(0),
        "device": "cpu",
    }
    cerebro.addstrategy(
        KronosRankStrategy, topk=small, delisted_after=np.int64(9), haircut=np.float32(0), **forecast
    )
    numbers = {
        "every": four,
        "hold": four,
        "trials": np.int64(3),
        "min_instruments": small,
        "bars_per_year": np.int64(252),
    }
    cerebro.addanalyzer(KronosTearSheet, **numbers)
    (ran,) = cerebro.run()
    assert isinstance(next(iter(ran.signal_lines.values())), KronosIndicator)
    ran.analyzers.kronostearsheet.save_report(tmp_path)
    assert (tmp_path / "metrics.json").exists()
