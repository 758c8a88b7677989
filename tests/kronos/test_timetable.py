"""Sessions that are learned from past bars."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos.future import FutureTimestamps

MINUTE = 60 * 10**9


def after(seen: pd.DatetimeIndex, horizon: int, step: int | None = None, days: int = 1) -> list[str]:
    ahead = FutureTimestamps(step, days=days)
    ahead.update(seen[:-1].to_numpy("datetime64[ns]"))
    return [str(pd.Timestamp(time)) for time in ahead.predict(seen.to_numpy("datetime64[ns]")[-1], horizon)]


def sessions(days: pd.DatetimeIndex, *times: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex([day + pd.Timedelta(time + ":00") for day in days for time in times])


def test_daily_bars_continue_on_business_days():
    assert after(pd.bdate_range(end="2024-03-01", periods=10), 2) == [
        "2024-03-04 00:00:00",
        "2024-03-05 00:00:00",
    ]


def test_daily_bars_of_a_market_that_trades_on_weekends_continue_every_day():
    assert after(pd.date_range(end="2024-03-01", periods=10), 2) == [
        "2024-03-02 00:00:00",
        "2024-03-03 00:00:00",
    ]


def test_bars_of_several_days_continue_at_that_distance():
    found = after(pd.bdate_range(end="2024-03-01", periods=10)[::2], 2, days=2)
    assert found == ["2024-03-04 00:00:00", "2024-03-06 00:00:00"]


def test_lunch_breaks_nights_and_weekends_are_learned():
    week = sessions(pd.bdate_range(end="2024-03-01", periods=5), "11:25", "11:30", "13:05", "13:10")
    assert after(week[:-2], 2, 5 * MINUTE) == ["2024-03-01 13:05:00", "2024-03-01 13:10:00"]
    assert after(week, 2, 5 * MINUTE) == ["2024-03-04 11:25:00", "2024-03-04 11:30:00"]


def test_before_a_second_day_a_bar_is_followed_by_one_more_step():
    seen = pd.date_range("2024-03-01 09:30", periods=5, freq="5min")
    found = after(seen, 2, 5 * MINUTE)
    assert found == ["2024-03-01 09:55:00", "2024-03-01 10:00:00"]


def test_a_market_that_never_closes_continues_into_the_weekend():
    seen = pd.date_range(end="2024-03-01 23:55", periods=12 * 24 * 3, freq="5min")
    found = after(seen, 2, 5 * MINUTE)
    assert found == ["2024-03-02 00:00:00", "2024-03-02 00:05:00"]


def test_future_timestamps_ascend_for_irregular_days():
    rng = np.random.default_rng(0)
    for _ in range(20):
        every = pd.date_range("2024-01-01", periods=4000, freq="7min")
        seen = pd.DatetimeIndex(np.sort(rng.choice(every, 90, replace=False)))
        ahead = FutureTimestamps(7 * MINUTE)
        ahead.update(seen[:-1].to_numpy("datetime64[ns]"))
        last = seen.to_numpy("datetime64[ns]")[-1]
        assert (np.diff(np.r_[last, ahead.predict(last, 30)]) > np.timedelta64(0)).all()


BUSINESS = pd.bdate_range("2024-01-01", "2024-03-29")
EVERY_DAY = pd.date_range("2024-01-01", "2024-03-31")


def session(day: pd.Timestamp, *spans: tuple[str, str], freq: str = "5min") -> pd.DatetimeIndex:
    """Times in spans of a day, both ends included; "26:30" is half past two of the next day."""
    parts = [
        pd.date_range(day + pd.Timedelta(f"{first}:00"), day + pd.Timedelta(f"{last}:00"), freq=freq)
        for first, last in spans
    ]
    return pd.DatetimeIndex(np.concatenate(parts))


def joined(parts) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(np.unique(np.concatenate(list(parts))))


XSHG = (("09:35", "11:30"), ("13:05", "15:00"))
XNYS = (("09:35", "16:00"),)


def shanghai(days=BUSINESS):
    return joined(session(day, *XSHG) for day in days)


def copper(days=BUSINESS):
    """Day sessions with two breaks, and a night session over midnight, on Fridays into Saturday."""
    day = (("09:05", "10:15"), ("10:35", "11:30"), ("13:35", "15:00"), ("21:05", "25:00"))
    return joined(session(each, *day) for each in days)


def globex(days=BUSINESS):
    """Sessions from 17:00 of the day before, Sunday for Monday, to 16:00."""
    return joined(session(each - pd.Timedelta("1D"), ("17:05", "40:00")) for each in days)


def forex(freq="1h"):
    """Sunday 17:00 to Friday 17:00."""
    times = pd.date_range("2024-01-01", "2024-03-31 23:00", freq=freq)
    hour, which = times.hour, times.dayofweek
    return times[(which < 4) | ((which == 4) & (hour < 17)) | ((which == 6) & (hour >= 17))]


def crypto(freq="15min"):
    return pd.date_range("2024-01-01", "2024-03-31 23:45", freq=freq)


MARKETS = {
    "XSHG": shanghai(),
    "XNYS": joined(session(day, *XNYS) for day in BUSINESS),
    "night session": copper(),
    "CME": globex(),
    "FX": forex(),
    "crypto": crypto(),
    "Riyadh": joined(session(day, ("10:05", "15:00")) for day in EVERY_DAY if day.dayofweek not in (4, 5)),
}


def walk(times: pd.DatetimeIndex, at: list[str], horizon: int = 5) -> dict[str, list[str]]:
    """Predictions after some of the bars, each from all bars before it."""
    step = int(np.median(np.diff(times.to_numpy("datetime64[ns]")).astype(np.int64)))
    ahead = FutureTimestamps(step)
    stamps, seen, found = times.to_numpy("datetime64[ns]"), 0, {}
    for time_ in at:
        row = int(np.searchsorted(stamps, np.datetime64(time_)))
        assert stamps[row] == np.datetime64(time_), time_
        ahead.update(stamps[seen:row])
        seen = row
        found[time_] = [str(pd.Timestamp(each)) for each in ahead.predict(stamps[row], horizon)]
    return found


def mistakes(times: pd.DatetimeIndex, since: str, horizon: int = 30) -> dict[pd.Timestamp, tuple]:
    """Bars since a date after which the predictions are wrong."""
    stamps = times.to_numpy("datetime64[ns]")
    step = int(np.median(np.diff(stamps).astype(np.int64)))
    ahead, found = FutureTimestamps(step), {}
    start = int(np.searchsorted(stamps, np.datetime64(since)))
    ahead.update(stamps[:start])
    for row in range(start, len(stamps) - horizon):
        if row % 7 == 0 or stamps[row + 1] - stamps[row] > np.timedelta64(step, "ns"):
            expected = ahead.predict(stamps[row], horizon)
            if (expected != stamps[row + 1 : row + 1 + horizon]).any():
                found[pd.Timestamp(stamps[row])] = expected
        ahead.update(stamps[row : row + 1])
    return found


@pytest.mark.parametrize("market", MARKETS)
def test_a_market_with_constant_hours_is_learned_in_two_weeks(market):
    assert mistakes(MARKETS[market], "2024-01-22") == {}


@pytest.mark.parametrize("market", ["XSHG", "XNYS", "crypto"])
def test_a_market_without_a_night_is_learned_in_a_day(market):
    assert mistakes(MARKETS[market], "2024-01-02", 10) == {}


def test_the_lunch_break_is_expected():
    found = walk(shanghai(), ["2024-01-30 11:25", "2024-02-02 15:00"], 2)
    assert found["2024-01-30 11:25"] == ["2024-01-30 11:30:00", "2024-01-30 13:05:00"]
    assert found["2024-02-02 15:00"] == ["2024-02-05 09:35:00", "2024-02-05 09:40:00"]


def test_a_night_session_passes_midnight_and_ends_in_the_morning():
    found = walk(
        copper(), ["2024-02-01 23:55", "2024-02-02 01:00", "2024-02-02 15:00", "2024-02-03 01:00"], 1
    )
    assert list(found.values()) == [
        ["2024-02-02 00:00:00"],
        ["2024-02-02 09:05:00"],
        ["2024-02-02 21:05:00"],
        ["2024-02-05 09:05:00"],  # from the small hours of Saturday
    ]


def test_forex_opens_on_sunday():
    found = walk(forex(), ["2024-02-01 23:00", "2024-02-02 15:00"], 3)
    assert found["2024-02-01 23:00"] == ["2024-02-02 00:00:00", "2024-02-02 01:00:00", "2024-02-02 02:00:00"]
    assert found["2024-02-02 15:00"] == ["2024-02-02 16:00:00", "2024-02-04 17:00:00", "2024-02-04 18:00:00"]


@pytest.mark.parametrize("saturday", ["2024-01-06", "2024-02-03", "2024-03-02"])
def test_one_session_on_a_saturday_does_not_open_the_next_ones(saturday):
    times = shanghai(BUSINESS.append(pd.DatetimeIndex([saturday])).sort_values())
    friday = pd.Timestamp(saturday) - pd.Timedelta("1D")
    fridays = [str(friday + pd.Timedelta(weeks=i, hours=15)) for i in range(4)]
    noon = str(pd.Timestamp(saturday) + pd.Timedelta("11h30min"))
    evening = str(pd.Timestamp(saturday) + pd.Timedelta("15h"))
    found = walk(times, sorted([*fridays, noon, evening]), 1)
    monday = [str(friday + pd.Timedelta(days=3 + 7 * i, hours=9, minutes=35)) for i in range(4)]
    assert found[fridays[0]] == [monday[0]]  # unexpected
    assert found[noon] == [str(pd.Timestamp(saturday) + pd.Timedelta("13h5min"))]  # and then like any session
    assert found[evening] == [monday[0]]
    later = 2 if saturday == "2024-01-06" else 1  # the only Saturday so far counts once
    assert [found[each] for each in fridays[later:]] == [[each] for each in monday[later:]]


def test_daily_bars_of_one_saturday_do_not_open_the_next_ones():
    days = BUSINESS.append(pd.DatetimeIndex(["2024-02-03"])).sort_values()
    ahead = FutureTimestamps(None)
    stamps = days.to_numpy("datetime64[ns]")
    for row, stamp in enumerate(stamps[:-1]):
        if stamp > np.datetime64("2024-01-05") and days[row + 1] != pd.Timestamp("2024-02-03"):
            assert ahead.predict(stamp, 1)[0] == stamps[row + 1], stamp
        ahead.update(stamps[row : row + 1])


@pytest.mark.parametrize(
    ("open_on", "name"),
    [((0, 1, 2, 3, 6), "Sunday to Thursday"), ((0, 1, 2, 3, 4, 6), "FX by days"), (range(7), "every day")],
)
def test_daily_bars_of_other_trading_weeks_are_learned_in_three_weeks(open_on, name):
    days = EVERY_DAY[EVERY_DAY.dayofweek.isin(list(open_on))]
    ahead = FutureTimestamps(None)
    stamps = days.to_numpy("datetime64[ns]")
    for row, stamp in enumerate(stamps[:-10]):
        if stamp > np.datetime64("2024-01-22"):
            np.testing.assert_array_equal(ahead.predict(stamp, 10), stamps[row + 1 : row + 11], name)
        ahead.update(stamps[row : row + 1])


def test_a_half_day_a_holiday_and_a_closed_week_change_nothing_after_them():
    days = [day for day in BUSINESS if not pd.Timestamp("2024-02-10") < day < pd.Timestamp("2024-02-19")]
    days.remove(pd.Timestamp("2024-01-15"))
    times = joined(
        session(day, ("09:35", "13:00") if day == pd.Timestamp("2024-01-26") else XNYS[0]) for day in days
    )
    wrong = {str(each.date()) for each in mistakes(times, "2024-01-09")}
    assert wrong <= {
        "2024-01-12",
        "2024-01-25",
        "2024-01-26",
        "2024-02-09",
    }  # the day before, and on the half day


@pytest.mark.parametrize("hours", [-1, 1])
def test_hours_that_move_are_learned_in_two_sessions(hours):
    """Like those of New York in UTC when clocks change."""
    moved = pd.Timestamp("2024-03-11")
    times = joined(
        session(day + (pd.Timedelta(hours=hours) if day >= moved else pd.Timedelta(0)), *XNYS)
        for day in BUSINESS
    )
    assert set(mistakes(times, "2024-02-01")) & set(times[times >= "2024-03-13"]) == set()


def test_single_missing_bars_do_not_change_what_is_expected():
    rng = np.random.default_rng(0)
    times = shanghai()
    kept = times[rng.random(len(times)) < 0.97]
    ahead = FutureTimestamps(5 * MINUTE)
    stamps = kept.to_numpy("datetime64[ns]")
    ahead.update(stamps[:-400])
    found = ahead.predict(stamps[-400], 48)
    assert np.isin(found, times.to_numpy("datetime64[ns]")).all()


def test_future_timestamps_ascend_for_any_history():
    rng = np.random.default_rng(0)
    for _ in range(20):
        every = pd.date_range("2024-01-01", periods=4000, freq="7min")
        stamps = np.sort(rng.choice(every.to_numpy("datetime64[ns]"), 90, replace=False))
        ahead = FutureTimestamps(7 * MINUTE)
        for row in range(89):
            ahead.update(stamps[row : row + 1])
            found = ahead.predict(stamps[row + 1], 30)
            assert len(found) == 30
            assert (np.diff(np.r_[stamps[row + 1], found]) > np.timedelta64(0)).all()


def test_learning_does_not_depend_on_how_bars_are_split_into_updates():
    stamps = copper().to_numpy("datetime64[ns]")[:3000]
    whole, parts = (FutureTimestamps(5 * MINUTE) for _ in range(2))
    whole.update(stamps[:-1])
    for row in range(0, len(stamps) - 1):
        parts.update(stamps[row : row + 1])
        if row % 11 == 0:
            parts.predict(stamps[row + 1], 3)
    np.testing.assert_array_equal(whole.predict(stamps[-1], 400), parts.predict(stamps[-1], 400))
