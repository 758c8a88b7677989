"""Figures of windows and of their sampled paths: trailing volatility, and bands. Knows no torch."""

from __future__ import annotations

import numpy as np

VOLATILITY_BARS = 20  # returns that trailing volatility is measured on
MAX_RATIO = 4.0  # of trailing volatility to sampled deviation: what lies beyond counts as that much


def trailing_volatility(closes: np.ndarray, ends: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Deviation of the last VOLATILITY_BARS log returns of each window, per bar; known at its last close.

    Args:
        closes: (M,) of the tape that the windows are cut from.
        ends: (N,) where the last bar of each is.
        lengths: (N,) bars of each.

    Returns:
        (N,) float32; NaN of a window of fewer than 3 bars, or with a close among these that is not positive.
    """
    back = np.arange(VOLATILITY_BARS, -1, -1)
    within = back < lengths[:, None]  # (N, VOLATILITY_BARS + 1)
    seen = closes[np.where(within, ends[:, None] - back, ends[:, None])].astype(np.float64)
    steps = np.diff(np.log(np.where(seen > 0, seen, np.nan)), axis=1)
    steps = np.where(within[:, :-1], steps, 0.0)  # a bar before the window counts for nothing
    count = within[:, :-1].sum(axis=1)
    mean = steps.sum(axis=1) / np.maximum(count, 1)
    squares = np.where(within[:, :-1], (steps - mean[:, None]) ** 2, 0.0).sum(axis=1)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan).astype(np.float32)


def log_ratio(returns: np.ndarray, trailing: np.ndarray) -> np.ndarray:
    """(N, H) log of trailing volatility over the sampled deviation, capped; 0 where one of them is unknown.

    Args:
        returns: (N, S, H) log returns of closes since the last one.
        trailing: (N,) volatility per bar.
    """
    deviation = returns.std(axis=1, dtype=np.float64)
    expected = trailing[:, None] * np.sqrt(np.arange(1, returns.shape[2] + 1))
    known = (deviation > 0) & (expected > 0)
    ratio = np.log(np.divide(expected, deviation, out=np.ones_like(deviation), where=known))
    return ratio.clip(-np.log(MAX_RATIO), np.log(MAX_RATIO))


def band_ends(
    returns: np.ndarray, level: float, factor: np.ndarray | float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the central band of sampled log returns, quantiles at Weibull positions.

    Args:
        returns: (N, S, ...), sampled along axis 1.
        level: share of the paths within.
        factor: of the distance of either end from the median.

    Returns:
        (N, ...) low and high.
    """
    tails = [(1 - level) / 2, 0.5, (1 + level) / 2]
    low, middle, high = np.quantile(returns, tails, axis=1, method="weibull")
    return middle - factor * (middle - low), middle + factor * (high - middle)


def price_band(closes: np.ndarray, level: float, factor: np.ndarray) -> np.ndarray:
    """Ends of the central band of sampled closes: quantiles at Weibull positions, widened in log prices.

    Args:
        closes: (N, S, ...) positive, sampled along axis 1.
        level: share of the paths within.
        factor: (N, ...) of the log distance of either end from the median; 1 leaves the quantiles.

    Returns:
        (2, N, ...) low and high.
    """
    plain = np.quantile(closes, [(1 - level) / 2, (1 + level) / 2], axis=1, method="weibull")
    if (factor == 1).all():
        return plain
    return np.where(factor == 1, plain, np.exp(band_ends(np.log(closes), level, factor)))
