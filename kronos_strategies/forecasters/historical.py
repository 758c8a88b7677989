"""Baselines that draw the past candles of a window again: historical simulation, plain, filtered and by blocks.

The first uniform of each step chooses along the order of returns, as that of Kronos chooses along tokens sorted by
close, so that the Monte Carlo noise of a date is much the same for all instruments and models.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kronos.bars import CLOSE, FEATURES
from kronos.forecast import UNTRAINED
from kronos.windows import Windows
from kronos_strategies.forecasters.base import PathForecaster, settings_sha256
from kronos_strategies.forecasters.candles import (
    MAX_RATIO,
    PastCandles,
    candle_paths,
    draw_bars,
    equal_lengths,
    take_bars,
)
from kronos_strategies.forecasters.registry import ForecasterName
from kronos_strategies.forecasters.volatility import (
    ewma_model,
    filter_variances,
    fit_har,
    simulate_deviations,
)

VERSION = 1  # of the baselines' definitions; part of the hash that names stored forecasts


class Baseline(PathForecaster):
    """A forecaster that is a function of each window.

    Args:
        which: its name among the baselines.
        settings: frozen dataclass of its settings.
        device: not used; baselines compute on the processor.
        versions: versions of packages that its forecasts depend on.
    """

    def __init__(self, which: str, settings: Any, device: str | None = None, **versions: str) -> None:
        defaults, given = asdict(type(settings)()), asdict(settings)
        changed = {key: str(value) for key, value in given.items() if value != defaults[key]}
        name = str(ForecasterName("baseline", which, changed))
        digest = settings_sha256(name=which, settings=given, version=VERSION, **versions)
        super().__init__(name, digest, str(VERSION), UNTRAINED, device)

    def sample(self, windows: Windows, uniforms: np.ndarray) -> np.ndarray:
        """See `PathForecaster.sample`."""
        paths = np.empty((*uniforms.shape[:3], len(FEATURES)), np.float32)
        for rows in equal_lengths(windows):
            paths[rows] = self.sample_candles(PastCandles.read(windows[rows]), windows[rows], uniforms[rows])
        return paths

    @abstractmethod
    def sample_candles(self, past: PastCandles, windows: Windows, uniforms: np.ndarray) -> np.ndarray:
        """(N, S, H, 6) paths of windows that have the same number of bars."""


@dataclass(frozen=True)
class NoSettings:
    """A baseline without settings."""


class RandomWalk(Baseline):
    """A random walk: past candles of the window, less their mean return, independently and equally likely."""

    def __init__(self, settings: NoSettings, device: str | None = None) -> None:
        super().__init__("random-walk", settings, device)

    def sample_candles(self, past: PastCandles, windows: Windows, uniforms: np.ndarray) -> np.ndarray:
        """See `Baseline.sample_candles`."""
        return candle_paths(past, *draw_constant(past, uniforms))


@dataclass(frozen=True)
class EwmaSettings:
    """Settings of `Ewma`.

    Attributes:
        decay: weight of the last variance; 0.94 is that of RiskMetrics for daily bars.
    """

    decay: float = 0.94

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ValueError(f"decay={self.decay} is not a weight between 0 and 1. Set e.g. decay=0.94.")


class Ewma(Baseline):
    """Filtered historical simulation (Barone-Adesi et al. 1999) with exponentially weighted variance.

    Past candles are divided by the standard deviation that was predicted for their bars, and drawn again times that
    of the path's own bars, which follows the returns of the path.
    """

    def __init__(self, settings: EwmaSettings, device: str | None = None) -> None:
        super().__init__("ewma", settings, device)
        self.model = ewma_model(settings.decay)

    def sample_candles(self, past: PastCandles, windows: Windows, uniforms: np.ndarray) -> np.ndarray:
        """See `Baseline.sample_candles`."""
        variances = filter_variances(self.model, past.returns, past.variance)
        moves, chosen = draw_standardized(past, np.sqrt(variances[:, :-1]), past.usable, uniforms)
        deviations = simulate_deviations(self.model, variances[:, -1], moves[..., CLOSE])
        return candle_paths(past, moves * deviations[..., None], chosen)


@dataclass(frozen=True)
class HarSettings:
    """Settings of `Har`.

    Attributes:
        week, month: bars of the two longer averages of the variance.
    """

    week: int = 5
    month: int = 22

    def __post_init__(self) -> None:
        if not 1 < self.week < self.month:
            raise ValueError(
                f"week={self.week} and month={self.month} do not satisfy 1 < week < month. Set e.g. week=5 and "
                "month=22."
            )


class Har(Baseline):
    """Filtered historical simulation with a HAR model (Corsi 2009) of range-based variance per window.

    The variance of a bar is that of Garman & Klass (1980) plus the squared gap from the close before. In windows of
    fewer than two months it is constant.
    """

    def __init__(self, settings: HarSettings, device: str | None = None) -> None:
        super().__init__("har", settings, device)
        self.settings = settings

    def sample_candles(self, past: PastCandles, windows: Windows, uniforms: np.ndarray) -> np.ndarray:
        """See `Baseline.sample_candles`."""
        week, month = self.settings.week, self.settings.month
        if past.moves.shape[1] < 2 * month:
            return candle_paths(past, *draw_constant(past, uniforms))
        har = fit_har(range_variances(past), week, month, uniforms.shape[2])
        known = np.isfinite(har.fitted)
        deviations = np.sqrt(np.where(known, har.fitted, 0.0))
        moves, chosen = draw_standardized(past, deviations, known, uniforms)
        return candle_paths(past, moves * np.sqrt(har.future)[:, None, :, None], chosen)


@dataclass(frozen=True)
class BootstrapSettings:
    """Settings of `Bootstrap`.

    Attributes:
        block: bars in a row that are drawn together.
    """

    block: int = 5

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"block={self.block} draws no bar. Set block=1 or more.")


class Bootstrap(Baseline):
    """Moving-block bootstrap (Künsch 1989): stretches of the window's candles as they were, drift included."""

    def __init__(self, settings: BootstrapSettings, device: str | None = None) -> None:
        super().__init__("bootstrap", settings, device)
        self.block = settings.block

    def sample_candles(self, past: PastCandles, windows: Windows, uniforms: np.ndarray) -> np.ndarray:
        """See `Baseline.sample_candles`."""
        block = min(self.block, past.returns.shape[1])
        total = np.lib.stride_tricks.sliding_window_view(past.returns, block, axis=1).sum(axis=-1)
        usable = np.asarray(np.lib.stride_tricks.sliding_window_view(past.usable, block, axis=1).all(axis=-1))
        first = draw_bars(total, usable, uniforms[:, :, ::block, 0])  # (N, S, blocks)
        steps = np.arange(uniforms.shape[2])
        chosen = first[..., steps // block] + steps % block
        return candle_paths(past, take_bars(past.moves, chosen), chosen)


def range_variances(past: PastCandles) -> np.ndarray:
    """(N, K) range-based variances: Garman & Klass (1980), plus the squared gap from the close before."""
    opened, high, low, close = np.moveaxis(past.moves, -1, 0)
    found: np.ndarray = (high - low) ** 2 / 2 - (2 * np.log(2) - 1) * (close - opened) ** 2 + opened**2
    return np.maximum(found, 0.0)


def draw_constant(past: PastCandles, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Past candles less their mean return, drawn independently; see `draw_standardized`."""
    deviation = np.sqrt(past.variance)[:, None]
    moves, chosen = draw_standardized(
        past, np.broadcast_to(deviation, past.usable.shape), past.usable, uniforms
    )
    return moves * deviation[..., None, None], chosen


def draw_standardized(
    past: PastCandles, deviations: np.ndarray, usable: np.ndarray, uniforms: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Past candles over the standard deviation that was predicted for their bars, less their mean, drawn by return.

    Args:
        past: candles of the windows.
        deviations: (N, K); at least the standard deviation of the window's returns over MAX_RATIO is used, so that
            no candle from a quiet time, such as a suspension, becomes extreme.
        usable: (N, K) bool, bars to draw from.
        uniforms: (N, S, H, 2).

    Returns:
        (N, S, H, 4) candles, whose closes have a mean of 0 and, where the deviations are right, a variance of 1;
        and (N, S, H), the bars that they are.
    """
    usable = usable & past.usable
    lowest = np.sqrt(past.variance)[:, None] / MAX_RATIO
    apart = np.maximum(deviations, lowest)
    moves = np.divide(past.moves, apart[..., None], out=np.zeros_like(past.moves), where=apart[..., None] > 0)
    count = np.maximum(usable.sum(axis=1), 1)
    mean = np.where(usable, moves[..., CLOSE], 0.0).sum(axis=1) / count
    chosen = draw_bars(moves[..., CLOSE], usable, uniforms[..., 0])
    return take_bars(moves, chosen) - mean[:, None, None, None], chosen
