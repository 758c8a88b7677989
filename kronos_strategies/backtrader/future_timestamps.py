"""When a market trades, learned by weekday and time of day from the bars it has had; never from later ones."""

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
MILLISECOND = 10**6  # a repeated hour is told apart by less
_THURSDAY = 3  # 1970-01-01
SATURDAY, SUNDAY = 5, 6
WEEKS = 4  # that tell whether a weekday is one of trading
SESSIONS = 3  # of a weekday that tell its hours
RECENT = 10  # sessions of any weekday to find a like of the current one in
# What is assumed of a weekday before it was seen, in sessions: holidays do not end a business day for good, and one
# session on a weekend does not open it for good.
BUSINESS, WEEKEND = 1.5, -0.5
_NO_BARS = np.empty(0, np.int64)


class Timetable:
    """Expects each weekday to go as its last sessions did.

    A weekday trades if most of its last `WEEKS` dates did, and then at the times of day that most of its last
    `SESSIONS` sessions had; weeks without any bar count for nothing. A weekday that has not been seen goes as the
    last business days did. Sessions that pass midnight, closing hours, lunch breaks, short Fridays, Sunday openings
    and markets that never close are all times of a weekday. Holidays and half days are surprises, and change
    nothing. If the hours of two sessions in a row differ from what was expected, but agree, they have moved, such
    as with a change of clocks: what was known of weekdays with the former hours is forgotten.

    Args:
        step: between two bars in nanoseconds; None where bars are daily and dated at midnight.
    """

    def __init__(self, step: int | None) -> None:
        self.step = step
        self._traded: list[deque[bool]] = [deque(maxlen=WEEKS) for _ in range(7)]  # latest last
        self._hours: list[deque[np.ndarray]] = [deque(maxlen=SESSIONS) for _ in range(7)]
        self._business: deque[np.ndarray] = deque(maxlen=SESSIONS)
        self._recent: deque[np.ndarray] = deque(maxlen=RECENT)
        self._first: int | None = None  # day of the first bar, which may have begun within its session
        self._day: int | None = None  # that the latest bars were of
        self._open: list[np.ndarray] = []  # times of day of that day's bars
        self._moved: tuple[int, int] | None = None  # first and last bar of the last session, if a surprise
        self._known: dict[int, np.ndarray] = {}  # what `hours` found since the last day ended

    def see(self, stamps: np.ndarray) -> None:
        """Learn from bars at (K,) int64 nanoseconds, in their order."""
        stamps = stamps - stamps % MILLISECOND
        days = stamps // DAY
        for day in np.unique(days).tolist():
            self.begin(day)
            self._open.append(np.unique(stamps[days == day] % DAY))

    def begin(self, day: int) -> None:
        """Take all days before `day`, of which a bar is known, for over."""
        if self._day is None:
            self._first = self._day = day
        if day <= self._day:
            return
        self._end_session(self._day, np.unique(np.concatenate(self._open)) if self._open else _NO_BARS)
        for empty in range(self._day + 1, day):
            if _week(empty) in (_week(self._day), _week(day)):
                self._traded[weekday(empty)].append(False)
        self._day, self._open = day, []
        self._known.clear()

    def trades(self, day: int) -> bool:
        """Whether bars are expected on a day."""
        which = weekday(day)
        if votes := self._traded[which]:
            prior = BUSINESS if which < SATURDAY else WEEKEND
            return sum(1 if vote else -1 for vote in votes) + prior > 0
        if which < SATURDAY:
            return True
        if which == SUNDAY and (self._traded[SATURDAY] or self._day == day - 1):
            saturday = not self._traded[SATURDAY] or self.trades(day - 1)
            return saturday and (self.step is None or self._never_closes())
        return self._never_closes() and not self._traded[SUNDAY]

    def hours(self, day: int) -> np.ndarray:
        """The times of day, ascending, at which a day has bars if it trades."""
        which = weekday(day)
        if which not in self._known:
            self._known[which] = _usual(self._hours[which] or self._business or self._recent)
        return self._known[which]

    def all_hours(self) -> np.ndarray:
        """All times of day, ascending, that any recent session had."""
        return np.unique(np.concatenate([*self._recent, _NO_BARS]))

    def rest_of(self, stamp: int) -> np.ndarray:
        """The times of day that are still expected after a bar, on its own day."""
        day, now = divmod(stamp - stamp % MILLISECOND, DAY)
        expected = self.hours(day) if self.trades(day) else _NO_BARS
        if now in expected:
            return expected[expected > now]
        like = next((each for each in reversed(self._recent) if now in each), None)
        if like is not None:
            return like[like > now]
        later = expected[expected > now]
        if self.step is not None and len(later) and self.step < later[0] - now <= HOUR:
            return np.concatenate([np.arange(now + self.step, later[0], self.step), later])
        return later

    @property
    def is_empty(self) -> bool:
        """Whether no session is over yet."""
        return not self._recent

    def _end_session(self, day: int, hours: np.ndarray) -> None:
        which, before = weekday(day), self.hours(day)
        self._traded[which].append(bool(len(hours)))
        if not len(hours):
            return
        ends, former = (int(hours[0]), int(hours[-1])), (before[[0, -1]].tolist() if len(before) else None)
        surprise = former is not None and list(ends) != former
        if surprise and self._moved == ends:
            for other in range(7):
                if self._hours[other] and _usual(self._hours[other])[[0, -1]].tolist() == former:
                    self._hours[other].clear()
            self._business.clear()
        self._moved = ends if surprise else None
        if day != self._first:
            self._hours[which].append(hours)
        if which < SATURDAY:
            self._business.append(hours)
        self._recent.append(hours)

    def _never_closes(self) -> bool:
        usual = _usual(self._business)
        return self.step is not None and len(usual) > 0 and usual[0] + DAY - usual[-1] <= self.step


def weekday(day: int) -> int:
    """Monday = 0, of a day since 1970."""
    return (day + _THURSDAY) % 7


def _week(day: int) -> int:
    return (day + _THURSDAY) // 7


def _usual(sessions: deque[np.ndarray]) -> np.ndarray:
    """The times of day that most sessions had; of two that disagree, the later one's."""
    if not sessions:
        return _NO_BARS
    times, counts = np.unique(np.concatenate(list(sessions)), return_counts=True)
    often = 2 * counts > len(sessions)
    if len(sessions) % 2 == 0:
        often |= (2 * counts == len(sessions)) & np.isin(times, sessions[-1])
    return times[often]


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
