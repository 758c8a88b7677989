"""Dates and times from text, calendar numbers and epochs, with or without time zone; sessions of daily bars."""

from __future__ import annotations

import re
import warnings
from datetime import timedelta, tzinfo
from datetime import timezone as fixed_offset
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from kronos.calendar import typical_step

_OFFSET = re.compile(r"^(.*\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?)\s*(Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$")
_DAY_FIRST = re.compile(r"^(\d{1,2})([-/.])(\d{1,2})\2(\d{4})((?:[ T,]+.*)?)$")
_CHINESE = re.compile(r"^(\d{4})年(\d{1,2})月(\d{1,2})日?")
_WITH_MONTH_NAME = (
    *("%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%b %d %Y", "%d-%b-%y", "%Y-%b-%d"),
    *("%d %B %Y", "%B %d, %Y"),
)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?")
_FIRST, _LAST = pd.Timestamp("1900-01-01"), pd.Timestamp("2199-12-31 23:59:59.999999999")
# Digits of calendar numbers -> their format. Epochs: the least value of each unit, in nanoseconds a unit.
_CALENDAR = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S", 17: "%Y%m%d%H%M%S%f"}
_EPOCHS = ((1e8, "s", 10**9), (1e11, "ms", 10**6), (1e14, "us", 10**3), (1e17, "ns", 1))


class Times(NamedTuple):
    """Timestamps of the rows of a file.

    Attributes:
        wall: datetime64[ns] local time; NaT if unreadable or missing.
        absolute: whether they are instants, by an offset or as an epoch.
        notes: how they were interpreted.
        zone: their time zone; None for local times of an unknown zone, and where offsets change.
    """

    wall: pd.Series
    absolute: bool
    notes: tuple[str, ...] = ()
    zone: tzinfo | None = None


