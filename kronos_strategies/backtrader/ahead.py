"""When a feed's next bars will be, told from its past bars or a trading calendar, never from bars to come."""

from __future__ import annotations

from functools import lru_cache

import backtrader as bt
import numpy as np
import pandas as pd

DAY = 24 * 3600 * 10**9  # nanoseconds
_THURSDAY = 3  # 1970-01-01
_SATURDAY = 5
_OFFSETS = {
    bt.TimeFrame.Weeks: pd.DateOffset(weeks=1),
    bt.TimeFrame.Months: pd.DateOffset(months=1),
    bt.TimeFrame.Years: pd.DateOffset(years=1),
}


class TimesAhead:
    """The times that a feed's next bars will most likely have.

    Daily bars go on by business days, by every day once a weekend bar was seen, or by the feed's trading calendar
    (`cerebro.addcalendar`); weekly, monthly and yearly ones by their period. An intraday bar is followed by the
    time of day that followed its own the last time, else by one more step; over night, weekends are left out
    unless a weekend bar was seen. So lunch breaks, closing hours and markets that never close are all learnt
    within a day or two, and a holiday or a short day is a surprise, as it is to anybody without a calendar.

    Args:
        timeframe: of the feed, a `bt.TimeFrame`.
        compression: of the feed.
        step: between two bars, in nanoseconds, where bars are intraday; None where they are daily or longer.
        calendar: the feed's `TradingCalendarBase`; asked for daily bars only.
    """

    def __init__(
        self, timeframe: int, compression: int, step: int | None, calendar: bt.TradingCalendarBase | None
    ) -> None:
        self.timeframe, self.compression, self.step, self.calendar = timeframe, compression, step, calendar
        self._weekends = False
        self._follows: dict[int, int] = {}  # time of day -> that of the bar after it, the last time
        self._last: int | None = None  # time of day of the last bar seen

    def see(self, times: np.ndarray) -> None:
        """Learn from bars at (K,) datetime64[ns], in their order."""
        stamps = times.astype("datetime64[ns]").astype(np.int64)
        self._weekends = self._weekends or bool(((stamps // DAY + _THURSDAY) % 7 >= _SATURDAY).any())
        if self.step is not None and len(stamps):
            of_day = (stamps % DAY).tolist()
            before = of_day[:-1] if self._last is None else [self._last, *of_day[:-1]]
            self._follows.update(zip(before, of_day[len(of_day) - len(before) :], strict=True))
            self._last = of_day[-1]

    def after(self, time: np.datetime64, horizon: int) -> np.ndarray:
        """(H,) datetime64[ns], the times after a bar at `time`, to which all bars seen are earlier."""
        stamp = int(time.astype("datetime64[ns]").astype(np.int64))
        weekends = self._weekends or _weekday(stamp) >= _SATURDAY
        if self.step is not None:
            return np.array(self._intraday(stamp, horizon, weekends), np.int64).astype("datetime64[ns]")
        if self.calendar is not None and self.timeframe not in _OFFSETS:
            return self._by_calendar(pd.Timestamp(stamp), horizon)
        return _regular(stamp, self.timeframe, self.compression, horizon, weekends)

    def _intraday(self, stamp: int, horizon: int, weekends: bool) -> list[int]:
        assert self.step is not None
        found = []
        for _ in range(horizon):
            midnight, of_day = stamp - stamp % DAY, stamp % DAY
            follows = self._follows.get(of_day)
            if follows is None:
                following = stamp + self.step
            elif follows > of_day:
                following = midnight + follows
            else:
                following = midnight + DAY + follows
                # A market that goes on through midnight has no night to jump over, and no weekend yet to know of.
                while following - stamp > self.step and not weekends and _weekday(following) >= _SATURDAY:
                    following += DAY
            found.append(following)
            stamp = following
        return found

    def _by_calendar(self, day: pd.Timestamp, horizon: int) -> np.ndarray:
        assert self.calendar is not None
        found, at = [], day.to_pydatetime()
        for _ in range(horizon):
            for _ in range(self.compression):
                at = self.calendar.nextday(at)
            found.append(pd.Timestamp(at).normalize())
        return np.array(found, "datetime64[ns]")


@lru_cache(maxsize=4096)
def _regular(stamp: int, timeframe: int, compression: int, horizon: int, weekends: bool) -> np.ndarray:
    """Daily and longer bars; a feed's assets share their dates, so that most answers are remembered."""
    steps = compression * np.arange(1, horizon + 1)
    if timeframe not in _OFFSETS:
        day = np.datetime64(stamp // DAY, "D")
        found = day + steps if weekends else np.busday_offset(day, steps, roll="backward")
        return found.astype("datetime64[ns]")
    step, start = _OFFSETS[timeframe], pd.Timestamp(stamp)
    return np.array([start + int(count) * step for count in steps], "datetime64[ns]")


def _weekday(stamp: int) -> int:
    """Monday = 0."""
    return (stamp // DAY + _THURSDAY) % 7
