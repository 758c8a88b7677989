"""Timestamps of future bars, from a named exchange, trading timestamps, or the bars alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import kronos
from kronos import future_timestamps
from tests.kronos.builders import make_bars

CHINA = (("09:35", "11:30"), ("13:05", "15:00"))
NEW_YORK = (("09:35", "16:00"),)


def bars_of(days: pd.DatetimeIndex, *spans: tuple[str, str], freq: str = "5min", zone: str | None = None):
    """Timestamps within spans of each day, both ends included."""
    parts = [
        pd.date_range(f"{day.date()} {first}", f"{day.date()} {last}", freq=freq)
        for day in days
        for first, last in spans
    ]
    return parts[0].append(parts[1:]).tz_localize(zone)


def china(first: str, last: str, until: str | None = None) -> pd.DatetimeIndex:
    times = bars_of(pd.bdate_range(first, last), *CHINA)
    return times if until is None else times[times <= until]


def text(times: pd.DatetimeIndex) -> list[str]:
    return [str(time) for time in times]


@pytest.fixture
def exchanges() -> None:
    pytest.importorskip("exchange_calendars", reason="needs the extra 'calendars'")


# A-shares


@pytest.mark.usefixtures("exchanges")
@pytest.mark.parametrize("calendar", ["XSHG", None])
def test_a_share_bars_pass_lunch_night_and_weekend(calendar):
    lunch = future_timestamps(china("2024-09-02", "2024-09-12", "2024-09-12 11:25"), 2, calendar)
    assert text(lunch) == ["2024-09-12 11:30:00", "2024-09-12 13:05:00"]
    night = future_timestamps(china("2024-09-02", "2024-09-12", "2024-09-12 14:55"), 2, calendar)
    assert text(night) == ["2024-09-12 15:00:00", "2024-09-13 09:35:00"]
    weekend = future_timestamps(china("2024-08-26", "2024-09-06"), 2, calendar)
    assert text(weekend) == ["2024-09-09 09:35:00", "2024-09-09 09:40:00"]


@pytest.mark.usefixtures("exchanges")
def test_a_share_bars_pass_national_day_only_with_a_calendar():
    bars = china("2024-09-18", "2024-09-30")
    assert text(future_timestamps(bars, 49, "XSHG"))[::48] == ["2024-10-08 09:35:00", "2024-10-09 09:35:00"]
    assert text(future_timestamps(bars, 1)) == ["2024-10-01 09:35:00"]


@pytest.mark.usefixtures("exchanges")
@pytest.mark.parametrize("count", [3, 10, 40, 60])
def test_a_calendar_gives_the_hours_that_a_few_bars_do_not_show(count):
    whole = china("2024-09-25", "2024-10-11").drop(
        bars_of(pd.bdate_range("2024-10-01", "2024-10-07"), *CHINA)
    )
    for end in (100, 150, 193):
        found = future_timestamps(whole[end - count : end], 100, "XSHG")
        pd.testing.assert_index_equal(found, whole[end : end + 100], exact=False)


@pytest.mark.usefixtures("exchanges")
@pytest.mark.parametrize("calendar", ["XSHG", None])
def test_real_a_share_bars_come_when_they_are_expected(shared_data: Path, calendar):
    bars = pd.read_parquet(shared_data / "sh600977_5min_2024.parquet")
    index = pd.DatetimeIndex(bars["datetime"])
    for end in np.random.default_rng(0).integers(400, len(index) - 120, 20):
        found = future_timestamps(index[end - 400 : end], 120, calendar)
        np.testing.assert_array_equal(found.to_numpy(), index[end : end + 120].to_numpy())


# The United States


@pytest.mark.usefixtures("exchanges")
@pytest.mark.parametrize("zone", ["America/New_York", "UTC", "Asia/Shanghai", None])
@pytest.mark.parametrize("friday", ["2024-03-08", "2024-11-01"])
def test_american_bars_keep_their_local_time_across_daylight_saving_time(friday, zone):
    bars = bars_of(pd.bdate_range(end=friday, periods=8), *NEW_YORK, zone="America/New_York")
    following = bars_of(pd.bdate_range(friday, periods=3)[1:], *NEW_YORK, zone="America/New_York")
    bars, following = (
        each.tz_convert(zone) if zone else each.tz_localize(None) for each in (bars, following)
    )
    found = future_timestamps(bars, len(following), "XNYS")
    pd.testing.assert_index_equal(found, following, exact=False)
    assert str(found.tz) == str(bars.tz)


@pytest.mark.usefixtures("exchanges")
@pytest.mark.parametrize(("shift", "last"), [("0min", "13:00"), ("-5min", "12:55")])
def test_the_day_after_thanksgiving_ends_at_one(shift, last):
    days = pd.bdate_range("2024-11-18", "2024-11-27")
    found = future_timestamps(bars_of(days, *NEW_YORK) + pd.Timedelta(shift), 43, "XNYS")
    first = pd.Timestamp("2024-11-29 09:35") + pd.Timedelta(shift)
    assert (found[0], found[41]) == (first, pd.Timestamp(f"2024-11-29 {last}"))
    assert found[42] == first + pd.Timedelta("3D")


@pytest.mark.usefixtures("exchanges")
def test_a_closure_that_was_not_scheduled_counts_as_a_session():
    days = pd.bdate_range("2012-10-01", "2012-10-26")
    expected = ["2012-10-29 00:00:00", "2012-10-30 00:00:00", "2012-10-31 00:00:00"]
    assert text(future_timestamps(days, 3, "XNYS")) == expected
    intraday = future_timestamps(bars_of(days, *NEW_YORK), 79, "XNYS")
    assert text(intraday)[::78] == ["2012-10-29 09:35:00", "2012-10-30 09:35:00"]


@pytest.mark.usefixtures("exchanges")
def test_hourly_bars_of_half_a_last_hour_are_honored():
    days = pd.bdate_range("2024-11-18", "2024-11-27")
    at_start = bars_of(days, ("09:30", "15:30"), freq="1h")
    assert text(future_timestamps(at_start, 5, "XNYS"))[3:] == ["2024-11-29 12:30:00", "2024-12-02 09:30:00"]
    at_end = at_start.shift(60, "min").where(at_start.hour < 15, at_start + pd.Timedelta("30min"))
    found = text(future_timestamps(at_end, 5, "XNYS"))
    assert found[2:] == ["2024-11-29 12:30:00", "2024-11-29 13:00:00", "2024-12-02 10:30:00"]


# Futures and crypto


def copper(days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Two breaks in the day, and a night session over midnight."""
    day = bars_of(days, ("09:05", "10:15"), ("10:35", "11:30"), ("13:35", "15:00"))
    night = bars_of(days, ("21:05", "23:55"))
    late = bars_of(days + pd.Timedelta("1D"), ("00:00", "01:00"))
    return day.append([night, late]).sort_values()