def to_times(column: pd.Series, timezone: str | None) -> Times:
    """Parse dates or times.

    Text with a UTC offset keeps its local time, epochs are UTC; with `timezone` both are converted to it.

    Args:
        column: text, datetimes, calendar numbers such as 20240102 or 202401020935, or epochs in s, ms, us or ns.
        timezone: time zone of the exchange, e.g. Asia/Shanghai.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        if column.dt.tz is None:
            return Times(_within(column), False)
        zone = column.dt.tz
        return _zoned(column.dt.tz_convert("UTC"), column.dt.tz_localize(None), timezone, f"in {zone}", zone)
    codes, uniques = pd.factorize(column)
    if pd.api.types.is_numeric_dtype(column):
        read = _from_numbers(np.asarray(uniques), timezone)
    else:
        texts = pd.Series(uniques, dtype=object).astype(str).str.strip()
        digits = texts.head(1).str.isdigit().all() and texts.str.fullmatch(r"\d{8,19}(\.0+)?").all()
        read = (
            _from_numbers(pd.to_numeric(texts).to_numpy(), timezone)
            if digits
            else _from_text(texts, timezone)
        )
    wall = read.wall.to_numpy("datetime64[ns]")
    wall = np.append(wall, np.datetime64("NaT"))[codes]  # -1 is a missing value
    return read._replace(wall=pd.Series(wall, index=column.index, name=column.name))


def to_clock(column: pd.Series) -> pd.Series | None:
    """Times of day as timedeltas: HH:MM[:SS], HHMM or HHMMSS; None if the column contains anything else."""
    codes, uniques = pd.factorize(column)
    if not len(uniques):
        return None
    texts = pd.Series(uniques, dtype=object).astype(str).str.strip().str.replace(r"\.0$", "", regex=True)
    if texts.str.fullmatch(r"\d{1,6}").all():
        digits = texts.str.zfill(6 if texts.astype(int).max() >= 2400 else 4)
        texts = digits.str.replace(r"^(\d\d)(\d\d)(\d\d)?$", _colons, regex=True)
    if not texts.str.fullmatch(_CLOCK).all():
        return None
    clocks = pd.to_timedelta(texts.where(texts.str.count(":") == 2, texts + ":00"), errors="coerce")
    if clocks.isna().any() or (clocks >= pd.Timedelta(days=1)).any():
        return None
    values = np.append(clocks.to_numpy("timedelta64[ns]"), np.timedelta64("NaT"))[codes]
    return pd.Series(values, index=column.index)


def check_timezone(name: str | None) -> None:
    """Require the name of a time zone.

    Raises:
        ValueError: there is no such time zone.
    """
    if name is None:
        return
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"timezone={name} is not a time zone. Pass that of the exchange, e.g. Asia/Shanghai."
        ) from error


def bad_times(column: pd.Series, bad: pd.Series, file: Path) -> ValueError:
    """The error about values that are not dates."""
    first = int(bad.to_numpy().argmax())
    row = int(str(column.index[first])) + 1
    return ValueError(
        f"{file} has {int(bad.sum())} values in '{column.name}' that are not dates, the first "
        f"'{column.iloc[first]}' in row {row}. Write them as YYYY-MM-DD, with HH:MM in intraday bars."
    )


def _colons(match: re.Match[str]) -> str:
    return ":".join(part for part in match.groups() if part is not None)


def _zoned(utc: pd.Series, wall: pd.Series, timezone: str | None, what: str, zone: tzinfo | None) -> Times:
    """Instants, and the local times in the file with their zone -> the local times to use."""
    if timezone is None:
        note = f"timestamps {what} (--timezone converts)"
    else:
        wall, zone = utc.dt.tz_convert(timezone).dt.tz_localize(None), ZoneInfo(timezone)
        note = f"timestamps {what}, converted to {timezone}"
    return Times(_within(wall), True, (note,), zone)


def _within(wall: pd.Series) -> pd.Series:
    """Datetimes of any unit as datetime64[ns]; NaT outside the years 1900 to 2199."""
    return wall.where(wall.between(_FIRST, _LAST)).astype("datetime64[ns]")


def _from_numbers(values: np.ndarray, timezone: str | None) -> Times:
    whole = np.where(np.isfinite(values), values, 0).astype(np.int64)
    calendar = pd.Series(np.datetime64("NaT", "ns"), index=range(len(values)))
    for digits, form in _CALENDAR.items():
        fits = (whole >= 10 ** (digits - 1)) & (whole < 10**digits) & (whole == values)
        if fits.any():
            texts = pd.Series(whole[fits].astype(str), index=np.flatnonzero(fits))
            calendar[fits] = _within(pd.to_datetime(texts, format=form, errors="coerce"))
    if calendar.notna().all():
        return Times(calendar, False)
    nanoseconds, units = np.full(len(values), np.iinfo(np.int64).min), []
    for (least, unit, factor), most in zip(
        _EPOCHS, (*(kind[0] for kind in _EPOCHS[1:]), np.inf), strict=True
    ):
        fits = (values >= least) & (values < most)
        if fits.any():
            fraction = np.rint((values[fits] - whole[fits]) * factor).astype(np.int64)
            nanoseconds[fits] = whole[fits] * factor + fraction
            units.append(unit)
    utc = pd.Series(nanoseconds.view("datetime64[ns]")).dt.tz_localize("UTC")
    if not units or calendar.notna().sum() > utc.notna().sum() / 2:
        return Times(calendar, False)
    what = f"as epoch {' and '.join(units)} in UTC"
    return _zoned(utc, utc.dt.tz_localize(None), timezone, what, fixed_offset.utc)


def _from_text(texts: pd.Series, timezone: str | None) -> Times:
    plain = _iso(texts)
    if plain is not None:
        return Times(plain, False)
    parts = texts.str.extract(_OFFSET)
    marked = parts[1].notna()
    clock, notes = _local(texts.where(~marked, parts[0]))
    if not marked.any():
        return Times(clock, False, notes)
    offsets = parts[1].where(marked, "Z").str.upper().replace({"Z": "+00", "UTC": "+00", "GMT": "+00"})
    offsets = offsets.str.replace(r"^([+-]\d\d):?(\d\d)?$", _offset_text, regex=True)
    utc = (clock - pd.to_timedelta(offsets + ":00")).dt.tz_localize("UTC")
    kinds = sorted(offsets.unique())
    named = ", ".join(kinds[:3]) + (", ..." if len(kinds) > 3 else "")
    what = f"at UTC offset {named}" if kinds != ["+00:00"] else "in UTC"
    times = _zoned(utc, clock, timezone, what, _fixed_zone(kinds[0]) if len(kinds) == 1 else None)
    return times._replace(notes=(*notes, *times.notes))


def _iso(texts: pd.Series) -> pd.Series | None:
    """Datetimes if all texts have the year first and no offset, which is much faster; else None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of several offsets, see below
            wall = pd.to_datetime(texts, format="ISO8601", errors="coerce")
    except ValueError:  # several offsets
        return None
    # pandas before 3 returns objects for several offsets, with a warning, instead of raising.
    naive = isinstance(wall.dtype, np.dtype) and wall.dtype.kind == "M"
    if not naive or wall.isna().any() or texts.str.len().min() < len("2024-1-2"):
        return None
    return _within(wall)


def _offset_text(match: re.Match[str]) -> str:
    return f"{match[1]}:{match[2] or '00'}"


def _fixed_zone(offset: str) -> tzinfo:
    """The time zone of a UTC offset such as +08:00."""
    hours, minutes = int(offset[1:3]), int(offset[4:6])
    return fixed_offset((-1 if offset[0] == "-" else 1) * timedelta(hours=hours, minutes=minutes))


