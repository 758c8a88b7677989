"""Baselines as forecasters: models of the window alone, without training.

All draw past candles of the window again, but for GARCH, which draws returns from Student's t distribution. The first
uniform of each step chooses along the order of returns, as that of Kronos chooses along tokens sorted by close, so
that the Monte Carlo noise of a date is much the same for all instruments and models.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from kronos.bars import CLOSE, FEATURES
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
from kronos_strategies.forecasters.registry import ForecasterName, did_you_mean, read_settings

VERSION = 1  # of the baselines' definitions; part of the hash that names stored forecasts


class Baseline(PathForecaster):
    """A forecaster that is a function of each window.

    Args:
        name: e.g. "baseline:ewma?decay=0.97".
        settings: frozen dataclass of its settings.
    """

    def __init__(self, which: str, settings: object, device: str | None = None, **versions: str) -> None:
        defaults, given = asdict(type(settings)()), asdict(settings)
        changed = {key: str(value) for key, value in given.items() if value != defaults[key]}
        name = str(ForecasterName("baseline", which, changed))
        digest = settings_sha256(name=which, settings=given, version=VERSION, **versions)
        super().__init__(name, digest, str(VERSION), device=device)

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
        drawn = draw_standardized(past, np.ones_like(past.returns), past.usable, uniforms)
        return candle_paths(past, *drawn)


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


BASELINES: dict[str, tuple[Callable[..., Baseline], type]] = {
    "random-walk": (RandomWalk, NoSettings),
}


def load(name: ForecasterName, device: str | None = None) -> Baseline:
    """The baseline of a name, e.g. `parse_name("baseline:ewma?decay=0.97")`.

    Raises:
        ValueError: no such baseline, or a setting is unknown or invalid.
    """
    if name.which not in BASELINES:
        raise ValueError(f"'{name}' is not a baseline. {did_you_mean(name.which, BASELINES)}")
    kind, settings = BASELINES[name.which]
    return kind(read_settings(settings(), name), device)
