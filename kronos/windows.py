"""Windows: the last bars of each (datetime, instrument), their scale, and the timestamps to forecast.

Knows no torch. A window dated t holds bars up to t and nothing later; its future timestamps come from a
calendar, never from data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from kronos.bars import (
    CLOSE,
    FEATURES,
    PRICES,
    check_bars,
    check_same_zone,
    price_level,
    stamps,
    unique_wall_clock,
    wall_clock,
)
from kronos.calendar import future_timestamps
from kronos.config import as_integer

KEYS = ("datetime", "instrument")
MIN_BARS = 2  # one bar has no spread to scale by


@dataclass(frozen=True)
class Windows:
    """N windows of up to T bars, kept as slices of one tape of bars, so that slicing windows copies no bar.

    `values` and `stamps` lay the bars out aligned left: row i holds `lengths[i]` bars from the front and
    zeros behind. Under causal attention no real bar then sees a padded one, so that windows of any length
    share a batch.

    Attributes:
        tape: (M, 6) float32, FEATURES in the bars' own units, instrument after instrument.
        tape_stamps: (M, 5) int64 calendar fields of the tape.
        ends: (N,) int64, where on the tape each window's last bar is.
        lengths: (N,) int64, bars of each window, at least MIN_BARS.
        future: (N, H) datetime64[ns], the timestamps to forecast.
        keys: (N,) MultiIndex (datetime, instrument); datetime is that of the last bar seen.
    """

    tape: np.ndarray
    tape_stamps: np.ndarray
    ends: np.ndarray
    lengths: np.ndarray
    future: np.ndarray
    keys: pd.MultiIndex

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice | np.ndarray) -> Windows:
        """Some of the windows, by slice, mask or integer array."""
        return replace(
            self,
            ends=self.ends[rows],
            lengths=self.lengths[rows],
            future=self.future[rows],
            keys=self.keys[rows],
        )

    @property
    def horizon(self) -> int:
        """Bars to forecast."""
        return self.future.shape[1]

    @property
    def width(self) -> int:
        """T, the longest window."""
        return int(self.lengths.max(initial=0))

    @property
    def values(self) -> np.ndarray:
        """(N, T, 6) float32 bars."""
        return self._layout(self.tape)

    @property
    def stamps(self) -> np.ndarray:
        """(N, T, 5) int64 calendar fields of the bars."""
        return self._layout(self.tape_stamps)

    @property
    def last(self) -> np.ndarray:
        """(N, 6) float32, the last bar of each window."""
        return self.tape[self.ends]

    @property
    def future_stamps(self) -> np.ndarray:
        """(N, H, 5) int64 calendar fields of `future`."""
        return stamps(pd.DatetimeIndex(self.future.ravel())).reshape(*self.future.shape, -1)

    def scale(self, rule: Rule = "unit_free") -> Scale:
        """Each window's scale, from its own bars only, see `Scale.fit` and `Scale.fit_upstream`."""
        free = rule == "unit_free"
        fit, dtype = (Scale.fit, np.float64) if free else (Scale.fit_upstream, np.float32)
        values = self.values
        mean, width = np.empty((2, len(self), 1, len(FEATURES)), dtype)
        for length in np.unique(self.lengths):
            rows = self.lengths == length
            mean[rows], width[rows] = fit(values[rows, :length])
        return Scale(mean, width)

    def digest(self) -> str:
        """sha256 of all that the windows hold: two equal digests mean equal inputs."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 1024):  # laid out piece by piece, to hold little of it at once
            part = self[start : start + 1024]
            for array in (part.values, part.lengths, part.stamps, part.future):
                digest.update(np.ascontiguousarray(array).tobytes())
            digest.update("\n".join(part.keys.get_level_values("instrument").astype(str)).encode())
            dates = pd.DatetimeIndex(part.keys.get_level_values("datetime"))
            digest.update(dates.as_unit("ns").asi8.tobytes())
        return digest.hexdigest()

    def _layout(self, tape: np.ndarray) -> np.ndarray:
        offsets = np.arange(self.width)
        rows = np.minimum((self.ends + 1 - self.lengths)[:, None] + offsets, self.ends[:, None])
        real = (offsets < self.lengths[:, None])[..., None]  # (N, T, 1)
        return np.where(real, tape[rows], tape.dtype.type(0))

    @classmethod
    def rolling(
        cls,
        panel: pd.DataFrame | Mapping[str, pd.DataFrame],
        lookback: int,
        horizon: int,
        calendar: pd.DatetimeIndex | str,
        *,
        since: pd.Timestamp | str | None = None,
        until: pd.Timestamp | str | None = None,
        keys: pd.MultiIndex | None = None,
        min_bars: int | None = None,
    ) -> Windows:
        """The window that ends at each bar of each instrument, in order of (datetime, instrument).

        Timestamps with a time zone stand for its local clock (`kronos.bars.wall_clock`): keys, future timestamps
        and calendar fields are those that it shows, without the zone.

        Args:
            panel: frame indexed (datetime, instrument), or a mapping instrument -> frame by datetime.
            lookback: bars of a window at most.
            horizon: bars to forecast.
            calendar: trading timestamps, or a pandas frequency ("B", "5min") for a market without one.
            since: first date of a window; earlier bars still serve as lookback.
            until: last date of a window, inclusive.
            keys: only these (datetime, instrument) pairs.
            min_bars: windows with fewer bars are left out; `lookback` when omitted.

        Raises:
            ValueError: no window remains, a bar is not one (see `check_bars`), or bars and calendar are of
                different time zones.
        """
        lookback, horizon = as_integer("lookback", lookback), as_integer("horizon", horizon)
        min_bars = lookback if min_bars is None else as_integer("min_bars", min_bars)
        _check_sizes(lookback, horizon, min_bars)
        wanted = _wanted_dates(keys)
        if not isinstance(calendar, str):
            calendar = pd.DatetimeIndex(calendar)
        parts = []
        for name, bars in _by_instrument(panel):
            checked = check_bars(bars, f"bars of {name}")
            if not isinstance(checked.index, pd.DatetimeIndex):
                raise ValueError(f"bars of {name} have no DatetimeIndex. Use bars.set_index('datetime').")
            if not isinstance(calendar, str):
                check_same_zone(checked.index, calendar, name, "the calendar")
            index = unique_wall_clock(checked.index, name)
            checked = checked.set_axis(index)
            ends = _ends(index, min_bars, since, until, wanted if wanted is None else wanted.get(name, _NONE))
            if len(ends):
                parts.append((name, checked, ends))
        if not parts:
            raise ValueError(
                f"No instrument has a window of {min_bars} bars within [{since}, {until}]. "
                "Give earlier bars or ask for a shorter lookback."
            )
        # The times ahead are looked up once a date, not once a window.
        dates = pd.DatetimeIndex(np.unique(np.concatenate([bars.index[ends] for _, bars, ends in parts])))
        future = future_timestamps(
            dates, calendar if isinstance(calendar, str) else wall_clock(calendar), horizon
        )
        windows = [
            _cut(name, bars, ends, lookback, future[dates.get_indexer(bars.index[ends])])
            for name, bars, ends in parts
        ]
        return cls.stack(windows).sorted()

    @classmethod
    def single(cls, name: str, bars: pd.DataFrame, future: pd.DatetimeIndex) -> Windows:
        """One window of all of an instrument's bars (checked, indexed by time) and the times to forecast.

        Both in one time zone, which stands for its local clock, or in none.

        Raises:
            ValueError: fewer than MIN_BARS bars, or bars and timestamps of different time zones.
        """
        if len(bars) < MIN_BARS:
            raise ValueError(
                f"{name} has {len(bars)} bar. A forecast needs a lookback of at least {MIN_BARS}."
            )
        end = np.array([len(bars) - 1])
        index = pd.DatetimeIndex(bars.index)
        check_same_zone(index, future, name, "the timestamps to forecast")
        bars = bars.set_axis(wall_clock(index))
        return _cut(name, bars, end, len(bars), wall_clock(future).to_numpy("datetime64[ns]")[None])

    @classmethod
    def stack(cls, parts: Sequence[Windows]) -> Windows:
        """Windows of any lookbacks and one horizon, in the order given."""
        offsets = np.cumsum([0] + [len(part.tape) for part in parts[:-1]])
        return cls(
            tape=np.concatenate([part.tape for part in parts]),
            tape_stamps=np.concatenate([part.tape_stamps for part in parts]),
            ends=np.concatenate([part.ends + at for part, at in zip(parts, offsets, strict=True)]),
            lengths=np.concatenate([part.lengths for part in parts]),
            future=np.concatenate([part.future for part in parts]),
            keys=parts[0].keys.append([part.keys for part in parts[1:]]),
        )

    def sorted(self) -> Windows:
        """In order of (datetime, instrument)."""
        names, dates = self.keys.get_level_values("instrument"), self.keys.get_level_values("datetime")
        return self[np.lexsort([names, dates])]


_NONE = pd.DatetimeIndex([])


def _check_sizes(lookback: int, horizon: int, min_bars: int) -> None:
    if horizon < 1:
        raise ValueError(f"horizon={horizon} asks for no bar. Ask for at least 1.")
    if not MIN_BARS <= min_bars <= lookback:
        raise ValueError(
            f"min_bars={min_bars} and lookback={lookback}: a window needs {MIN_BARS} <= min_bars <= lookback."
        )


def _by_instrument(panel: pd.DataFrame | Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, pd.DataFrame]]:
    if isinstance(panel, pd.DataFrame):
        if list(panel.index.names) != list(KEYS):
            how = f"Index it by {list(KEYS)}."
            if isinstance(panel.columns, pd.MultiIndex):
                level = 1 if price_level(panel.columns) == 0 else 0
                how += (
                    f" Columns of two levels become such an index by panel.stack({level}, future_stack=True)."
                )
            raise ValueError(f"The panel is indexed by {list(panel.index.names)}. {how}")
        for name, bars in panel.groupby(level="instrument", sort=True):
            yield str(name), bars.droplevel("instrument")
    else:
        yield from sorted(panel.items())


def _wanted_dates(keys: pd.MultiIndex | None) -> dict[str, pd.DatetimeIndex] | None:
    if keys is None:
        return None
    dates = keys.get_level_values("datetime").to_series(index=keys.get_level_values("instrument"))
    return {str(name): wall_clock(pd.DatetimeIndex(group)) for name, group in dates.groupby(level=0)}


def _ends(
    index: pd.DatetimeIndex,
    min_bars: int,
    since: pd.Timestamp | str | None,
    until: pd.Timestamp | str | None,
    wanted: pd.DatetimeIndex | None,
) -> np.ndarray:
    """Positions of the bars that end a window."""
    keep = np.arange(len(index)) >= min_bars - 1
    if since is not None:
        keep &= index >= pd.Timestamp(since).tz_localize(None)
    if until is not None:
        keep &= index <= pd.Timestamp(until).tz_localize(None)
    if wanted is not None:
        keep &= index.isin(wanted)
    return np.flatnonzero(keep)


def _cut(name: str, bars: pd.DataFrame, ends: np.ndarray, lookback: int, future: np.ndarray) -> Windows:
    """The windows of one instrument that end at positions `ends`."""
    index = pd.DatetimeIndex(bars.index)
    return Windows(
        tape=bars.to_numpy(np.float32),
        tape_stamps=stamps(index),
        ends=ends.astype(np.int64),
        lengths=np.minimum(ends + 1, lookback).astype(np.int64),
        future=future,
        keys=pd.MultiIndex.from_arrays([index[ends], [name] * len(ends)], names=KEYS),
    )


Rule = Literal["unit_free", "upstream"]

RELATIVE_FLOOR = 1e-7  # of the mean level: upstream's 1e-5 at a price of 100
UPSTREAM_FLOOR = np.float32(1e-5)
SMALL_LEVEL, SMALL_STD = 0.1, 1e-3  # below both, UPSTREAM_FLOOR is more than 1 % of the deviation


class Scale(NamedTuple):
    """How each window is normalized: (bar - mean) / width, with mean and width (N, 1, 6) of its lookback."""

    mean: np.ndarray
    width: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray) -> Scale:
        """The scale of (N, T, 6) float32 bars, free of units: mean, and population deviation plus a relative floor.

        Bars in another unit of price or volume normalize to the same numbers. Statistics are float64, so that no
        volume overflows and a price that barely moves is not lost in rounding. A column of zeros stays near zero.
        """
        values = values.astype(np.float64)
        mean = values.mean(axis=1, keepdims=True)
        width = values.std(axis=1, keepdims=True) + RELATIVE_FLOOR * np.abs(mean)
        return cls(mean, np.where(width > 0, width, UPSTREAM_FLOOR))

    @classmethod
    def fit_upstream(cls, values: np.ndarray) -> Scale:
        """The scale of (N, T, 6) float32 bars by upstream's formula: float32 statistics, deviation plus 1e-5.

        That constant has a unit: it dwarfs the moves of a price of 1e-4. Small prices, volumes and amounts take the
        relative floor of `fit` instead.
        """
        # Powers of two scale float32 exactly, so squares of huge volumes cannot overflow and all else is as it was.
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
