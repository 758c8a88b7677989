"""Training windows: slices of mapped bars, selected by index and scaled by their lookback; the split by dates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kronos.bars import FEATURES, STAMPS
from kronos.scale import Scale
from kronos.training.bar_array import HORIZONS, MappedBars
from kronos.training.config import Source, TrainingConfig
from kronos.training.sources import QlibReader


def mixture_weights(sizes: Sequence[int], weights: Sequence[float] | None) -> list[float]:
    """Share of training windows from each source; the shares sum to 1."""
    parts = np.asarray(sizes if weights is None else weights, float)
    return list(parts / parts.sum())


class Batch(NamedTuple):
    """Windows of a step: (B, T, 6) float32 normalized bars, (B, T, 5) int64 calendar fields."""

    bars: Tensor
    stamps: Tensor


@dataclass(frozen=True)
class TrainingWindows:
    """Windows of `lookback` + `horizon` bars, scaled by their lookback only.

    Attributes:
        mapped_bars: bars of each source.
        start_rows: first row of each window in each source; window indices run through all sources.
        lookback: number of bars that determine the scale.
        horizon: number of bars after the lookback.
        weights: weights of the sources; None: their numbers of windows.
        labels: labels of the bars of each mapped (`kronos.training.bar_array`), (M, len(HORIZONS)) float32; None
            for a source without labels, or for all.
        clip: normalized values are clipped to ±clip.
    """

    mapped_bars: tuple[MappedBars, ...]
    start_rows: tuple[np.ndarray, ...]
    lookback: int
    horizon: int
    weights: tuple[float, ...] | None = None
    labels: tuple[np.ndarray | None, ...] | None = None
    clip: float = 5.0

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of windows of each source."""
        return tuple(len(starts) for starts in self.start_rows)

    def batch(self, indices: np.ndarray, drop_volume: np.ndarray | None = None) -> Batch:
        """Windows by index; volume and amount are 0 where `drop_volume`."""
        values, stamps = self._rows(np.asarray(indices))
        # Statistics of the lookback only: over the whole window they would leak the future.
        bars = Scale.fit(values[:, : self.lookback]).apply(values, self.clip)
        if drop_volume is not None:
            bars[drop_volume, :, 4:] = 0.0
        return Batch(torch.from_numpy(bars), torch.from_numpy(stamps))

    def item(self, indices: np.ndarray, drop_volume: np.ndarray | None = None) -> tuple[Tensor, ...]:
        """Input of an objective: bars and stamps, and labels if there are any."""
        batch = self.batch(indices, drop_volume)
        return batch if self.labels is None else (*batch, self.labels_of(indices))

    @property
    def labeled(self) -> slice:
        """Positions of a window with labels: those whose next bar is after the lookback."""
        return slice(self.lookback - 1, self.lookback + self.horizon - 1)

    def labels_of(self, indices: np.ndarray) -> Tensor:
        """(B, horizon, len(HORIZONS)) float32 labels at the positions `labeled`, NaN without a label."""
        source, starts = self.locate(indices)
        rows = starts[:, None] + np.arange(self.labeled.start, self.labeled.stop)
        found = np.full((*rows.shape, len(HORIZONS)), np.nan, np.float32)
        for i, labels in enumerate(self.labels or ()):
            if labels is not None:
                found[source == i] = labels[rows[source == i]]
        return torch.from_numpy(found)

    def filled_labels(self) -> list[np.ndarray]:
        """The labels of all sources, NaN for sources without labels."""
        return [
            np.full((len(mapped.values), len(HORIZONS)), np.nan, np.float32) if labels is None else labels
            for mapped, labels in zip(
                self.mapped_bars, self.labels or [None] * len(self.mapped_bars), strict=True
            )
        ]

    def locate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B,) sources and (B,) first rows, in the bars of the source, of windows by index."""
        offsets = np.cumsum((0, *self.sizes))
        source = np.searchsorted(offsets, indices, side="right") - 1
        starts = np.empty(len(indices), np.int64)
        for i in np.unique(source):
            starts[source == i] = self.start_rows[i][indices[source == i] - offsets[i]]
        return source, starts

    def sample(self, count: int) -> list[np.ndarray]:
        """Up to `count` indices in the sources' proportions, evenly spaced within each source, by source."""
        count = min(count, len(self))
        parts, offset = [], 0
        for size, share in zip(self.sizes, mixture_weights(self.sizes, self.weights), strict=True):
            wanted = min(size, max(1, round(count * share))) if size else 0
            parts.append(offset + np.unique(np.linspace(0, size - 1, wanted).astype(int)))
            offset += size
        return parts

    def last_dates(self) -> list[str | None]:
        """ISO date of the last bar of all windows of each source; None for sources without windows."""
        length = self.lookback + self.horizon
        last = [
            mapped.dates[starts + length - 1].max() if len(starts) else None
            for mapped, starts in zip(self.mapped_bars, self.start_rows, strict=True)
        ]
        return [None if date is None else str(date.astype("datetime64[D]")) for date in last]

    def _rows(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, T, 6) float32 raw bars and (B, T, 5) int64 stamps."""
        source, starts = self.locate(indices)
        length = self.lookback + self.horizon
        values = np.empty((len(indices), length, len(FEATURES)), np.float32)
        stamps = np.empty((len(indices), length, len(STAMPS)), np.int64)
        for i in np.unique(source):
            own = source == i
            rows = starts[own, None] + np.arange(length)
            values[own], stamps[own] = self.mapped_bars[i].values[rows], self.mapped_bars[i].stamps[rows]
        return values, stamps


class Split(NamedTuple):
    """Training windows, and validation windows whose horizons are after the last training date."""

    training: TrainingWindows
    validation: TrainingWindows


def source_span(
    source: Source | None, mapped: MappedBars, config: TrainingConfig
) -> tuple[str, str, str | None]:
    """Last date of a source's training windows, and first and last date of its validation bars."""
    until, end = config.until(source)
    until = until or mapped.date_at(0.8)
    after = f"{pd.Timestamp(until) + pd.Timedelta(days=1):%Y-%m-%d}"
    return until, max(after, config.validate_from or after), end


