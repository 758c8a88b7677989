"""Location and spread of paths by minimum CRPS, and conformal factors of bands.

With paths m + z_s around their mean m, an outcome y and k = exp(spread + trailing * r), r the log ratio of trailing
volatility to sampled deviation, the score of location * m + k z_s is

    mean_s |location m + k z_s - y| - k e G,   G = sum_st |z_s - z_t| / (2 S^2)

It is linear in its second term and piecewise linear in the first, so that it costs N S a step. The factor e is half
way between 1 and S / (S - 1): the second is fair for independent draws and flatters even ones, the first errs to
the other side (see `kronos_strategies.evaluation.distribution.calibration.crps_fair`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kronos.paths import band_ends
from kronos.utils import MissingExtra

try:
    from scipy.optimize import minimize
except ImportError as error:
    raise MissingExtra(
        "Fitting a calibration needs scipy: pip install 'kronos-strategies[evaluation]'"
    ) from error

BOUNDS = ((0.0, 1.0), (-1.5, 1.5), (0.0, 1.0))  # of location, spread, trailing


class Move(NamedTuple):
    """At one step, see `kronos.calibration.Moves`."""

    location: float
    spread: float
    trailing: float


AS_SAMPLED = Move(0.0, 0.0, 0.0)  # zero location: without data, paths have no direction


class Spread(NamedTuple):
    """Paths of N windows at one step, prepared for scoring."""

    mean: np.ndarray  # (N,)
    deviation: np.ndarray  # (N, S) from the mean
    distance: np.ndarray  # (N,) e G
    ratio: np.ndarray  # (N,)
    realized: np.ndarray  # (N,)

    @classmethod
    def of(cls, returns: np.ndarray, ratio: np.ndarray, realized: np.ndarray) -> Spread:
        """From (N, S) log returns; rows without an outcome are left out."""
        rows = np.isfinite(realized)
        returns = returns[rows].astype(np.float64)
        samples = returns.shape[1]
        mean = returns.mean(axis=1)
        weights = 2 * np.arange(1, samples + 1) - samples - 1
        distance = np.sort(returns, axis=1) @ weights / samples**2
        fair = samples / (samples - 1) if samples > 1 else 1.0
        return cls(mean, returns - mean[:, None], distance * (1 + fair) / 2, ratio[rows], realized[rows])

    def crps(self, move: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean score, and its gradient by location, spread and trailing."""
        factor = np.exp(move[1] + move[2] * self.ratio)
        off = move[0] * self.mean[:, None] + factor[:, None] * self.deviation - self.realized[:, None]
        sign = np.sign(off)
        by_factor = (sign * self.deviation).mean(axis=1) - self.distance
        score = np.abs(off).mean(axis=1) - factor * self.distance
        grow = by_factor * factor
        gradient = [(self.mean * sign.mean(axis=1)).mean(), grow.mean(), (grow * self.ratio).mean()]
        return float(score.mean()), np.array(gradient)


def fit_move(spread: Spread, prior: Move, strength: float, trailing: bool = True) -> Move:
    """The move with the least mean CRPS, shrunk to a prior.

    Args:
        spread: paths of the windows.
        prior: move to shrink to.
        strength: by which share the loss grows where one of the three is 1 off the prior.
        trailing: whether trailing volatility may be weighed; else its weight is the prior's.
    """
    if not len(spread.realized):
        return prior
    start, at = np.array([max(prior.location, 0.5), *prior[1:]]), np.array(prior)
    unit = spread.crps(start)[0]
    if not unit > 0:
        return prior
    bounds = BOUNDS if trailing else (*BOUNDS[:2], (prior.trailing, prior.trailing))

    def loss(move: np.ndarray) -> tuple[float, np.ndarray]:
        score, gradient = spread.crps(move)
        off = move - at
        return score / unit + strength * float(off @ off), gradient / unit + 2 * strength * off

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return Move(*(float(value) for value in found.x))


RATE = 0.01  # step by which a missed date raises the level
CHUNKS = 60  # dates between updates of the factor; more frequent ones cost time and change little


def conformity(returns: np.ndarray, realized: np.ndarray, level: float) -> np.ndarray:
    """(N,) factors by which the band at `level` of (N, S) log returns just covers the outcome; NaN without one."""
    low, high = band_ends(returns, level)
    middle = np.median(returns, axis=1)
    below, above = np.maximum(middle - low, 0), np.maximum(high - middle, 0)
    off = realized - middle
    width = np.where(off < 0, below, above)
    far = np.where(off == 0, 0.0, np.inf)
    return np.where(np.isfinite(realized), np.divide(np.abs(off), width, out=far, where=width > 0), np.nan)


def conformal_factor(scores: np.ndarray, level: float) -> float:
    """The ceil((n + 1) level)-th smallest of n scores, at most the largest finite one; 1 where there is none."""
    ordered = np.sort(scores[np.isfinite(scores)])
    if not len(ordered):
        return 1.0
    place = int(np.ceil((len(scores) + 1) * level - 1e-9))
    return float(ordered[min(max(place, 1), len(ordered)) - 1])


def adapted_level(
    scores: np.ndarray, dates: np.ndarray, known: np.ndarray, level: float, rate: float = RATE
) -> float:
    """The level of the next quantile, adapted to the misses of each past date.

    Args:
        scores: (N,) of past outcomes, by date.
        dates: (N,) datetime64, of the forecasts, ascending.
        known: (N,) datetime64, of the outcomes.
        level: level of the band.
        rate: step per date.
    """
    asked, days = level, np.unique(dates)
    for chunk in np.array_split(days, min(CHUNKS, len(days)))[1:]:
        before = scores[known <= chunk[0]]  # known when the first of these forecasts was made
        if not len(before):
            continue
        factor = conformal_factor(before, asked)
        rows = (dates >= chunk[0]) & (dates <= chunk[-1])
        held = np.array([(scores[rows & (dates == day)] <= factor).mean() for day in chunk])
        asked += rate * float((level - held).sum())
    return float(np.clip(asked, level - 0.1, level + (1 - level) / 2))
