"""When a market trades, learned by weekday and time of day from the bars it has had; never from later ones."""

from __future__ import annotations

from collections import deque

import numpy as np

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
