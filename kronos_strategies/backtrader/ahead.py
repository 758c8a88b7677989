"""When a feed's next bars will be, told from its past bars or a trading calendar, never from bars to come."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone, tzinfo
from functools import lru_cache

import backtrader as bt
import numpy as np
import pandas as pd

from kronos_strategies.backtrader.timetable import DAY, SATURDAY, Timetable, weekday

PATIENCE = 14  # days in a row without an expected bar, after which a bar follows every step
_OFFSETS = {
    bt.TimeFrame.Weeks: pd.DateOffset(weeks=1),
    bt.TimeFrame.Months: pd.DateOffset(months=1),
    bt.TimeFrame.Years: pd.DateOffset(years=1),
}


class TimesAhead:
    """The times that a feed's next bars will most likely have.

    They are those of a `Timetable`, which learns weekdays and times of day from past bars; weekly, monthly and
    yearly bars follow by their period. A trading calendar of the feed (`cerebro.addcalendar`) says which days trade
    and, where it has them, when sessions open and close, early closes included; the times between are learned.
    Before the first day is over, an intraday bar is followed by one more step.

    Args:
        timeframe: of the feed, a `bt.TimeFrame`.
        compression: of the feed.
        step: between two bars, in nanoseconds, where bars are intraday; None where they are daily or longer.
        calendar: the feed's `TradingCalendarBase`.
        zone: of the feed's bars, for calendars that tell times in UTC.
    """

    def __init__(
        self,
        timeframe: int,
        compression: int,
        step: int | None,
        calendar: bt.TradingCalendarBase | None,
        zone: tzinfo | None = None,
    ) -> None:
        self.timeframe, self.compression, self.step = timeframe, compression, step
        self.calendar, self.zone = calendar, zone
        self._timetable = Timetable(step)

    def see(self, times: np.ndarray) -> None:
        """Learn from bars at (K,) datetime64[ns], in their order."""
        self._timetable.see(times.astype("datetime64[ns]").astype(np.int64))

    def after(self, time: np.datetime64, horizon: int) -> np.ndarray:
        """(H,) datetime64[ns], the times after a bar at `time`, to which all bars seen are earlier."""
        stamp = int(time.astype("datetime64[ns]").astype(np.int64))
        self._timetable.begin(stamp // DAY)
        if self.step is None and self.timeframe in _OFFSETS:
            return _by_period(stamp, self.timeframe, self.compression, horizon)
        daily = self.step is None
        found = self._days(stamp // DAY, horizon) if daily else self._intraday(stamp, horizon)
        return np.array(found, np.int64).astype("datetime64[ns]")

    def _days(self, day: int, horizon: int) -> list[int]:
        found: list[int] = []
        for _ in range(horizon):
            for _ in range(self.compression):
                day = self._next_day(day)
            found.append(day * DAY)
        return found

    def _next_day(self, day: int) -> int:
        """The next day that trades."""
        if self.calendar is not None:
            after = self.calendar.nextday(
                datetime.fromtimestamp(day * 86400, timezone.utc).replace(tzinfo=None)
            )
            return int(pd.Timestamp(after).normalize().value // DAY)
        ahead = range(day + 1, day + 1 + PATIENCE)
        if self.compression > 1:  # a weekday has a bar every so many weeks only, and says nothing
            weekends = any(self._timetable.trades(each) for each in ahead if weekday(each) >= SATURDAY)
            return next(each for each in ahead if weekends or weekday(each) < SATURDAY)
        business = (each for each in ahead if weekday(each) < SATURDAY)
        return next((each for each in ahead if self._timetable.trades(each)), next(business))

    def _intraday(self, stamp: int, horizon: int) -> list[int]:
        assert self.step is not None
        found: list[int] = []
        for following in self._sessions(stamp):
            found += following[: horizon - len(found)].tolist()
            if len(found) == horizon:
                return found
        last = found[-1] if found else stamp
        return found + [last + self.step * (i + 1) for i in range(horizon - len(found))]

    def _sessions(self, stamp: int) -> Iterator[np.ndarray]:
        """Times after a bar, day by day, until nothing is expected any more."""
        if self.calendar is not None:
            yield from self._by_calendar(stamp)
            return
        if self._timetable.is_empty:
            return
        day, idle = stamp // DAY, 0
        yield day * DAY + self._timetable.rest_of(stamp)
        while idle < PATIENCE:
            day += 1
            hours = self._timetable.hours(day) if self._timetable.trades(day) else np.empty(0, np.int64)
            idle = 0 if len(hours) else idle + 1
            yield day * DAY + hours

    def _by_calendar(self, stamp: int) -> Iterator[np.ndarray]:
        """Times after a bar, session by session of the calendar."""
        assert self.step is not None
        hours = self._timetable.all_hours()
        day = stamp // DAY - 2  # a session may be dated with the day that it opens or closes on
        for _ in range(10_000):
            day = self._next_day(day)
            opening, closing = self._session(day)
            first = opening // DAY
            if len(hours):
                times = np.add.outer(np.arange(first, closing // DAY + 1) * DAY, hours).ravel()
                # Bars are stamped with their start where one is stamped with the opening, else with their end.
                ends = opening % DAY not in hours
            else:
                start = stamp if stamp >= opening else opening
                times, ends = np.arange(start + self.step, closing + 1, self.step), True
            inside = (
                (times > opening) & (times <= closing) if ends else (times >= opening) & (times < closing)
            )
            yield times[inside & (times > stamp)]

    def _session(self, day: int) -> tuple[int, int]:
        """Opening and closing of a day of the calendar, in the feed's own time."""
        assert self.calendar is not None
        midnight = datetime.fromtimestamp(day * 86400, timezone.utc).replace(tzinfo=None)
        if isinstance(self.calendar, bt.TradingCalendar):
            times = self.calendar.schedule(midnight)  # in whatever zone it was asked in
        else:
            times = self.calendar.schedule(midnight, self.zone)  # in UTC
            if self.zone is not None:
                times = [
                    time.replace(tzinfo=timezone.utc).astimezone(self.zone).replace(tzinfo=None)
                    for time in times
                ]
        opening, closing = (pd.Timestamp(time).value for time in times)
        return opening, closing


@lru_cache(maxsize=4096)
def _by_period(stamp: int, timeframe: int, compression: int, horizon: int) -> np.ndarray:
    """Longer bars; a feed's assets share their dates, so that most answers are remembered."""
    step, start = _OFFSETS[timeframe], pd.Timestamp(stamp)
    counts = range(compression, compression * horizon + 1, compression)
    return np.array([start + count * step for count in counts], "datetime64[ns]")
