"""Scale: bars to numbers of order one and back, by the statistics of the lookback alone."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from kronos.bars import CLOSE, PRICES

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
