"""Frequency of bars, inferred from their timestamps; future timestamps from a calendar, never from data."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

# Minutes per bar; the names are those of the cleaning rules of training.
FREQUENCIES = {
    "1min": 1,
    "5min": 5,
    "15min": 15,
    "30min": 30,
    "60min": 60,
    "4h": 240,
    "1day": 1440,
    "1week": 10080,
}
_NAMES = {minutes: name for name, minutes in FREQUENCIES.items()}
_DAY, _WEEK = FREQUENCIES["1day"], FREQUENCIES["1week"]
_RELIABLE = 10  # an instrument with fewer steps does not contradict others
_REGULAR = 0.9  # share of equal steps above which bars 2 to 4 days apart are not daily bars with gaps


def typical_step(index: pd.DatetimeIndex) -> pd.Timedelta | None:
    """The most frequent step between neighboring timestamps; the smaller of two that are equally frequent.

    Nights, weekends, lunch breaks and missing bars lengthen some steps, but the bar's own length stays the most
    frequent one. Steps of about a day or more are rounded to whole days, because of daylight saving time.

    Args:
        index: timestamps in any order; duplicates and NaT are ignored.

    Returns:
        The step, or None for fewer than two distinct timestamps.
    """
    steps = neighbor_steps(index)
    return pd.Timedelta(seconds=_mode(steps)) if len(steps) else None


def infer_frequency(index: pd.DatetimeIndex) -> str | None:
    """The frequency of one instrument's bars, a key of FREQUENCIES, or None if none fits.

    Args:
        index: timestamps of the bars in any order, with or without a time zone.

    Returns:
        "1min" to "1week"; None for fewer than two bars and for other steps, such as 10 minutes or a month.
    """
    return _frequency(neighbor_steps(index))


def _frequency(steps: np.ndarray) -> str | None:
    if not len(steps):
        return None
    mode = _mode(steps)
    minutes, rest = divmod(mode, 60)
    if rest:
        return None
    days = minutes / _DAY
    if 1 < days < 5:  # a daily series with gaps, unless the step is always the same
        regular = len(steps) > 2 and np.mean(steps == mode) > _REGULAR
        return None if regular else "1day"
    if 5 < days < 9:
        minutes = _WEEK
    return _NAMES.get(minutes)


class FrequencyVotes:
    """The common frequency of several instruments; those with few bars count only if no other has many."""

    def __init__(self) -> None:
        self._first: dict[bool, dict[str, str]] = {
            True: {},
            False: {},
        }  # by reliability: frequency -> instrument

    def add(self, name: str, index: pd.DatetimeIndex) -> None:
        """Add one instrument; `name` appears in errors."""
        steps = neighbor_steps(index)
        if (frequency := _frequency(steps)) is not None:
            self._first[len(steps) >= _RELIABLE].setdefault(frequency, name)

    def update(self, other: FrequencyVotes) -> None:
        """Add the instruments of another object."""
        for reliable, first in other._first.items():
            for frequency, name in first.items():
                self._first[reliable].setdefault(frequency, name)

    @property
    def mixed(self) -> bool:
        """Whether two instruments have different frequencies."""
        return len(self._first[True] or self._first[False]) > 1

    def result(self, where: str) -> str | None:
        """The common frequency, or None if no instrument has one.

        Args:
            where: name of the whole in errors.

        Raises:
            ValueError: two instruments have different frequencies.
        """
        found = self._first[True] or self._first[False]
        if len(found) > 1:
            (one, first), (two, second) = list(found.items())[:2]
            raise ValueError(
                f"{where} mixes bars of different frequencies: {first} has {one} bars, {second} has {two} bars. "
                "Keep one frequency per source, or pass the files of one frequency."
            )
        return next(iter(found), None)


def common_frequency(indexes: Iterable[tuple[str, pd.DatetimeIndex]], where: str) -> str | None:
    """The common frequency of several instruments (or files).

    Args:
        indexes: name of each instrument in errors, and the timestamps of its bars.
        where: name of the whole in errors.

    Returns:
        A key of FREQUENCIES, or None if no instrument has one.

    Raises:
        ValueError: two instruments have different frequencies.
    """
    votes = FrequencyVotes()
    for name, index in indexes:
        votes.add(name, index)
    return votes.result(where)


def neighbor_steps(index: pd.DatetimeIndex) -> np.ndarray:
    """(distinct timestamps - 1,) int64 seconds between neighbors; about a day or more is rounded to whole days."""
    nanoseconds = np.diff(np.sort(pd.DatetimeIndex(index).dropna().as_unit("ns").asi8))
    seconds = np.rint(nanoseconds[nanoseconds > 0] / 1e9).astype(np.int64)
    days = np.rint(seconds / 86400).astype(np.int64)
    return np.where(seconds >= 22 * 3600, days * 86400, seconds)


def _mode(steps: np.ndarray) -> int:
    values, counts = np.unique(steps, return_counts=True)
    return int(values[np.argmax(counts)])


def is_frequency(text: str) -> bool:
    """Whether pandas reads a text as a frequency, such as "B" or "5min"; no name of an exchange is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of spellings that pandas deprecates
        try:
            to_offset(text)
        except ValueError:
            return False
    return True


def next_timestamps(asof: pd.DatetimeIndex, calendar: pd.DatetimeIndex | str, horizon: int) -> np.ndarray:
    """(N, H) datetime64[ns]: the next `horizon` trading times after each of N timestamps.

    A calendar that ends too early is extended, a daily one by business days and others by their smallest step, so
    that the last dates have a forecast too.
    """
    dates, inverse = np.unique(asof, return_inverse=True)
    if isinstance(calendar, str):
        rows = [pd.date_range(date, periods=horizon + 1, freq=calendar) for date in pd.DatetimeIndex(dates)]
        # A frequency that does not contain the start moves it forward: that is already the first step.
        table = np.stack(
            [r[r > d][:horizon] if r[0] > d else r[1:] for r, d in zip(rows, dates, strict=True)]
        )
    else:
        if len(calendar) == 0:
            raise ValueError(
                "The calendar is empty. Pass trading timestamps, or a pandas frequency such as 'B'."
            )
        calendar = pd.DatetimeIndex(calendar)
        if calendar.tz is not None:
            raise ValueError(f"The calendar is in the time zone {calendar.tz}. Use .tz_localize(None).")
        times = np.unique(calendar)
        times = np.concatenate([times, _continuation(times, dates[-1], horizon)])
        table = times[np.searchsorted(times, dates, side="right")[:, None] + np.arange(horizon)]
    return table.astype("datetime64[ns]")[inverse]


def _continuation(times: np.ndarray, asof: np.datetime64, horizon: int) -> np.ndarray:
    """Timestamps after the calendar's last, `horizon` of them after `asof`; they depend on the calendar only."""
    last, reach = pd.Timestamp(times[-1]), max(pd.Timestamp(asof), pd.Timestamp(times[-1]))
    step = pd.Timedelta(np.diff(times).min()) if len(times) > 1 else pd.Timedelta(days=1)
    if step >= pd.Timedelta(days=1):
        more = pd.date_range(last, periods=(reach - last).days + horizon + 2, freq="B")  # at the same hour
    else:
        more = pd.date_range(last, periods=(reach - last) // step + horizon + 2, freq=step)
    return more[more > last].to_numpy(times.dtype)
