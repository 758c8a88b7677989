from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos.calendar import FREQUENCIES, common_frequency, infer_frequency, next_timestamps, typical_step
from kronos.training.sources import RULES

DAYS = pd.bdate_range("2024-01-01", periods=24)
EXAMPLES = settings(deadline=None, max_examples=30)


@EXAMPLES
@given(
    days=st.lists(st.integers(0, 60), min_size=1, max_size=30, unique=True),
    asof=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    horizon=st.integers(1, 6),
    order=st.randoms(use_true_random=False),
)
def test_on_a_calendar_the_future_is_its_next_days_and_then_business_days(
    days: list[int], asof: list[int], horizon: int, order: object
) -> None:
    first = pd.Timestamp("2024-01-01")
    calendar = [first + pd.Timedelta(days=day) for day in days]
    order.shuffle(calendar)
    dates = [first + pd.Timedelta(days=day) for day in asof]
    for date, row in zip(
        dates, next_timestamps(pd.DatetimeIndex(dates), pd.DatetimeIndex(calendar), horizon), strict=True
    ):
        # Written plainly: the calendar continues day by day over weekdays, from its own end.
        going_on = sorted(calendar)
        while sum(day > date for day in going_on) < horizon:
            day = going_on[-1] + pd.Timedelta(days=1)
            while day.weekday() >= 5:
                day += pd.Timedelta(days=1)
            going_on.append(day)
        assert list(pd.DatetimeIndex(row)) == [day for day in going_on if day > date][:horizon]


def test_the_future_of_a_date_does_not_depend_on_the_other_dates() -> None:
    calendar = pd.bdate_range("2024-01-01", "2024-01-05")
    early, late = pd.Timestamp("2024-01-10"), pd.Timestamp("2024-02-20")
    alone = next_timestamps(pd.DatetimeIndex([early]), calendar, 3)
    together = next_timestamps(pd.DatetimeIndex([early, late]), calendar, 3)
    np.testing.assert_array_equal(alone[0], together[0])


@EXAMPLES
@given(
    bars=st.lists(st.integers(0, 47), min_size=2, max_size=48, unique=True),
    asof=st.integers(0, 60),
    horizon=st.integers(1, 5),
)
def test_an_intraday_calendar_gives_ascending_times_strictly_after_the_bar(
    bars: list[int], asof: int, horizon: int
) -> None:
    midnight = pd.Timestamp("2024-01-05")
    calendar = midnight + pd.to_timedelta(np.sort(bars) * 30, unit="min")
    date = midnight + pd.Timedelta(minutes=30 * asof)
    (future,) = next_timestamps(pd.DatetimeIndex([date]), calendar, horizon)
    known = calendar[calendar > date][:horizon].to_numpy("datetime64[ns]")
    np.testing.assert_array_equal(future[: len(known)], known)
    assert future[0] > date.to_datetime64()
    assert (np.diff(future) > np.timedelta64(0)).all()


def test_an_intraday_calendar_that_ends_early_is_extended_without_a_gap() -> None:
    calendar = pd.date_range("2024-01-05 09:30", periods=6, freq="5min")
    (future,) = next_timestamps(calendar[-2:-1], calendar, 3)
    assert [str(time)[11:16] for time in future] == ["09:55", "10:00", "10:05"]


def test_a_daily_calendar_at_the_close_is_extended_at_the_close() -> None:
    calendar = pd.DatetimeIndex(["2024-01-04 15:00", "2024-01-05 15:00"])
    (future,) = next_timestamps(calendar[-1:], calendar, 2)
    assert list(pd.DatetimeIndex(future)) == [
        pd.Timestamp("2024-01-08 15:00"),
        pd.Timestamp("2024-01-09 15:00"),
    ]


def test_a_calendar_with_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"calendar.*zone"):
        next_timestamps(DAYS[3:4], DAYS.tz_localize("Asia/Shanghai"), 2)


@EXAMPLES
@given(
    freq=st.sampled_from(["B", "D", "5min", "h", "W-FRI", "ME", "MS"]),
    minutes=st.lists(st.integers(0, 90 * 24 * 60), min_size=1, max_size=4),
    whole_days=st.booleans(),
    horizon=st.integers(1, 5),
)
def test_on_a_frequency_the_future_is_its_next_times_strictly_after_the_bar(
    freq: str, minutes: list[int], whole_days: bool, horizon: int
) -> None:
    start = pd.Timestamp("2024-01-01")
    dates = [start + pd.Timedelta(minutes=m) for m in minutes]
    dates = [date.normalize() if whole_days else date for date in dates]
    for date, row in zip(dates, next_timestamps(pd.DatetimeIndex(dates), freq, horizon), strict=True):
        step, time = pd.tseries.frequencies.to_offset(freq), date
        for got in pd.DatetimeIndex(row):
            time = time + step
            assert got == time
            assert got > date


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_the_future_is_in_nanoseconds_for_every_unit_of_the_bars(unit: str) -> None:
    asof = pd.DatetimeIndex(["2024-01-05"]).as_unit(unit)
    for calendar in ("B", DAYS.as_unit(unit), DAYS[:3].as_unit(unit)):
        future = next_timestamps(asof, calendar, 2)
        assert future.dtype == "datetime64[ns]"
        np.testing.assert_array_equal(
            future.astype("datetime64[D]").astype(str), [["2024-01-08", "2024-01-09"]]
        )


