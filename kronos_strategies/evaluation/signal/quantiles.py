"""Names bucketed by score on each date: what each bucket earned. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from kronos_strategies.evaluation.significance import MeanTest, mean_test

BUCKETS = 10
FEW_BUCKETS, FEW_NAMES = (
    5,
    100,
)  # quintiles where the median date has fewer names: a decile of 50 names is noise
NAMES_A_BUCKET = 2  # on average; a date with fewer has no buckets


@dataclass(frozen=True)
class QuantileEvaluation:
    """Buckets of a score, 1 the lowest.

    Attributes:
        by_date: dates x buckets (columns 1..q), mean simple return over the label's span, equal weights; NaN on a
            date without buckets, and in a bucket that ties left empty (`assign_quantiles`).
        means: index bucket; columns mean, low, high (95 %), excess: mean less that of all bucketed names, date by
            date, and excess_low, excess_high: the market's own moves are in the first interval and not in this.
        spread: of top less bottom, by date; a book of 200 % gross, not annualised, before costs.
        spread_by_date: its series.
        monotonicity: Spearman correlation of bucket number and mean excess return: 1 if every step up earns more;
            NaN with fewer than three different means.
        top_hit_rate: share of names of the top bucket that earned more than the date's median name, averaged over
            dates; a name that earned as much counts half, so that no skill gives one half.
    """

    by_date: pd.DataFrame
    means: pd.DataFrame
    spread: MeanTest
    spread_by_date: pd.Series
    monotonicity: float
    top_hit_rate: float


def num_quantiles(score: np.ndarray, label: np.ndarray) -> int:
    """Deciles, or quintiles where the median date has fewer than 100 names with both; one count for all dates."""
    names = (np.isfinite(score) & np.isfinite(label)).sum(axis=1)
    return BUCKETS if pd.Series(names[names > 0]).median() >= FEW_NAMES else FEW_BUCKETS


def assign_quantiles(score: np.ndarray, count: int) -> np.ndarray:
    """Buckets of equal size by score, date by date.

    The name of average rank r among n goes to bucket 1 + floor((r - 1/2) count / n). Without ties sizes differ by
    one at most. Names of equal score share their average rank, hence their bucket, wherever they stand in the file;
    buckets are then uneven, and one may be empty.

    Args:
        score: (dates, names); a name whose score is not finite has no bucket.
        count: of buckets.

    Returns:
        (dates, names) float64, 1 (lowest) to `count`; NaN without a bucket. A date of fewer than 2 * count names,
        or of a single score, has none.
    """
    finite = np.where(np.isfinite(score), score, np.nan)
    ranks = pd.DataFrame(finite).rank(axis=1).to_numpy()
    names = np.isfinite(ranks).sum(axis=1, keepdims=True)
    defined = (names >= NAMES_A_BUCKET * count) & ~_constant(ranks, names)
    return np.where(defined, 1 + np.floor((ranks - 0.5) * count / np.maximum(names, 1)), np.nan)


def quantile_means(buckets: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """(dates, names) buckets and finite values of what is in them -> (dates, count) means; NaN for an empty one."""
    row, column = np.nonzero(np.isfinite(buckets))
    place = row * count + buckets[row, column].astype(np.int64) - 1
    size = len(buckets) * count
    names = np.bincount(place, minlength=size)
    sums = np.bincount(place, values[row, column], minlength=size)
    return np.where(names > 0, sums / np.maximum(names, 1), np.nan).reshape(len(buckets), count)


def evaluate_quantiles(
    score: np.ndarray, label: np.ndarray, dates: pd.DatetimeIndex, overlap: int, count: int
) -> QuantileEvaluation:
    """Bucket the names that have both a score and a label.

    Args:
        score: (dates, names), known at the close of the date.
        label: (dates, names), simple returns that follow.
        dates: of the rows, ascending.
        overlap: successive dates that one label spans.
        count: of buckets, e.g. of `num_quantiles`.

    Raises:
        ValueError: fewer than 2 buckets.
    """
    if count < 2:
        raise ValueError(f"{count} buckets make no spread. Ask for 2 or more.")
    buckets = assign_quantiles(np.where(np.isfinite(label), score, np.nan), count)
    earned = pd.DataFrame(
        quantile_means(buckets, label, count), dates, pd.RangeIndex(1, count + 1, name="bucket")
    )
    bucketed = pd.DataFrame(np.where(np.isfinite(buckets), label, np.nan), dates)
    excess = earned.sub(bucketed.mean(axis=1), axis=0)
    spread = (earned[count] - earned[1]).rename("spread")
    means = _means(earned, excess, overlap)
    return QuantileEvaluation(
        by_date=earned,
        means=means,
        spread=mean_test(spread, overlap),
        spread_by_date=spread,
        monotonicity=_monotonicity(means["excess"].dropna()),
        top_hit_rate=_hit_rate(bucketed, buckets == count),
    )


def _means(earned: pd.DataFrame, excess: pd.DataFrame, overlap: int) -> pd.DataFrame:
    rows = {}
    for bucket in earned:
        own, beyond = mean_test(earned[bucket], overlap), mean_test(excess[bucket], overlap)
        rows[bucket] = [own.mean, own.low, own.high, beyond.mean, beyond.low, beyond.high]
    columns = ["mean", "low", "high", "excess", "excess_low", "excess_high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("bucket")


def _monotonicity(means: pd.Series) -> float:
    if means.nunique() < 3:
        return np.nan
    return float(stats.spearmanr(means.index, means).statistic)


def _hit_rate(earned: pd.DataFrame, top: np.ndarray) -> float:
    beyond = earned.sub(earned.median(axis=1), axis=0).to_numpy()
    points = np.where(beyond > 0, 1.0, np.where(beyond == 0, 0.5, 0.0))
    share = pd.DataFrame(np.where(top, points, np.nan)).mean(axis=1)
    return float(share.mean())


def _constant(ranks: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Dates of one score: everyone has the rank of the middle."""
    apart = np.isfinite(ranks) & (ranks != (names + 1) / 2)
    return np.logical_not(apart.any(axis=1, keepdims=True))


def top_turnover(score: np.ndarray, count: int) -> np.ndarray:
    """Share of the top bucket that was not in it on the date before.

    Args:
        score: (dates, names), dates ascending; all scored names are bucketed, whether or not a return followed.
        count: of buckets (`assign_quantiles`).

    Returns:
        (dates,); NaN on the first date, and where either date has no top bucket.
    """
    top = assign_quantiles(score, count) == count
    names = top.sum(axis=1)
    new = (top[1:] & ~top[:-1]).sum(axis=1)
    known = (names[1:] > 0) & (names[:-1] > 0)
    return np.append(np.nan, np.where(known, new / np.maximum(names[1:], 1), np.nan))[: len(score)]