def test_a_night_session_is_inferred():
    whole = copper(pd.bdate_range("2024-03-04", "2024-03-22"))
    for now in (
        "2024-03-14 10:15",
        "2024-03-14 23:50",
        "2024-03-15 15:00",
        "2024-03-15 23:55",
        "2024-03-16 01:00",
    ):
        end = int(np.searchsorted(whole, pd.Timestamp(now))) + 1
        assert whole[end - 1] == pd.Timestamp(now)
        np.testing.assert_array_equal(future_timestamps(whole[:end], 200).to_numpy(), whole[end : end + 200])


@pytest.mark.usefixtures("exchanges")
@pytest.mark.parametrize("calendar", ["24/7", None])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
@pytest.mark.parametrize("count", [50, 400, 5000])
def test_crypto_never_closes_not_even_when_clocks_change(count, zone, calendar):
    end = pd.Timestamp("2024-03-08 20:55")
    index = pd.date_range(end=end, periods=count, freq="5min", tz="UTC")
    index = index.tz_convert(zone) if zone else index.tz_localize(None)
    found = future_timestamps(index, 2000, calendar)
    assert str(found.tz) == str(index.tz)
    assert (np.diff(found.append(index[-1:]).sort_values().asi8) == pd.Timedelta("5min").value).all()
    assert len(found) == 2000


def test_crypto_with_missing_bars_continues_without_them():
    index = pd.date_range("2024-03-01 03:00", periods=900, freq="5min").delete([100, 500, 501])
    expected = pd.date_range(index[-1], periods=501, freq="5min")[1:]
    np.testing.assert_array_equal(future_timestamps(index, 500).to_numpy(), expected.to_numpy())


# Daily and longer bars


@pytest.mark.usefixtures("exchanges")
@pytest.mark.parametrize("time_of_day", ["00:00", "15:00"])
def test_daily_bars_skip_holidays_of_the_exchange_and_keep_their_time(time_of_day):
    days = pd.bdate_range("2024-09-02", "2024-09-30") + pd.Timedelta(f"{time_of_day}:00")
    assert text(future_timestamps(days, 1, "XSHG")) == [f"2024-10-08 {time_of_day}:00"]
    assert text(future_timestamps(days, 1)) == [f"2024-10-01 {time_of_day}:00"]


@pytest.mark.usefixtures("exchanges")
@pytest.mark.parametrize("zone", ["Asia/Shanghai", "UTC"])
def test_daily_bars_that_are_instants_belong_to_the_session_of_the_exchange(zone):
    days = pd.bdate_range("2024-09-02", "2024-09-30", tz="Asia/Shanghai").tz_convert(zone)
    expected = pd.DatetimeIndex(["2024-10-08"]).tz_localize("Asia/Shanghai").tz_convert(zone)
    pd.testing.assert_index_equal(future_timestamps(days, 1, "XSHG"), expected, exact=False)


