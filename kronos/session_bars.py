"""Times of bars within the sessions of a calendar: the calendar's hours, as far as the bars so far follow them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from kronos.sessions import SessionCalendar, Span
from kronos.timetable import DAY, HOUR, NO_TIMES, longest_gap

MAX_SESSIONS = 10_000  # that are searched for the next bars


class SessionBars:
    """Where the bars of a feed lie within the sessions of a calendar.

    Bars that are `step` apart from each opening on, stamped with their start or their end, continue so in every
    session, whatever its hours. Times that the sessions would have and that never had a bar are left out, e.g. the
    daily break of a market for which the calendar has none.

    Other bars, e.g. those of extended hours or of auctions, keep their times of day. They begin as long before the
    opening, and end as long after the closing, as they have so far, so that they end earlier on a half day.

    Args:
        calendar: of the market.
        step: nanoseconds between two bars.
        stamps: (K,) int64 nanoseconds of recent bars on the clock of the calendar, ascending.
    """

    def __init__(self, calendar: SessionCalendar, step: int, stamps: np.ndarray) -> None:
        self.calendar, self.step, self._stamps = calendar, step, stamps
        self._sessions = self._recent_sessions()
        grids = {at_end: self._grid(at_end) for at_end in (True, False)}
        odd = {at_end: self._days_off(grid) for at_end, grid in grids.items()}
        missing = {at_end: len(np.setdiff1d(grid, stamps)) for at_end, grid in grids.items()}
        self._at_end = min(grids, key=lambda at_end: (odd[at_end], missing[at_end], not at_end))
        self._is_regular = 2 * odd[self._at_end] < len(np.unique(stamps // DAY))
        self._absent = self._pauses(grids[self._at_end])
        self._lead, self._lag = self._margins()

    def after(self, stamp: int) -> Iterator[np.ndarray]:
        """(K,) int64 nanoseconds after a bar, ascending, session by session."""
        day, latest = stamp // DAY - 2, stamp  # a session may be dated with the day it opens or closes on
        for _ in range(MAX_SESSIONS):
            day = self.calendar.next_session(day)
            spans = self.calendar.spans(day)
            times = self._regular_times(spans) if self._is_regular else self._usual_times(spans)
            times = times[times > latest]
            latest = int(times[-1]) if len(times) else latest
            yield times

    def _regular_times(self, spans: Sequence[Span]) -> np.ndarray:
        times = _slots(spans, self.step, self._at_end)
        return times[~np.isin(times % DAY, self._absent)]

    def _usual_times(self, spans: Sequence[Span]) -> np.ndarray:
        first, last = spans[0][0] - self._lead, spans[-1][1] + self._lag
        days = np.arange(first // DAY, last // DAY + 1) * DAY
        times = np.add.outer(days, np.unique(self._stamps % DAY)).ravel()
        return times[(times >= first) & (times <= last)]

    def _recent_sessions(self) -> list[list[Span]]:
        """Spans of the sessions from the first to the last bar."""
        first, last = int(self._stamps[0]), int(self._stamps[-1])
        day = first // DAY - 2
        found: list[list[Span]] = []
        for _ in range(MAX_SESSIONS):
            day = self.calendar.next_session(day)
            spans = list(self.calendar.spans(day))
            if spans[0][0] > last and found:
                return found
            if spans[-1][1] >= first:
                found.append(spans)
        return found

    def _grid(self, at_end: bool) -> np.ndarray:
        """Times that the calendar expects from the first to the last bar."""
        times = np.concatenate([NO_TIMES, *(_slots(spans, self.step, at_end) for spans in self._sessions)])
        return np.unique(times[(times >= self._stamps[0]) & (times <= self._stamps[-1])])

    def _days_off(self, grid: np.ndarray) -> int:
        """Number of days with a bar that the calendar does not expect."""
        return len(np.unique(np.setdiff1d(self._stamps, grid) // DAY))

    def _pauses(self, grid: np.ndarray) -> np.ndarray:
        """Times of day without a bar so far, in gaps of the grid that are longer than a few missing bars."""
        unseen = ~np.isin(grid, self._stamps)
        run = np.cumsum(~unseen)  # equal within a run of unseen times
        lengths = np.bincount(run[unseen], minlength=len(grid) + 1)
        pauses = unseen & ((lengths[run] + 1) * self.step > longest_gap(self.step))
        return np.setdiff1d(grid[pauses] % DAY, self._stamps % DAY)

    def _margins(self) -> tuple[int, int]:
        """The longest time from a first bar to the opening of its session, and from the closing to a last bar."""
        openings = np.array([spans[0][0] for spans in self._sessions])
        closings = np.array([spans[-1][1] for spans in self._sessions])
        leads, lags = [], []
        for part in np.split(self._stamps, np.flatnonzero(np.diff(self._stamps) > HOUR + self.step) + 1):
            first, last = int(part[0]), int(part[-1])
            # Bars without a pause belong to the session that they overlap, others to the nearest one.
            distance = np.maximum(np.maximum(openings - last, first - closings), 0)
            nearest = int(np.argmin(distance))
            leads.append(int(openings[nearest]) - first)
            lags.append(last - int(closings[nearest]))
        return max(leads), max(lags)


def _slots(spans: Sequence[Span], step: int, at_end: bool) -> np.ndarray:
    """(K,) int64 nanoseconds of the bars of a session; the last bar of a span may be shorter than the others."""
    if at_end:
        return np.concatenate(
            [np.append(np.arange(start + step, end, step), end) for start, end in spans]
        ).astype(np.int64)
    return np.concatenate([np.arange(start, end, step) for start, end in spans])
