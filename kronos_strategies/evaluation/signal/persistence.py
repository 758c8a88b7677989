"""How long a score stays what it was: what a book that follows it has to trade. Torch-free."""

from __future__ import annotations

import numpy as np

from kronos_strategies.evaluation.signal.ic import MIN_NAMES, coefficients_of_grid
from kronos_strategies.evaluation.signal.quantiles import buckets_of


def top_turnover(score: np.ndarray, count: int) -> np.ndarray:
    """Share of the top bucket that was not in it on the date before.

    Args:
        score: (dates, names), dates ascending; all scored names are bucketed, whether or not a return followed.
        count: of buckets (`buckets_of`).

    Returns:
        (dates,); NaN on the first date, and where either date has no top bucket.
    """
    top = buckets_of(score, count) == count
    names = top.sum(axis=1)
    new = (top[1:] & ~top[:-1]).sum(axis=1)
    known = (names[1:] > 0) & (names[:-1] > 0)
    return np.append(np.nan, np.where(known, new / np.maximum(names[1:], 1), np.nan))[: len(score)]


def rank_autocorrelation(score: np.ndarray, min_names: int = MIN_NAMES) -> np.ndarray:
    """(dates, names), dates ascending -> (dates,) Spearman correlation of a score with itself on the date before.

    Over names scored on both; NaN on the first date, and where a RankIC would be undefined.
    """
    return np.append(np.nan, coefficients_of_grid(score[1:], score[:-1], min_names)[1])[: len(score)]