@pytest.mark.usefixtures("exchanges")
def test_daily_bars_at_midnight_are_dates_in_any_zone():
    days = pd.bdate_range("2024-07-01", "2024-07-03", tz="UTC")
    assert text(future_timestamps(days, 1, "XNYS")) == ["2024-07-05 00:00:00+00:00"]


@pytest.mark.parametrize("freq", ["D", "4h"])
def test_times_that_clocks_skip_are_not_predicted(freq):
    """Midnight of 2018-11-04 does not exist in Sao Paulo; an inferred pause keeps these bars on the local clock."""
    index = pd.date_range("2018-10-01", "2018-11-03 20:00", freq=freq, tz="America/Sao_Paulo")
    if freq == "4h":
        index = index[index.hour != 4]
    found = future_timestamps(index, 5)
    assert len(found) == 5
    assert found[0] == pd.Timestamp("2018-11-04 01:00", tz="America/Sao_Paulo")
    assert found.is_monotonic_increasing
    assert found.is_unique


@pytest.mark.parametrize(
    ("freq", "expected"),
    [
        ("W-FRI", ["2024-04-05", "2024-04-12"]),
        ("MS", ["2024-04-01", "2024-05-01"]),
        ("ME", ["2024-04-30", "2024-05-31"]),
        ("BME", ["2024-04-30", "2024-05-31"]),
        ("QE", ["2024-06-30", "2024-09-30"]),
        ("D", ["2024-04-01", "2024-04-02"]),
        ("3D", ["2024-04-03", "2024-04-06"]),
    ],
)
def test_daily_and_longer_bars_continue_by_their_period(freq, expected):
    index = pd.date_range(end="2024-03-31", periods=6, freq=freq)
    assert [time[:10] for time in text(future_timestamps(index, 2))] == expected


# Arguments


def test_trading_timestamps_are_followed_and_continued():
    days = pd.DatetimeIndex(["2024-01-02", "2024-01-03", "2024-01-08"])
    assert text(future_timestamps(days[:2], 3, days)) == [
        *("2024-01-08 00:00:00", "2024-01-09 00:00:00", "2024-01-10 00:00:00")
    ]
    assert text(future_timestamps(days[:2], 1, list(days))) == [
        "2024-01-08 00:00:00"
    ]  # as Qlib's D.calendar()
    zoned = days.tz_localize("Asia/Shanghai")
    assert str(future_timestamps(zoned[:2], 1, zoned).tz) == "Asia/Shanghai"
    with pytest.raises(ValueError, match=r"in the time zone Asia/Shanghai, the calendar in None\. Convert"):
        future_timestamps(zoned[:2], 1, days)


def test_bars_are_a_frame_a_series_or_timestamps():
    frame = make_bars(30)
    index = pd.DatetimeIndex(frame.index)
    expected = future_timestamps(index, 3)
    for bars in (frame, frame["close"], pd.Series(index), pd.Series(index, index[::-1])):
        pd.testing.assert_index_equal(future_timestamps(bars, 3), expected)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_keep_their_unit(unit):
    for freq in ("5min", "B", "MS"):
        index = pd.date_range("2024-01-01", periods=30, freq=freq, unit=unit)
        assert future_timestamps(index, 3).unit == unit
        assert future_timestamps(index, 3, index[:10]).unit == unit


@pytest.mark.parametrize(
    ("bars", "horizon", "message"),
    [
        (pd.DatetimeIndex(["2024-01-02"]), 2, r"1 timestamp, which has no step\. Pass at least 2 bars"),
        (pd.DatetimeIndex([]), 2, r"have no rows\. Pass"),
        (pd.DataFrame({"close": [1.0, 2.0]}), 2, r"no DatetimeIndex\. Use"),
        (pd.DatetimeIndex(["2024-01-03", "2024-01-02"]), 2, r"not sorted by time"),
        (pd.bdate_range("2024-01-01", periods=3), 0, r"horizon=0 is too short"),
    ],
)
def test_bars_without_a_future_are_refused(bars, horizon, message):
    with pytest.raises(ValueError, match=message):
        future_timestamps(bars, horizon)


def test_future_timestamps_can_be_passed_to_the_call_of_upstream():
    predictor = kronos.KronosPredictor.from_pretrained(device="cpu")
    bars = make_bars(40).set_axis(china("2024-09-30", "2024-09-30")[:40])
    times = pd.Series(bars.index)
    found = predictor.predict(bars, times, future_timestamps(times, 4), 4, verbose=False, seed=0)
    assert text(found.index) == [f"2024-09-30 14:{minute}:00" for minute in (25, 30, 35, 40)]
