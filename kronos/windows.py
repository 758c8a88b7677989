"""Windows: the last bars of each (datetime, instrument), their scale, and the timestamps to forecast.

A window dated t holds bars up to t and nothing later; its future timestamps come from a calendar, never from data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from kronos.bars import CLOSE, FEATURES, PRICES, check_same_zone, stamps, wall_clock
from kronos.config import as_integer
from kronos.panels import KEYS
from kronos.rolling import find_windows, future_times
from kronos.zones import Zones, merge_zones

MIN_BARS = 2  # one bar has no spread to scale by
Rule = Literal["unit_free", "upstream"]  # of scaling
RELATIVE_FLOOR = 1e-7  # relative to the mean: equals upstream's 1e-5 at a price of 100
UPSTREAM_FLOOR = np.float32(1e-5)
SMALL_LEVEL, SMALL_STD = 0.1, 1e-3  # below both, UPSTREAM_FLOOR is more than 1 % of the deviation


@dataclass(frozen=True)
class Windows:
    """N windows of up to T bars, stored as slices of one array of bars, so that slicing windows copies no bar.

    `values` and `stamps` are left-aligned: row i has `lengths[i]` bars followed by zeros. Under causal attention no
    real bar sees a padded one, so that windows of different lengths share a batch.

    All times are local, without their time zone (`kronos.bars.wall_clock`).

    Attributes:
        bars: (M, 6) float32, FEATURES in the bars' own units, instrument after instrument.
        bar_stamps: (M, 5) int64 calendar fields of `bars`.
        end_positions: (N,) int64, row of each window's last bar in `bars`.
        lengths: (N,) int64, bars per window, at least MIN_BARS.
        future: (N, H) datetime64[ns], the timestamps to forecast.
        index: (N,) MultiIndex (datetime, instrument); datetime is the timestamp of the last bar.
        zones: time zone of the bars by instrument, in which forecasts are dated; empty for bars without one.
    """

    bars: np.ndarray
    bar_stamps: np.ndarray
    end_positions: np.ndarray
    lengths: np.ndarray
    future: np.ndarray
    index: pd.MultiIndex
    zones: Zones = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | np.ndarray) -> Windows:
        """A subset of the windows, by slice, mask or integer array."""
        return replace(
            self,
            end_positions=self.end_positions[rows],
            lengths=self.lengths[rows],
            future=self.future[rows],
            index=self.index[rows],
        )

    @property
    def horizon(self) -> int:
        """Bars to forecast."""
        return self.future.shape[1]

    @property
    def width(self) -> int:
        """T, length of the longest window."""
        return int(self.lengths.max(initial=0))

    @property
    def values(self) -> np.ndarray:
        """(N, T, 6) float32 bars."""
        return self._layout(self.bars)

    @property
    def stamps(self) -> np.ndarray:
        """(N, T, 5) int64 calendar fields of the bars."""
        return self._layout(self.bar_stamps)

    @property
    def last_bar(self) -> np.ndarray:
        """(N, 6) float32, the last bar of each window."""
        return self.bars[self.end_positions]

    @property
    def future_stamps(self) -> np.ndarray:
        """(N, H, 5) int64 calendar fields of `future`."""
        return stamps(pd.DatetimeIndex(self.future.ravel())).reshape(*self.future.shape, -1)

    def scale(self, rule: Rule = "unit_free") -> Scale:
        """The scale of each window from its own bars only, by `Scale.fit` or `Scale.fit_upstream`."""
        free = rule == "unit_free"
        fit, dtype = (Scale.fit, np.float64) if free else (Scale.fit_upstream, np.float32)
        values = self.values
        mean, width = np.empty((2, len(self), 1, len(FEATURES)), dtype)
        for length in np.unique(self.lengths):
            rows = self.lengths == length
            mean[rows], width[rows] = fit(values[rows, :length])
        return Scale(mean, width)

    def compact(self) -> Windows:
        """The same windows with only the bars that they read, e.g. to send a few of many to another process."""
        starts = self.end_positions + 1 - self.lengths
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], np.maximum.accumulate(self.end_positions[order])
        # Overlapping windows share one stretch of bars; a gap before a window's first bar begins another.
        first = np.append(True, starts[1:] > ends[:-1])[: len(self)]
        stretch = np.cumsum(first) - 1
        begins, stops = starts[first], ends[np.append(first[1:], True)[: len(self)]] + 1
        sizes = stops - begins
        shift = np.cumsum(sizes) - sizes - begins  # from rows of `bars` to rows of the copy
        rows = np.arange(sizes.sum()) - np.repeat(shift, sizes)
        positions = np.empty_like(self.end_positions)
        positions[order] = self.end_positions[order] + shift[stretch]
        return replace(
            self,
            bars=self.bars[rows],
            bar_stamps=self.bar_stamps[rows],
            end_positions=positions,
            index=self.index.remove_unused_levels(),
        )

    def digest(self) -> str:
        """sha256 of the windows' contents: equal digests mean equal inputs."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 1024):  # in parts, to limit memory
            part = self[start : start + 1024]
            for array in (part.values, part.lengths, part.stamps, part.future):
                digest.update(np.ascontiguousarray(array).tobytes())
            digest.update("\n".join(part.index.get_level_values("instrument").astype(str)).encode())
            dates = pd.DatetimeIndex(part.index.get_level_values("datetime"))
            digest.update(dates.as_unit("ns").asi8.tobytes())
        return digest.hexdigest()

    def _layout(self, array: np.ndarray) -> np.ndarray:
        offsets = np.arange(self.width)
        rows = np.minimum(
            (self.end_positions + 1 - self.lengths)[:, None] + offsets, self.end_positions[:, None]
        )
        real = (offsets < self.lengths[:, None])[..., None]  # (N, T, 1)
        return np.where(real, array[rows], array.dtype.type(0))

    @classmethod
    def rolling(
        cls,
        panel: pd.DataFrame | Mapping[str, pd.DataFrame],
        lookback: int,
        horizon: int,
        calendar: pd.DatetimeIndex | str,
        *,
        start: pd.Timestamp | str | None = None,
        end: pd.Timestamp | str | None = None,
        index: pd.MultiIndex | None = None,
        min_bars: int | None = None,
        every: int = 1,
    ) -> Windows:
        """The window that ends at each bar of each instrument, in order of (datetime, instrument).

        Timestamps with a time zone are read as local time (`kronos.bars.wall_clock`): index, future timestamps and
        calendar fields are local, without the zone, which `zones` keeps.

        Args:
            panel: frame indexed (datetime, instrument), or a mapping instrument -> frame by datetime.
            lookback: maximum number of bars per window.
            horizon: number of bars to forecast.
            calendar: trading timestamps, a pandas frequency ("B", "5min") for a market without them, or an exchange
                ("XSHG", "24/7"): text that pandas reads as a frequency is one, any other names an exchange. Future
                timestamps of an exchange are those of `kronos.future_timestamps` for the bars up to each window's
                last one.
            start: date of the first window; earlier bars still serve as lookback.
            end: date of the last window, inclusive.
            index: keep only these (datetime, instrument) pairs.
            min_bars: windows with fewer bars are dropped; `lookback` when omitted.
            every: keep the first and then each `every`-th of the timestamps at which there is a window.

        Raises:
            ValueError: no window remains, bars are invalid (see `check_bars`), bars and calendar have different
                time zones, only some bars have one, or the calendar is neither a frequency nor an exchange.
            MissingExtra: an exchange is named and exchange_calendars is not installed.
        """
        lookback, horizon = as_integer("lookback", lookback), as_integer("horizon", horizon)
        min_bars = lookback if min_bars is None else as_integer("min_bars", min_bars)
        _check_sizes(lookback, horizon, min_bars)
        if (every := as_integer("every", every)) < 1:
            raise ValueError(f"every={every} is too small. Pass at least 1.")
        if not isinstance(calendar, str):
            calendar = pd.DatetimeIndex(calendar)
        parts = find_windows(panel, calendar, min_bars, start=start, end=end, index=index, every=every)
        futures = future_times(parts, horizon, calendar)
        windows = [
            _cut(part.name, part.local, part.values, part.ends, lookback, future, part.times.tz)
            for part, future in zip(parts, futures, strict=True)
        ]
        return cls.stack(windows).sorted()

    @classmethod
    def single(cls, name: str, bars: pd.DataFrame, future: pd.DatetimeIndex) -> Windows:
        """One window with all bars of an instrument (checked, indexed by time) and the timestamps to forecast.

        Raises:
            ValueError: fewer than MIN_BARS bars, or different time zones.
        """
        if len(bars) < MIN_BARS:
            raise ValueError(
                f"{name} has {len(bars)} bar. A forecast needs a lookback of at least {MIN_BARS}."
            )
        end = np.array([len(bars) - 1])
        index = pd.DatetimeIndex(bars.index)
        check_same_zone(index, future, name, "the timestamps to forecast")
        times = wall_clock(future).to_numpy("datetime64[ns]")
        return _cut(name, wall_clock(index), bars.to_numpy(np.float32), end, len(bars), times[None], index.tz)

    @classmethod
    def stack(cls, parts: Sequence[Windows]) -> Windows:
        """Concatenate windows of any lookbacks and one horizon, in the given order.

        Raises:
            ValueError: only some of them have time zones.
        """
        offsets = np.cumsum([0] + [len(part.bars) for part in parts[:-1]])
        return cls(
            bars=np.concatenate([part.bars for part in parts]),
            bar_stamps=np.concatenate([part.bar_stamps for part in parts]),
            end_positions=np.concatenate(
                [part.end_positions + at for part, at in zip(parts, offsets, strict=True)]
            ),
            lengths=np.concatenate([part.lengths for part in parts]),
            future=np.concatenate([part.future for part in parts]),
            index=parts[0].index.append([part.index for part in parts[1:]]),
            zones=merge_zones((part.zones, part.index.unique("instrument")) for part in parts),
        )

    def sorted(self) -> Windows:
        """Sorted by (datetime, instrument)."""
        names, dates = self.index.get_level_values("instrument"), self.index.get_level_values("datetime")
        return self[np.lexsort([names, dates])]


