"""Scale: a window's bars in units of its own mean and deviation, which the lookback alone determines."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from kronos.bars import CLOSE, PRICES

Rule = Literal["unit_free", "upstream"]

RELATIVE_FLOOR = 1e-7  # relative to the mean: equals upstream's 1e-5 at a price of 100
UPSTREAM_FLOOR = np.float32(1e-5)
SMALL_LEVEL, SMALL_STD = 0.1, 1e-3  # below both, UPSTREAM_FLOOR is more than 1 % of the deviation


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
