"""Realised variance of the next bars, sampled variance, and the losses between them. Torch-free.

Variances are sums over h bars of squared log returns, dimensionless and never annualised; a volatility is the
square root of one. Wide frames are dates x instruments, in order of time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

_ROUNDING = 1e-9  # a smaller log return is an unchanged price whose adjustment was rounded


@dataclass(frozen=True)
class VarianceScore:
    """Of one variance forecast over pairs with both values.

    Attributes:
        qlike: mean over pairs where both are positive; 0 is perfect.
        mae: mean |sqrt(realised) - sqrt(forecast)|, in log return.
        r2: 1 - sum (realised - forecast)^2 / sum (realised - mean)^2 of the square roots: against the mean of
            what came, so it is negative for a forecast that is worse than that.
        pairs: with both values.
        dropped: of these, left out of `qlike`, because one is zero or negative.
    """

    qlike: float
    mae: float
    r2: float
    pairs: int
    dropped: int


def realized_variance(closes: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """Sum over i = 1..h of ln(close[t+i] / close[t+i-1])^2, dated t and known at the close of t + h.

    Args:
        closes: adjusted, NaN on a bar without a trade.
        horizon: h, bars.

    Returns:
        NaN where t or t + h has no close, or lies outside the frame. Between them the last known close stands
        in, so that the move over a suspension counts once, on the day that trading resumes.
    """
    steps = closes.ffill().apply(np.log).diff()
    steps = steps.mask(steps.abs() < _ROUNDING, 0.0)
    known = closes.notna() & closes.shift(-horizon).notna()
    return forward_sum(steps**2, horizon).where(known)


def forward_sum(values: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """values[t+1] + ... + values[t+h], dated t; NaN if one of them is."""
    total = values.shift(-1)  # plain sums: a running one would leave rounding where all are zero
    for ahead in range(2, horizon + 1):
        total = total + values.shift(-ahead)
    return total


def parkinson(high: pd.DataFrame, low: pd.DataFrame) -> pd.DataFrame:
    """Variance within each bar, ln(high / low)^2 / (4 ln 2) (Parkinson 1980); known at its close."""
    return (high / low).apply(np.log) ** 2 / (4 * np.log(2))


def garman_klass(
    open_: pd.DataFrame, high: pd.DataFrame, low: pd.DataFrame, close: pd.DataFrame
) -> pd.DataFrame:
    """Variance within each bar, ln(high / low)^2 / 2 - (2 ln 2 - 1) ln(close / open)^2 (Garman & Klass 1980).

    Known at the bar's close. Not negative on a consistent bar.
    """
    across, along = (high / low).apply(np.log), (close / open_).apply(np.log)
    return across**2 / 2 - (2 * np.log(2) - 1) * along**2


def overnight(open_: pd.DataFrame, close: pd.DataFrame) -> pd.DataFrame:
    """Squared gap ln(open[t] / last close before t)^2, to add to a range variance: it sees the session only.

    With it `garman_klass` and `parkinson` compare with close-to-close variance. The last close is the last
    traded one, across a suspension too.
    """
    return (open_ / close.ffill().shift()).apply(np.log) ** 2


def sampled_variance(closes: np.ndarray, last: np.ndarray, horizon: int) -> np.ndarray:
    """Mean over paths of each path's own sum of squared log returns over its first h bars.

    Never that of an averaged path, which is far too calm.

    Args:
        closes: (N, S, H) sampled, positive.
        last: (N,) the close that the paths start from.
        horizon: h, at most H.

    Returns:
        (N,) float64, known at the close of `last`.
    """
    if not 1 <= horizon <= closes.shape[2]:
        raise ValueError(f"horizon={horizon} is not within the {closes.shape[2]} bars of the paths.")
    start = np.broadcast_to(last[:, None, None], (*closes.shape[:2], 1))
    steps = np.diff(np.log(np.concatenate([start, closes[:, :, :horizon]], axis=2), dtype=np.float64))
    return np.square(steps).sum(axis=2).mean(axis=1)


def qlike(realised: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Elementwise r - ln r - 1 with r = realised / forecast, both variances (Patton 2011).

    NaN where either is missing, zero or negative: drop these and say how many.
    """
    realised, forecast = np.broadcast_arrays(np.asarray(realised, float), np.asarray(forecast, float))
    positive = (realised > 0) & (forecast > 0)
    ratio = np.full(realised.shape, np.nan)
    np.divide(realised, forecast, out=ratio, where=positive)
    return ratio - np.log(ratio) - 1


def score_variance(realised: np.ndarray, forecast: np.ndarray) -> VarianceScore:
    """All pairs at once, of any shape; pairs without both values are left out. NaN without any pair."""
    both = np.isfinite(realised) & np.isfinite(forecast)
    realised, forecast = np.asarray(realised, float)[both], np.asarray(forecast, float)[both]
    losses = qlike(realised, forecast)
    defined = losses[np.isfinite(losses)]
    came, said = np.sqrt(realised.clip(min=0)), np.sqrt(forecast.clip(min=0))
    spread = np.square(came - came.mean()).sum() if len(came) else 0.0
    return VarianceScore(
        qlike=float(defined.mean()) if len(defined) else np.nan,
        mae=float(np.abs(came - said).mean()) if len(came) else np.nan,
        r2=float(1 - np.square(came - said).sum() / spread) if spread > 0 else np.nan,
        pairs=len(came),
        dropped=len(losses) - len(defined),
    )
