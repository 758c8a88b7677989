"""Metrics of forecast paths on the tasks of the Kronos paper: prices, returns and realized volatility.

Means by date of each of them can be compared and tested by `comparison.metrics.paired_table`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.signal.metrics import information_coefficients_wide

MIN_STEPS = 3  # of a path; a correlation over two steps is 1 or -1


def price_coefficients(predicted: np.ndarray, realized: np.ndarray) -> np.ndarray:
    """Correlation over the steps of each window: does the predicted path of closes have the shape of the realized?

    Of window i, corr over h = 1..H of predicted[i, h] and realized[i, h]: of values (IC) and of ranks (RankIC). It
    depends on neither the level nor the size of the move.

    Args:
        predicted: (N, H) predicted closes, such as the mean over paths.
        realized: (N, H) realized closes.

    Returns:
        (2, N) float64: IC and RankIC; NaN where a path does not move or has fewer than MIN_STEPS finite steps.
    """
    return information_coefficients_wide(predicted, realized, MIN_STEPS)


def realized_volatility(log_returns: np.ndarray) -> np.ndarray:
    """(..., H) log returns from the last close to each step -> (...): sqrt(sum over h of (x[h] - x[h - 1])^2).

    The volatility over all H bars, not annualized; x[0], the last close, is 0.
    """
    steps = np.diff(log_returns, axis=-1, prepend=0.0)
    volatility: np.ndarray = np.sqrt((steps**2).sum(axis=-1))
    return volatility


def predicted_volatility(log_returns: np.ndarray) -> np.ndarray:
    """(N, S, H) log returns of paths -> (N,): square root of the mean realized variance of the paths.

    It is never that of the averaged path, in which the moves of the paths cancel.
    """
    volatility: np.ndarray = np.sqrt((realized_volatility(log_returns) ** 2).mean(axis=1))
    return volatility


def absolute_error_by_date(predicted: pd.Series, realized: pd.Series) -> pd.Series:
    """Mean over the instruments of each date of |predicted - realized|; indexed (datetime, instrument) both."""
    return (predicted - realized).abs().groupby(level="datetime").mean()


def r2_by_date(predicted: pd.Series, realized: pd.Series) -> pd.Series:
    """R² in parts by date: 1 - mean squared error of the date / V.

    V is the mean over dates of the mean squared deviation of `realized` from its overall mean, the same for every
    date, so that the mean over dates is the R² of all rows with dates weighted equally, and differences of two
    forecasts are those of their squared errors. 1 is perfect, 0 no better than the overall mean (which was not
    known in advance), and there is no lower limit. NaN where `realized` does not vary.
    """
    squares = ((predicted - realized) ** 2).groupby(level="datetime").mean()
    variance = ((realized - realized.mean()) ** 2).groupby(level="datetime").mean().mean()
    return 1 - squares / (variance if variance > 0 else np.nan)
