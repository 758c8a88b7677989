"""Bars of a feed as the model reads them: time zones, kinds of feeds, invalid bars."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES
from kronos_strategies.backtrader.feed_bars import FeedBars, PreloadedBars, time_zone_of, to_utc
from tests.kronos.builders import make_bars
from tests.kronos_strategies.backtrader.builders import (
    FIVE,
    Make,
    cerebro_of,
    kronos,
    pandas_feeds,
    record,
    run,
    session_bars,
)
from tests.kronos_strategies.backtrader.conftest import dates


def loaded(bars: pd.DataFrame, **options) -> bt.AbstractDataBase:
    cerebro = bt.Cerebro()
    feed = bt.feeds.PandasData(dataname=bars, **options)
    cerebro.adddata(feed, name="A")
    feed._start()
    feed.preload()
    return feed


def read(bars: pd.DataFrame, **options) -> FeedBars:
    feed = loaded(bars, **options)
    return FeedBars.read(feed, lambda line: line.array[: feed.buflen()])


def test_amount_is_volume_times_the_mean_price():
    bars = make_bars(10)
    values = read(bars).values
    np.testing.assert_allclose(values, bars[list(FEATURES)].to_numpy(np.float32), rtol=1e-6)


@pytest.mark.parametrize("price", [np.nan, np.inf, 0.0, -1.0])
def test_a_bar_without_four_finite_positive_prices_is_not_traded(price):
    bars = make_bars(10)
    bars.iloc[3, 1] = price
    found = read(bars)
    assert np.flatnonzero(~found.traded).tolist() == [3]
    assert len(found.utc) == 10
    assert len(found.values) == len(found.times) == 9


@pytest.mark.parametrize("volume", [np.nan, -5.0, np.inf])
def test_an_invalid_volume_counts_as_0(volume):
    bars = make_bars(10)
    bars.iloc[3, 4] = volume
    assert read(bars).values[3, 4:].tolist() == [0.0, 0.0]


def test_high_and_low_are_widened_to_contain_open_and_close():
    bars = make_bars(10)
    bars.iloc[3, :4] = [50.0, 49.0, 51.0, 52.0]
    assert read(bars).values[3, :4].tolist() == [50.0, 52.0, 49.0, 52.0]


def test_bars_are_copied_so_that_the_feed_can_grow():
    feed = loaded(make_bars(10))
    kept = FeedBars.read(feed, lambda line: line.array[:10])
    feed.forward(size=5)
    assert len(kept.utc) == 10


def test_times_are_in_the_time_zone_of_the_feed_before_and_after_clocks_change():
    utc = pd.DatetimeIndex(["2024-03-08 14:35", "2024-03-11 13:35"])
    times = read(make_bars(2).set_axis(utc), tz="America/New_York").times
    assert times.tolist() == [np.datetime64(t, "ns").item() for t in ("2024-03-08T09:35", "2024-03-11T09:35")]


def test_every_second_and_the_last_moment_of_a_day_survive_as_a_float_of_days():
    day = datetime(2024, 5, 6)
    seconds = [day + timedelta(seconds=s) for s in range(86_400)]
    moments = [day + timedelta(minutes=15 * i, microseconds=-10) for i in range(1, 97)]
    found = to_utc(np.array([bt.date2num(time) for time in (*seconds, *moments)]))
    np.testing.assert_array_equal(found[:86_400], np.array(seconds, "datetime64[ns]"))
    exact = np.array(moments, "datetime64[ns]")
    assert (found[86_400:] < exact + np.timedelta64(10, "us")).all()
    assert (exact - found[86_400:] < np.timedelta64(200, "us")).all()


def test_times_are_unique_in_an_hour_that_repeats_when_clocks_change():
    utc = pd.date_range("2024-11-03 05:00", periods=4, freq="30min")  # 01:00 and 01:30 in New York, twice
    feed = loaded(make_bars(4).set_axis(utc), tz="America/New_York", timeframe=bt.TimeFrame.Minutes)
    times = PreloadedBars(feed, "A", 2).times
    assert len(np.unique(times)) == 4
    np.testing.assert_array_equal(times[2:] - times[:2], np.timedelta64(100_000, "ns"))


def test_a_day_has_one_bar_whatever_time_it_is_stamped_with():
    stamped = make_bars(10).index + pd.Timedelta("15:00:00")
    feed = loaded(make_bars(10).set_axis(stamped))
    np.testing.assert_array_equal(
        PreloadedBars(feed, "A", 5).times, stamped.normalize().to_numpy("datetime64[ns]")
    )


def test_intraday_bars_keep_their_time_though_the_feed_calls_them_daily():
    bars = make_bars(50, start="2024-01-02 09:35", freq="5min")
    np.testing.assert_array_equal(
        PreloadedBars(loaded(bars), "A", 5).times, bars.index.to_numpy("datetime64[ns]")
    )


def test_a_second_bar_of_a_day_among_daily_ones_is_refused():
    index = make_bars(20).index.insert(15, pd.Timestamp(make_bars(20).index[14]) + pd.Timedelta("1h"))
    with pytest.raises(ValueError, match=r"feed 'A' has the timestamp .* twice"):
        PreloadedBars(loaded(make_bars(21).set_axis(index)), "A", 5)


ZONES = ["Asia/Shanghai", "America/New_York", "Australia/Sydney", "UTC", "+08:00"]


@pytest.mark.parametrize("mode", [{}, {"runonce": False}])
@pytest.mark.parametrize("zone", ZONES)
def test_daily_bars_of_a_frame_with_a_time_zone_are_dated_with_its_days(asked, zone, mode):
    bars = make_bars(40)
    aware = record(cerebro_of(pandas_feeds({"A": bars.tz_localize(zone)})), **mode)
    assert dates(asked[0])[0] == bars.index[19]
    assert (asked[0].future[0] == bars.index[20:23].to_numpy("datetime64[ns]")).all()
    np.testing.assert_array_equal(aware.to_numpy(), run({"A": bars}, **mode).to_numpy())


@pytest.mark.parametrize("zone", ZONES)
def test_intraday_bars_of_a_frame_with_a_time_zone_have_its_hours(asked, zone):
    wall = session_bars(4, 12)
    record(cerebro_of(pandas_feeds({"A": wall.tz_localize(zone)}, **FIVE)))
    assert np.unique(asked[0].stamps[:, :, 1]).tolist() == [9, 10]


def test_the_time_zone_of_a_datetime_column_is_used(asked):
    bars = make_bars(40).tz_localize("Asia/Shanghai").rename_axis("when").reset_index()
    record(cerebro_of({"A": bt.feeds.PandasData(dataname=bars, datetime="when")}))
    assert dates(asked[0])[0] == make_bars(40).index[19]


def test_tz_takes_precedence_over_the_time_zone_of_the_frame(asked):
    bars = session_bars(4, 12).tz_localize("America/New_York").tz_convert("UTC")
    record(cerebro_of(pandas_feeds({"A": bars}, tz="America/New_York", **FIVE)))
    assert np.unique(asked[0].stamps[:, :, 1]).tolist() == [9, 10]


def test_tzinput_is_used_where_no_other_time_zone_is_given(asked):
    record(cerebro_of(pandas_feeds({"A": session_bars(4, 12)}, tzinput="America/New_York", **FIVE)))
    assert np.unique(asked[0].stamps[:, :, 1]).tolist() == [9, 10]


def test_resampled_intraday_bars_keep_the_time_zone_of_the_frame(asked):
    cerebro = cerebro_of({})
    fine = bt.feeds.PandasData(dataname=session_bars(8, 12).tz_localize("America/New_York"), **FIVE)
    cerebro.adddata(fine, name="fine")
    cerebro.resampledata(fine, name="A", timeframe=bt.TimeFrame.Minutes, compression=10)
    record(cerebro, kronos())
    tens = [each for each in asked if "A" in each.index.get_level_values("instrument")]
    assert np.unique(np.concatenate([each.stamps[:, :, 1].ravel() for each in tens])).tolist() == [9, 10]


def test_days_that_backtrader_makes_without_tz_are_days_of_utc_with_a_warning(asked, caplog):
    cerebro = cerebro_of({})
    fine = bt.feeds.PandasData(dataname=session_bars(40, 4).tz_localize("Asia/Shanghai"), **FIVE)
    cerebro.resampledata(fine, name="A", timeframe=bt.TimeFrame.Days)
    with caplog.at_level(logging.WARNING):
        record(cerebro)
    assert "its days begin at midnight UTC" in caplog.text
    assert dates(asked[0])[0] == session_bars(40, 4).index[4 * 19].normalize()


def test_a_time_zone_unknown_to_backtrader_is_warned_of_once(caplog):
    with caplog.at_level(logging.WARNING):
        record(cerebro_of(pandas_feeds({"A": make_bars(30).tz_localize("Asia/Shanghai")})))
    assert [r.getMessage() for r in caplog.records if "tz='Asia/Shanghai'" in r.getMessage()] == [
        "Feed 'A' has no tz=: forecasts use the time zone of its data, Asia/Shanghai, but Backtrader shows and "
        "compares its times in UTC. Pass tz='Asia/Shanghai' to the feed."
    ]
    caplog.clear()
    record(cerebro_of(pandas_feeds({"A": make_bars(30)})))
    assert not caplog.records


def test_times_that_would_be_converted_twice_are_refused():
    bars = make_bars(30).tz_localize("Asia/Shanghai")
    with pytest.raises(ValueError, match="feed 'A' has the time zone Asia/Shanghai, and tzinput"):
        record(cerebro_of(pandas_feeds({"A": bars}, tzinput="Asia/Shanghai")))


def test_a_feed_without_any_time_zone_has_none():
    feed = bt.feeds.PandasData(dataname=pd.DataFrame(make_bars(3)))
    cerebro_of({"A": feed})
    feed._start()
    assert time_zone_of(feed) is None


NO_ONCE = {"runonce": False}


def daily(bars: pd.DataFrame) -> pd.DataFrame:
    rules = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    return bars.groupby(bars.index.normalize()).agg(rules)


@pytest.mark.parametrize("mode", [{}, NO_ONCE])
def test_daily_bars_of_a_file_that_are_stamped_just_before_midnight_are_of_their_day(
    tmp_path: Path, mode, asked
):
    bars = make_bars(40)
    path = tmp_path / "A.csv"
    bars.to_csv(path, float_format="%.17g")
    columns = {"dtformat": "%Y-%m-%d", "volume": 5, "openinterest": -1}
    feed = bt.feeds.GenericCSVData(dataname=str(path), **columns)
    table = record(cerebro_of({"A": feed}), **mode)
    assert dates(asked[0])[0] == bars.index[19]
    np.testing.assert_array_equal(table.to_numpy(), run({"A": bars}).to_numpy())


@pytest.mark.parametrize("mode", [{}, NO_ONCE])
def test_intraday_the_model_sees_the_hours_of_the_exchange(mode, asked):
    wall = session_bars(4, 12)
    utc = wall.set_axis(wall.index.tz_localize("America/New_York").tz_convert(None))
    zone = {"tz": "America/New_York", **FIVE}
    there = record(cerebro_of(pandas_feeds({"A": utc}, **zone)), **mode)
    hours = np.unique(asked[0].values.shape[0] and asked[0].stamps[:, :, 1])
    assert hours.tolist() == [9, 10]
    here = record(cerebro_of(pandas_feeds({"A": wall}, **FIVE)), **mode)
    pd.testing.assert_frame_equal(there, here, check_exact=True)


def test_future_intraday_timestamps_skip_nights_and_weekends(asked):
    bars = session_bars(6, 12)
    record(cerebro_of(pandas_feeds({"A": bars}, **FIVE)), kronos(every=1))
    windows = asked[0]
    friday = dates(windows) == pd.Timestamp("2024-03-08 10:30")
    expected = ["2024-03-11T09:35", "2024-03-11T09:40", "2024-03-11T09:45"]
    np.testing.assert_array_equal(windows.future[friday][0], np.array(expected, "datetime64[ns]"))


def test_future_timestamps_depend_on_no_later_bar(asked):
    bars = session_bars(6, 12)
    moved = bars.set_axis(bars.index.where(bars.index < "2024-03-07", bars.index + pd.Timedelta("61min")))
    for own in (bars, moved):
        record(cerebro_of(pandas_feeds({"A": own}, **FIVE)), kronos(every=1))
    before = dates(asked[0]) < "2024-03-07"
    np.testing.assert_array_equal(asked[0].future[before], asked[1].future[: before.sum()])
    assert not np.array_equal(asked[0].future, asked[1].future)


def test_future_days_come_from_the_trading_calendar(asked):
    bars = make_bars(25)
    cerebro = cerebro_of(pandas_feeds({"A": bars}))
    holiday = bars.index[20]
    cerebro.addcalendar(bt.TradingCalendar(holidays=[holiday.to_pydatetime()]))
    record(cerebro, kronos(every=10))
    assert asked[0].future[0, 0] == bars.index[21].to_datetime64()


def resampled(make: Make, replay: bool = False) -> bt.Cerebro:
    bars = session_bars(45, 4)
    cerebro = bt.Cerebro(stdstats=False)
    fine = bt.feeds.PandasData(dataname=bars, **FIVE)
    if not replay:
        cerebro.adddata(fine, name="fine")
    add = cerebro.replaydata if replay else cerebro.resampledata
    add(fine, name="A", timeframe=bt.TimeFrame.Days, compression=1)
    return cerebro


def test_resampled_bars_are_forecast_as_the_days_that_they_are():
    def make(data: bt.AbstractDataBase) -> bt.Indicator:
        return kronos(every=1)(data)

    table = record(resampled(make), make).xs("A", level="instrument")
    expected = run({"A": daily(session_bars(45, 4))}, kronos(every=1))
    assert len(table) >= 44  # the last day is over only when another begins
    np.testing.assert_array_equal(table.to_numpy(), expected.to_numpy()[: len(table)])


def test_a_resampled_feed_is_forecast_on_every_fifth_of_its_own_bars():
    table = record(resampled(kronos()), kronos()).xs("A", level="instrument")
    age = table["age"].dropna()
    np.testing.assert_array_equal(age, np.arange(len(table) - 19) % 5)


def test_under_replay_the_forecast_of_a_day_follows_its_ticks_and_ends_as_that_of_the_day(asked):
    table = record(resampled(kronos(), replay=True))
    days = table.droplevel("instrument").groupby(table.index.get_level_values("datetime").normalize())
    expected = run({"A": daily(session_bars(45, 4))})
    np.testing.assert_array_equal(days.last().to_numpy()[:44], expected.to_numpy()[:44])
    made = days["expected_return"].nunique()[expected["age"].to_numpy() == 0]
    assert (made.iloc[1:] == 4).all()
    assert (days["expected_return"].nunique()[expected["age"].to_numpy() > 0].iloc[1:] == 1).all()
