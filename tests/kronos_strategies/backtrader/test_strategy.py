"""KronosRankStrategy on the real engine, with given signals as extra lines of the feeds."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("backtrader")
import backtrader as bt

from kronos_strategies.backtrader import KronosRankStrategy, LotSizeCommission
from kronos_strategies.portfolio import PortfolioRules, target_weights

DAYS = pd.bdate_range("2024-01-01", periods=60)
MODES = [
    {},
    {"runonce": False},
    {"preload": False},
    {"runonce": False, "exactbars": -1},
    {"runonce": False, "exactbars": -2},
]


class SignalFeed(bt.feeds.PandasData):
    """Bars with their signals."""

    lines = ("score", "volatility")
    params = (("score", "score"), ("volatility", "volatility"))


class Planted(KronosRankStrategy):
    """Takes its signals from the feeds and records its decisions and its orders."""

    params = (("rank_by", "score"),)  # a line of the feeds

    def __init__(self):
        super().__init__()
        self.decided, self.worth, self.orders = {}, [], []

    def weights(self, signals, previous, tradable):
        chosen = super().weights(signals, previous, tradable)
        self.decided[self.now] = (signals, previous, tradable, chosen)
        return chosen

    def next(self):
        super().next()
        self.worth.append(self.broker.getvalue())

    def notify_order(self, order):
        if not order.alive():
            self.orders.append(
                (order.data._name, order.getstatusname(), order.executed.size, order.executed.price)
            )

    @property
    def now(self) -> pd.Timestamp:
        return pd.Timestamp(self.datetime.datetime()).normalize()


def market(names: int = 4, seed: int = 0, days: pd.DatetimeIndex = DAYS) -> dict[str, pd.DataFrame]:
    """Random walks with random signals that change slowly."""
    rng = np.random.default_rng(seed)
    bars = {}
    for i in range(names):
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, len(days))))
        opened = close * np.exp(rng.normal(0, 0.005, len(days)))
        bars["ABCDEFGHIJ"[i]] = pd.DataFrame(
            {
                "open": opened,
                "high": np.maximum(opened, close) * 1.01,
                "low": np.minimum(opened, close) * 0.99,
                "close": close,
                "volume": 1e6,
                "score": pd.Series(rng.normal(size=len(days))).ewm(halflife=5).mean().to_numpy(),
                "volatility": rng.uniform(0.01, 0.03, len(days)),
            },
            index=days,
        )
    return bars


def run(bars, strategy=Planted, cash=1e6, mode=MODES[0], step=0.0, commission=0.0, **settings):
    cerebro = bt.Cerebro(stdstats=False, **mode)
    for name, frame in bars.items():
        cerebro.adddata(SignalFeed(dataname=frame), name=name)
    cerebro.broker.setcash(cash)
    cerebro.broker.addcommissioninfo(LotSizeCommission(commission=commission, lot_size=step))
    cerebro.addstrategy(
        strategy, **{"topk": 2, "every": 1, "cash_buffer": 0.05, "no_trade_band": 0.0, **settings}
    )
    return cerebro.run()[0]


def sizes(strategy) -> dict[str, float]:
    return {data._name: strategy.getposition(data).size for data in strategy.datas}


def filled(strategy) -> list[tuple[str, float, float]]:
    return [(name, size, price) for name, status, size, price in strategy.orders if status == "Completed"]


# Decisions and orders


def test_each_bar_calls_the_pure_function_with_all_lines_and_the_weights_held():
    bars = market()
    ran = run(bars, weighting="inverse_volatility", rank_buffer=1)
    rules = PortfolioRules(
        rank_by="score",
        topk=2,
        cash_buffer=0.05,
        no_trade_band=0.0,
        weighting="inverse_volatility",
        rank_buffer=1,
    )
    assert list(ran.decided) == list(DAYS)
    for day, (signals, previous, tradable, chosen) in ran.decided.items():
        for name, frame in bars.items():
            assert dict(signals.loc[name, ["score", "volatility"]]) == dict(
                frame.loc[day, ["score", "volatility"]]
            )
        pd.testing.assert_series_equal(chosen, target_weights(signals, previous, rules, tradable))
        assert list(tradable) == list(bars)
    held = [previous for _, previous, *_ in ran.decided.values()]
    assert held[0].empty
    assert all(len(previous) >= 2 for previous in held[1:])


def test_the_strategy_trades_at_the_next_open_the_size_of_its_weight_at_the_close():
    bars = market()
    ran = run(bars)
    first, second = DAYS[:2]
    *_, chosen = ran.decided[first]
    expected = [
        (name, pytest.approx(w * 1e6 / bars[name].loc[first, "close"]), bars[name].loc[second, "open"])
        for name, w in chosen.items()
    ]
    assert sorted(filled(ran)[:2]) == expected


def test_the_next_decision_gets_the_weights_held_at_the_close():
    bars = market()
    ran = run(bars)
    for i, (day, (_, previous, *_)) in enumerate(ran.decided.items()):
        cash_share = 1 - previous.sum()
        assert -1e-9 < cash_share < 1 + 1e-9
        if i:
            # Bought at the open at sizes of yesterday's close, valued at today's close.
            yesterday = DAYS[i - 1]
            *_, chosen = ran.decided[yesterday]
            grown = pd.Series(
                {
                    n: w * bars[n].loc[day, "close"] / bars[n].loc[yesterday, "close"]
                    for n, w in chosen.items()
                }
            )
            worth = grown * ran.worth[i - 1] / ran.worth[i]
            pd.testing.assert_series_equal(previous.sort_index(), worth.sort_index(), check_names=False)


def test_sales_precede_purchases_and_no_order_is_rejected():
    ran = run(market(names=8, seed=1), topk=4, commission=0.001)
    assert len(ran.orders) > 100
    assert {status for _, status, *_ in ran.orders} == {"Completed"}
    assert ran.broker.getcash() > 0


def test_the_strategy_rebalances_on_the_first_forecast_and_every_n_bars_after():
    bars = market()
    for frame in bars.values():
        frame.loc[frame.index[:7], "score"] = np.nan
    ran = run(bars, every=4)
    assert list(ran.decided) == list(DAYS[7::4])


def test_a_weight_within_the_no_trade_band_places_no_order():
    bars = market()
    for i, frame in enumerate(bars.values()):
        frame["score"] = i
    free, banded = run(bars, no_trade_band=0.0), run(bars, no_trade_band=0.03)
    assert len(free.orders) > 80
    assert 2 <= len(banded.orders) < 20


def test_a_long_short_portfolio_holds_both_sides():
    bars = market(names=6)
    ran = run(bars, side="long_short", commission=0.001)
    gross = [previous.abs().sum() for _, previous, *_ in ran.decided.values()][1:]
    net = [previous.sum() for _, previous, *_ in ran.decided.values()][1:]
    assert np.allclose(gross, 0.95, atol=0.05)
    assert np.abs(net).max() < 0.05
    assert {status for _, status, *_ in ran.orders} == {"Completed"}


@pytest.mark.parametrize(("step", "fine"), [(1, 1), (100, 100), (0.001, 0.001), (0, None)])
def test_sizes_are_multiples_of_the_lot_size(step, fine):
    ran = run(market(), step=step)
    found = np.array([size for _, size, _ in filled(ran)])
    if fine:
        np.testing.assert_allclose(found / fine, np.round(found / fine), atol=1e-6)
    else:
        assert (np.abs(found - np.round(found)) > 1e-6).any()


def test_sizes_are_whole_by_default():
    cerebro = bt.Cerebro(stdstats=False)
    for name, frame in market().items():
        cerebro.adddata(SignalFeed(dataname=frame), name=name)
    cerebro.addstrategy(Planted, topk=2, every=1)
    (ran,) = cerebro.run()
    assert filled(ran)
    assert all(size == int(size) for _, size, _ in filled(ran))


# Feeds that start late, pause and end


@pytest.mark.parametrize("mode", MODES)
def test_a_feed_that_has_not_started_is_neither_read_nor_bought(mode):
    bars = market()
    bars["A"] = bars["A"].iloc[30:].assign(score=99.0)
    ran = run(bars, mode=mode)
    for day, (signals, _, tradable, chosen) in ran.decided.items():
        started = day >= DAYS[30]
        assert ("A" in tradable) == started
        assert ("A" in chosen.index) == started
        assert np.isfinite(signals.loc["A", "close"]) == started


@pytest.mark.parametrize("mode", MODES)
def test_a_suspended_feed_keeps_its_size_and_its_weight(mode):
    bars = market()
    bars["A"]["score"] = 99.0
    bars["A"] = bars["A"].drop(DAYS[20:26])
    ran = run(bars, mode=mode)
    last = bars["A"].loc[DAYS[19], "close"]
    for day in DAYS[20:26]:
        _, previous, tradable, chosen = ran.decided[day]
        assert "A" not in tradable
        assert chosen["A"] == previous["A"]
        at = list(DAYS).index(day)
        assert previous["A"] * ran.worth[at] / last == pytest.approx(
            ran.decided[DAYS[20]][1]["A"] * ran.worth[20] / last
        )
    assert not [1 for name, status, *_ in ran.orders if name == "A" and status == "Margin"]


def test_an_order_that_does_not_trade_on_the_next_bar_is_canceled():
    bars = market()
    bars["A"]["score"] = -99.0
    bars["A"].loc[DAYS[10], "score"] = 99.0  # bought the day before a suspension, and not after it
    bars["A"] = bars["A"].drop(DAYS[11:15])
    ran = run(bars)
    assert [status for name, status, *_ in ran.orders if name == "A"] == ["Canceled"]
    assert sizes(ran)["A"] == 0


def test_a_purchase_is_reduced_to_the_cash_where_a_sale_did_not_trade():
    bars = market(names=3)
    day = DAYS[10]
    for name, score in {"A": 3.0, "B": 2.0, "C": 1.0}.items():
        bars[name]["score"] = score
    bars["A"].loc[day:, "score"] = 0.0  # sold for C, but suspended on the next bar
    bars["A"] = bars["A"].drop(DAYS[11:14])
    ran = run(bars, commission=0.001, step=0.01)
    status, size = next((status, size) for name, status, size, _ in ran.orders if name == "C")
    assert status == "Canceled"  # what the cash did not pay for
    assert 0.02 < size * bars["C"].loc[DAYS[11], "open"] / 1e6 < 0.1  # of the 0.475 that were wanted
    assert ran.broker.getcash() >= 0
    assert "Margin" not in {status for _, status, *_ in ran.orders}


def test_without_a_cash_buffer_higher_opens_reduce_purchases_to_the_cash():
    bars = market(names=6)
    for frame in bars.values():
        frame["open"] *= 1.03
        frame["high"] *= 1.05
    ran = run(bars, cash_buffer=0.0, topk=3, commission=0.001, step=1)
    assert len(filled(ran)) > 50
    assert "Margin" not in {status for _, status, *_ in ran.orders}
    assert ran.broker.getcash() >= 0
    assert all(previous.sum() > 0.9 for _, previous, *_ in list(ran.decided.values())[1:])


@pytest.mark.parametrize("mode", MODES)
def test_bars_without_a_price_count_as_a_suspension_and_fill_nothing(mode):
    bars = market()
    bars["A"]["score"] = 99.0
    prices = ["open", "high", "low", "close"]
    bars["A"].loc[DAYS[20:26], prices] = np.nan
    bars["B"].loc[DAYS[0:40:3], prices] = np.nan
    gone = {name: frame[frame["close"].notna()] for name, frame in bars.items()}
    ran, same = run(bars, mode=mode), run(gone, mode=mode)
    assert np.isfinite(ran.broker.getcash())
    assert filled(ran) == filled(same)
    assert sizes(ran) == sizes(same)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("side", "score"), [("long", 99.0), ("long_short", -99.0)])
def test_a_delisted_feed_is_closed_at_its_last_close_less_the_haircut(mode, side, score):
    bars = market(names=5)
    bars["A"] = bars["A"].iloc[:30].assign(score=score)
    ran = run(bars, mode=mode, side=side, delisted_after=8, haircut=0.1)
    _, size, price = [row for row in filled(ran) if row[0] == "A"][-1]
    assert price == pytest.approx(bars["A"]["close"].iloc[-1] * (1 - 0.1 * np.sign(score)))
    assert np.sign(size) == -np.sign(score)
    assert sizes(ran)["A"] == 0
    assert "A" in ran.decided[DAYS[37]][1].index  # held until the eighth bar without it
    assert "A" not in ran.decided[DAYS[38]][3].index or ran.decided[DAYS[38]][3]["A"] != 0
    assert "A" not in ran.decided[DAYS[39]][1].index


def test_a_feed_that_trades_again_is_bought_again():
    bars = market()
    bars["A"] = bars["A"].drop(DAYS[20:40]).assign(score=99.0)
    ran = run(bars, delisted_after=5)
    assert "A" not in ran.decided[DAYS[30]][3].index
    assert "A" in ran.decided[DAYS[45]][3].index


@pytest.mark.parametrize("mode", MODES[1:])
def test_every_mode_of_the_engine_makes_the_same_trades(mode):
    bars = market(names=6)
    bars["A"] = bars["A"].iloc[12:]
    bars["B"] = bars["B"].iloc[:40]
    bars["C"] = bars["C"].drop(DAYS[20:24])
    settings = {
        "topk": 3,
        "every": 2,
        "delisted_after": 6,
        "weighting": "volatility_target",
        "commission": 0.001,
    }
    ran, same = run(bars, **settings), run(bars, mode=mode, **settings)
    assert ran.orders == same.orders
    assert len(ran.orders) > 50


def test_a_second_run_of_the_same_cerebro_makes_the_same_trades():
    cerebro = bt.Cerebro(stdstats=False)
    for name, frame in market().items():
        cerebro.adddata(SignalFeed(dataname=frame), name=name)
    cerebro.broker.setcash(1e6)
    cerebro.addstrategy(Planted, topk=2, every=1, cash_buffer=0.0)
    (once,), (twice,) = cerebro.run(), cerebro.run()
    assert len(once.orders) > 50
    assert once.orders == twice.orders
    assert cerebro.broker.p.filler is None


# Subclasses


def test_the_strategy_can_be_subclassed():
    class Mine(Planted):
        params = (("ceiling", 0.2),)

        def weights(self, signals, previous, tradable):
            return super().weights(signals, previous, tradable).clip(upper=self.p.ceiling)

        def signal_lines_for(self, data):
            return None if data._name == "A" else data

        def next(self):
            super().next()
            if len(self) == 5:
                self.buy(data=self.getdatabyname("A"), size=7)

    ran = run(market(), strategy=Mine)
    assert sizes(ran)["A"] == 7
    assert all("A" not in signals.index for signals, *_ in ran.decided.values())
    held = [previous for _, previous, *_ in ran.decided.values()][1:]
    assert max(previous.max() for previous in held) < 0.25


@pytest.mark.parametrize("mode", MODES[:2])
def test_the_strategy_trades_by_forecasts_of_a_real_checkpoint(mode):
    bars = {name: frame.drop(columns=["score", "volatility"]) for name, frame in market(names=4).items()}
    bars["D"] = bars["D"].iloc[15:]  # warm later than the others

    class Forecasting(Planted):
        params = (("rank_by", "expected_return"),)

    cerebro = bt.Cerebro(stdstats=False, **mode)
    for name, frame in bars.items():
        cerebro.adddata(bt.feeds.PandasData(dataname=frame), name=name)
    cerebro.broker.setcash(1e6)
    settings = {"lookback": 30, "horizon": 3, "samples": 2, "every": 10, "device": "cpu"}
    cerebro.addstrategy(Forecasting, topk=2, weighting="inverse_volatility", **settings)
    (ran,) = cerebro.run()
    assert list(ran.decided) == list(DAYS[29::10])
    rules = PortfolioRules(rank_by="expected_return", topk=2, weighting="inverse_volatility")
    for day, (signals, previous, tradable, chosen) in ran.decided.items():
        assert signals["expected_return"].notna().sum() == (3 if day < DAYS[45] else 4)
        assert (signals["age"].dropna() <= 5).all()
        pd.testing.assert_series_equal(chosen, target_weights(signals, previous, rules, tradable))
        assert len(chosen) == 2
    assert filled(ran)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"topk": 0}, "topk=0"),
        (
            {"rank_by": "sharpe"},
            "'A' have no line 'sharpe' to rank by; they have expected_return, volatility",
        ),
        ({"every": 0}, "every=0"),
        ({"delisted_after": 0}, "delisted_after=0"),
        ({"haircut": 1.0}, "haircut=1.0"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        run(market(), **settings)


@pytest.mark.parametrize("names", [("", "B"), ("A", "A")])
def test_feeds_need_unique_names(names):
    cerebro = bt.Cerebro(stdstats=False)
    for name in names:
        cerebro.adddata(SignalFeed(dataname=market()["A"]), name=name)
    cerebro.addstrategy(Planted)
    with pytest.raises(ValueError, match=r"needs a unique name.*name='AAPL'"):
        cerebro.run()


class Momentum(bt.Indicator):
    lines = ("score",)

    def __init__(self):
        self.lines.score = self.data.close / self.data.close(-1)


class OnDays(Planted):
    """Ranks by an indicator on resampled feeds, and runs on the bars that they are made of."""

    def signal_lines_for(self, data):
        return Momentum(data) if data._timeframe == bt.TimeFrame.Days else None


def test_resampled_feeds_are_traded_on_the_bars_that_complete_their_days():
    hours = pd.date_range("2024-01-01 10:00", periods=20 * 4, freq="6h")
    cerebro = bt.Cerebro()
    for name, bars in market(3, days=hours).items():
        feed = bt.feeds.PandasData(dataname=bars, timeframe=bt.TimeFrame.Minutes, compression=360)
        cerebro.adddata(feed, name=f"{name} 6h")
        cerebro.resampledata(feed, timeframe=bt.TimeFrame.Days, name=name)
    cerebro.addstrategy(OnDays, rank_by="score", topk=1, every=1)
    (strategy,) = cerebro.run()
    assert len(strategy.decided) >= 15
    assert all(list(tradable) == ["A", "B", "C"] for _, _, tradable, _ in strategy.decided.values())
    assert sum(size != 0 for _, _, size, _ in strategy.orders) > 10
