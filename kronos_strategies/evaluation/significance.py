"""Is the mean of a per-date series different from zero? Intervals that survive overlapping labels.

A label that spans several dates makes neighbouring values alike, and with a signal that persists a plain t test
then rejects no skill half of the time. Torch-free, engine-free.
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
MIN_SPANS = 50  # dates / overlap; below, even EWC rejects too often
MIN_COSINES = 4

EWC, APART, NEWEY_WEST = "EWC", "non-overlapping", "Newey-West"


@dataclass(frozen=True)
class MeanTest:
    """The mean of a series of dates, its interval and its test against zero.

    Interval, t and p are NaN where the series is too short or constant.

    Attributes:
        mean: over all defined dates; NaN without any.
        error: standard error of the mean; 0 where the series is constant, up to rounding, and NaN where it is too
            short.
        low: of the interval at `level`.
        high: of the interval at `level`.
        t: mean / its standard error.
        p: two-sided.
        df: degrees of freedom of Student's t.
        method: how the standard error was found, with its tuning figure.
        dates: defined ones.
        undefined: NaN or infinite ones: left out, never counted as zero.
        overlap: successive dates that one label spans.
        level: of the interval.
    """

    mean: float
    error: float
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


def overlap_of(horizon: int, bars_between: int) -> int:
    """Successive dates that a label of `horizon` bars spans: horizon / bars from date to date, rounded up."""
    return -(-horizon // bars_between)


def mean_test(values: ArrayLike | pd.Series, overlap: int = 1, level: float = LEVEL) -> MeanTest:
    """The headline: EWC, or dates that do not overlap where there are fewer than 50 spans of them.

    Args:
        values: (dates,) in order of time, evenly spaced; NaN where undefined.
        overlap: successive dates that one label spans: bars of the label / bars between dates, rounded up.
        level: of the interval.

    Raises:
        ValueError: overlap below 1, or a level outside (0, 1).
    """
    defined = np.isfinite(np.asarray(values, float)).sum()
    test = ewc if defined >= MIN_SPANS * overlap else non_overlapping
    return test(values, overlap, level)


def detectable(test: MeanTest, power: float = POWER) -> float:
    """The smallest true mean that a two-sided test at the test's level finds with this power.

    (t_{1-a/2} + t_{power}) * standard error, a = 1 - level, quantiles of Student's t at the test's degrees of
    freedom (Bloom 1995); in the unit of the values, of either sign. NaN where the error is 0 or there is none.

    Raises:
        ValueError: a power outside (0, 1).
    """
    if not 0 < power < 1:
        raise ValueError(f"power={power} is no probability of finding a mean. Pass a number in (0, 1).")
    if not test.error > 0:
        return np.nan
    return float((stats.t.ppf((1 + test.level) / 2, test.df) + stats.t.ppf(power, test.df)) * test.error)


def one_sided_bounds(test: MeanTest) -> tuple[float, float]:
    """Below and above the true mean, each with the confidence of the test's level on its own.

    Mean -/+ t_{level} * standard error, so that the two are the ends of the interval at 2 * level - 1. Both are
    the mean of a constant series, and NaN of one that is too short.
    """
    reach = float(stats.t.ppf(test.level, test.df)) * test.error
    return test.mean - reach, test.mean + reach


def ewc(values: ArrayLike | pd.Series, overlap: int = 1, level: float = LEVEL) -> MeanTest:
    """Equal-weighted cosine test (Lazarus, Lewis, Stock & Watson 2018), fixed-b and so of nearly right size.

    With B = 0.41 T^(2/3), rounded and at least 4, the long-run variance is the mean of L_j^2 over j = 1..B,
    L_j = sqrt(2 / T) sum_t y_t cos(pi j (t - 1/2) / T), and sqrt(T) mean / sqrt(variance) is t with B degrees of
    freedom. `overlap` does not enter; the first B cosines are too slow to miss it as long as T / overlap >= 50.

    Undefined dates are closed up: the others follow one another in order. That can only bring dates nearer than
    they were, so that what is correlated stays within the reach of the slow cosines.
    """
    series = _Series.of(values, overlap, level)
    y, size = series.defined, len(series.defined)
    cosines = max(MIN_COSINES, round(0.41 * size ** (2 / 3)))
    if size <= cosines:
        return series.test(np.nan, np.nan, f"{EWC}, too few dates")
    angles = np.pi * np.outer(np.arange(1, cosines + 1), np.arange(size) + 0.5) / size
    weights = np.sqrt(2 / size) * np.cos(angles) @ y  # (B,); each cosine sums to zero, so the mean drops out
    return series.test(np.sqrt(np.mean(weights**2) / size), cosines, f"{EWC}, B={cosines}")


def non_overlapping(values: ArrayLike | pd.Series, overlap: int = 1, level: float = LEVEL) -> MeanTest:
    """Student's t on every `overlap`-th date, for short series.

    There are `overlap` such sets. The mean is that of all dates; its squared error is taken to be the average
    over the sets of s^2 / n, since a mean of sets is no less certain than they are on average; degrees of freedom
    are n - 1 of the smallest set. An undefined date keeps its place: the dates of a set stay apart.
    """
    series = _Series.of(values, overlap, level)
    sets = [part[np.isfinite(part)] for part in (series.values[i::overlap] for i in range(overlap))]
    smallest = min(map(len, sets))
    if smallest < 2:
        return series.test(np.nan, np.nan, f"{APART}, too few dates")
    squared = np.mean([part.var(ddof=1) / len(part) for part in sets])
    return series.test(np.sqrt(squared), smallest - 1, f"{APART}, n={smallest}")


def newey_west(values: ArrayLike | pd.Series, overlap: int = 1, level: float = LEVEL) -> MeanTest:
    """Bartlett kernel (Newey & West 1987), the customary one: to be shown beside, for it rejects too often.

    Lags: overlap - 1, or the automatic 4 (T / 100)^(2/9) where that is more. statsmodels computes it, a regression
    on a constant, with its small-sample correction T / (T - 1) of the variance. Degrees of freedom T - 1. Undefined
    dates are closed up, as in `ewc`.
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
    """A checked series and what is asked of it."""

    values: np.ndarray
    overlap: int
    level: float

    @classmethod
    def of(cls, values: ArrayLike | pd.Series, overlap: int, level: float) -> _Series:
        if overlap < 1:
            raise ValueError(f"overlap={overlap}: a label spans at least its own date. Pass 1 or more.")
        if not 0 < level < 1:
            raise ValueError(f"level={level} is no confidence level. Pass a number in (0, 1).")
        array = np.asarray(values, float)
        if array.ndim != 1:
            raise ValueError(f"The values have {array.ndim} dimensions. Pass one value a date.")
        return cls(array, overlap, level)

    @property
    def defined(self) -> np.ndarray:
        return self.values[np.isfinite(self.values)]

    def test(self, error: float, df: float, method: str) -> MeanTest:
        """From the standard error of the mean; one of rounding only is 0 and makes no test."""
        defined = self.defined
        mean = float(defined.mean()) if len(defined) else np.nan
        if error <= 1e-12 * np.abs(defined).max(initial=0.0):
            error = 0.0
        divisor = error if error > 0 else np.nan
        reach = float(stats.t.ppf((1 + self.level) / 2, df)) * divisor
        t = mean / divisor
        return MeanTest(
            mean=mean,
            error=float(error),
            low=float(mean - reach),
            high=float(mean + reach),
            t=float(t),
            p=float(2 * stats.t.sf(abs(t), df)),
            df=float(df),
            method=method,
            dates=len(defined),
            undefined=len(self.values) - len(defined),
            overlap=self.overlap,
            level=self.level,
        )
