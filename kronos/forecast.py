"""Forecast: all sampled paths and their (datetime, instrument) index; averages are taken on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from kronos.bars import CLOSE, FEATURES, PRICES
from kronos.calibration import Calibration
from kronos.config import SampleConfig
from kronos.forecast_text import describe, html_table
from kronos.paths import (
    PRICE_FLOOR,
    PriceLimits,
    Violations,
    count_violations,
    limit_paths,
    price_band,
    repair_paths,
)
from kronos.zones import one_zone, remove_zones

Anchor = Literal["last_close", "decoded_close"]  # where paths start
UNTRAINED = "never"  # `trained_until` of a model that reads nothing but the windows
MAX_RATIO = 2.0  # cap on true over decoded last close when paths are scaled by it


@dataclass(frozen=True)
class Provenance:
    """What a forecast was made with: enough to reproduce it.

    Attributes:
        model: name, folder or hub id of the checkpoint; of another forecaster, its name with its settings.
        revision: hub revision, None elsewhere.
        weights_sha256: sha256 of both networks' files; None for networks that were not loaded from files. Of
            another forecaster, the hash of what its forecasts depend on.
        trained_until: last date of the training data (ISO), or UNTRAINED; None if no model card states it.
        sampling: sampling settings.
        draws: source of random numbers, e.g. "sobol".
        max_context: maximum number of bars that the model sees; None for forecasters without networks of Kronos.
        clip: normalized bars are clipped to ±clip; or None.
        context_overflow: "recompute" or "rolling", what happens when a window exceeds the context; or None.
        precision: dtype of matrix products, "float32" or "bfloat16"; or None.
        anchor: start of the paths: "last_close", the true last close, or "decoded_close", its reconstruction by the
            tokenizer.
        data_sha256: sha256 of the input windows.
        calibration: id of the calibration applied to the paths; None for raw paths.
        limits: whether paths are clipped to price limits.
        candles: "valid" if sampled bars were repaired, else "raw".
    """

    model: str
    revision: str | None
    weights_sha256: str | None
    trained_until: str | None
    sampling: SampleConfig
    draws: str
    max_context: int | None
    clip: float | None
    context_overflow: str | None
    precision: str | None
    anchor: str
    data_sha256: str
    calibration: str | None = None
    limits: bool = False
    candles: str = "raw"


@dataclass(frozen=True)
class Forecast:
    """Sampled future paths of N windows.

    Attributes:
        paths: (N, S, H, 6) float32, FEATURES in the bars' own units (prices in quote currency, volume in
            units traded, amount in quote currency).
        index: (N,) MultiIndex (datetime, instrument); datetime is the timestamp of the last bar seen, in the time
            zone of the bars, or in UTC where instruments have several zones; the forecast uses nothing after its
            close.
        timestamps: (N, H) datetime64[ns], future timestamps from a calendar, never from data; of bars with a time
            zone pd.Timestamp objects, each in the zone of its instrument.
        last_bar: (N, 6) float32, the last bar seen.
        provenance: model, settings and data.
        decoded_close: (N,) float32, the last close as the tokenizer reconstructs it, from which the model
            continues. With `provenance.anchor` "last_close" the four prices of all paths are scaled from it to
            the true last close; with "decoded_close" they are raw. None for paths that are not from a tokenizer.
        trailing_volatility: (N,) float32, standard deviation of the window's last 20 log returns, per bar; NaN or
            None if unknown.
        calibration: calibration applied to the paths, whose conformal factors `band` uses; None for raw paths.
    """

    paths: np.ndarray
    index: pd.MultiIndex
    timestamps: np.ndarray
    last_bar: np.ndarray
    provenance: Provenance
    decoded_close: np.ndarray | None = None
    trailing_volatility: np.ndarray | None = None
    calibration: Calibration | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        """HTML for notebooks: the last step of the first windows."""
        return html_table(self)

    def __getitem__(self, rows: slice | np.ndarray) -> Forecast:
        """A subset of the windows, by slice, mask or integer array."""
        return replace(
            self,
            paths=self.paths[rows],
            index=self.index[rows],
            timestamps=self.timestamps[rows],
            last_bar=self.last_bar[rows],
            decoded_close=None if self.decoded_close is None else self.decoded_close[rows],
            trailing_volatility=None if self.trailing_volatility is None else self.trailing_volatility[rows],
        )

    @property
    def samples(self) -> int:
        """Number of paths per window."""
        return self.paths.shape[1]

    @property
    def horizon(self) -> int:
        """Number of bars per path."""
        return self.paths.shape[2]

    def mean(self) -> np.ndarray:
        """(N, H, 6) float32, the average over paths."""
        return self.paths.mean(axis=1)

    def quantile(self, level: float) -> np.ndarray:
        """(N, H, 6) quantile over paths at Weibull positions, which keep nominal coverage with few paths."""
        return np.quantile(self.paths, level, axis=1, method="weibull")

    def without_zones(self) -> Forecast:
        """The same forecast dated by the local clock of each instrument, as `Windows` and forecast stores are."""
        index, timestamps = remove_zones(self.index, self.timestamps)
        return replace(self, index=index, timestamps=timestamps)

    def path(self, feature: str) -> np.ndarray:
        """(N, S, H) sampled paths of one feature, e.g. "close"."""
        if feature not in FEATURES:
            raise ValueError(f"'{feature}' is not a feature. Choose one of {list(FEATURES)}.")
        return self.paths[..., FEATURES.index(feature)]

    @property
    def spacing(self) -> float | None:
        """Seconds of the shortest forecast step; None if a single step leaves it unknown."""
        local = self.without_zones()
        dates = pd.DatetimeIndex(local.index.get_level_values("datetime")).to_numpy("datetime64[ns]")
        return shortest_step(np.asarray(dates), local.timestamps)

    def log_returns(self) -> np.ndarray:
        """(N, S, H) float64 log returns from the last close to each sampled close.

        Paths are sampled on a linear scale and can cross zero; closes at or below zero are first raised to a
        thousandth of the last close.

        Raises:
            ValueError: a last close is not positive.
        """
        last = positive_close(self.last_bar[:, CLOSE], self.index)[:, None, None]
        return np.log(np.maximum(self.path("close"), PRICE_FLOOR * last) / last)

    def band(self, level: float) -> np.ndarray:
        """(N, H, 2) lower and upper close of the central band that contains a share `level` of the paths, by step.

        Bounds are quantiles at Weibull positions; the conformal factors of an applied calibration widen them around
        the median.

        Raises:
            ValueError: `level` is outside (0, 1), or a last close is not positive.
        """
        if not 0 < level < 1:
            raise ValueError(
                f"level={level} is not a band level. Pass a share of the paths between 0 and 1, such as 0.9."
            )
        floor = PRICE_FLOOR * positive_close(self.last_bar[:, CLOSE], self.index)[:, None, None]
        ends = price_band(np.maximum(self.path("close"), floor), level, self.band_factors(level))
        return np.moveaxis(ends, 0, -1)

    def band_factors(self, level: float) -> np.ndarray:
        """(N, H) band factors of the applied calibration; 1 for raw paths."""
        if self.calibration is None:
            return np.ones(self.timestamps.shape)
        return self.calibration.band_factors(level, self.without_zones().index, self.horizon)

    def calibrated(self, calibration: Calibration | str | Path | None) -> Forecast:
        """The same forecast with calibrated paths.

        All four prices of a step of a path are multiplied by the same factor; volume and amount stay. Valid bars
        stay valid.

        Args:
            calibration: a calibration or the path of its file; None and "none" change nothing. That of a checkpoint
                is `KronosPredictor.calibration`.

        Raises:
            ValueError: it was fitted to other weights, sampling, horizon or bars; or the paths are already
                calibrated.
            FileNotFoundError: no such file.
        """
        if calibration is None or calibration == "none":
            return self
        if not isinstance(calibration, Calibration):
            calibration = Calibration.read(calibration)
        if self.provenance.calibration is not None:
            raise ValueError(
                f"The paths are already calibrated by {self.provenance.calibration}. Calibrate raw paths."
            )
        calibration.check(self.provenance, self.horizon, self.spacing)
        index = self.without_zones().index
        shift = calibration.shift(self.log_returns(), self.trailing_volatility, index)
        paths = self.paths.copy()
        paths[..., : len(PRICES)] *= np.exp(shift).astype(np.float32)[..., None]
        provenance = replace(self.provenance, calibration=calibration.id)
        return replace(self, paths=paths, provenance=provenance, calibration=calibration)

    def limited(self, limits: PriceLimits | Callable[[str], PriceLimits]) -> Forecast:
        """The same forecast with prices clipped to limits around the previous close.

        Args:
            limits: limits of all instruments, or a function of the instrument, e.g. `china_limits`.
        """
        instruments = self.index.get_level_values("instrument").astype(str)
        own = [limits if isinstance(limits, PriceLimits) else limits(name) for name in instruments]
        rates = np.array([each.rate for each in own])
        ticks = np.array([np.nan if each.tick is None else each.tick for each in own])
        paths = limit_paths(self.paths, self.last_bar[:, CLOSE], rates, ticks)
        return replace(self, paths=paths, provenance=replace(self.provenance, limits=True))

    def repaired(self) -> Forecast:
        """The same forecast with valid bars, see `kronos.paths.repair_paths`."""
        if self.provenance.candles == "valid":
            return self
        paths = repair_paths(self.paths, self.last_bar[:, CLOSE])
        return replace(self, paths=paths, provenance=replace(self.provenance, candles="valid"))

    def violations(self) -> Violations:
        """Counts of invalid sampled bars; all 0 after `repaired`."""
        return count_violations(self.paths)

    def frame(self) -> pd.DataFrame:
        """The mean path in long form: index (datetime, instrument, step), columns timestamp and FEATURES.

        Times are in the zone of the bars. Of instruments with several zones, `datetime` is in UTC and `timestamp`
        in the zone of each instrument.
        """
        n, horizon = self.timestamps.shape
        index = pd.MultiIndex.from_arrays(
            [
                self.index.get_level_values("datetime").repeat(horizon),
                self.index.get_level_values("instrument").repeat(horizon),
                np.tile(np.arange(1, horizon + 1), n),
            ],
            names=["datetime", "instrument", "step"],
        )
        frame = pd.DataFrame(self.mean().reshape(n * horizon, -1), index=index, columns=list(FEATURES))
        frame.insert(0, "timestamp", one_zone(self.timestamps.ravel()))
        return frame


def step_seconds(dates: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """(N,) seconds of each window's shortest step over its (N,) date and (N, H) future timestamps; NaN for H = 1.

    A single step may span a night or a holiday; of two or more, the shortest is the step of the bars.
    """
    if timestamps.shape[1] < 2:
        return np.full(len(dates), np.nan)
    times = np.concatenate([dates[:, None], timestamps], axis=1).astype("datetime64[ns]")
    seconds: np.ndarray = np.diff(times, axis=1).min(axis=1) / np.timedelta64(1, "s")
    return seconds


def shortest_step(dates: np.ndarray, timestamps: np.ndarray) -> float | None:
    """Seconds of the shortest step of all windows, see `step_seconds`; None if unknown."""
    steps = step_seconds(dates, timestamps)
    return None if not len(steps) or np.isnan(steps).all() else float(steps.min())


def positive_close(last_close: np.ndarray, keys: pd.MultiIndex) -> np.ndarray:
    """(N,) last closes as float64.

    Raises:
        ValueError: one of them is not positive, so that returns are undefined.
    """
    last = last_close.astype(np.float64)
    if (last <= 0).any():
        where = keys[int(np.argmax(last <= 0))]
        raise ValueError(f"The last close of {where} is not positive, so it has no return. Drop that window.")
    return last


def anchor_paths(paths: np.ndarray, decoded_close: np.ndarray, last_close: np.ndarray) -> None:
    """Scale the four prices of paths, in place, from the decoded last close to the true one.

    The tokenizer quantizes the last bar, and the model continues from the reconstruction. Relative to the true
    close the quantization error looks like a return: it is half of the variance of a one-bar `expected_return`,
    and a spurious reversal, since a high close is reconstructed too low. The ratio is capped at MAX_RATIO: a
    close that is decoded at less than half of its value belongs to a window whose scale exceeds its price, which
    no ratio repairs.

    Args:
        paths: (N, S, H, 6) float32 in the bars' own units.
        decoded_close: (N,) last close as the tokenizer reconstructs it.
        last_close: (N,) true last close.
    """
    decoded = np.maximum(decoded_close.astype(np.float64), last_close / MAX_RATIO)
    ratio = np.divide(last_close, decoded, out=np.ones_like(decoded), where=decoded > 0)
    paths[..., : len(PRICES)] *= ratio.astype(np.float32)[:, None, None, None]
