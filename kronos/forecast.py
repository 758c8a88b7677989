"""Forecast: every sampled path with its keys, averaged only when asked. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from kronos.bars import FEATURES, PRICES
from kronos.config import SampleConfig

Anchor = Literal["last_close", "decoded_close"]  # where paths start
MAX_RATIO = 2.0  # of a true last close to the decoded one, when paths are scaled by it


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
        anchor: where paths start: "last_close", the true last close, or "decoded_close", the tokenizer's reading
            of it.
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
    anchor: str
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
        decoded_close: (N,) float32, the close of the last bar as the tokenizer reads it: the price that the model
            continues. With `provenance.anchor` "last_close" the four prices of all paths are scaled from it to
            the true last close; with "decoded_close" they are raw. None for paths that no tokenizer made.
    """

    paths: np.ndarray
    keys: pd.MultiIndex
    timestamps: np.ndarray
    last: np.ndarray
    provenance: Provenance
    decoded_close: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice | np.ndarray) -> Forecast:
        """Some of the windows, by slice, mask or integer array."""
        return replace(
            self,
            paths=self.paths[rows],
            keys=self.keys[rows],
            timestamps=self.timestamps[rows],
            last=self.last[rows],
            decoded_close=None if self.decoded_close is None else self.decoded_close[rows],
        )

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


def anchor_paths(paths: np.ndarray, decoded_close: np.ndarray, last_close: np.ndarray) -> None:
    """Scale the four prices of paths, in place, from the decoded last close to the true one.

    The tokenizer rounds the last bar, and the model continues what it reads. Measured from the true close that
    rounding looks like a return: it is half of the variance of a one-bar `expected_return`, and a fake reversal,
    since a bar that closes high is read too low. The ratio is capped at MAX_RATIO: a close that is decoded at less
    than half of itself belongs to a window whose scale dwarfs its price, and no ratio repairs that reading.

    Args:
        paths: (N, S, H, 6) float32 in the bars' own units.
        decoded_close: (N,) the tokenizer's reading of the last close.
        last_close: (N,) the true one.
    """
    decoded = np.maximum(decoded_close.astype(np.float64), last_close / MAX_RATIO)
    ratio = np.divide(last_close, decoded, out=np.ones_like(decoded), where=decoded > 0)
    paths[..., : len(PRICES)] *= ratio.astype(np.float32)[:, None, None, None]
