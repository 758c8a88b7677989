"""The correlation of two series over time, with an interval that survives overlapping labels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.significance import MeanTest, mean_test


def correlation_test(
    forecasts: pd.Series, outcomes: pd.Series, overlap: int, ranks: bool = False
) -> MeanTest:
    """Pearson correlation over time of two series that go together, tested against zero.

    The correlation r is treated as the mean of what each date adds to it, r + zx zy - r (zx^2 + zy^2) / 2 with zx
    and zy the standardized series (its influence function), so that `mean_test` finds the standard error from the
    long-run variance of these. As of any mean, the interval allows for labels that overlap.

    Args:
        forecasts: (dates,) in order of time; NaN where there was none.
        outcomes: of the same dates; NaN where none followed.
        overlap: successive dates that one outcome spans.
        ranks: correlate ranks over time (Spearman), their ties at the average rank.

    Returns:
        The test, whose mean is r; NaN where a series does not vary.
    """
    return mean_test(contributions(forecasts, outcomes, ranks), overlap)


def contributions(forecasts: pd.Series, outcomes: pd.Series, ranks: bool = False) -> pd.Series:
    """What each date adds to the correlation: (dates,), their mean is the correlation; NaN where one is missing."""
    x, y = (
        series.astype(float).where(forecasts.notna() & outcomes.notna()) for series in (forecasts, outcomes)
    )
    if ranks:
        x, y = x.rank(), y.rank()
    with np.errstate(invalid="ignore", divide="ignore"):
        zx, zy = ((each - each.mean()) / each.std(ddof=0) for each in (x, y))
        product = zx * zy
        r = product.mean()
        return product.where(np.isfinite(product)) - r * (zx**2 + zy**2) / 2 + r
