"""Local times of windows, which the model reads, and the same times in the zones of their bars.

The model reads the clock of the exchange (`kronos.bars.wall_clock`). A forecast of bars with a time zone is
dated in that zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import tzinfo

import numpy as np
import pandas as pd

Zones = Mapping[str, tzinfo]  # by instrument; those of bars without a time zone are absent


def merge_zones(parts: Iterable[tuple[Zones, Iterable[str]]]) -> dict[str, tzinfo]:
    """Zones of several parts, each with its instruments.

    Raises:
        ValueError: only some instruments have a zone, so that their times cannot be compared.
    """
    merged: dict[str, tzinfo] = {}
    bare: list[str] = []
    for zones, names in parts:
        merged |= zones
        bare += [name for name in names if name not in zones]
    if merged and bare:
        name = next(iter(merged))
        raise ValueError(
            f"The bars of {name} are in the time zone {merged[name]}, those of {bare[0]} in none. Give all of them "
            "one, e.g. by tz_localize, or none."
        )
    return merged


def add_zones(index: pd.MultiIndex, timestamps: np.ndarray, zones: Zones) -> tuple[pd.MultiIndex, np.ndarray]:
    """Dates and future timestamps of windows in the zones of their instruments.

    Of an hour that occurs twice, because clocks are set back, the first is meant unless the time before it in the
    same row is as late.

    Args:
        index: (N,) local (datetime, instrument).
        timestamps: (N, H) datetime64[ns], local.
        zones: time zones of all instruments, or empty.

    Returns:
        index: dates in the zone of the bars; in UTC where instruments have several zones.
        timestamps: (N, H) pd.Timestamp objects, each in the zone of its instrument. Both unchanged without zones.
    """
    if not zones:
        return index, timestamps
    names = index.get_level_values("instrument")
    dates = pd.DatetimeIndex(index.get_level_values("datetime")).to_numpy("datetime64[ns]")
    local = np.concatenate([dates[:, None], timestamps], axis=1)  # (N, 1 + H)
    first = np.ones(local.shape, bool)
    first[:, 1:] = local[:, 1:] > np.maximum.accumulate(local, axis=1)[:, :-1]
    own = names.map({name: str(zone) for name, zone in zones.items()})
    known = {str(zone): zone for zone in zones.values()}
    moments = np.empty(local.shape, object)
    for zone in own.unique():
        rows = np.asarray(own == zone)
        flat = pd.DatetimeIndex(local[rows].ravel()).tz_localize(
            known[zone],
            ambiguous=first[rows].ravel(),
            nonexistent="shift_forward",
        )
        moments[rows] = flat.astype(object).to_numpy().reshape(-1, local.shape[1])
    shared = known[own[0]] if len(own.unique()) == 1 else "UTC"
    zoned = pd.DatetimeIndex(pd.to_datetime(moments[:, 0], utc=True)).tz_convert(shared)
    return pd.MultiIndex.from_arrays([zoned, names], names=index.names), moments[:, 1:]


def remove_zones(index: pd.MultiIndex, timestamps: np.ndarray) -> tuple[pd.MultiIndex, np.ndarray]:
    """Inverse of `add_zones`: local dates, and (N, H) local datetime64[ns]."""
    if timestamps.dtype != object:
        return index, timestamps
    dates = [time.tz_localize(None) for time in own_dates(index, timestamps)]
    local = pd.DatetimeIndex([time.tz_localize(None) for time in timestamps.ravel()])
    names = index.get_level_values("instrument")
    return (
        pd.MultiIndex.from_arrays([pd.DatetimeIndex(dates), names], names=index.names),
        local.to_numpy("datetime64[ns]").reshape(timestamps.shape),
    )


def own_dates(index: pd.MultiIndex, timestamps: np.ndarray) -> list[pd.Timestamp]:
    """(N,) dates of windows, each in the zone of its own bars."""
    dates = list(index.get_level_values("datetime"))
    if timestamps.dtype != object:
        return dates
    return [date.tz_convert(row[0].tz) for date, row in zip(dates, timestamps, strict=True)]


def one_zone(times: np.ndarray) -> pd.DatetimeIndex | np.ndarray:
    """Timestamps as a DatetimeIndex where they have one zone or none; objects otherwise."""
    if times.dtype == object and len({str(time.tz) for time in times}) > 1:
        return times
    return pd.DatetimeIndex(times)
