"""Conformal factors of bands: how far bands must be widened to have held what came. Knows no torch.

The conformity score of an outcome is the least factor of the band's half-widths with which the band holds it. Its
quantile over past outcomes, with the correction for their finite number, holds the next one at the band's level if
it is exchangeable with these (Vovk, Gammerman & Shafer 2005). Markets are not: the level that is asked of the
quantile moves, date by date, against the misses (Gibbs & Candes 2021).
"""

from __future__ import annotations

import numpy as np

from kronos.paths import band_ends

RATE = 0.01  # a date that held nothing raises the level by so much of it
CHUNKS = 60  # of dates, between which the factor stays: more would cost time and change little


def conformity(returns: np.ndarray, came: np.ndarray, level: float) -> np.ndarray:
    """(N,) factors by which the band at `level` of (N, S) log returns just holds the outcome; NaN without one."""
    low, high = band_ends(returns, level)
    middle = np.median(returns, axis=1)
    below, above = np.maximum(middle - low, 0), np.maximum(high - middle, 0)
    off = came - middle
    width = np.where(off < 0, below, above)
    far = np.where(off == 0, 0.0, np.inf)
    return np.where(np.isfinite(came), np.divide(np.abs(off), width, out=far, where=width > 0), np.nan)


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
    """The level to ask of the next quantile, after each past date has moved it against its misses.

    Args:
        scores: (N,) of past outcomes, by date.
        dates: (N,) datetime64, of the forecasts, ascending.
        known: (N,) datetime64, of the outcomes.
        level: of the band.
        rate: of a date.
    """
    asked, days = level, np.unique(dates)
    for chunk in np.array_split(days, min(CHUNKS, len(days)))[1:]:
        before = scores[known <= chunk[0]]  # what was known when the first of these forecasts was made
        if not len(before):
            continue
        factor = conformal_factor(before, asked)
        rows = (dates >= chunk[0]) & (dates <= chunk[-1])
        held = np.array([(scores[rows & (dates == day)] <= factor).mean() for day in chunk])
        asked += rate * float((level - held).sum())
    return float(np.clip(asked, level - 0.1, level + (1 - level) / 2))
