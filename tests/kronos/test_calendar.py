from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos.calendar import future_timestamps

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
        dates, future_timestamps(pd.DatetimeIndex(dates), pd.DatetimeIndex(calendar), horizon), strict=True
    ):
        # Written plainly: the calendar goes on day by day over weekdays, from its own end.
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
    alone = future_timestamps(pd.DatetimeIndex([early]), calendar, 3)
    together = future_timestamps(pd.DatetimeIndex([early, late]), calendar, 3)
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
    (future,) = future_timestamps(pd.DatetimeIndex([date]), calendar, horizon)
    known = calendar[calendar > date][:horizon].to_numpy("datetime64[ns]")
    np.testing.assert_array_equal(future[: len(known)], known)
    assert future[0] > date.to_datetime64()
    assert (np.diff(future) > np.timedelta64(0)).all()


def test_an_intraday_calendar_that_ends_too_soon_goes_on_without_a_gap() -> None:
    calendar = pd.date_range("2024-01-05 09:30", periods=6, freq="5min")
    (future,) = future_timestamps(calendar[-2:-1], calendar, 3)
    assert [str(time)[11:16] for time in future] == ["09:55", "10:00", "10:05"]


def test_a_daily_calendar_stamped_at_the_close_goes_on_at_the_close() -> None:
    calendar = pd.DatetimeIndex(["2024-01-04 15:00", "2024-01-05 15:00"])
    (future,) = future_timestamps(calendar[-1:], calendar, 2)
    assert list(pd.DatetimeIndex(future)) == [
        pd.Timestamp("2024-01-08 15:00"),
        pd.Timestamp("2024-01-09 15:00"),
    ]


def test_a_calendar_with_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"calendar.*zone"):
        future_timestamps(DAYS[3:4], DAYS.tz_localize("Asia/Shanghai"), 2)


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
    for date, row in zip(dates, future_timestamps(pd.DatetimeIndex(dates), freq, horizon), strict=True):
        step, time = pd.tseries.frequencies.to_offset(freq), date
        for got in pd.DatetimeIndex(row):
            time = time + step
            assert got == time
            assert got > date


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_the_future_is_in_nanoseconds_whatever_the_unit_of_the_bars(unit: str) -> None:
    asof = pd.DatetimeIndex(["2024-01-05"]).as_unit(unit)
    for calendar in ("B", DAYS.as_unit(unit), DAYS[:3].as_unit(unit)):
        future = future_timestamps(asof, calendar, 2)
        assert future.dtype == "datetime64[ns]"
        np.testing.assert_array_equal(
            future.astype("datetime64[D]").astype(str), [["2024-01-08", "2024-01-09"]]
        )


def test_an_empty_calendar_is_refused() -> None:
    with pytest.raises(ValueError, match="calendar"):
        future_timestamps(pd.DatetimeIndex(["2024-01-05"]), pd.DatetimeIndex([]), 2)
