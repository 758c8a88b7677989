"""Tests and confidence intervals for the mean of a per-date series, robust to overlapping labels.

A label that spans several dates makes neighboring values correlated. With a persistent signal a plain t-test then
rejects "no skill" half of the time for a random signal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kronos.utils import MissingExtra

try:
    from scipy import stats
    from statsmodels.regression.linear_model import OLS
except ImportError as error:
    raise MissingExtra(
        "Intervals need scipy and statsmodels: pip install 'kronos-strategies[evaluation]'"
    ) from error

LEVEL = 0.95
POWER = 0.8
MIN_INDEPENDENT_LABELS = 50  # dates / overlap; with fewer, even EWC over-rejects
MIN_COSINES = 4

EWC, NON_OVERLAPPING, NEWEY_WEST = "EWC", "non-overlapping", "Newey-West"


@dataclass(frozen=True)
class MeanTest:
    """The mean of a series of dates, its confidence interval and its test against zero.

    Interval, t and p are NaN where the series is too short or constant.

    Attributes:
        mean: mean over all defined dates; NaN without any.
        std_error: standard error of the mean; 0 where the series is constant up to rounding, NaN where it is too
            short.
        low: lower end of the interval at `level`.
        high: upper end of the interval at `level`.
        t: mean / standard error.
        p: two-sided p-value.
        df: degrees of freedom of Student's t.
        method: estimator of the standard error, with its tuning parameter.
        dates: number of defined dates.
        undefined: number of NaN or infinite dates, which are left out and never counted as zero.
        overlap: successive dates that one label spans.
        level: confidence level of the interval.
    """

    mean: float
    std_error: float
    low: float
    high: float
    t: float
    p: float
    df: float
    method: str
    dates: int
    undefined: int
    overlap: int
    level: float


def label_overlap(horizon: int, bars_between: int) -> int:
    """Successive dates that a label of `horizon` bars spans: horizon / bars between dates, rounded up."""
    return -(-horizon // bars_between)


def mean_test(values: ArrayLike | pd.Series, overlap: int = 1, level: float = LEVEL) -> MeanTest:
    """The headline test: EWC, or non-overlapping dates where there are fewer than 50 non-overlapping labels.

    Args:
        values: (dates,) in order of time, evenly spaced; NaN where undefined.
        overlap: successive dates that one label spans: bars of the label / bars between dates, rounded up.
        level: confidence level of the interval.

    Raises:
        ValueError: overlap below 1, or a level outside (0, 1).
    """
    defined = np.isfinite(np.asarray(values, float)).sum()
    test = ewc if defined >= MIN_INDEPENDENT_LABELS * overlap else non_overlapping
    return test(values, overlap, level)


def minimum_detectable_effect(test: MeanTest, power: float = POWER) -> float:
    """The smallest true mean that a two-sided test at the test's level detects with this power.

    (t_{1-a/2} + t_{power}) * standard error, a = 1 - level, quantiles of Student's t at the test's degrees of
    freedom (Bloom 1995); in the unit of the values, of either sign. NaN where the standard error is 0 or NaN.

    Raises:
        ValueError: a power outside (0, 1).
    """
    if not 0 < power < 1:
        raise ValueError(f"power must be a probability in (0, 1), got {power}.")
    if not test.std_error > 0:
        return np.nan
    return float((stats.t.ppf((1 + test.level) / 2, test.df) + stats.t.ppf(power, test.df)) * test.std_error)


def one_sided_bounds(test: MeanTest) -> tuple[float, float]:
    """Lower and upper one-sided confidence bounds of the true mean, each at the test's level.

    Mean -/+ t_{level} * standard error: together the ends of the interval at 2 * level - 1. For a constant series
    both equal the mean, for a series that is too short both are NaN.
    """
    margin = float(stats.t.ppf(test.level, test.df)) * test.std_error
    return test.mean - margin, test.mean + margin


def ewc(values: ArrayLike | pd.Series, overlap: int = 1, level: float = LEVEL) -> MeanTest:
    """Equal-weighted cosine test (Lazarus, Lewis, Stock & Watson 2018): fixed-b, with nearly correct size.

    With B = 0.41 T^(2/3), rounded and at least 4, the long-run variance is the mean of L_j^2 over j = 1..B,
    L_j = sqrt(2 / T) sum_t y_t cos(pi j (t - 1/2) / T), and sqrt(T) mean / sqrt(variance) is t with B degrees of
    freedom. `overlap` is not used: the first B cosines are slow enough to capture it as long as T / overlap >= 50.

    Undefined dates are removed and the remaining dates moved together. That only brings dates closer, so that
    correlated values stay within the range of the slow cosines.
    """
    series = _Series.of(values, overlap, level)
    y, size = series.defined, len(series.defined)
    cosines = max(MIN_COSINES, round(0.41 * size ** (2 / 3)))
    if size <= cosines:
        return series.test(np.nan, np.nan, f"{EWC}, too few dates")
    angles = np.pi * np.outer(np.arange(1, cosines + 1), np.arange(size) + 0.5) / size
    weights = np.sqrt(2 / size) * np.cos(angles) @ y  # (B,); each cosine sums to zero, so the mean cancels
    return series.test(np.sqrt(np.mean(weights**2) / size), cosines, f"{EWC}, B={cosines}")


def non_overlapping(values: ArrayLike | pd.Series, overlap: int = 1, level: float = LEVEL) -> MeanTest:
    """Student's t on every `overlap`-th date, for short series.

    There are `overlap` such sets. The mean is over all dates; its squared standard error is the average of s^2 / n
    over the sets, since the mean over sets is at least as precise as a set is on average; the degrees of freedom
    are n - 1 of the smallest set. An undefined date keeps its position, so that dates of a set never overlap.
    """
    series = _Series.of(values, overlap, level)
    sets = [part[np.isfinite(part)] for part in (series.values[i::overlap] for i in range(overlap))]
    smallest = min(map(len, sets))
    if smallest < 2:
        return series.test(np.nan, np.nan, f"{NON_OVERLAPPING}, too few dates")
    squared = np.mean([part.var(ddof=1) / len(part) for part in sets])
    return series.test(np.sqrt(squared), smallest - 1, f"{NON_OVERLAPPING}, n={smallest}")


def newey_west(values: ArrayLike | pd.Series, overlap: int = 1, level: float = LEVEL) -> MeanTest:
    """Newey & West (1987) with a Bartlett kernel; reported for reference only, since it over-rejects.

    Lags: overlap - 1, or the automatic 4 (T / 100)^(2/9) where that is larger. Computed by statsmodels as a
        regression
    on a constant, with the small-sample correction T / (T - 1) of the variance. Degrees of freedom T - 1. Undefined
    dates are removed, as in `ewc`.
    """
    series = _Series.of(values, overlap, level)
    size = len(series.defined)
    lags = max(overlap - 1, int(4 * (size / 100) ** (2 / 9)))
    if size < lags + 2:
        return series.test(np.nan, np.nan, f"{NEWEY_WEST}, too few dates")
    fit = OLS(series.defined, np.ones(size)).fit(
        cov_type="HAC", cov_kwds={"maxlags": lags, "kernel": "bartlett", "use_correction": True}
    )
    return series.test(float(fit.bse[0]), size - 1, f"{NEWEY_WEST}, L={lags}")


@dataclass(frozen=True)
class _Series:
    """A validated series with the settings of its test."""

    values: np.ndarray
    overlap: int
    level: float

    @classmethod
    def of(cls, values: ArrayLike | pd.Series, overlap: int, level: float) -> _Series:
        if overlap < 1:
            raise ValueError(f"overlap must be at least 1 date, got {overlap}.")
        if not 0 < level < 1:
            raise ValueError(f"level must be a confidence level in (0, 1), got {level}.")
        array = np.asarray(values, float)
        if array.ndim != 1:
            raise ValueError(f"The values have {array.ndim} dimensions. Pass one value per date.")
        return cls(array, overlap, level)

    @property
    def defined(self) -> np.ndarray:
        return self.values[np.isfinite(self.values)]

    def test(self, error: float, df: float, method: str) -> MeanTest:
        """The test with this standard error; an error at the level of rounding is 0 and gives no t."""
        defined = self.defined
        mean = float(defined.mean()) if len(defined) else np.nan
        if error <= 1e-12 * np.abs(defined).max(initial=0.0):
            error = 0.0
        divisor = error if error > 0 else np.nan
        margin = float(stats.t.ppf((1 + self.level) / 2, df)) * divisor
        t = mean / divisor
        return MeanTest(
            mean=mean,
            std_error=float(error),
            low=float(mean - margin),
            high=float(mean + margin),
            t=float(t),
            p=float(2 * stats.t.sf(abs(t), df)),
            df=float(df),
            method=method,
            dates=len(defined),
            undefined=len(self.values) - len(defined),
            overlap=self.overlap,
            level=self.level,
        )
