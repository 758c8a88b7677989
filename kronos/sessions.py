"""Sessions of a named exchange, as they are scheduled, and the times of bars within the sessions of a calendar.

An unscheduled closure counts as a session.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from kronos.timetable import DAY, HOUR, NO_TIMES, longest_gap, weekday
from kronos.utils import MissingExtra

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

logger = logging.getLogger(__name__)

EARLIEST = pd.Timestamp("1990-01-01")  # of the sessions of an exchange, where they are known that far back
# Exchanges whose closures outside the rules were all decided at short notice: hurricanes, attacks, state funerals.
_NEVER_PLANNED = ("XNYS", "XCBF", "IEPA", "CMES", "XTSE")
# Closures of other exchanges that were decided at short notice: dates, or their list in the exchange's module.
_UNSCHEDULED: dict[str, tuple[str, ...]] = {
    "XASX": ("2022-09-22",),
    "XBDA": ("2022-09-19",),
    "XHKG": ("HKAdhocClosures",),
    "XIDX": ("2008-10-09", "2008-10-10"),
    "XIST": ("2003-11-21", "2004-01-23", *(f"2023-02-{day:02}" for day in (8, 9, 10, 13, 14))),
    "XLON": ("2022-09-19",),
    "XNZE": ("2022-09-26",),
    "XPHS": ("2011-09-27", "2012-08-07", "2014-07-16", "2014-09-19", "2014-12-08", "2017-09-12"),
    "XSHG": ("2020-01-31",),
    "XTAI": ("typhoons",),
    "XTKS": ("2020-10-01",),
    "XWAR": ("2005-04-08", "2018-11-12"),
}

_MISSING = int(np.iinfo(np.int64).min)  # NaT
Span = tuple[int, int]  # opening and closing, nanoseconds since 1970 on the local clock


class SessionCalendar(Protocol):
    """Which days of a market trade, and when; days are counted from 1970-01-01."""

    def next_session(self, day: int) -> int:
        """The first day after `day` that has a session."""
        ...

    def spans(self, day: int) -> Sequence[Span]:
        """Opening and closing of each part of the session of a day, on the local clock of the bars."""
        ...


class ExchangeSessions:
    """Scheduled sessions of an exchange, from the package exchange_calendars.

    Holidays, early closes, late openings and changes of trading hours count as known in advance. Closures that were
    decided at short notice do not: they are sessions here, since a forecast cannot know of them beforehand, and
    does not need them afterwards. Beyond the last year that exchange_calendars knows, every day of the trading week
    is a session with the latest usual hours, and a warning is logged.

    Args:
        calendar: sessions without unscheduled closures.

    Attributes:
        name: name of the exchange.
        zone: its time zone, in which days and spans are.
    """

    def __init__(self, calendar: ExchangeCalendar) -> None:
        self.name, self.zone = calendar.name, calendar.tz
        schedule = calendar.schedule
        self._days = schedule.index.to_numpy("datetime64[D]").astype(np.int64)
        columns = ("open", "break_start", "break_end", "close")
        self._hours = np.stack([_local(schedule[column], self.zone) for column in columns], axis=1)
        lengths = self._hours[:, -1] - self._hours[:, 0]
        usual = lengths == np.median(lengths[-100:])
        self._usual_row = int(np.flatnonzero(usual)[-1]) if usual.any() else len(lengths) - 1
        self._warned = False
        self._week = [i for i, trades in enumerate(calendar.weekmask) if trades == "1"]

    def next_session(self, day: int) -> int:
        """The first day after `day` that has a session.

        Raises:
            ValueError: the day is before the first known session.
        """
        if day < self._days[0] - 7:
            raise ValueError(
                f"The sessions of {self.name} are known from {np.datetime64(int(self._days[0]), 'D')} on, but "
                f"bars are of {np.datetime64(day, 'D')}. Pass calendar=None to infer the sessions from the bars."
            )
        row = int(np.searchsorted(self._days, day, side="right"))
        if row < len(self._days):
            return int(self._days[row])
        if not self._warned:
            self._warned = True
            logger.warning(
                "The holidays of %s are known until %s: each later day of its trading week counts as a session. "
                "Update them: pip install --upgrade exchange_calendars",
                *(self.name, np.datetime64(int(self._days[-1]), "D")),
            )
        return next(each for each in range(day + 1, day + 8) if weekday(each) in self._week)

    def spans(self, day: int) -> list[Span]:
        """Opening and closing of each part of a session, nanoseconds on the local clock of the exchange."""
        row = int(np.searchsorted(self._days, day))
        row = row if row < len(self._days) else self._usual_row
        shift = (day - int(self._days[row])) * DAY  # not 0 beyond the last known session
        opening, pause, resumption, closing = (int(time) for time in self._hours[row])
        if pause == _MISSING:
            return [(opening + shift, closing + shift)]
        return [(opening + shift, pause + shift), (resumption + shift, closing + shift)]


@lru_cache(maxsize=32)
def exchange_sessions(name: str) -> ExchangeSessions:
    """Scheduled sessions of an exchange.

    Args:
        name: ISO 10383 code such as "XSHG" or "XNYS", another name that exchange_calendars knows such as "NYSE" or
            "CME", or "24/7" for a market that never closes, in UTC.

    Raises:
        MissingExtra: exchange_calendars is not installed.
        ValueError: there is no such exchange.
    """
    try:
        import exchange_calendars
    except ImportError as error:
        raise MissingExtra(
            f"calendar='{name}' needs exchange_calendars: pip install 'kronos-strategies[calendars]'"
        ) from error
    names = exchange_calendars.get_calendar_names(include_aliases=True)
    if name not in names:
        near = get_close_matches(name.upper(), names, 3) or ["XSHG", "XNYS", "24/7"]
        raise ValueError(
            f"calendar={name!r} is not an exchange that exchange_calendars knows. Pass a name such as "
            f"{', '.join(near)}, or trading timestamps."
        )
    kind = type(exchange_calendars.get_calendar(name))
    earliest = kind.bound_min()
    start = EARLIEST if earliest is None else max(EARLIEST, earliest)
    return ExchangeSessions(_as_scheduled(kind)(start=start))


def _as_scheduled(kind: Any) -> Any:
    """The calendar class without closures that were decided at short notice."""
    if kind.name in _NEVER_PLANNED:
        return type(kind.__name__, (kind,), {"adhoc_holidays": property(lambda self: [])})
    unknown = _unscheduled_closures(kind)
    if not len(unknown):
        return kind

    def adhoc_holidays(self: Any) -> list[pd.Timestamp]:
        return list(pd.DatetimeIndex(kind.adhoc_holidays.fget(self)).difference(unknown))

    return type(kind.__name__, (kind,), {"adhoc_holidays": property(adhoc_holidays)})


def _unscheduled_closures(kind: Any) -> pd.DatetimeIndex:
    dates: list[Any] = []
    for entry in _UNSCHEDULED.get(kind.name, ()):
        is_date = entry[0].isdigit()
        dates += [entry] if is_date else list(getattr(import_module(kind.__module__), entry, ()))
    return pd.DatetimeIndex([pd.Timestamp(date) for date in dates])


def _local(instants: pd.Series, zone: ZoneInfo) -> np.ndarray:
    """(K,) int64 nanoseconds on the local clock, rounded to seconds; _MISSING for NaT."""
    local = pd.DatetimeIndex(instants).tz_convert(zone).tz_localize(None).round("s")
    return local.as_unit("ns").asi8


MAX_SESSIONS = 10_000  # that are searched for the next bars


class SessionBars:
    """Where the bars of a feed lie within the sessions of a calendar.

    Bars that are `step` apart from each opening on, stamped with their start or their end, continue so in every
    session, whatever its hours. Times that the sessions would have and that never had a bar are left out, e.g. the
    daily break of a market for which the calendar has none.

    Other bars, e.g. those of extended hours or of auctions, keep their times of day. They begin as long before the
    opening, and end as long after the closing, as they have so far, so that they end earlier on a half day.

    Args:
        calendar: calendar of the market.
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
