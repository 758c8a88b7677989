"""Realized, historical and sampled variance, and the losses between them.

Variances are sums of squared log returns over h bars, dimensionless and never annualized; a volatility is the
square root of a variance. Wide frames are dates x instruments, in order of time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

_ROUNDING = 1e-9  # a smaller log return is an unchanged price whose adjustment was rounded


@dataclass(frozen=True)
class VarianceScore:
    """Losses of one variance forecast over the pairs that have both values.

    Attributes:
        qlike: mean over pairs in which both values are positive; 0 is perfect.
        mae: mean |sqrt(realized) - sqrt(forecast)|, in log return.
        r2: 1 - sum (realized - forecast)^2 / sum (realized - mean)^2 of the square roots. The mean is that of the
            realized values, so r2 is negative for a forecast that is worse than this constant.
        pairs: number of pairs with both values.
        dropped: number of these pairs that `qlike` leaves out, because one value is zero or negative.
    """

    qlike: float
    mae: float
    r2: float
    pairs: int
    dropped: int


def historical_volatility(closes: pd.DataFrame, bars: int = 20, min_bars: int = 15) -> pd.DataFrame:
    """Standard deviation of the last `bars` simple returns, at least `min_bars` of them, known at the close."""
    return closes.pct_change(fill_method=None).rolling(bars, min_periods=min_bars).std()


def realized_variance(closes: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """Sum over i = 1..h of ln(close[t+i] / close[t+i-1])^2, dated t and known at the close of t + h.

    Args:
        closes: adjusted, NaN on a bar without a trade.
        horizon: h, bars.

    Returns:
        NaN where t or t + h has no close or lies outside the frame. Between them the last known close is used, so
        that the return over a suspension counts once, on the day trading resumes.
    """
    steps = closes.ffill().apply(np.log).diff()
    steps = steps.mask(steps.abs() < _ROUNDING, 0.0)
    known = closes.notna() & closes.shift(-horizon).notna()
    return forward_sum(steps**2, horizon).where(known)


def forward_sum(values: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """values[t+1] + ... + values[t+h], dated t; NaN if one of them is NaN."""
    total = values.shift(
        -1
    )  # plain sums: a running sum would leave rounding errors where all values are zero
    for ahead in range(2, horizon + 1):
        total = total + values.shift(-ahead)
    return total


def garman_klass(
    open_: pd.DataFrame, high: pd.DataFrame, low: pd.DataFrame, close: pd.DataFrame
) -> pd.DataFrame:
    """Variance within each bar, ln(high / low)^2 / 2 - (2 ln 2 - 1) ln(close / open)^2 (Garman & Klass 1980).

    Known at the bar's close. Never negative for a consistent bar.
    """
    across, along = (high / low).apply(np.log), (close / open_).apply(np.log)
    return across**2 / 2 - (2 * np.log(2) - 1) * along**2


def overnight(open_: pd.DataFrame, close: pd.DataFrame) -> pd.DataFrame:
    """Squared gap ln(open[t] / last close before t)^2, to add to a range variance, which covers the session only.

    The sum is comparable with close-to-close variance. The last close is the last traded one, also across a
    suspension.
    """
    return (open_ / close.ffill().shift()).apply(np.log) ** 2


def sampled_variance(closes: np.ndarray, last: np.ndarray, horizon: int) -> np.ndarray:
    """Mean over paths of each path's own sum of squared log returns over its first h bars.

    The variance of the averaged path would be far too low.

    Args:
        closes: (N, S, H) sampled, positive.
        last: (N,) the close that the paths start from.
        horizon: h, at most H.

    Returns:
        (N,) float64, known at the close of `last`.
    """
    if not 1 <= horizon <= closes.shape[2]:
        raise ValueError(
            f"horizon={horizon} is outside the {closes.shape[2]} bars of the paths. Ask for fewer bars."
        )
    start = np.broadcast_to(last[:, None, None], (*closes.shape[:2], 1))
    steps = np.diff(np.log(np.concatenate([start, closes[:, :, :horizon]], axis=2), dtype=np.float64))
    return np.square(steps).sum(axis=2).mean(axis=1)


def qlike(realized: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Elementwise r - ln r - 1 with r = realized / forecast, both variances (Patton 2011).

    NaN where either value is missing, zero or negative: drop and count these.
    """
    realized, forecast = np.broadcast_arrays(np.asarray(realized, float), np.asarray(forecast, float))
    positive = (realized > 0) & (forecast > 0)
    ratio = np.full(realized.shape, np.nan)
    np.divide(realized, forecast, out=ratio, where=positive)
    return ratio - np.log(ratio) - 1


def score_variance(realized: np.ndarray, forecast: np.ndarray) -> VarianceScore:
    """Losses over all pairs, of any shape; pairs without both values are left out. NaN without any pair."""
    both = np.isfinite(realized) & np.isfinite(forecast)
    realized, forecast = np.asarray(realized, float)[both], np.asarray(forecast, float)[both]
    losses = qlike(realized, forecast)
    defined = losses[np.isfinite(losses)]
    actual, predicted = np.sqrt(realized.clip(min=0)), np.sqrt(forecast.clip(min=0))
    spread = np.square(actual - actual.mean()).sum() if len(actual) else 0.0
    return VarianceScore(
        qlike=float(defined.mean()) if len(defined) else np.nan,
        mae=float(np.abs(actual - predicted).mean()) if len(actual) else np.nan,
        r2=float(1 - np.square(actual - predicted).sum() / spread) if spread > 0 else np.nan,
        pairs=len(actual),
        dropped=len(losses) - len(defined),
    )
