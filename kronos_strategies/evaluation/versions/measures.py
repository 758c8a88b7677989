"""One figure a date and version: what is held against one another. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.signal.ic import coefficients_of_grid
from kronos_strategies.evaluation.signal.quantiles import bucket_count, bucket_means, buckets_of
from kronos_strategies.evaluation.versions.align import CommonRows

GAINS = ("ic", "rank_ic", "spread")  # more is better; of all others, which are losses, less is


def figures_by_date(rows: CommonRows, horizon: int) -> dict[str, pd.DataFrame]:
    """Metric -> dates x versions: ic, rank_ic, spread, then the losses; NaN where undefined.

    Raises:
        ValueError: a loss that is called like one of the first three.
    """
    if taken := [loss for loss in rows.losses if loss in GAINS]:
        raise ValueError(f"A loss is called '{taken[0]}', as is a figure of the score. Give it another name.")
    gains = gains_by_date(rows.scores, rows.labels[horizon], rows.dates)
    return gains | {loss: _means(of, rows.dates) for loss, of in rows.losses.items()}


def gains_by_date(
    scores: Mapping[str, np.ndarray], label: np.ndarray, dates: pd.DatetimeIndex
) -> dict[str, pd.DataFrame]:
    """Each of GAINS -> dates x scores.

    Args:
        scores: (dates, names) each.
        label: (dates, names), the return that follows; its names a date say whether a spread is of deciles or of
            quintiles, the same for all scores and dates.
        dates: of the rows.
    """
    count = bucket_count(label, label)
    figures = {name: _gains(score, label, count) for name, score in scores.items()}
    return {
        metric: pd.DataFrame({name: of[i] for name, of in figures.items()}, index=dates)
        for i, metric in enumerate(GAINS)
    }


def _gains(score: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
    """(dates, names) twice -> (3, dates), in the order of GAINS."""
    earned = bucket_means(buckets_of(np.where(np.isfinite(label), score, np.nan), count), label, count)
    return np.vstack([coefficients_of_grid(score, label), earned[:, -1] - earned[:, 0]])


def _means(by_version: Mapping[str, np.ndarray], dates: pd.DatetimeIndex) -> pd.DataFrame:
    """Dates x versions: the mean over the rows of each date; NaN on a date without one."""
    wide = {name: pd.DataFrame(values).mean(axis=1).to_numpy() for name, values in by_version.items()}
    return pd.DataFrame(wide, index=dates)