def test_an_empty_calendar_is_refused() -> None:
    with pytest.raises(ValueError, match="calendar"):
        next_timestamps(pd.DatetimeIndex(["2024-01-05"]), pd.DatetimeIndex([]), 2)


def sessions(step: str, *spans: tuple[str, str], days: int = 10) -> pd.DatetimeIndex:
    """Stamps of bars at their close, within spans of a weekday such as ("09:30", "11:30")."""
    stamps = [
        pd.date_range(f"{day:%Y-%m-%d} {start}", f"{day:%Y-%m-%d} {end}", freq=step)[1:]
        for day in pd.bdate_range("2024-02-26", periods=days)
        for start, end in spans
    ]
    return stamps[0].append(stamps[1:])


CHINA = (("09:30", "11:30"), ("13:00", "15:00"))


def test_the_names_are_those_of_the_cleaning_rules() -> None:
    assert list(FREQUENCIES) == list(RULES)


@pytest.mark.parametrize("name", FREQUENCIES)
def test_bars_around_the_clock_have_the_frequency_of_their_step(name: str) -> None:
    index = pd.date_range("2024-01-01", periods=50, freq=f"{FREQUENCIES[name]}min")
    assert infer_frequency(index) == name
    assert typical_step(index) == pd.Timedelta(minutes=FREQUENCIES[name])


@pytest.mark.parametrize("name", ["1min", "5min", "15min", "30min", "60min"])
def test_nights_weekends_and_a_lunch_break_do_not_change_the_frequency(name: str) -> None:
    assert infer_frequency(sessions(name, *CHINA)) == name


def test_two_bars_of_four_hours_per_day_are_not_daily_bars() -> None:
    days = pd.bdate_range("2024-01-01", periods=20)
    opens = (days + pd.Timedelta(hours=9, minutes=30)).append(days + pd.Timedelta(hours=13, minutes=30))
    assert infer_frequency(opens) == "4h"


@pytest.mark.parametrize("name", ["1min", "5min", "1day"])
def test_missing_bars_order_and_duplicates_do_not_change_the_frequency(name: str) -> None:
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=2000, freq=f"{FREQUENCIES[name]}min")
    sparse = rng.choice(index.to_numpy(), 900, replace=True)
    assert infer_frequency(pd.DatetimeIndex([*sparse, pd.NaT])) == name


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/London", "Asia/Shanghai"])
@pytest.mark.parametrize("freq", ["D", "B"])
def test_days_in_utc_are_days_though_clocks_change(zone: str, freq: str) -> None:
    local = pd.date_range("2024-02-01", "2024-12-01", freq=freq, tz=zone)
    assert infer_frequency(local) == "1day"
    assert infer_frequency(local.tz_convert("UTC").tz_localize(None)) == "1day"


def test_timestamps_at_the_last_second_of_a_bar_give_the_same_frequency() -> None:
    index = pd.date_range("2024-01-01", periods=50, freq="5min") + pd.Timedelta(minutes=5, milliseconds=-1)
    assert infer_frequency(index) == "5min"


def test_weekly_bars_with_a_holiday_are_weekly() -> None:
    index = pd.date_range("2024-01-05", periods=30, freq="W-FRI").to_series()
    index.iloc[[5, 12]] -= pd.Timedelta(days=1)
    assert infer_frequency(pd.DatetimeIndex(index)) == "1week"


@pytest.mark.parametrize("freq", ["1s", "3min", "10min", "2h", "12h", "3D", "14D", "MS"])
def test_other_steps_have_no_frequency(freq: str) -> None:
    assert infer_frequency(pd.date_range("2024-01-01", periods=30, freq=freq)) is None


def test_one_bar_has_no_step() -> None:
    assert infer_frequency(pd.DatetimeIndex(["2024-01-01"])) is None
    assert typical_step(pd.DatetimeIndex(["2024-01-01", "2024-01-01"])) is None
    assert infer_frequency(pd.DatetimeIndex(["2024-01-05", "2024-01-08"])) == "1day"


def test_instruments_agree_on_a_frequency_or_are_refused_by_name() -> None:
    daily, hourly = (pd.date_range("2024-01-01", periods=30, freq=freq) for freq in ("D", "h"))
    rare = daily[::7]
    assert common_frequency([("A", daily), ("B", rare), ("C", daily[:1])], "bars") == "1day"
    assert common_frequency([("C", daily[:1])], "bars") is None
    with pytest.raises(ValueError, match=r"bars mixes .*: A has 1day bars, B has 60min bars\. Keep one"):
        common_frequency([("A", daily), ("B", hourly)], "bars")
