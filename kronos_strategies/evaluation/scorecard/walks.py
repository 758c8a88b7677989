"""Distributions of returns that need no model, to hold one against. Torch-free, engine-free.

Each is fitted to bars that were known before the first forecast it is compared with. Rows are windows; a
distribution of the log return close(t) -> close(t+h) is scored by the columns that `summarise_paths` has of sampled
paths: crps, ensemble_crps, pit, and inside_80 etc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from kronos_strategies.evaluation.distribution.calibration import normal_crps, scoringrules
from kronos_strategies.evaluation.scorecard.market import Market
from kronos_strategies.evaluation.scorecard.paths import band

SHAPE = 99  # quantiles of an empirical shape
HISTORY = 500  # dates before the first forecast that a baseline is fitted to at most
MIN_HISTORY = 60  # below that it is left out


def score_normal(deviation: np.ndarray, came: np.ndarray, levels: Sequence[float]) -> pd.DataFrame:
    """Of normal distributions around 0; NaN without deviation."""
    deviation = np.where(deviation > 0, deviation, np.nan)
    crps, z = normal_crps(np.zeros_like(came), deviation, came), came / deviation
    return _scores(crps, stats.norm.cdf(z), levels)


def score_student(
    deviation: np.ndarray, freedom: np.ndarray, came: np.ndarray, levels: Sequence[float]
) -> pd.DataFrame:
    """Of Student's t distributions around 0, by their standard deviation; NaN where they have none."""
    known = (deviation > 0) & (freedom > 2)
    freedom = np.where(known, freedom, np.nan)
    scale = np.where(known, deviation, np.nan) * np.sqrt((freedom - 2) / freedom)
    crps = np.full(len(came), np.nan)
    rows = known & np.isfinite(came)
    crps[rows] = scoringrules.crps_t(came[rows], freedom[rows], 0.0, scale[rows])
    return _scores(crps, stats.t.cdf(came / scale, freedom), levels)


def score_shape(
    deviation: np.ndarray, shape: np.ndarray, came: np.ndarray, levels: Sequence[float]
) -> pd.DataFrame:
    """Of one shape, given by equally likely quantiles (Q,), times each row's deviation; NaN without deviation."""
    deviation = np.where(deviation > 0, deviation, np.nan)
    z = came / deviation
    size = len(shape)
    spread = np.sort(shape) @ (2 * np.arange(1, size + 1) - size - 1) / size**2
    crps = np.full(len(came), np.nan)
    rows = np.isfinite(z)
    crps[rows] = deviation[rows] * (np.abs(shape - z[rows, None]).mean(axis=1) - spread)
    pit = np.where(rows, np.searchsorted(np.sort(shape), z) / size, np.nan)
    return _scores(crps, pit, levels)


def _scores(crps: np.ndarray, pit: np.ndarray, levels: Sequence[float]) -> pd.DataFrame:
    within = {
        band(level): np.where(np.isnan(pit), np.nan, np.abs(pit - 0.5) <= level / 2) for level in levels
    }
    return pd.DataFrame({"crps": crps, "ensemble_crps": crps, "pit": pit, **within}, dtype=float)


@dataclass(frozen=True)
class ShrunkWalk:
    """A random walk whose volatility is drawn to its average, with the shape that returns had.

    The fair baseline: what the last 20 days and the past of all names tell, without a model.

    Attributes:
        slope: of the log of outcomes' sizes on the log of 20-day volatility, in [0, 1].
        center: mean of that log volatility.
        shape: (SHAPE,) quantiles of outcomes over exp(slope (log volatility - center)).
    """

    slope: float
    center: float
    shape: np.ndarray

    @classmethod
    def fit(cls, market: Market, horizon: int, first: pd.Timestamp) -> ShrunkWalk | None:
        """To outcomes that were known at the close of `first`; None where they are of too few dates."""
        last = int(market.calendar.searchsorted(first, side="right")) - 1 - horizon
        rows = slice(max(0, last + 1 - HISTORY), max(0, last + 1))
        volatility, came = (wide.to_numpy()[rows] for wide in (market.deviation, market.moved(horizon)))
        both = np.isfinite(came) & (volatility > 0)
        if both.any(axis=1).sum() < MIN_HISTORY:
            return None
        size, came = np.log(volatility[both]), came[both]
        center, moved = float(size.mean()), came != 0
        slope = float(np.polyfit(size[moved], np.log(np.abs(came[moved])), 1)[0])
        slope = float(np.clip(slope, 0.0, 1.0))
        levels = (np.arange(SHAPE) + 0.5) / SHAPE
        return cls(slope, center, np.quantile(came / np.exp(slope * (size - center)), levels))

    def deviation(self, volatility: np.ndarray) -> np.ndarray:
        """Of rows by their 20-day volatility; NaN where it is not positive."""
        size = np.log(np.where(volatility > 0, volatility, np.nan))
        return np.exp(self.slope * (size - self.center))
