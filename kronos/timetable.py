"""Trading hours of a market, learned from the timestamps of its bars so far."""

from __future__ import annotations

from collections import deque

import numpy as np

DAY = 24 * 3600 * 10**9  # nanoseconds
HOUR = DAY // 24
SHORTEST_PAUSE = HOUR // 4  # a shorter gap is missing bars
MILLISECOND = 10**6  # bars of an hour that repeats differ by less
_THURSDAY = 3  # weekday of 1970-01-01
SATURDAY, SUNDAY = 5, 6
WEEKS = 4  # last dates of a weekday that decide whether it is a trading day
SESSIONS = 3  # last sessions of a weekday that decide its times of day
RECENT = 10  # last sessions of any weekday, searched for one like the current session
# Prior of a weekday, in sessions: holidays do not turn a business day into a non-trading day for good, and one
# session on a weekend does not make it a trading day for good.
BUSINESS_PRIOR, WEEKEND_PRIOR = 1.5, -0.5
NO_TIMES = np.empty(0, np.int64)


class Timetable:
    """Trading hours of a market by weekday, learned from the bars so far.

    A weekday is a trading day if most of its last `WEEKS` dates were, with the times of day that most of its last
    `SESSIONS` sessions had; weeks without any bar are ignored. A weekday without history is treated like the last
    business days. This covers sessions over midnight, lunch breaks, short Fridays, Sunday openings and markets that
    never close. A single holiday or half day changes nothing. If the first and last time of two sessions in a row
    differ from what was expected but agree with each other, hours have moved, e.g. because clocks changed: the
    history of all weekdays with the former hours is dropped. As long as only the first day is complete, which may
    have begun within a session, its times and those of the current day count together.

    Args:
        step: nanoseconds between two bars; None where bars are daily and dated at midnight.

    Attributes:
        closes: whether the market has paused between two bars so far.
    """

    def __init__(self, step: int | None) -> None:
        self.step, self.closes = step, False
        self._traded: list[deque[bool]] = [deque(maxlen=WEEKS) for _ in range(7)]  # latest last
        self._times: list[deque[np.ndarray]] = [deque(maxlen=SESSIONS) for _ in range(7)]
        self._business: deque[np.ndarray] = deque(maxlen=SESSIONS)
        self._recent: deque[np.ndarray] = deque(maxlen=RECENT)
        self._recent_days: deque[int] = deque(maxlen=RECENT)
        self._first_day: int | None = None  # the first bar may be within a session
        self._last: int | None = None  # the latest bar
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
        if len(stamps):
            self._note_pauses(stamps)
            self._last = int(stamps[-1])

    def start_bar(self, stamp: int) -> None:
        """Complete all days before that of a bar, which is not learned yet."""
        self.start_day(stamp // DAY)
        self._note_pauses(np.array([stamp]))

    def start_day(self, day: int) -> None:
        """Complete all days before `day`, which has a bar."""
        if self._day is None:
            self._first_day = self._day = day
        if day <= self._day:
            return
        self._end_session(self._day, np.unique(np.concatenate(self._today)) if self._today else NO_TIMES)
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
        if self.recent_days == [self._first_day]:
            return np.unique(np.concatenate([*self._recent, *self._today, NO_TIMES]))
        if which not in self._usual:
            self._usual[which] = _majority(self._times[which] or self._business or self._recent)
        return self._usual[which]

    @property
    def recent_days(self) -> list[int]:
        """The last complete days with bars, at most `RECENT`."""
        return list(self._recent_days)

    def recent_stamps(self) -> np.ndarray:
        """(K,) int64 nanoseconds of the bars of these days, ascending."""
        days = zip(self._recent_days, self._recent, strict=True)
        return np.concatenate([NO_TIMES, *(day * DAY + times for day, times in days)])

    def current_stamps(self) -> np.ndarray:
        """(K,) int64 nanoseconds of the bars of the current day so far, ascending."""
        start = (self._day or 0) * DAY
        return np.unique(np.concatenate([NO_TIMES, *(start + times for times in self._today)]))

    def remaining_times(self, stamp: int) -> np.ndarray:
        """(K,) nanoseconds since midnight, ascending, still expected after a bar on its own day."""
        day, now = divmod(stamp - stamp % MILLISECOND, DAY)
        expected = self.times_of_day(day) if self.is_trading_day(day) else NO_TIMES
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

    def _note_pauses(self, stamps: np.ndarray) -> None:
        if self.step is not None and self._last is not None:
            stamps = np.r_[self._last, stamps]
        if self.step is not None and len(stamps) > 1:
            self.closes |= bool(np.diff(stamps).max() > longest_gap(self.step))

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
        self._recent_days.append(day)

    def _never_closes(self) -> bool:
        usual = _majority(self._business)
        return self.step is not None and len(usual) > 0 and usual[0] + DAY - usual[-1] <= self.step


def longest_gap(step: int) -> float:
    """Nanoseconds between two bars that are `step` apart; more is a pause of the market, not missing bars."""
    return max(1.5 * step, SHORTEST_PAUSE)


def weekday(day: int) -> int:
    """Weekday of a day since 1970-01-01, Monday = 0."""
    return (day + _THURSDAY) % 7


def _week(day: int) -> int:
    return (day + _THURSDAY) // 7


def _majority(sessions: deque[np.ndarray]) -> np.ndarray:
    """Times of day that most sessions had; where two sessions disagree, those of the later one."""
    if not sessions:
        return NO_TIMES
    times, counts = np.unique(np.concatenate(list(sessions)), return_counts=True)
    often = 2 * counts > len(sessions)
    if len(sessions) % 2 == 0:
        often |= (2 * counts == len(sessions)) & np.isin(times, sessions[-1])
    return times[often]
