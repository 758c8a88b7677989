"""The times of bars to come, told from those that were."""

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from kronos_strategies.backtrader.ahead import TimesAhead

MINUTE = 60 * 10**9


def after(seen: pd.DatetimeIndex, horizon: int, timeframe: int = bt.TimeFrame.Days, **options) -> list[str]:
    ahead = TimesAhead(timeframe, options.get("compression", 1), options.get("step"), options.get("calendar"))
    ahead.see(seen[:-1].to_numpy("datetime64[ns]"))
    return [str(pd.Timestamp(time)) for time in ahead.after(seen.to_numpy("datetime64[ns]")[-1], horizon)]


def sessions(days: pd.DatetimeIndex, *times: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex([day + pd.Timedelta(time + ":00") for day in days for time in times])


def test_daily_bars_go_on_by_business_days():
    assert after(pd.bdate_range(end="2024-03-01", periods=10), 2) == [
        "2024-03-04 00:00:00",
        "2024-03-05 00:00:00",
    ]


def test_daily_bars_of_a_market_that_has_traded_on_a_weekend_go_on_by_days():
    assert after(pd.date_range(end="2024-03-01", periods=10), 2) == [
        "2024-03-02 00:00:00",
        "2024-03-03 00:00:00",
    ]


def test_bars_of_several_days_go_on_by_as_many():
    found = after(pd.bdate_range(end="2024-03-01", periods=10)[::2], 2, compression=2)
    assert found == ["2024-03-04 00:00:00", "2024-03-06 00:00:00"]


def test_a_trading_calendar_knows_of_holidays():
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
def test_longer_bars_go_on_by_their_period(timeframe, expected):
    assert after(pd.DatetimeIndex(["2024-02-23", "2024-03-01"]), 2, timeframe) == expected


def test_within_the_day_lunch_and_night_and_weekend_are_learnt():
    week = sessions(pd.bdate_range(end="2024-03-01", periods=5), "11:25", "11:30", "13:05", "13:10")
    step = {"timeframe": bt.TimeFrame.Minutes, "step": 5 * MINUTE}
    assert after(week[:-2], 2, **step) == ["2024-03-01 13:05:00", "2024-03-01 13:10:00"]
    assert after(week, 2, **step) == ["2024-03-04 11:25:00", "2024-03-04 11:30:00"]


def test_before_a_second_day_a_bar_is_followed_by_one_more_step():
    seen = pd.date_range("2024-03-01 09:30", periods=5, freq="5min")
    found = after(seen, 2, bt.TimeFrame.Minutes, step=5 * MINUTE)
    assert found == ["2024-03-01 09:55:00", "2024-03-01 10:00:00"]


def test_a_market_that_never_closes_goes_on_into_the_weekend():
    seen = pd.date_range(end="2024-03-01 23:55", periods=12 * 24 * 3, freq="5min")
    found = after(seen, 2, bt.TimeFrame.Minutes, step=5 * MINUTE)
    assert found == ["2024-03-02 00:00:00", "2024-03-02 00:05:00"]


def test_times_ahead_ascend_whatever_was_seen():
    rng = np.random.default_rng(0)
    for _ in range(20):
        every = pd.date_range("2024-01-01", periods=4000, freq="7min")
        seen = pd.DatetimeIndex(np.sort(rng.choice(every, 90, replace=False)))
        ahead = TimesAhead(bt.TimeFrame.Minutes, 7, 7 * MINUTE, None)
        ahead.see(seen[:-1].to_numpy("datetime64[ns]"))
        last = seen.to_numpy("datetime64[ns]")[-1]
        assert (np.diff(np.r_[last, ahead.after(last, 30)]) > np.timedelta64(0)).all()
