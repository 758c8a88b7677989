"""Forecast: every sampled path with its keys, averaged only when asked. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos.bars import FEATURES
from kronos.config import SampleConfig


@dataclass(frozen=True)
class Provenance:
    """What a forecast was made with: enough to make it again.

    Attributes:
        model: name, folder or hub id of the checkpoint.
        revision: of the hub, None elsewhere.
        weights_sha256: of both networks; None for networks that came from no file.
        trained_until: last date that training saw (ISO), None where no model card says.
        sampling: the settings.
        draws: the source of random numbers, ours or upstream's.
        max_context: bars the model sees at most.
        clip: normalised bars are clipped to ±clip.
        window: "exact" or "rolling", how a window outgrows the context.
        precision: of matrix products, "float32" or "bfloat16".
        data_sha256: of the windows that went in.
    """

    model: str
    revision: str | None
    weights_sha256: str | None
    trained_until: str | None
    sampling: SampleConfig
    draws: str
    max_context: int
    clip: float
    window: str
    precision: str
    data_sha256: str


@dataclass(frozen=True)
class Forecast:
    """Sampled futures of N windows.

    Attributes:
        paths: (N, S, H, 6) float32, FEATURES in the bars' own units (prices in quote currency, volume in
            units traded, amount in quote currency).
        keys: (N,) MultiIndex (datetime, instrument); datetime is the close of the last bar seen, and all
            that is in the forecast was known then.
        timestamps: (N, H) datetime64[ns], future bars from a calendar, never from data.
        last: (N, 6) float32, the last bar seen.
        provenance: model, settings and data.
    """

    paths: np.ndarray
    keys: pd.MultiIndex
    timestamps: np.ndarray
    last: np.ndarray
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def samples(self) -> int:
        """Paths of each window."""
        return self.paths.shape[1]

    @property
    def horizon(self) -> int:
        """Bars of each path."""
        return self.paths.shape[2]

    def mean(self) -> np.ndarray:
        """(N, H, 6) float32, the average over paths."""
        return self.paths.mean(axis=1)

    def quantile(self, level: float) -> np.ndarray:
        """(N, H, 6) quantile over paths at Weibull positions, which keep nominal coverage at few samples."""
        return np.quantile(self.paths, level, axis=1, method="weibull")

    def path(self, feature: str) -> np.ndarray:
        """(N, S, H) sampled paths of one feature, e.g. "close"."""
        if feature not in FEATURES:
            raise ValueError(f"'{feature}' is no feature. Choose one of {list(FEATURES)}.")
        return self.paths[..., FEATURES.index(feature)]

    def frame(self) -> pd.DataFrame:
        """The average path in long form: index (datetime, instrument, step), columns timestamp and FEATURES."""
        n, horizon = self.timestamps.shape
        index = pd.MultiIndex.from_arrays(
            [
                self.keys.get_level_values("datetime").repeat(horizon),
                self.keys.get_level_values("instrument").repeat(horizon),
                np.tile(np.arange(1, horizon + 1), n),
            ],
            names=["datetime", "instrument", "step"],
        )
        frame = pd.DataFrame(self.mean().reshape(n * horizon, -1), index=index, columns=list(FEATURES))
        frame.insert(0, "timestamp", self.timestamps.ravel())
        return frame
