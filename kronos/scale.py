"""Scale: bars to numbers of order one and back, by the statistics of the lookback alone. Knows no torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Scale(NamedTuple):
    """Mean and population deviation of each window's lookback, each (N, 1, 6) float32."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray) -> Scale:
        """Of (N, T, 6) float32 bars, in float32 as the released weights were trained."""
        return cls(values.mean(axis=1, keepdims=True), values.std(axis=1, keepdims=True))

    def apply(self, values: np.ndarray, clip: float) -> np.ndarray:
        """(N, T, 6) bars -> normalised and clipped to ±clip, float32."""
        return np.clip((values - self.mean) / self._width, -clip, clip)

    def invert(self, normalised: np.ndarray) -> np.ndarray:
        """(N, ..., 6) normalised bars -> the bars' own units."""
        shape = (len(normalised), *(1,) * (normalised.ndim - 2), normalised.shape[-1])
        return normalised * self._width.reshape(shape) + self.mean.reshape(shape)

    @property
    def _width(self) -> np.ndarray:
        return self.std + np.float32(1e-5)
