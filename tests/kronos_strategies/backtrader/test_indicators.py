"""KronosIndicator and KronosBand: values of their lines, which depend on past bars only."""

from __future__ import annotations

from pathlib import Path

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from kronos_strategies.backtrader import KronosBand, KronosIndicator, save_plot
from kronos_strategies.backtrader.indicators import BAND
from kronos_strategies.backtrader.lines import ALL_LINES, LINES
from kronos_strategies.lookahead import check_causal
from kronos_strategies.signal import summary
from tests.kronos.builders import make_bars, make_panel
from tests.kronos_strategies.backtrader.builders import (
    MODES,
    SETTINGS,
    awkward_panel,
    cerebro_of,
    kronos,
    pandas_feeds,
    record,
    run,
)

DAYS = make_bars(80).index


def of(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table.xs(name, level="instrument")


@pytest.fixture(scope="module")
def awkward() -> pd.DataFrame:
    return run(awkward_panel())


@pytest.mark.parametrize("mode", MODES)
def test_lines_are_bit_identical_in_every_mode(awkward, mode):
    pd.testing.assert_frame_equal(run(awkward_panel(), **MODES[mode]), awkward, check_exact=True)


def test_lines_are_the_models_forecasts_of_the_last_traded_bars():
    bars = make_bars(40)
    table = of(run({"AAA": bars}, kronos(every=1, level=0.5, calibration="none")), "AAA").dropna()
    predictor = KronosPredictor.from_pretrained("kronos-nano", device="cpu")
    windows = Windows.rolling({"AAA": bars}, SETTINGS["lookback"], SETTINGS["horizon"], "B")
    forecast = predictor.forecast(windows, predictor.sampling.with_overrides(4, None, None, None, 0))
    assert len(table) == len(forecast) == 21
    figures = summary(forecast).droplevel("instrument")
    for name in ("expected_return", "volatility", "prob_up"):
        np.testing.assert_allclose(table[name], figures[name], rtol=1e-12)
    ends = forecast.path("close")[:, :, -1].astype(float)
    np.testing.assert_allclose(table["forecast_close"], ends.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(table["lower"], np.quantile(ends, 0.25, axis=1, method="weibull"), rtol=1e-12)
    np.testing.assert_allclose(table["upper"], np.quantile(ends, 0.75, axis=1, method="weibull"), rtol=1e-12)
    assert (table["age"] == 0).all()


def test_between_forecasts_lines_hold_and_age_counts(awkward):
    whole = of(awkward, "WHOLE")
    assert whole["age"].iloc[:19].isna().all()
    np.testing.assert_array_equal(whole["age"].iloc[19:], np.arange(61) % 5)
    held = whole[list(LINES)].iloc[19:79].to_numpy().reshape(12, 5, -1)
    np.testing.assert_array_equal(held, np.repeat(held[:, :1], 5, axis=1))
    assert (np.diff(held[:, 0, 0]) != 0).all()


@pytest.mark.parametrize("name", ["WHOLE", "LATE", "GAPS", "OVER"])
def test_each_feed_is_forecast_on_every_fifth_of_its_own_bars(awkward, name):
    age = of(awkward, name)["age"]
    assert age.iloc[:19].isna().all()
    np.testing.assert_array_equal(age.iloc[19:], np.arange(len(age) - 19) % 5)


def test_a_feed_without_prices_on_the_bar_of_its_forecast_is_forecast_on_the_next_with_prices(awkward):
    holes = of(awkward, "HOLES")
    assert holes["age"].iloc[[20, 24, 29, 31, 34, 39]].tolist() == [0, 0, 0, 2, 0, 0]
    bars = make_bars(50)
    bars.iloc[[24, 25], :4] = np.nan
    age = of(run({"A": bars}), "A")["age"]
    np.testing.assert_array_equal(age.iloc[23:31], [4, np.nan, np.nan, 0, 1, 2, 0, 1])


def test_a_bar_without_prices_has_no_forecast_and_does_not_end_the_last_one(awkward):
    holes = of(awkward, "HOLES")
    assert holes.loc[[DAYS[30], DAYS[40], DAYS[41]]].isna().all(axis=None)
    assert holes.loc[DAYS[31], "expected_return"] == holes.loc[DAYS[29], "expected_return"]
    assert holes.loc[DAYS[31], "age"] == 2
    assert holes["age"].first_valid_index() == DAYS[20]  # one hole in the first 20 bars


def test_a_missing_volume_counts_as_zero(awkward):
    holes = of(awkward, "HOLES")
    assert np.isfinite(holes.loc[[DAYS[33], DAYS[50]]]).all(axis=None)


def test_a_feed_shorter_than_the_lookback_has_nan_lines(awkward):
    short = of(awkward, "SHORT")
    assert len(short) == 15
    assert short.isna().all(axis=None)


def test_a_forecast_does_not_depend_on_the_other_feeds(awkward):
    panel = awkward_panel()
    alone = run({"WHOLE": panel["WHOLE"]})
    pd.testing.assert_frame_equal(of(alone, "WHOLE"), of(awkward, "WHOLE"), check_exact=True)


@pytest.mark.parametrize("mode", [{}, {"runonce": False}])
def test_lines_depend_on_no_later_bar(mode):
    parts = [
        bars.assign(instrument=name, datetime=bars.index) for name, bars in make_panel(60, *"AB").items()
    ]

    def lines(tidy: pd.DataFrame) -> pd.DataFrame:
        return run(
            {str(name): bars.set_index("datetime") for name, bars in tidy.groupby("instrument")}, **mode
        )

    check_causal(lines, pd.concat(parts, ignore_index=True), [DAYS[31], DAYS[44]], rtol=0)


@pytest.mark.parametrize("mode", [{}, {"runonce": False}])
def test_truncating_the_data_changes_no_earlier_line(awkward, mode):
    cut = {name: bars[bars.index <= DAYS[52]] for name, bars in awkward_panel().items()}
    earlier = awkward[awkward.index.get_level_values("datetime") <= DAYS[52]]
    pd.testing.assert_frame_equal(run(cut, **mode), earlier, check_exact=True)


@pytest.mark.parametrize("hours", [3, 0])
@pytest.mark.parametrize("mode", [{}, {"runonce": False}])
def test_feeds_whose_bars_come_at_other_times_are_forecast_as_they_are_alone(mode, hours):
    panel = make_panel(60, *"AB")
    panel["B"].index += pd.Timedelta(hours=hours)
    together = run(panel, **mode)
    for name, bars in panel.items():
        pd.testing.assert_frame_equal(of(together, name), of(run({name: bars}), name), check_exact=True)


class Lagging(bt.feeds.PandasData):
    """A live feed that delivers each bar some polls late."""

    params = (("lag", 1),)

    def islive(self):
        return True

    def _load(self):
        self.polls = getattr(self, "polls", 0) + 1
        return (
            None
            if self.polls % (self.p.lag + 1) and self._idx + 1 < len(self.p.dataname)
            else super()._load()
        )


@pytest.mark.parametrize("lag", [1, 2, 5])
def test_a_live_feed_that_delivers_late_changes_no_line(lag):
    panel = make_panel(60, *"AB")
    feeds = pandas_feeds(panel) | {"B": Lagging(dataname=panel["B"], lag=lag)}
    late = record(cerebro_of(feeds)).sort_index()
    pd.testing.assert_frame_equal(late, run(panel).sort_index(), check_exact=True)


def test_a_feed_alone_is_forecast_bar_by_bar_as_it_is_all_at_once():
    bars = make_bars(220)
    once = run({"A": bars}, kronos(every=1, samples=2))
    pd.testing.assert_frame_equal(
        run({"A": bars}, kronos(every=1, samples=2), runonce=False), once, check_exact=True
    )


class WithRatio(KronosIndicator):
    """Backtrader's recipe: one more line, made of the others when the indicator is made."""

    lines = ("ratio",)

    def __init__(self):
        super().__init__()
        self.lines.ratio = self.lines.expected_return / self.lines.volatility


class WithRatioBarByBar(KronosIndicator):
    """Backtrader's other recipe: one more line, written bar by bar."""

    lines = ("ratio",)

    def next(self):
        super().next()
        self.lines.ratio[0] = self.lines.expected_return[0] / self.lines.volatility[0]


class AfterAnother(bt.Indicator):
    lines = ("first",)


class WithRatioOfTwo(AfterAnother, WithRatio):
    """Derived from two indicators; the other one has the first line."""


@pytest.mark.parametrize("mode", [{}, *MODES.values()])
@pytest.mark.parametrize("kind", [WithRatio, WithRatioBarByBar, WithRatioOfTwo])
def test_a_derived_indicator_has_the_lines_of_its_base_and_its_own(awkward, kind, mode):
    panel = awkward_panel()
    del panel["SHORT"]  # with runonce Backtrader's own arithmetic fails on feeds shorter than its warm-up
    awkward = awkward.drop("SHORT", level="instrument")
    table = run(panel, lambda data: kind(data, **SETTINGS), **mode)
    pd.testing.assert_frame_equal(table[list(ALL_LINES)], awkward, check_exact=True)
    ratio = (awkward["expected_return"] / awkward["volatility"]).rename("ratio")
    pd.testing.assert_series_equal(table["ratio"], ratio, check_exact=True)
    assert ratio.notna().any()


def test_runonce_calls_the_model_once_for_all_feeds_and_bars(asked):
    run(make_panel(60, *"ABC"))
    assert [len(windows) for windows in asked] == [3 * 9]


def test_bar_by_bar_the_model_is_called_once_per_forecast_for_all_feeds(asked):
    run(make_panel(60, *"ABC"), runonce=False)
    assert [len(windows) for windows in asked] == [3] * 9


def test_a_second_run_does_not_call_the_model_even_for_another_band(asked):
    cerebro = cerebro_of(pandas_feeds(make_panel(40, "A")))
    record(cerebro)
    calls = len(asked)
    cerebro.strats.clear()
    cerebro.addstrategy(bt.Strategy)
    cerebro.addindicator(KronosIndicator, level=0.5, **SETTINGS)
    cerebro.run()
    assert len(asked) == calls == 1


@pytest.mark.parametrize("mode", [{}, {"runonce": False}])
def test_a_store_is_reused_in_every_mode(tmp_path, asked, mode):
    panel = awkward_panel()
    first = run(panel, kronos(store=str(tmp_path)))
    calls = len(asked)
    pd.testing.assert_frame_equal(run(panel, kronos(store=str(tmp_path)), **mode), first, check_exact=True)
    assert len(asked) == calls > 0
    pd.testing.assert_frame_equal(run(panel), first, check_exact=True)


@pytest.mark.parametrize("name", ["A", ""])
def test_feeds_with_the_same_name_or_none_get_unique_names(asked, tmp_path, name):
    cerebro = bt.Cerebro(stdstats=False)
    for bars in make_panel(30, "A", "B").values():
        cerebro.adddata(bt.feeds.PandasData(dataname=bars), name=name)
    record(cerebro, kronos(store=str(tmp_path)))
    names = asked[0].index.get_level_values("instrument").unique()
    assert list(names) == (["A", "A#1"] if name else ["data0", "data1"])


def test_several_indicators_of_one_feed_keep_their_own_settings():
    class Two(bt.Strategy):
        def __init__(self):
            self.near = kronos()(self.data)
            self.far = kronos(horizon=6, level=0.5)(self.data)

    cerebro = cerebro_of(pandas_feeds(make_panel(40, "A")))
    cerebro.addstrategy(Two)
    strategy = cerebro.run()[0]
    for own, settings in ((strategy.near, {}), (strategy.far, {"horizon": 6, "level": 0.5})):
        expected = run(make_panel(40, "A"), kronos(**settings))
        got = np.array([line.array for line in own.lines]).T
        np.testing.assert_array_equal(got, expected.to_numpy())


@pytest.mark.parametrize("mode", [{}, {"runonce": False}])
def test_other_indicators_can_read_the_indicator(mode):
    class Crossing(bt.Indicator):
        lines = ("gap",)

        def __init__(self):
            own = kronos()(self.data)
            self.lines.gap = bt.ind.SMA(own.forecast_close, period=3) - self.data.close

    bars = make_bars(50)
    gap = run({"A": bars}, lambda data: Crossing(data), **mode)["gap"].to_numpy()
    forecast = run({"A": bars})["forecast_close"]
    expected = forecast.rolling(3).mean().to_numpy() - bars["close"].to_numpy()
    np.testing.assert_allclose(gap[21:], expected[21:], rtol=1e-9)
    assert np.isnan(gap[:21]).all()


@pytest.mark.parametrize(
    "wrong", [lambda data: data.close, lambda data: bt.ind.SMA(data), lambda data: make_bars(3)]
)
def test_data_that_is_not_a_feed_is_refused(wrong):
    with pytest.raises(TypeError, match="reads the bars of a feed"):
        run({"A": make_bars(30)}, lambda data: KronosIndicator(wrong(data)))


def test_a_run_that_keeps_too_few_bars_is_refused():
    with pytest.raises(ValueError, match="exactbars=1"):
        run({"A": make_bars(30)}, exactbars=1)


@pytest.mark.parametrize("mode", [{}, {"runonce": False}])
@pytest.mark.parametrize(
    ("order", "message"),
    [([*range(30), 29, *range(30, 40)], "twice"), ([*range(30), 31, 30], "not sorted")],
)
def test_bars_out_of_order_are_refused(mode, order, message):
    with pytest.raises(ValueError, match=f"feed 'A'.*{message}"):
        run({"A": make_bars(60).iloc[order]}, kronos(every=1), **mode)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lookback": 1}, "lookback=1"),
        ({"horizon": 0}, "horizon=0"),
        ({"every": 0}, "every=0"),
        ({"level": 1.0}, "level=1.0"),
        ({"samples": 0}, "samples=0"),
        ({"T": -1.0}, "T=-1.0"),
        ({"model": None}, "model is a NoneType"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        run({"A": make_bars(30)}, kronos(**setting))


def test_an_unknown_model_is_refused_before_anything_is_forecast(asked):
    with pytest.raises(ValueError, match=r"'\./no-such-folder' is not a folder"):
        run({"A": make_bars(30)}, kronos(model="./no-such-folder"))
    assert not asked


def test_an_indicator_outside_a_strategy_is_refused():
    with pytest.raises(ValueError, match="does not belong to a strategy"):
        KronosIndicator(bt.feeds.PandasData(dataname=make_bars(30)))


def test_the_lines_of_the_indicator_are_those_of_the_public_contract():
    assert KronosIndicator.lines.getlinealiases() == ALL_LINES
    assert ALL_LINES[:7] == (
        *("expected_return", "volatility", "prob_up", "forecast_close", "lower", "upper", "max_drawdown"),
    )


def band(data: bt.AbstractDataBase) -> bt.Indicator:
    return KronosBand(data, **SETTINGS)


@pytest.mark.parametrize("mode", [{}, *MODES.values()], ids=["runonce", *MODES])
def test_a_bar_shows_the_forecast_made_one_horizon_before(mode):
    shown = run(awkward_panel(), band, **mode)
    known = run(awkward_panel())[list(BAND)]
    for name in awkward_panel():
        own, later = (table.xs(name, level="instrument").to_numpy() for table in (known, shown))
        np.testing.assert_array_equal(later[3:], own[:-3])
        assert np.isnan(later[:3]).all()


def test_the_band_shares_the_forecasts_of_the_indicator(asked):
    class Both(bt.Strategy):
        def __init__(self):
            self.k, self.b = kronos()(self.data), KronosBand(self.data, **SETTINGS | {"level": 0.5})

    cerebro = cerebro_of(pandas_feeds({"A": make_bars(42)}))
    cerebro.addstrategy(Both)
    cerebro.run()
    assert sum(len(windows) for windows in asked) <= 5


def test_the_band_does_not_delay_the_strategy():
    started = []

    class Plotted(bt.Strategy):
        def __init__(self):
            KronosBand(self.data, **SETTINGS)

        def nextstart(self):
            started.append(len(self))

    cerebro = cerebro_of(pandas_feeds({"A": make_bars(42)}))
    cerebro.addstrategy(Plotted)
    cerebro.run()
    assert started == [SETTINGS["lookback"]]


def filled(path: Path) -> int:
    """How many pixels of a picture have the color of the band, 12 % of #0072B2 on white."""
    image = pytest.importorskip("matplotlib.image").imread(path)[..., :3]
    return int((np.abs(image * 255 - (224, 238, 246)) <= 1.5).all(axis=-1).sum())


@pytest.mark.parametrize("mode", [{}, {"exactbars": -2}])
def test_a_picture_shows_the_filled_band_without_a_display(tmp_path, mode):
    class Plotted(bt.Strategy):
        params = (("band", True),)

        def __init__(self):
            if self.p.band:
                KronosBand(self.data, **SETTINGS | {"every": 1})
            kronos()(self.data)

    found = []
    for drawn in (True, False):
        cerebro = cerebro_of(pandas_feeds({"A": make_bars(60)}))
        cerebro.addstrategy(Plotted, band=drawn)
        found.append(filled(save_plot(cerebro.run(**mode)[0], tmp_path / "new" / f"{drawn}.png")))
    assert found[0] > 20_000
    assert found[1] < found[0] / 100  # what edges of other blue lines have in common with it


def test_a_strategy_without_bars_is_not_drawn():
    cerebro = cerebro_of(pandas_feeds({"A": make_bars(10)}, fromdate=pd.Timestamp("2030-01-01")))
    cerebro.addstrategy(bt.Strategy)
    with pytest.raises(ValueError, match="has no bars"):
        save_plot(cerebro.run()[0], "unused.png")
