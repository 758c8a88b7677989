"""Forecast: every sampled path with its keys, averaged only when asked. Knows no torch."""

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
from kronos.paths import (
    FLOOR,
    PriceLimits,
    Violations,
    count_violations,
    limit_paths,
    price_band,
    repair_paths,
)

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
        calibration: id of the calibration that has moved the paths; None for paths as sampled.
        limits: whether price limits have clipped the paths.
        candles: "valid" where the bars of the paths were repaired, else "raw".
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
    calibration: str | None = None
    limits: bool = False
    candles: str = "raw"


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
        trailing_volatility: (N,) float32, deviation of the window's last 20 log returns, per bar; NaN or None where
            it is not known.
        calibration: that has moved the paths, which `band` asks for its conformal factors; None for paths as
            sampled.
    """

    paths: np.ndarray
    keys: pd.MultiIndex
    timestamps: np.ndarray
    last: np.ndarray
    provenance: Provenance
    decoded_close: np.ndarray | None = None
    trailing_volatility: np.ndarray | None = None
    calibration: Calibration | None = None

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
            trailing_volatility=None if self.trailing_volatility is None else self.trailing_volatility[rows],
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

    @property
    def spacing(self) -> float | None:
        """Seconds of the shortest step that is forecast; None where one step does not tell it."""
        dates = pd.DatetimeIndex(self.keys.get_level_values("datetime")).to_numpy("datetime64[ns]")
        return shortest_step(np.asarray(dates), self.timestamps)

    def log_returns(self) -> np.ndarray:
        """(N, S, H) float64 log returns from the last close to each sampled close.

        A path is sampled on a linear scale, so a violent one can cross zero; closes at or below zero are lifted to
        a thousandth of the last close first.

        Raises:
            ValueError: a last close is not positive.
        """
        last = positive_close(self.last[:, CLOSE], self.keys)[:, None, None]
        return np.log(np.maximum(self.path("close"), FLOOR * last) / last)

    def band(self, level: float) -> np.ndarray:
        """(N, H, 2) closes between which the central `level` of the paths lie, by step.

        Ends are quantiles at Weibull positions; where a calibration has moved the paths, its conformal factors
        widen them around the median.

        Raises:
            ValueError: no share of the paths, or a last close is not positive.
        """
        if not 0 < level < 1:
            raise ValueError(
                f"level={level} is not a band. Pass a share of the paths between 0 and 1, such as 0.9."
            )
        floor = FLOOR * positive_close(self.last[:, CLOSE], self.keys)[:, None, None]
        ends = price_band(np.maximum(self.path("close"), floor), level, self.band_factors(level))
        return np.moveaxis(ends, 0, -1)

    def band_factors(self, level: float) -> np.ndarray:
        """(N, H) factors of the calibration that has moved the paths; 1 for paths as sampled."""
        if self.calibration is None:
            return np.ones(self.timestamps.shape)
        return self.calibration.band_factors(level, self.keys, self.horizon)

    def calibrated(self, calibration: Calibration | str | Path | None) -> Forecast:
        """The same forecast with its paths moved to where outcomes fell.

        All four prices of a step of a path move by the same factor; volume and amount stay. Candles stay as valid
        as they are.

        Args:
            calibration: or the file of one; None and "none" move nothing. A checkpoint's own is
                `KronosPredictor.calibration`.

        Raises:
            ValueError: it was fitted to other weights, sampling, horizon or bars; or the paths are calibrated.
            FileNotFoundError: no such file.
        """
        if calibration is None or calibration == "none":
            return self
        if not isinstance(calibration, Calibration):
            calibration = Calibration.read(calibration)
        if self.provenance.calibration is not None:
            raise ValueError(
                f"The paths are calibrated by {self.provenance.calibration} already. Calibrate those as sampled."
            )
        calibration.check(self.provenance, self.horizon, self.spacing)
        shift = calibration.shift(self.log_returns(), self.trailing_volatility, self.keys)
        paths = self.paths.copy()
        paths[..., : len(PRICES)] *= np.exp(shift).astype(np.float32)[..., None]
        provenance = replace(self.provenance, calibration=calibration.id)
        return replace(self, paths=paths, provenance=provenance, calibration=calibration)

    def limited(self, limits: PriceLimits | Callable[[str], PriceLimits]) -> Forecast:
        """The same forecast with prices clipped to limits around the close of the bar before.

        Args:
            limits: of all instruments, or what tells them by an instrument's name, e.g. `china_limits`.
        """
        names = self.keys.get_level_values("instrument").astype(str)
        own = [limits if isinstance(limits, PriceLimits) else limits(name) for name in names]
        rates = np.array([each.rate for each in own])
        ticks = np.array([np.nan if each.tick is None else each.tick for each in own])
        paths = limit_paths(self.paths, self.last[:, CLOSE], rates, ticks)
        return replace(self, paths=paths, provenance=replace(self.provenance, limits=True))

    def repaired(self) -> Forecast:
        """The same forecast with valid bars, see `kronos.paths.repair_paths`."""
        if self.provenance.candles == "valid":
            return self
        paths = repair_paths(self.paths, self.last[:, CLOSE])
        return replace(self, paths=paths, provenance=replace(self.provenance, candles="valid"))

    def violations(self) -> Violations:
        """How many of the sampled bars are invalid; 0 of a repaired forecast's."""
        return count_violations(self.paths)

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


def step_seconds(dates: np.ndarray, timestamps: np.ndarray) -> np.ndarray:
    """(N,) seconds of each window's shortest step from its (N,) date through its (N, H) times ahead; NaN for H = 1.

    One step may span a night or a holiday; of two or more the shortest is the bars' own.
    """
    if timestamps.shape[1] < 2:
        return np.full(len(dates), np.nan)
    times = np.concatenate([dates[:, None], timestamps], axis=1).astype("datetime64[ns]")
    seconds: np.ndarray = np.diff(times, axis=1).min(axis=1) / np.timedelta64(1, "s")
    return seconds


def shortest_step(dates: np.ndarray, timestamps: np.ndarray) -> float | None:
    """Seconds of the shortest step of all windows, see `step_seconds`; None where none is known."""
    steps = step_seconds(dates, timestamps)
    return None if not len(steps) or np.isnan(steps).all() else float(steps.min())


def positive_close(last_close: np.ndarray, keys: pd.MultiIndex) -> np.ndarray:
    """(N,) last closes as float64.

    Raises:
        ValueError: one of them is not positive, so that nothing has a return from there.
    """
    last = last_close.astype(np.float64)
    if (last <= 0).any():
        where = keys[int(np.argmax(last <= 0))]
        raise ValueError(f"The last close of {where} is not positive, so it has no return. Drop that window.")
    return last


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
