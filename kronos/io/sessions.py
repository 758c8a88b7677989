"""The sessions that daily bars belong to, where their stamps are not midnight."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from kronos.calendar import typical_step

_DAY = pd.Timedelta(days=1)
# Midnight lies between UTC-12 and UTC+14; stamps this long before midnight or less may be that of the next day.
_BEFORE_MIDNIGHT = pd.Timedelta(hours=13)


class Sessions(NamedTuple):
    """Timestamps in which those of days are midnight of their session, and what was done."""

    wall: pd.Series
    notes: tuple[str, ...] = ()


class UnclearSessionError(ValueError):
    """Daily stamps that may belong to either of two days."""


def to_sessions(wall: pd.Series, instruments: pd.Series, *, absolute: bool, timezone: str | None) -> Sessions:
    """Date the bars of a day, and leave shorter ones alone.

    A session stored as a moment of another time zone, such as 2024-01-01 16:00 UTC for 2024-01-02 in Shanghai,
    would count for the day before. Weekdays tell: shares do not trade on weekends, so of the stamp's own date and
    the next one that without weekends is right.

    Args:
        wall: datetime64[ns] of each row.
        instruments: of each row.
        absolute: whether the stamps are moments (an offset, an epoch) and not just local times.
        timezone: zone of the exchange, to which moments have been converted: their own date stands. Local times
            count as UTC where that makes them its midnight.

    Raises:
        UnclearSessionError: moments whose date the weekdays do not tell.
    """
    dates = wall.dt.normalize()
    known = wall.notna()
    if not known.any() or (dates == wall)[known].all() or not _is_daily(wall, instruments, absolute):
        return Sessions(wall)
    clocks = sorted({f"{time:%H:%M}" for time in wall[known].dt.time})
    shown = " and ".join(clocks[:2]) + (" ..." if len(clocks) > 2 else "")
    own = Sessions(dates, (f"daily stamps at {shown} count for their own date",))
    nearest = (wall + _BEFORE_MIDNIGHT).dt.normalize()
    if timezone is not None and not absolute:
        local = wall.dt.tz_localize("UTC").dt.tz_convert(timezone).dt.tz_localize(None)
        if (local.dt.normalize() == local)[known].all():
            return Sessions(local, (f"daily stamps at {shown} are midnight of {timezone} in UTC",))
    if timezone is not None or (nearest == dates)[known].all():
        return own
    weekend, weekend_nearest = (_weekend(days, known) for days in (dates, nearest))
    if weekend_nearest and not weekend:
        return own
    if weekend and not weekend_nearest:
        moved = known & (nearest != dates)
        example = f"{wall[moved].iloc[0]:%Y-%m-%d %H:%M} counts for {nearest[moved].iloc[0]:%Y-%m-%d}"
        note = f"daily stamps at {shown} are midnight of another time zone, {example}"
        return Sessions(nearest, (note,))
    if not absolute:
        return own
    first = wall[known].iloc[0]
    raise UnclearSessionError(
        f"daily bars at {shown}, of which it is unclear whether {first} counts for {first:%Y-%m-%d} or for "
        f"{nearest[known].iloc[0]:%Y-%m-%d}. Name the time zone of the exchange, e.g. --timezone Asia/Shanghai "
        "(in training YAML timezone: Asia/Shanghai)."
    )


def _is_daily(wall: pd.Series, instruments: pd.Series, absolute: bool) -> bool:
    """Whether the instrument with most rows has a bar a day, or longer ones; single moments may be days as well."""
    longest = instruments.mode()
    if longest.empty:
        return False
    times = pd.DatetimeIndex(wall[instruments == longest.iloc[0]])
    step = typical_step(times)
    return absolute if step is None else step >= _DAY


def _weekend(days: pd.Series, known: pd.Series) -> bool:
    return bool((days[known].dt.day_of_week >= 5).any())
