"""Timestamps of future bars of feeds: their periods, trading calendars of Backtrader and of exchanges."""

from __future__ import annotations

from datetime import datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from kronos_strategies.backtrader.sessions import feed_predictor
from tests.kronos.builders import make_bars
from tests.kronos.test_timetable import BUSINESS, MARKETS, copper, globex, shanghai
from tests.kronos_strategies.backtrader.builders import FIVE, MODES, cerebro_of, kronos, pandas_feeds, record


def after(seen: pd.DatetimeIndex, horizon: int, timeframe: int = bt.TimeFrame.Days, calendar=None):
    ahead = feed_predictor(timeframe, 1, None, calendar)
    ahead.update(seen[:-1].to_numpy("datetime64[ns]"))
    return [str(pd.Timestamp(time)) for time in ahead.predict(seen.to_numpy("datetime64[ns]")[-1], horizon)]


def walk(times: pd.DatetimeIndex, at: list[str], horizon: int, calendar, zone=None) -> dict[str, list[str]]:
    """Predictions after some of the bars, each from all bars before it."""
    stamps, seen, found = times.to_numpy("datetime64[ns]"), 0, {}
    step = int(np.median(np.diff(stamps).astype(np.int64)))
    ahead = feed_predictor(bt.TimeFrame.Minutes, 1, step, calendar, zone)
    for time_ in at:
        row = int(np.searchsorted(stamps, np.datetime64(time_)))
        assert stamps[row] == np.datetime64(time_), time_
        ahead.update(stamps[seen:row])
        seen = row
        found[time_] = [str(pd.Timestamp(each)) for each in ahead.predict(stamps[row], horizon)]
    return found


def test_holidays_of_a_trading_calendar_are_skipped():
    calendar = bt.TradingCalendar(holidays=[pd.Timestamp("2024-03-04").to_pydatetime()])
    found = after(pd.bdate_range(end="2024-03-01", periods=10), 2, calendar=calendar)
    assert found == ["2024-03-05 00:00:00", "2024-03-06 00:00:00"]


@pytest.mark.parametrize(
    ("timeframe", "expected"),
    [
        (bt.TimeFrame.Weeks, ["2024-03-08 00:00:00", "2024-03-15 00:00:00"]),
        (bt.TimeFrame.Months, ["2024-04-01 00:00:00", "2024-05-01 00:00:00"]),
        (bt.TimeFrame.Years, ["2025-03-01 00:00:00", "2026-03-01 00:00:00"]),
    ],
)
def test_longer_bars_continue_by_their_period(timeframe, expected):
    assert after(pd.DatetimeIndex(["2024-02-23", "2024-03-01"]), 2, timeframe) == expected


def test_holidays_of_a_calendar_are_skipped_by_intraday_bars():
    calendar = bt.TradingCalendar(holidays=[datetime(2024, 2, 5)])
    found = walk(shanghai(), ["2024-02-02 14:55"], 2, calendar=calendar)
    assert found["2024-02-02 14:55"] == ["2024-02-02 15:00:00", "2024-02-06 09:35:00"]


@pytest.mark.parametrize(("shift", "last"), [(0, "13:00:00"), (-5, "12:55:00")])
def test_early_closes_of_a_calendar_hold_for_bars_stamped_with_their_end_or_start(shift, last):
    early = [(datetime(2024, 2, 2).date(), time(9, 30), time(13, 0))]
    calendar = bt.TradingCalendar(open=time(9, 30), close=time(16, 0), earlydays=early)
    times = MARKETS["XNYS"] + pd.Timedelta(minutes=shift)
    start = str(pd.Timestamp("2024-02-01 16:00") + pd.Timedelta(minutes=shift))
    found = walk(times, [start], 80, calendar=calendar)[start]
    friday = [each for each in found if each.startswith("2024-02-02")]
    assert friday[-1] == f"2024-02-02 {last}"
    assert len(friday) == 42
    assert found[42] == str(pd.Timestamp("2024-02-05 09:35") + pd.Timedelta(minutes=shift))


class Overnight(bt.TradingCalendarBase):
    """Opens at 17:00 in Chicago the evening before, with times in UTC, as in exchange calendars."""

    zone = ZoneInfo("America/Chicago")

    def _nextday(self, day):
        day += timedelta(days=1)
        while day.weekday() > 4 or day.date() == datetime(2024, 2, 19).date():
            day += timedelta(days=1)
        return day, day.isocalendar()

    def schedule(self, day, tz=None):
        start = datetime.combine(day.date(), time(17), self.zone) - timedelta(days=1)
        end = datetime.combine(day.date(), time(16), self.zone)
        return [each.astimezone(timezone.utc).replace(tzinfo=None) for each in (start, end)]


def test_a_calendar_whose_sessions_open_the_evening_before_is_honored():
    times = globex([day for day in BUSINESS if day != pd.Timestamp("2024-02-19")])
    at = ["2024-02-16 15:55", "2024-02-15 16:00"]
    options = {"calendar": Overnight(), "zone": Overnight.zone}
    assert walk(times, at[:1], 2, **options)[at[0]] == ["2024-02-16 16:00:00", "2024-02-19 17:05:00"]
    assert walk(times, at[1:], 1, **options)[at[1]] == ["2024-02-15 17:05:00"]


