"""The frequency of bars, inferred from their timestamps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

# Minutes from bar to bar; the names are those of the cleaning rules of training.
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
_RELIABLE = 10  # steps that an instrument needs to disagree with others
_REGULAR = 0.9  # share of steps above which bars of 2 to 4 days are no daily bars with holes


def typical_step(index: pd.DatetimeIndex) -> pd.Timedelta | None:
    """The most frequent distance between neighboring timestamps; the smaller one where two are as frequent.

    Nights, weekends, lunch breaks and missing bars lengthen some of the distances, but the bar's own length stays
    the most frequent one. Distances of about a day or more are rounded to whole days, because clocks change.

    Args:
        index: timestamps in any order; duplicates and NaT do not count.

    Returns:
        The distance, or None for fewer than two distinct timestamps.
    """
    steps = _steps(index)
    return pd.Timedelta(seconds=_mode(steps)) if len(steps) else None


def infer_frequency(index: pd.DatetimeIndex) -> str | None:
    """The frequency of one instrument's bars: one of FREQUENCIES, or None where none of them fits.

    Args:
        index: timestamps of the bars, in any order, with or without a time zone.

    Returns:
        "1min" to "1week"; None for fewer than two bars and for other steps, such as 10 minutes or a month.
    """
    steps = _steps(index)
    if not len(steps):
        return None
    mode = _mode(steps)
    minutes, rest = divmod(mode, 60)
    if rest:
        return None
    days = minutes / _DAY
    if 1 < days < 5:  # a daily series with holes, unless the distance is always the same
        regular = len(steps) > 2 and np.mean(steps == mode) > _REGULAR
        return None if regular else "1day"
    if 5 < days < 9:
        minutes = _WEEK
    return _NAMES.get(minutes)


def common_frequency(indexes: Iterable[tuple[str, pd.DatetimeIndex]], where: str) -> str | None:
    """The frequency that several instruments (or files) share.

    Instruments with few bars only vote where no other one has many.

    Args:
        indexes: what to call an instrument in an error, and the timestamps of its bars.
        where: what to call the whole in an error.

    Returns:
        One of FREQUENCIES, or None where no instrument has one.

    Raises:
        ValueError: two instruments have different frequencies.
    """
    votes: dict[bool, dict[str, str]] = {
        True: {},
        False: {},
    }  # by reliability: frequency -> its first instrument
    for name, index in indexes:
        if (frequency := infer_frequency(index)) is not None:
            votes[len(_steps(index)) >= _RELIABLE].setdefault(frequency, name)
    found = votes[True] or votes[False]
    if len(found) > 1:
        (one, first), (two, second) = list(found.items())[:2]
        raise ValueError(
            f"{where} mixes bars of different frequencies: {first} has {one} bars, {second} has {two} bars. "
            "Keep one frequency per source, or name the files of one."
        )
    return next(iter(found), None)


def _steps(index: pd.DatetimeIndex) -> np.ndarray:
    """(distinct timestamps - 1,) int64 seconds between neighbors."""
    times = np.unique(pd.DatetimeIndex(index).dropna().as_unit("ns").asi8)
    seconds = np.rint(np.diff(times) / 1e9).astype(np.int64)
    days = np.rint(seconds / 86400).astype(np.int64)
    return np.where(seconds >= 22 * 3600, days * 86400, seconds)


def _mode(steps: np.ndarray) -> int:
    values, counts = np.unique(steps, return_counts=True)
    return int(values[np.argmax(counts)])
