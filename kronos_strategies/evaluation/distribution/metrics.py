"""Metrics of sampled distributions and of volatility: PIT, coverage and CRPS; variances of returns, and QLIKE.

Samples are (N, S), outcomes (N,), in one unit. A row with a missing sample or outcome is NaN in every result:
means over rows leave it out (`np.nanmean`) and can count it.

Variances are sums of squared log returns over h bars, dimensionless and never annualized; a volatility is the
square root of a variance. Wide frames are dates x instruments, in order of time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos.paths import band_ends
from kronos.utils import MissingExtra

try:
    import scoringrules
except ImportError as error:
    raise MissingExtra(
        "Calibration needs scoringrules: pip install 'kronos-strategies[evaluation]'"
    ) from error


def pit(samples: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Mid-rank probability integral transform, (#below + #equal / 2) / S: (N,) in [0, 1].

    Uniform for a calibrated forecast; hump-shaped where the forecast is too wide, U-shaped where it is too narrow.
    """

    def ranks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x < y[:, None]).mean(axis=1) + (x == y[:, None]).mean(axis=1) / 2

    return _of_complete_rows(ranks, samples, outcomes)


def expected_pit_std(samples: int) -> float:
    """Standard deviation of `pit` for a calibrated forecast of S independent samples: sqrt((S + 2) / (12 S)).

    Each of the ranks 0 to S is then equally likely. The value is .316 at S = 10 and approaches the .289 of a
    continuous uniform distribution as S grows, so that with few samples a value in between does not indicate a
    forecast that is too narrow.
    """
    return float(np.sqrt((samples + 2) / (12 * samples)))


def pit_histogram(pits: np.ndarray, samples: int, bins: int) -> np.ndarray:
    """Share of outcomes in each of `bins` equal parts of [0, 1]: (bins,), 1 / bins each if calibrated.

    An outcome above r of S samples is spread evenly over [r, r + 1] / (S + 1), the interval that such a rank covers
    if the outcome is one more draw (the non-randomized histogram of Czado, Gneiting & Held 2009). Counting r / S
    directly would put S + 1 possible values into bins that hold unequal numbers of them.

    Args:
        pits: (N,) by `pit`; NaN is left out.
        samples: S, number of samples of each forecast.
        bins: number of equal parts.

    Returns:
        All NaN without an outcome.
    """
    ranks = pits[np.isfinite(pits)] * samples
    edges = np.linspace(0, 1, bins + 1) * (samples + 1)
    below = (edges - ranks[:, None]).clip(0, 1)  # (N, bins + 1), share of each outcome below each edge
    return np.diff(below.mean(axis=0)) if len(ranks) else np.full(bins, np.nan)


def covered(
    samples: np.ndarray, outcomes: np.ndarray, level: float, factor: np.ndarray | float = 1.0
) -> np.ndarray:
    """1.0 where the outcome lies within the central band at `level`, else 0.0: (N,). The mean is the coverage.

    The band's ends are quantiles at Weibull positions i / (S + 1), which cover `level` on average over samples
    that are drawn independently from the true distribution. Quasi-random samples lie further out: at S = 32
    their 90 % band covered 93 % of the same model's next closes, the band of independent samples 91 %.

    Args:
        samples: (N, S).
        outcomes: (N,).
        level: nominal coverage of the band.
        factor: (N,) or scalar, scales the distance of each end from the median.

    Raises:
        ValueError: S samples cannot form a band wider than (S - 1) / (S + 1), so that coverage would be too low
            for any forecast.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be a nominal coverage in (0, 1), got {level}.")
    if samples.shape[1] < (needed := min_samples_for_coverage(level)):
        raise ValueError(
            f"{samples.shape[1]} samples are too few for a {level:.0%} band, which needs {needed}. "
            "Draw more samples or lower the level."
        )

    def within(x: np.ndarray, y: np.ndarray, factor: np.ndarray) -> np.ndarray:
        low, high = band_ends(x, level, factor)
        return ((low <= y) & (y <= high)).astype(float)

    return _of_complete_rows(within, samples, outcomes, np.broadcast_to(factor, np.shape(outcomes)))


def min_samples_for_coverage(level: float) -> int:
    """The smallest S whose range, with coverage (S - 1) / (S + 1), reaches `level`: 9 for 80 %, 19 for 90 %."""
    return int(np.ceil((1 + level) / (1 - level) - 1e-9))


def crps_fair(samples: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of each row, in the outcome's unit: (N,), lower is better.

    mean |x_i - y| - sum_ij |x_i - x_j| / (2 S (S - 1)), unbiased for independent samples at any S (Ferro 2014);
    S^2 in place of S (S - 1) penalizes few samples. Quasi-random samples, such as those of `kronos.sampling`,
    spread
    further than independent ones, and for them this estimate is optimistic: on the next close of 297 windows
    kronos-nano scored about 2 % lower with 32 paths than with 512, and 6 % lower with 8. `crps_ensemble` is
    pessimistic by about 1 % and 6 %; up to noise the true value lies between the two, which are
    mean |x_i - x_j| / (2 S) apart.

    Raises:
        ValueError: a single sample has no spread.
    """
    if samples.shape[1] < 2:
        raise ValueError("CRPS needs at least 2 samples, got 1. Draw more samples.")
    return _of_complete_rows(_crps("fair"), samples, outcomes)


def crps_ensemble(samples: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """As `crps_fair` with S^2 for S (S - 1): the samples taken as the whole distribution; never optimistic."""
    return _of_complete_rows(_crps("nrg"), samples, outcomes)


def crps_normal(mean: np.ndarray, deviation: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """CRPS of a normal distribution, in closed form (Gneiting & Raftery 2007); NaN without deviation: (N,)."""
    deviation = np.where(deviation > 0, deviation, np.nan)
    return np.asarray(scoringrules.crps_normal(outcomes, mean, deviation))


Score = Callable[..., np.ndarray]  # takes samples, outcomes and further arrays with one row per window


def _crps(estimator: str) -> Score:
    return lambda x, y: scoringrules.crps_ensemble(y, x, estimator=estimator)


def _of_complete_rows(
    score: Score, samples: np.ndarray, outcomes: np.ndarray, *others: np.ndarray
) -> np.ndarray:
    samples, outcomes = np.asarray(samples, float), np.asarray(outcomes, float)
    if samples.ndim != 2 or outcomes.shape != samples.shape[:1]:
        raise ValueError(
            f"Samples of shape {samples.shape} and outcomes of shape {outcomes.shape} do not match. "
            "Pass (N, S) and (N,)."
        )
    complete = np.isfinite(samples).all(axis=1) & np.isfinite(outcomes)
    result = np.full(len(outcomes), np.nan)
    if complete.any():
        result[complete] = score(samples[complete], outcomes[complete], *(each[complete] for each in others))
    return result


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