def _local(texts: pd.Series) -> tuple[pd.Series, tuple[str, ...]]:
    """Text without offsets -> datetimes, and notes on the order of day and month."""
    plain = texts.str.replace(_CHINESE, r"\1-\2-\3", regex=True)
    wall = pd.to_datetime(plain, format="ISO8601", errors="coerce")
    wall = _within(wall.where(~plain.str.fullmatch(r"\d{4}", na=True)))
    if wall.isna().any():
        parts = plain.str.extract(_DAY_FIRST)
        fits = wall.isna() & parts[0].notna()
        first, second = (pd.to_numeric(parts[i][fits]) for i in (0, 2))
        if fits.any() and ((first > 12).any() != (second > 12).any()):  # else day and month are ambiguous
            day, month = (0, 2) if (first > 12).any() else (2, 0)
            turned = parts[3] + "-" + parts[month].str.zfill(2) + "-" + parts[day].str.zfill(2) + parts[4]
            wall = wall.where(~fits, _any_clock(turned))
            return wall, (f"dates as {'day' if day == 0 else 'month'} first",)
        for form in _WITH_MONTH_NAME:
            if wall.notna().any() and wall.isna().sum() == 0:
                break
            wall = wall.fillna(_within(pd.to_datetime(plain, format=form, errors="coerce")))
        wall = wall.fillna(_any_clock(plain.where(plain.str.match(r"\d{4}\D\d{1,2}\D\d{1,2}[ T,]"))))
    return wall, ()


def _any_clock(texts: pd.Series) -> pd.Series:
    """Dates with the year first and times in 24 or 12 hours."""
    texts = texts.str.replace(r"[ T,]+", " ", regex=True).str.strip()
    wall = _within(pd.to_datetime(texts, format="ISO8601", errors="coerce"))
    for form in ("%Y-%m-%d %H:%M", "%Y-%m-%d %I:%M %p", "%Y-%m-%d %I:%M:%S %p", "%Y-%m-%d %I-%p"):
        wall = wall.fillna(_within(pd.to_datetime(texts, format=form, errors="coerce")))
    return wall


_DAY = pd.Timedelta(days=1)
# Midnight is between UTC-12 and UTC+14; timestamps at most this long before midnight may be that of the next day.
_BEFORE_MIDNIGHT = pd.Timedelta(hours=13)


class Sessions(NamedTuple):
    """Timestamps in which those of daily bars are midnight of their session, and notes."""

    wall: pd.Series
    notes: tuple[str, ...] = ()


class AmbiguousSessionError(ValueError):
    """Daily timestamps that may belong to either of two days."""


def to_sessions(wall: pd.Series, instruments: pd.Series, *, absolute: bool, timezone: str | None) -> Sessions:
    """Set the dates of daily bars; intraday bars are unchanged.

    A session stored as an instant in another time zone, such as 2024-01-01 16:00 UTC for 2024-01-02 in Shanghai,
    would be assigned to the previous day. Weekdays resolve this: stocks do not trade on weekends, so that of the
    timestamp's own date and the next one, the one without weekends is correct.

    Args:
        wall: datetime64[ns] local time of each row.
        instruments: instrument of each row.
        absolute: whether timestamps are instants (an offset, an epoch) rather than local times.
        timezone: time zone of the exchange, to which instants were converted: their own date is used. Local times
            are read as UTC if this makes them its midnight.

    Raises:
        AmbiguousSessionError: weekdays do not determine the date of instants.
    """
    dates = wall.dt.normalize()
    known = wall.notna()
    if not known.any() or (dates == wall)[known].all() or not _is_daily(wall, instruments, absolute):
        return Sessions(wall)
    clocks = sorted({f"{time:%H:%M}" for time in wall[known].dt.time})
    shown = " and ".join(clocks[:2]) + (" ..." if len(clocks) > 2 else "")
    own = Sessions(dates, (f"daily timestamps at {shown} are assigned to their own date",))
    nearest = (wall + _BEFORE_MIDNIGHT).dt.normalize()
    if timezone is not None and not absolute:
        local = wall.dt.tz_localize("UTC").dt.tz_convert(timezone).dt.tz_localize(None)
        if (local.dt.normalize() == local)[known].all():
            return Sessions(local, (f"daily timestamps at {shown} are midnight of {timezone} in UTC",))
    if timezone is not None or (nearest == dates)[known].all():
        return own
    weekend, weekend_nearest = (_weekend(days, known) for days in (dates, nearest))
    if weekend_nearest and not weekend:
        return own
    if weekend and not weekend_nearest:
        moved = known & (nearest != dates)
        example = f"{wall[moved].iloc[0]:%Y-%m-%d %H:%M} is assigned to {nearest[moved].iloc[0]:%Y-%m-%d}"
        note = f"daily timestamps at {shown} are midnight of another time zone, {example}"
        return Sessions(nearest, (note,))
    if not absolute:
        return own
    first = wall[known].iloc[0]
    raise AmbiguousSessionError(
        f"daily bars at {shown}: it is unclear whether {first} belongs to {first:%Y-%m-%d} or to "
        f"{nearest[known].iloc[0]:%Y-%m-%d}. Pass the time zone of the exchange, e.g. --timezone Asia/Shanghai "
        "(in training YAML timezone: Asia/Shanghai)."
    )


def _is_daily(wall: pd.Series, instruments: pd.Series, absolute: bool) -> bool:
    """Whether the instrument with most rows has daily or longer bars; single instants may also be daily."""
    longest = instruments.mode()
    if longest.empty:
        return False
    times = pd.DatetimeIndex(wall[instruments == longest.iloc[0]])
    step = typical_step(times)
    return absolute if step is None else step >= _DAY


def _weekend(days: pd.Series, known: pd.Series) -> bool:
    return bool((days[known].dt.day_of_week >= 5).any())
