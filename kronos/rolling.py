"""Which windows `Windows.rolling` makes: where they end, and the timestamps they forecast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from kronos.bars import check_bars, check_same_zone, unique_wall_clock, wall_clock
from kronos.calendar import is_frequency, next_timestamps
from kronos.future import rolling_timestamps
from kronos.panels import by_instrument
from kronos.sessions import exchange_sessions

_NONE = pd.DatetimeIndex([])


class InstrumentWindows(NamedTuple):
    """Bars of one instrument and where its windows end.

    Attributes:
        name: name of the instrument.
        times: timestamps of its bars, as they were passed.
        local: the same times on the local clock.
        values: (T, 6) float32.
        ends: positions of the last bars of windows, ascending.
    """

    name: str
    times: pd.DatetimeIndex
    local: pd.DatetimeIndex
    values: np.ndarray
    ends: np.ndarray


def find_windows(
    panel: pd.DataFrame | Mapping[str, pd.DataFrame],
    calendar: pd.DatetimeIndex | str,
    min_bars: int,
    *,
    start: pd.Timestamp | str | None,
    end: pd.Timestamp | str | None,
    index: pd.MultiIndex | None,
    every: int,
) -> list[InstrumentWindows]:
    """The instruments that have a window, with checked bars; arguments and errors as in `Windows.rolling`."""
    wanted = _wanted_dates(index)
    parts = []
    for name, bars in by_instrument(panel):
        checked = check_bars(bars, f"bars of {name}")
        if not isinstance(checked.index, pd.DatetimeIndex):
            raise ValueError(f"bars of {name} have no DatetimeIndex. Use bars.set_index('datetime').")
        if not isinstance(calendar, str):
            check_same_zone(checked.index, calendar, name, "the calendar")
        local = unique_wall_clock(checked.index, name)
        ends = _ends(local, min_bars, start, end, wanted if wanted is None else wanted.get(name, _NONE))
        if len(ends):
            parts.append(InstrumentWindows(name, checked.index, local, checked.to_numpy(np.float32), ends))
    if not parts:
        raise ValueError(
            f"No instrument has a window of {min_bars} bars within [{start}, {end}]. "
            "Pass earlier bars or a shorter lookback."
        )
    if every > 1:
        kept = _end_times(parts)[::every]
        parts = [part._replace(ends=part.ends[part.local[part.ends].isin(kept)]) for part in parts]
        parts = [part for part in parts if len(part.ends)]
    return parts


def future_times(
    parts: Sequence[InstrumentWindows], horizon: int, calendar: pd.DatetimeIndex | str
) -> Iterator[np.ndarray]:
    """(len(ends), horizon) datetime64[ns] local timestamps that each instrument's windows forecast.

    Raises:
        ValueError: the calendar is neither a frequency nor an exchange.
    """
    if isinstance(calendar, str) and not is_frequency(calendar):
        try:
            exchange_sessions(calendar)
        except ValueError as error:
            raise ValueError(f"{error} Nor is it a pandas frequency such as 'B' or '5min'.") from None
        for part in parts:
            yield rolling_timestamps(part.times, part.ends, horizon, calendar)
        return
    # Computed once per date, not once per window.
    dates = _end_times(parts)
    times = calendar if isinstance(calendar, str) else wall_clock(calendar)
    future = next_timestamps(dates, times, horizon)
    for part in parts:
        yield future[dates.get_indexer(part.local[part.ends])]


def _wanted_dates(index: pd.MultiIndex | None) -> dict[str, pd.DatetimeIndex] | None:
    """Local dates of each instrument in the index; None to keep all."""
    if index is None:
        return None
    dates = index.get_level_values("datetime").to_series(index=index.get_level_values("instrument"))
    return {
        str(name): wall_clock(pd.DatetimeIndex(group))
        for name, group in dates.groupby(level=0, observed=True)
    }


def _ends(
    index: pd.DatetimeIndex,
    min_bars: int,
    start: pd.Timestamp | str | None,
    end: pd.Timestamp | str | None,
    wanted: pd.DatetimeIndex | None,
) -> np.ndarray:
    """Positions of the last bars of windows."""
    keep = np.arange(len(index)) >= min_bars - 1
    if start is not None:
        keep &= index >= pd.Timestamp(start).tz_localize(None)
    if end is not None:
        keep &= index <= pd.Timestamp(end).tz_localize(None)
    if wanted is not None:
        keep &= index.isin(wanted)
    return np.flatnonzero(keep)


def _end_times(parts: Sequence[InstrumentWindows]) -> pd.DatetimeIndex:
    """Local timestamps at which there is a window, ascending."""
    return pd.DatetimeIndex(np.unique(np.concatenate([part.local[part.ends] for part in parts])))
