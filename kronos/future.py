"""Timestamps of the next bars, from the bars so far and a trading calendar, never from later bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import tzinfo
from functools import lru_cache

import numpy as np
import pandas as pd
from pandas.tseries.offsets import BaseOffset

from kronos.bars import check_same_zone, check_timestamps, wall_clock
from kronos.calendar import neighbor_steps, next_timestamps, typical_step
from kronos.config import as_integer
from kronos.sessions import ExchangeSessions, SessionBars, SessionCalendar, exchange_sessions
from kronos.timetable import DAY, HOUR, MILLISECOND, NO_TIMES, SATURDAY, Timetable, weekday

MAX_IDLE_DAYS = 14  # days in a row without an expected bar, after which one bar per step is assumed
RELIABLE_DAYS = 3  # complete days after which the current day is not needed to know the hours
LEARNED = 20_000  # last bars that are learned from: over three months of 5-minute bars around the clock
_LONGEST_DAILY = pd.Timedelta("4D")  # bars with a longer step are weekly or longer
_MONTH = 365.2425 / 12  # days


def future_timestamps(
    bars: pd.DataFrame | pd.Series | pd.DatetimeIndex,
    horizon: int,
    calendar: str | pd.DatetimeIndex | Sequence[pd.Timestamp] | None = None,
) -> pd.DatetimeIndex:
    """Timestamps of the next bars of an instrument, known at its last bar.

    Sessions come from `calendar` or, without one, from the timestamps of the bars: weekdays and times of day that
    had bars are expected to have bars again, with lunch breaks, sessions over midnight, and weekends where they
    trade. A calendar also knows holidays, early closes and changes of the clock. A closure decided at short notice,
    e.g. because of a hurricane, counts as a session, since it is not known at the last bar.

    Weekly and longer bars continue by their period.

    Args:
        bars: (T, ...) bars indexed by time, or their timestamps as a Series or DatetimeIndex; at least 2, which
            tell the step.
        horizon: number of timestamps.
        calendar: exchange ("XSHG", "XNYS", "24/7", see `kronos.sessions.exchange_sessions`); trading timestamps,
            continued where they end; or None to infer the sessions from the bars. Timestamps without a time zone
            are read as local time of the exchange.

    Returns:
        (horizon,) ascending timestamps after the last bar, in the time zone and unit of the bars.

    Raises:
        ValueError: no timestamps, fewer than 2, or out of order; an unknown exchange; another time zone.
        MissingExtra: an exchange is named and exchange_calendars is not installed.
    """
    horizon = as_integer("horizon", horizon)
    if horizon < 1:
        raise ValueError(f"horizon={horizon} is too short. Pass at least 1.")
    index = _timestamps(bars)
    if calendar is not None and not isinstance(calendar, str):
        calendar = calendar if isinstance(calendar, pd.DatetimeIndex) else pd.DatetimeIndex(list(calendar))
        check_same_zone(index, calendar, "bars", "the calendar")
        (future,) = next_timestamps(wall_clock(index)[-1:], wall_clock(calendar), horizon)
        return _localize(pd.DatetimeIndex(future), index.tz).as_unit(index.unit)
    step = typical_step(index)
    if step is None:
        raise ValueError(f"bars have {len(index)} timestamp, which has no step. Pass at least 2 bars.")
    exchange = exchange_sessions(calendar) if calendar is not None else None
    if step >= pd.Timedelta("1D"):
        future = _daily(index, step, horizon, exchange)
    else:
        future = _intraday(index, step, horizon, exchange)
    return future.as_unit(index.unit)


def _timestamps(bars: pd.DataFrame | pd.Series | pd.DatetimeIndex) -> pd.DatetimeIndex:
    index: pd.Index = bars if isinstance(bars, pd.Index) else bars.index
    if isinstance(bars, pd.Series) and pd.api.types.is_datetime64_any_dtype(bars.dtype):
        index = pd.DatetimeIndex(bars)
    if not isinstance(index, pd.DatetimeIndex):
        raise ValueError(
            "bars have no DatetimeIndex. Use bars.set_index('datetime'), or pass the timestamps."
        )
    if len(index) == 0:
        raise ValueError("bars have no rows. Pass at least 2 bars.")
    check_timestamps(index)
    return index[-LEARNED:]


def _intraday(
    index: pd.DatetimeIndex, step: pd.Timedelta, horizon: int, exchange: ExchangeSessions | None
) -> pd.DatetimeIndex:
    clock = index if index.tz is None else index.tz_convert(exchange.zone if exchange else index.tz)
    if index.tz is not None and exchange is None and _is_continuous(index, step):
        clock = index.tz_convert("UTC")  # a market that never closes does not follow a change of clocks
    predictor = FutureTimestamps(step.value, sessions=exchange)
    times = wall_clock(clock).to_numpy("datetime64[ns]")
    predictor.update(times[:-1])
    return _bars_after(predictor, times[-1], index[-1], clock.tz, horizon)


def _bars_after(
    predictor: FutureTimestamps, time: np.datetime64, last: pd.Timestamp, zone: tzinfo | None, horizon: int
) -> pd.DatetimeIndex:
    """The bars after one at `time` on the clock of the predictor, which is `last` in the zone of the bars."""
    assert predictor.step is not None
    # Clocks that are set forward skip times, so more are predicted than needed.
    future = _localize(pd.DatetimeIndex(predictor.predict(time, horizon + 2 * HOUR // predictor.step)), zone)
    return (future if last.tz is None else future[future > last].tz_convert(last.tz))[:horizon]


def _daily(
    index: pd.DatetimeIndex, step: pd.Timedelta, horizon: int, exchange: ExchangeSessions | None
) -> pd.DatetimeIndex:
    clock = index
    # Midnights are dates, also in UTC; any other time is an instant, which the exchange dates with its session.
    if index.tz is not None and exchange is not None and (index != index.normalize()).any():
        clock = index.tz_convert(exchange.zone)
    local = pd.DatetimeIndex(wall_clock(clock).to_numpy())  # without a frequency, which changes is_month_end
    last, time_of_day = local[-1].normalize(), local[-1] - local[-1].normalize()
    period = _period(local, step)
    predictor = FutureTimestamps(None, period=period, sessions=exchange)
    days = np.unique(local.normalize().to_numpy("datetime64[ns]"))
    predictor.update(days[:-1])
    found = pd.DatetimeIndex(predictor.predict(last.to_datetime64(), horizon)) + time_of_day
    future = _localize(found, clock.tz)
    return future if index.tz is None else future.tz_convert(index.tz)


def _is_continuous(index: pd.DatetimeIndex, step: pd.Timedelta) -> bool:
    """Whether the last week of bars has them around the clock and on the weekend, or no pause has been seen yet."""
    last = index[index > index[-1] - pd.Timedelta(days=7)].to_numpy("datetime64[ns]").astype(np.int64)
    timetable = Timetable(step.value)
    timetable.update(last)
    return not timetable.closes


def _period(local: pd.DatetimeIndex, step: pd.Timedelta) -> BaseOffset | None:
    """Period of weekly and longer bars and of regular bars of a few days; None for daily bars."""
    days = step.days
    if days == 1:
        return None
    if step <= _LONGEST_DAILY:
        gaps = np.unique(np.diff(local.normalize().asi8))
        return pd.DateOffset(days=days) if len(local) > 3 and len(gaps) == 1 else None  # else days with gaps
    if days < 28:
        return pd.DateOffset(days=days)
    months = max(1, round(days / _MONTH))
    if local.is_month_end.all():
        return pd.offsets.MonthEnd(months)
    last_business_days = local.normalize() + pd.offsets.BMonthEnd(0) == local.normalize()
    return pd.offsets.BMonthEnd(months) if last_business_days.all() else pd.DateOffset(months=months)


def _localize(local: pd.DatetimeIndex, zone: object) -> pd.DatetimeIndex:
    """Local times with their zone: of an hour that occurs twice the first, and the next one for a skipped hour."""
    if zone is None:
        return local
    first = np.ones(len(local), bool)
    return local.tz_localize(zone, ambiguous=first, nonexistent="shift_forward").unique()  # type: ignore[arg-type]


def rolling_timestamps(index: pd.DatetimeIndex, ends: np.ndarray, horizon: int, exchange: str) -> np.ndarray:
    """What `future_timestamps` gives after each of several bars, from the bars up to it alone.

    Args:
        index: (T,) timestamps of the bars of one instrument, ascending.
        ends: (N,) ascending positions of the bars after which to continue; the first is at least 1.
        horizon: number of timestamps.
        exchange: see `kronos.sessions.exchange_sessions`.

    Returns:
        (N, H) datetime64[ns], local time in the zone of the bars.

    Raises:
        ValueError: an unknown exchange.
        MissingExtra: exchange_calendars is not installed.
    """
    sessions = exchange_sessions(exchange)
    steps = _steps_so_far(index)[ends - 1]
    future = np.empty((len(ends), horizon), "datetime64[ns]")
    daily = steps == DAY
    if daily.any():
        future[daily] = _next_days(index, ends[daily], horizon, sessions)
    for step in np.unique(steps[steps < DAY]):
        rows = np.flatnonzero(steps == step)
        future[rows] = _next_bars(index, ends[rows], int(step), horizon, sessions)
    for row in np.flatnonzero(steps > DAY):  # a period follows from all bars so far
        found = future_timestamps(index[: ends[row] + 1], horizon, exchange)
        future[row] = wall_clock(found).to_numpy("datetime64[ns]")
    return future


def _steps_so_far(index: pd.DatetimeIndex) -> np.ndarray:
    """(T - 1,) int64 nanoseconds, the typical step of the bars up to each one from the second on."""
    counts: dict[int, int] = {}
    typical = np.empty(len(index) - 1, np.int64)
    for row, step in enumerate(neighbor_steps(index).tolist()):
        counts[step] = counts.get(step, 0) + 1
        typical[row] = min(counts, key=lambda each: (-counts[each], each))
    return typical * 10**9


def _next_days(
    index: pd.DatetimeIndex, ends: np.ndarray, horizon: int, sessions: ExchangeSessions
) -> np.ndarray:
    """(N, H) local times of the sessions after daily bars, at the time of day of the bar."""
    future = np.empty((len(ends), horizon), "datetime64[ns]")
    dated = ~np.logical_or.accumulate(index != index.normalize())[ends]  # see `_daily`
    for is_date in np.unique(dated):
        rows = np.flatnonzero(dated == is_date)
        clock = index if is_date or index.tz is None else index.tz_convert(sessions.zone)
        local = wall_clock(clock)[ends[rows]].to_numpy("datetime64[ns]")
        days = local.astype("datetime64[D]")
        found = np.stack([_sessions_after(sessions, int(day), horizon) for day in days.astype(np.int64)])
        found = found + (local - days)[:, None]
        if clock.tz is not index.tz:
            zoned = [_localize(pd.DatetimeIndex(row), clock.tz).tz_convert(index.tz) for row in found]
            found = np.stack([wall_clock(row).to_numpy("datetime64[ns]") for row in zoned])
        future[rows] = found
    return future


def _next_bars(
    index: pd.DatetimeIndex, ends: np.ndarray, step: int, horizon: int, sessions: ExchangeSessions
) -> np.ndarray:
    """(N, H) local times of the bars after intraday bars."""
    clock = index if index.tz is None else index.tz_convert(sessions.zone)
    times = wall_clock(clock).to_numpy("datetime64[ns]")
    predictor, seen = FutureTimestamps(step, sessions=sessions), 0
    future = np.empty((len(ends), horizon), "datetime64[ns]")
    for row, end in enumerate(ends):
        predictor.update(times[seen:end])
        seen = end
        future[row] = wall_clock(_bars_after(predictor, times[end], index[end], clock.tz, horizon))
    return future


@lru_cache(maxsize=4096)
def _sessions_after(sessions: ExchangeSessions, day: int, horizon: int) -> np.ndarray:
    """(H,) dates of the sessions after a day; cached, since the instruments of a panel share their dates."""
    return FutureTimestamps(None, sessions=sessions).predict(np.datetime64(day, "D"), horizon)


class FutureTimestamps:
    """Most likely timestamps of the next bars of an instrument, all on one local clock.

    They follow the sessions of a calendar, or a `Timetable`; weekly and longer bars follow by their period. Until
    the market has paused for the first time, one intraday bar follows another by one step.

    Args:
        step: nanoseconds between two intraday bars; None where bars are dated with a day.
        days: trading days per bar.
        period: period of weekly and longer bars; None for days and parts of a day.
        sessions: trading calendar on the clock of the bars; None to learn the sessions.
    """

    def __init__(
        self,
        step: int | None,
        *,
        days: int = 1,
        period: BaseOffset | None = None,
        sessions: SessionCalendar | None = None,
    ) -> None:
        self.step, self.days, self.period, self.sessions = step, days, period, sessions
        self._timetable = Timetable(step)
        self._session_bars: SessionBars | None = None
        self._known_days: list[int] = []  # complete days that they are from

    def update(self, times: np.ndarray) -> None:
        """Learn from bars at (K,) datetime64[ns], in their order."""
        self._timetable.update(times.astype("datetime64[ns]").astype(np.int64))

    def predict(self, time: np.datetime64, horizon: int) -> np.ndarray:
        """(H,) datetime64[ns] after a bar at `time`, which is later than all bars passed to `update`."""
        stamp = int(time.astype("datetime64[ns]").astype(np.int64))
        self._timetable.start_bar(stamp)
        if self.period is not None:
            return _by_period(stamp, self.period, horizon)
        found = self._days(stamp // DAY, horizon) if self.step is None else self._intraday(stamp, horizon)
        return np.array(found, np.int64).astype("datetime64[ns]")

    def _days(self, day: int, horizon: int) -> list[int]:
        found: list[int] = []
        for _ in range(horizon):
            for _ in range(self.days):
                day = self._next_trading_day(day)
            found.append(day * DAY)
        return found

    def _next_trading_day(self, day: int) -> int:
        if self.sessions is not None:
            return self.sessions.next_session(day)
        days = range(day + 1, day + 1 + MAX_IDLE_DAYS)
        timetable = self._timetable
        if self.days > 1:  # a weekday has a bar only every few weeks, which says nothing about it
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
        if self.sessions is not None:
            yield from self._bars_of(self.sessions, stamp).after(stamp)
        if self._timetable.is_empty or not self._timetable.closes:
            return
        day, idle = stamp // DAY, 0
        yield day * DAY + self._timetable.remaining_times(stamp)
        while idle < MAX_IDLE_DAYS:
            day += 1
            trades = self._timetable.is_trading_day(day)
            times = self._timetable.times_of_day(day) if trades else NO_TIMES
            idle = 0 if len(times) else idle + 1
            yield day * DAY + times

    def _bars_of(self, sessions: SessionCalendar, stamp: int) -> SessionBars:
        assert self.step is not None
        timetable = self._timetable
        if len(timetable.recent_days) < RELIABLE_DAYS:
            seen = np.concatenate([timetable.recent_stamps(), timetable.current_stamps()])
            return SessionBars(sessions, self.step, np.unique(np.append(seen, stamp - stamp % MILLISECOND)))
        if self._known_days != timetable.recent_days:
            self._known_days = timetable.recent_days
            self._session_bars = SessionBars(sessions, self.step, timetable.recent_stamps())
        assert self._session_bars is not None
        return self._session_bars


@lru_cache(maxsize=4096)
def _by_period(stamp: int, period: BaseOffset, horizon: int) -> np.ndarray:
    """Timestamps of longer bars; cached, since the instruments of a run share their dates."""
    start = pd.Timestamp(stamp)
    return np.array([start + i * period for i in range(1, horizon + 1)], "datetime64[ns]")
