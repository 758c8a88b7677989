"""Feeds of every kind that Backtrader has: readers of files, time zones, resampled and replayed bars."""

from pathlib import Path

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from tests.kronos.builders import make_bars
from tests.kronos_strategies.backtrader.builders import Make, cerebro_of, kronos, pandas_feeds, record, run
from tests.kronos_strategies.backtrader.conftest import dates

FIVE = {"timeframe": bt.TimeFrame.Minutes, "compression": 5}
NO_ONCE = {"runonce": False}


def session_bars(days: int, per_day: int, seed: int = 0) -> pd.DataFrame:
    """Five-minute bars of business days from 09:35."""
    first = pd.bdate_range("2024-03-04", periods=days)
    index = pd.DatetimeIndex(
        [day + pd.Timedelta(minutes=575 + 5 * i) for day in first for i in range(per_day)]
    )
    return make_bars(len(index), seed).set_axis(index)


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
def test_within_the_day_the_model_sees_the_exchanges_hours(mode, asked):
    wall = session_bars(4, 12)
    utc = wall.set_axis(wall.index.tz_localize("America/New_York").tz_convert(None))
    zone = {"tz": "America/New_York", **FIVE}
    there = record(cerebro_of(pandas_feeds({"A": utc}, **zone)), **mode)
    hours = np.unique(asked[0].values.shape[0] and asked[0].stamps[:, :, 1])
    assert hours.tolist() == [9, 10]
    here = record(cerebro_of(pandas_feeds({"A": wall}, **FIVE)), **mode)
    pd.testing.assert_frame_equal(there, here, check_exact=True)


def test_times_ahead_within_the_day_leave_out_night_and_weekend(asked):
    bars = session_bars(6, 12)
    record(cerebro_of(pandas_feeds({"A": bars}, **FIVE)), kronos(every=1))
    windows = asked[0]
    friday = dates(windows) == pd.Timestamp("2024-03-08 10:30")
    expected = ["2024-03-11T09:35", "2024-03-11T09:40", "2024-03-11T09:45"]
    np.testing.assert_array_equal(windows.future[friday][0], np.array(expected, "datetime64[ns]"))


def test_times_ahead_come_from_no_later_bar(asked):
    bars = session_bars(6, 12)
    moved = bars.set_axis(bars.index.where(bars.index < "2024-03-07", bars.index + pd.Timedelta("61min")))
    for own in (bars, moved):
        record(cerebro_of(pandas_feeds({"A": own}, **FIVE)), kronos(every=1))
    before = dates(asked[0]) < "2024-03-07"
    np.testing.assert_array_equal(asked[0].future[before], asked[1].future[: before.sum()])
    assert not np.array_equal(asked[0].future, asked[1].future)


def test_a_trading_calendar_is_asked_for_the_days_ahead(asked):
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