def _check_sizes(lookback: int, horizon: int, min_bars: int) -> None:
    if horizon < 1:
        raise ValueError(f"horizon={horizon} is too short. Pass at least 1.")
    if not MIN_BARS <= min_bars <= lookback:
        raise ValueError(
            f"min_bars={min_bars} and lookback={lookback}: a window needs {MIN_BARS} <= min_bars <= lookback."
        )


def _cut(
    name: str,
    index: pd.DatetimeIndex,
    values: np.ndarray,
    ends: np.ndarray,
    lookback: int,
    future: np.ndarray,
    zone: tzinfo | None,
) -> Windows:
    """Windows of one instrument whose last bars are at positions `ends`."""
    return Windows(
        bars=values,
        bar_stamps=stamps(index),
        end_positions=ends.astype(np.int64),
        lengths=np.minimum(ends + 1, lookback).astype(np.int64),
        future=future,
        index=pd.MultiIndex.from_arrays([index[ends], [name] * len(ends)], names=KEYS),
        zones={} if zone is None else {name: zone},
    )


class Scale(NamedTuple):
    """Normalization of each window, (bar - mean) / width, with mean and width (N, 1, 6) from its lookback only."""

    mean: np.ndarray
    width: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray) -> Scale:
        """Unit-free scale of (N, T, 6) float32 bars: mean, and population standard deviation plus a relative floor.

        Bars in another unit of price or volume normalize to the same numbers. Statistics are float64, so that large
        volumes do not overflow and tiny price changes are not lost in rounding. A column of zeros stays near zero.
        """
        values = values.astype(np.float64)
        mean = values.mean(axis=1, keepdims=True)
        width = values.std(axis=1, keepdims=True) + RELATIVE_FLOOR * np.abs(mean)
        return cls(mean, np.where(width > 0, width, UPSTREAM_FLOOR))

    @classmethod
    def fit_upstream(cls, values: np.ndarray) -> Scale:
        """Scale of (N, T, 6) float32 bars by upstream's formula: float32 statistics, standard deviation plus 1e-5.

        The constant has a unit: it exceeds the moves of a price of 1e-4. Small prices, volumes and amounts use the
        relative floor of `fit` instead.
        """
        # Scaling by powers of two is exact in float32: squares of huge volumes cannot overflow.
        exponent = np.frexp(np.abs(values).max(axis=1, keepdims=True))[1]
        small = np.ldexp(values, -exponent)
        mean = np.ldexp(small.mean(axis=1, keepdims=True), exponent)
        std = np.ldexp(small.std(axis=1, keepdims=True), exponent)
        free = (np.abs(mean) < SMALL_LEVEL) & (std < SMALL_STD) & (mean != 0)
        free[..., : len(PRICES)] = free[..., CLOSE, None]  # the four prices have one unit
        return cls(mean, std + np.where(free, np.float32(RELATIVE_FLOOR) * np.abs(mean), UPSTREAM_FLOOR))

    def apply(self, values: np.ndarray, clip: float) -> np.ndarray:
        """(N, T, 6) bars -> normalized and clipped to ±clip, float32."""
        return np.clip((values - self.mean) / self.width, -clip, clip).astype(np.float32, copy=False)

    def invert(self, normalized: np.ndarray) -> np.ndarray:
        """(N, ..., 6) normalized float32 bars -> float32 in the bars' own units."""
        shape = (len(normalized), *(1,) * (normalized.ndim - 2), normalized.shape[-1])
        mean, width = (part.astype(np.float32).reshape(shape) for part in self)
        return normalized * width + mean