def split_windows(config: TrainingConfig, read_qlib: QlibReader | None = None) -> Split:
    """Training and validation windows of all sources.

    The lookback of a validation window may overlap the training span; its targets are all after it.

    Raises:
        ValueError: a source has no training window, or there is no validation window.
    """
    sources = config.all_sources() or (None,)
    mapped_bars = tuple(MappedBars.open(source, config.window_length, read_qlib) for source in sources)
    training, validation, spans = [], [], []
    for source, mapped in zip(sources, mapped_bars, strict=True):
        until, after, end = source_span(source, mapped, config)
        learn = mapped.window_starts(config.window_length, None, until)
        span = f"{mapped.info.name}, {mapped.info.start} to {mapped.info.end}"
        if not len(learn):
            given = config.until(source)[0]
            by = f"train_until={until}" if given else f"{until}, 80 % of its span"
            raise ValueError(
                f"{span}, has no window of {config.window_length} bars that ends by {by}. Set a later train_until, "
                "a smaller --lookback or --horizon, or pass longer series."
            )
        training.append(learn)
        validation.append(mapped.window_starts(config.window_length, after, end, held_out=config.horizon))
        spans.append(f"{span}, trains until {until}" + (f" and validates until {end}" if end else ""))
    if not sum(map(len, validation)):
        raise ValueError(
            f"There is no validation window to select the best weights by: {'; '.join(spans)}. "
            f"Move train_until or validate_until so that at least {config.horizon} bars (horizon) are between "
            "them, or pass longer series."
        )
    weights = tuple(source.weight for source in config.sources if source.weight is not None) or None
    first, second = (
        TrainingWindows(mapped_bars, tuple(starts), config.lookback, config.horizon, weights)
        for starts in (training, validation)
    )
    return Split(first, second)
