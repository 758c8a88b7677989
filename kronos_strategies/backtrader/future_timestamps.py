"""Timestamps of a feed's next bars, predicted from its past bars or a trading calendar, never from later bars.

`Timetable` learns at which weekdays and times of day a market trades; `FutureTimestamps` predicts with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime, timezone, tzinfo
from functools import lru_cache

import backtrader as bt
import numpy as np
import pandas as pd

DAY = 24 * 3600 * 10**9  # nanoseconds
HOUR = DAY // 24
MILLISECOND = 10**6  # bars of an hour that repeats differ by less
_THURSDAY = 3  # weekday of 1970-01-01
SATURDAY, SUNDAY = 5, 6
WEEKS = 4  # last dates of a weekday that decide whether it is a trading day
SESSIONS = 3  # last sessions of a weekday that decide its times of day
RECENT = 10  # last sessions of any weekday, searched for one like the current session
# Prior of a weekday, in sessions: holidays do not turn a business day into a non-trading day for good, and one
# session on a weekend does not make it a trading day for good.
BUSINESS_PRIOR, WEEKEND_PRIOR = 1.5, -0.5
MAX_IDLE_DAYS = 14  # days in a row without an expected bar, after which one bar per step is assumed
_NO_TIMES = np.empty(0, np.int64)
_OFFSETS = {
    bt.TimeFrame.Weeks: pd.DateOffset(weeks=1),
    bt.TimeFrame.Months: pd.DateOffset(months=1),
    bt.TimeFrame.Years: pd.DateOffset(years=1),
}


class Timetable:
    """Trading hours of a market by weekday, learned from the bars so far.

    A weekday is a trading day if most of its last `WEEKS` dates were, with the times of day that most of its last
    `SESSIONS` sessions had; weeks without any bar are ignored. A weekday without history is treated like the last
    business days. This covers sessions over midnight, lunch breaks, short Fridays, Sunday openings and markets that
    never close. A single holiday or half day changes nothing. If the first and last time of two sessions in a row
    differ from what was expected but agree with each other, hours have moved, e.g. because clocks changed: the
    history of all weekdays with the former hours is dropped.

    Args:
        step: nanoseconds between two bars; None where bars are daily and dated at midnight.
    """

    def __init__(self, step: int | None) -> None:
        self.step = step
        self._traded: list[deque[bool]] = [deque(maxlen=WEEKS) for _ in range(7)]  # latest last
        self._times: list[deque[np.ndarray]] = [deque(maxlen=SESSIONS) for _ in range(7)]
        self._business: deque[np.ndarray] = deque(maxlen=SESSIONS)
        self._recent: deque[np.ndarray] = deque(maxlen=RECENT)
        self._first_day: int | None = None  # the first bar may be within a session
        self._day: int | None = None  # of the latest bars
        self._today: list[np.ndarray] = []  # times of day of the bars of that day
        self._unexpected: tuple[int, int] | None = (
            None  # first and last time of the last session, if unexpected
        )
        self._usual: dict[int, np.ndarray] = {}  # results of `times_of_day` since the last day ended

    def update(self, stamps: np.ndarray) -> None:
        """Learn from bars at (K,) int64 nanoseconds, in their order."""
        stamps = stamps - stamps % MILLISECOND
        days = stamps // DAY
        for day in np.unique(days).tolist():
            self.start_day(day)
            self._today.append(np.unique(stamps[days == day] % DAY))

    def start_day(self, day: int) -> None:
        """Complete all days before `day`, which has a bar."""
        if self._day is None:
            self._first_day = self._day = day
        if day <= self._day:
            return
        self._end_session(self._day, np.unique(np.concatenate(self._today)) if self._today else _NO_TIMES)
        for empty in range(self._day + 1, day):
            if _week(empty) in (_week(self._day), _week(day)):
                self._traded[weekday(empty)].append(False)
        self._day, self._today = day, []
        self._usual.clear()

    def is_trading_day(self, day: int) -> bool:
        """Whether bars are expected on a day."""
        which = weekday(day)
        if votes := self._traded[which]:
            prior = BUSINESS_PRIOR if which < SATURDAY else WEEKEND_PRIOR
            return sum(1 if vote else -1 for vote in votes) + prior > 0
        if which < SATURDAY:
            return True
        if which == SUNDAY and (self._traded[SATURDAY] or self._day == day - 1):
            saturday = not self._traded[SATURDAY] or self.is_trading_day(day - 1)
            return saturday and (self.step is None or self._never_closes())
        return self._never_closes() and not self._traded[SUNDAY]

    def times_of_day(self, day: int) -> np.ndarray:
        """(K,) nanoseconds since midnight, ascending, at which a trading day like this one has bars."""
        which = weekday(day)
        if which not in self._usual:
            self._usual[which] = _majority(self._times[which] or self._business or self._recent)
        return self._usual[which]

    def all_times_of_day(self) -> np.ndarray:
        """(K,) nanoseconds since midnight, ascending, at which any recent session had bars."""
        return np.unique(np.concatenate([*self._recent, _NO_TIMES]))

    def remaining_times(self, stamp: int) -> np.ndarray:
        """(K,) nanoseconds since midnight, ascending, still expected after a bar on its own day."""
        day, now = divmod(stamp - stamp % MILLISECOND, DAY)
        expected = self.times_of_day(day) if self.is_trading_day(day) else _NO_TIMES
        if now in expected:
            return expected[expected > now]
        similar = next((times for times in reversed(self._recent) if now in times), None)
        if similar is not None:
            return similar[similar > now]
        later = expected[expected > now]
        if self.step is not None and len(later) and self.step < later[0] - now <= HOUR:
            return np.concatenate([np.arange(now + self.step, later[0], self.step), later])
        return later

    @property
    def is_empty(self) -> bool:
        """Whether no session is complete yet."""
        return not self._recent

    def _end_session(self, day: int, times: np.ndarray) -> None:
        which, expected = weekday(day), self.times_of_day(day)
        self._traded[which].append(bool(len(times)))
        if not len(times):
            return
        ends = (int(times[0]), int(times[-1]))
        former = expected[[0, -1]].tolist() if len(expected) else None
        is_unexpected = former is not None and list(ends) != former
        if is_unexpected and self._unexpected == ends:
            for other in range(7):
                if self._times[other] and _majority(self._times[other])[[0, -1]].tolist() == former:
                    self._times[other].clear()
            self._business.clear()
        self._unexpected = ends if is_unexpected else None
        if day != self._first_day:
            self._times[which].append(times)
        if which < SATURDAY:
            self._business.append(times)
        self._recent.append(times)

    def _never_closes(self) -> bool:
        usual = _majority(self._business)
        return self.step is not None and len(usual) > 0 and usual[0] + DAY - usual[-1] <= self.step


def weekday(day: int) -> int:
    """Weekday of a day since 1970-01-01, Monday = 0."""
    return (day + _THURSDAY) % 7


def _week(day: int) -> int:
    return (day + _THURSDAY) // 7


def _majority(sessions: deque[np.ndarray]) -> np.ndarray:
    """Times of day that most sessions had; where two sessions disagree, those of the later one."""
    if not sessions:
        return _NO_TIMES
    times, counts = np.unique(np.concatenate(list(sessions)), return_counts=True)
    often = 2 * counts > len(sessions)
    if len(sessions) % 2 == 0:
        often |= (2 * counts == len(sessions)) & np.isin(times, sessions[-1])
    return times[often]


class FutureTimestamps:
    """Most likely timestamps of the next bars of a feed.

    They follow a `Timetable`; weekly, monthly and yearly bars follow by their period. A trading calendar of the
    feed (`cerebro.addcalendar`) decides which days trade and, where it has them, when sessions open and close,
    including early closes; the times in between are learned. Until the first day is complete, one intraday bar
    follows another by one step.

    Args:
        timeframe: of the feed, a `bt.TimeFrame`.
        compression: of the feed.
        step: nanoseconds between two intraday bars; None where bars are daily or longer.
        calendar: the feed's `TradingCalendarBase`.
        zone: time zone of the feed's bars, for calendars with times in UTC.
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

    def update(self, times: np.ndarray) -> None:
        """Learn from bars at (K,) datetime64[ns], in their order."""
        self._timetable.update(times.astype("datetime64[ns]").astype(np.int64))

    def predict(self, time: np.datetime64, horizon: int) -> np.ndarray:
        """(H,) datetime64[ns] after a bar at `time`, which is later than all bars passed to `update`."""
        stamp = int(time.astype("datetime64[ns]").astype(np.int64))
        self._timetable.start_day(stamp // DAY)
        if self.step is None and self.timeframe in _OFFSETS:
            return _by_period(stamp, self.timeframe, self.compression, horizon)
        daily = self.step is None
        found = self._days(stamp // DAY, horizon) if daily else self._intraday(stamp, horizon)
        return np.array(found, np.int64).astype("datetime64[ns]")

    def _days(self, day: int, horizon: int) -> list[int]:
        found: list[int] = []
        for _ in range(horizon):
            for _ in range(self.compression):
                day = self._next_trading_day(day)
            found.append(day * DAY)
        return found

    def _next_trading_day(self, day: int) -> int:
        if self.calendar is not None:
            following = self.calendar.nextday(_midnight(day))
            return int(pd.Timestamp(following).normalize().value // DAY)
        days = range(day + 1, day + 1 + MAX_IDLE_DAYS)
        timetable = self._timetable
        if self.compression > 1:  # a weekday has a bar only every few weeks, which says nothing about it
            weekends = any(timetable.is_trading_day(each) for each in days if weekday(each) >= SATURDAY)
            return next(each for each in days if weekends or weekday(each) < SATURDAY)
        business = (each for each in days if weekday(each) < SATURDAY)
        return next((each for each in days if timetable.is_trading_day(each)), next(business))

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
        """Timestamps after a bar, day by day, until none is expected any more."""
        if self.calendar is not None:
            yield from self._calendar_sessions(stamp)
            return
        if self._timetable.is_empty:
            return
        day, idle = stamp // DAY, 0
        yield day * DAY + self._timetable.remaining_times(stamp)
        while idle < MAX_IDLE_DAYS:
            day += 1
            trades = self._timetable.is_trading_day(day)
            times = self._timetable.times_of_day(day) if trades else _NO_TIMES
            idle = 0 if len(times) else idle + 1
            yield day * DAY + times

    def _calendar_sessions(self, stamp: int) -> Iterator[np.ndarray]:
        """Timestamps after a bar, session by session of the calendar."""
        assert self.step is not None
        known = self._timetable.all_times_of_day()
        day = stamp // DAY - 2  # a session may be dated with the day it opens or closes on
        for _ in range(10_000):
            day = self._next_trading_day(day)
            opening, closing = self._session(day)
            if len(known):
                days = np.arange(opening // DAY, closing // DAY + 1) * DAY
                times = np.add.outer(days, known).ravel()
                # A bar is stamped with its start if one is stamped with the opening, else with its end.
                stamped_at_end = opening % DAY not in known
            else:
                start = stamp if stamp >= opening else opening
                times, stamped_at_end = np.arange(start + self.step, closing + 1, self.step), True
            if stamped_at_end:
                inside = (times > opening) & (times <= closing)
            else:
                inside = (times >= opening) & (times < closing)
            yield times[inside & (times > stamp)]

    def _session(self, day: int) -> tuple[int, int]:
        """Opening and closing of a day of the calendar, nanoseconds in the time zone of the feed."""
        assert self.calendar is not None
        if isinstance(self.calendar, bt.TradingCalendar):
            times = self.calendar.schedule(_midnight(day))  # in the time zone of its argument
        else:
            times = self.calendar.schedule(_midnight(day), self.zone)  # in UTC
            if self.zone is not None:
                times = [
                    time.replace(tzinfo=timezone.utc).astimezone(self.zone).replace(tzinfo=None)
                    for time in times
                ]
        opening, closing = (pd.Timestamp(time).value for time in times)
        return opening, closing


def _midnight(day: int) -> datetime:
    return datetime.fromtimestamp(day * 86400, timezone.utc).replace(tzinfo=None)


@lru_cache(maxsize=4096)
def _by_period(stamp: int, timeframe: int, compression: int, horizon: int) -> np.ndarray:
    """Timestamps of longer bars; cached, since the feeds of a run share their dates."""
    step, start = _OFFSETS[timeframe], pd.Timestamp(stamp)
    counts = range(compression, compression * horizon + 1, compression)
    return np.array([start + count * step for count in counts], "datetime64[ns]")