def test_before_hours_are_learned_a_calendar_keeps_steps_within_the_session():
    calendar = bt.TradingCalendar(open=time(9, 30), close=time(16, 0))
    found = walk(MARKETS["XNYS"], ["2024-01-01 15:55"], 3, calendar=calendar)
    assert found["2024-01-01 15:55"] == ["2024-01-01 16:00:00", "2024-01-02 09:35:00", "2024-01-02 09:40:00"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("market", ["night session", "FX"])
def test_lines_are_bit_identical_in_every_mode_over_nights_and_weekends(market, mode):
    index = MARKETS[market][:700] if market == "FX" else MARKETS[market][-500:]
    panel = {"A": make_bars(len(index)).set_axis(index)}

    def lines(**options):
        feeds = pandas_feeds(panel, timeframe=bt.TimeFrame.Minutes, compression=60 if market == "FX" else 5)
        return record(cerebro_of(feeds), kronos(every=10), **options)

    pd.testing.assert_frame_equal(lines(**MODES[mode]), lines(), check_exact=True)


def test_removing_later_bars_changes_nothing_before_them(asked):
    for count in (600, 450):
        index = copper()[:count]
        feeds = pandas_feeds(
            {"A": make_bars(600).iloc[:count].set_axis(index)}, timeframe=bt.TimeFrame.Minutes
        )
        record(cerebro_of(feeds), kronos(every=10))
    short = asked[1]
    np.testing.assert_array_equal(asked[0].future[: len(short)], short.future)


# Exchanges


@pytest.fixture
def exchanges() -> None:
    pytest.importorskip("exchange_calendars", reason="needs the extra 'calendars'")


@pytest.mark.usefixtures("exchanges")
def test_holidays_of_an_exchange_are_skipped():
    times = shanghai(pd.bdate_range("2024-09-02", "2024-09-30"))
    assert walk(times, ["2024-09-30 14:55"], 2, "XSHG")["2024-09-30 14:55"] == [
        "2024-09-30 15:00:00",
        "2024-10-08 09:35:00",
    ]
    days = pd.bdate_range("2024-09-02", "2024-09-30")
    assert after(days, 1, calendar="XSHG") == ["2024-10-08 00:00:00"]


@pytest.mark.usefixtures("exchanges")
@pytest.mark.parametrize("zone", ["America/New_York", "UTC", "Asia/Shanghai"])
def test_an_exchange_opens_at_its_own_time_in_every_zone_of_a_feed(zone):
    new_york = MARKETS["XNYS"].tz_localize("America/New_York")
    holidays = pd.DatetimeIndex(["2024-01-01", "2024-01-15", "2024-02-19"], tz="America/New_York")
    new_york = new_york[~new_york.normalize().isin(holidays)]
    times = new_york.tz_convert(zone).tz_localize(None)
    at = [
        str(pd.Timestamp(local, tz="America/New_York").tz_convert(zone).tz_localize(None))
        for local in ("2024-02-16 16:00", "2024-03-08 16:00", "2024-03-11 12:00")
    ]
    for last, found in walk(times, at, 100, "XNYS", ZoneInfo(zone)).items():
        expected = times[times > pd.Timestamp(last)]
        assert found == [str(each) for each in expected[:100]]


@pytest.mark.usefixtures("exchanges")
def test_an_exchange_takes_precedence_over_the_calendar_of_the_feed(asked):
    index = shanghai(pd.bdate_range("2024-09-25", "2024-09-30"))
    panel = {"A": make_bars(len(index)).set_axis(index)}
    for calendar, expected in (("XSHG", "2024-10-08"), ("", "2024-10-01"), (None, "2024-10-01")):
        cerebro = cerebro_of(pandas_feeds(panel, **FIVE))
        cerebro.addcalendar(bt.TradingCalendar())
        record(cerebro, kronos(every=1, calendar=calendar))
        windows = asked[-1]
        assert windows.index.get_level_values("datetime")[-1] == index[-1]
        assert str(windows.future[-1, 0])[:10] == expected


@pytest.mark.usefixtures("exchanges")
@pytest.mark.parametrize("mode", MODES)
def test_lines_are_bit_identical_in_every_mode_with_an_exchange(mode):
    index = shanghai(pd.bdate_range("2024-09-18", "2024-09-30"))
    panel = {"A": make_bars(len(index)).set_axis(index)}

    def lines(**options):
        return record(cerebro_of(pandas_feeds(panel, **FIVE)), kronos(every=10, calendar="XSHG"), **options)

    pd.testing.assert_frame_equal(lines(**MODES[mode]), lines(), check_exact=True)


@pytest.mark.usefixtures("exchanges")
def test_an_unknown_exchange_is_refused_before_the_run():
    panel = {"A": make_bars(30)}
    with pytest.raises(ValueError, match=r"calendar='XXXX' is not an exchange"):
        record(cerebro_of(pandas_feeds(panel)), kronos(calendar="XXXX"))
