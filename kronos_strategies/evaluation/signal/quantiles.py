"""Returns and turnover of instruments grouped into quantiles by score on each date."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from kronos_strategies.evaluation.significance import MeanTest, mean_test

QUANTILES = 10
FEW_QUANTILES, FEW_INSTRUMENTS = 5, 100  # quintiles where the median date has fewer instruments than this
MIN_PER_QUANTILE = 2  # on average; a date with fewer has no quantiles


@dataclass(frozen=True)
class QuantileEvaluation:
    """Returns by quantile of a score, 1 the lowest.

    Attributes:
        by_date: dates x quantiles (columns 1..q), equal-weighted mean simple return over the label; NaN on a date
            without quantiles, and in a quantile that ties left empty (`assign_quantiles`).
        means: index quantile; columns mean, low, high (95 %), excess: mean minus that of all instruments, date by
            date, and excess_low, excess_high. The first interval includes the moves of the market, the second does
            not.
        top_minus_bottom: mean return of the top minus the bottom quantile; 200 % gross exposure, not annualized,
            before costs.
        top_minus_bottom_by_date: its series.
        monotonicity: Spearman correlation of quantile number and mean excess return: 1 if the return increases with
            every quantile; NaN with fewer than three different means.
        top_hit_rate: share of instruments of the top quantile with a return above the date's median, averaged over
            dates; a return equal to the median counts half, so that no skill gives one half.
    """

    by_date: pd.DataFrame
    means: pd.DataFrame
    top_minus_bottom: MeanTest
    top_minus_bottom_by_date: pd.Series
    monotonicity: float
    top_hit_rate: float


def num_quantiles(score: np.ndarray, label: np.ndarray) -> int:
    """10, or 5 where the median date has fewer than 100 instruments with both values; the same for all dates."""
    sizes = (np.isfinite(score) & np.isfinite(label)).sum(axis=1)
    return QUANTILES if pd.Series(sizes[sizes > 0]).median() >= FEW_INSTRUMENTS else FEW_QUANTILES


def assign_quantiles(score: np.ndarray, count: int) -> np.ndarray:
    """Quantiles of equal size by score, date by date.

    The instrument with average rank r among n is in quantile 1 + floor((r - 1/2) count / n). Without ties sizes
    differ by at most one. Instruments with equal scores share their average rank and hence their quantile,
    in any order; quantiles are then uneven, and some may be empty.

    Args:
        score: (dates, instruments); an instrument without a finite score has no quantile.
        count: number of quantiles.

    Returns:
        (dates, instruments) float64, 1 (lowest) to `count`; NaN without a quantile. A date with fewer than 2 *
        count instruments, or with a single score value, has none.
    """
    finite = np.where(np.isfinite(score), score, np.nan)
    ranks = pd.DataFrame(finite).rank(axis=1).to_numpy()
    sizes = np.isfinite(ranks).sum(axis=1, keepdims=True)
    defined = (sizes >= MIN_PER_QUANTILE * count) & ~_constant(ranks, sizes)
    return np.where(defined, 1 + np.floor((ranks - 0.5) * count / np.maximum(sizes, 1)), np.nan)


def quantile_means(quantiles: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """(dates, instruments) quantiles and values -> (dates, count) means; NaN for an empty quantile."""
    row, column = np.nonzero(np.isfinite(quantiles))
    place = row * count + quantiles[row, column].astype(np.int64) - 1
    size = len(quantiles) * count
    sizes = np.bincount(place, minlength=size)
    sums = np.bincount(place, values[row, column], minlength=size)
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan).reshape(len(quantiles), count)


def evaluate_quantiles(
    score: np.ndarray, label: np.ndarray, dates: pd.DatetimeIndex, overlap: int, count: int
) -> QuantileEvaluation:
    """Group the instruments that have both a score and a label into quantiles.

    Args:
        score: (dates, instruments), known at the close of the date.
        label: (dates, instruments), simple forward returns.
        dates: dates of the rows, ascending.
        overlap: successive dates that one label spans.
        count: number of quantiles, e.g. from `num_quantiles`.

    Raises:
        ValueError: fewer than 2 quantiles.
    """
    if count < 2:
        raise ValueError(f"There must be at least 2 quantiles to compare, got {count}.")
    quantiles = assign_quantiles(np.where(np.isfinite(label), score, np.nan), count)
    returns = pd.DataFrame(
        quantile_means(quantiles, label, count), dates, pd.RangeIndex(1, count + 1, name="quantile")
    )
    grouped = pd.DataFrame(np.where(np.isfinite(quantiles), label, np.nan), dates)
    excess = returns.sub(grouped.mean(axis=1), axis=0)
    top_minus_bottom = (returns[count] - returns[1]).rename("top_minus_bottom")
    means = _means(returns, excess, overlap)
    return QuantileEvaluation(
        by_date=returns,
        means=means,
        top_minus_bottom=mean_test(top_minus_bottom, overlap),
        top_minus_bottom_by_date=top_minus_bottom,
        monotonicity=_monotonicity(means["excess"].dropna()),
        top_hit_rate=_hit_rate(grouped, quantiles == count),
    )


def _means(returns: pd.DataFrame, excess: pd.DataFrame, overlap: int) -> pd.DataFrame:
    rows = {}
    for quantile in returns:
        own, excess_test = mean_test(returns[quantile], overlap), mean_test(excess[quantile], overlap)
        rows[quantile] = [own.mean, own.low, own.high, excess_test.mean, excess_test.low, excess_test.high]
    columns = ["mean", "low", "high", "excess", "excess_low", "excess_high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("quantile")


def _monotonicity(means: pd.Series) -> float:
    if means.nunique() < 3:
        return np.nan
    return float(stats.spearmanr(means.index, means).statistic)


def _hit_rate(returns: pd.DataFrame, top: np.ndarray) -> float:
    excess = returns.sub(returns.median(axis=1), axis=0).to_numpy()
    points = np.where(excess > 0, 1.0, np.where(excess == 0, 0.5, 0.0))
    share = pd.DataFrame(np.where(top, points, np.nan)).mean(axis=1)
    return float(share.mean())


def _constant(ranks: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Dates with a single score value, on which all instruments have the middle rank."""
    apart = np.isfinite(ranks) & (ranks != (sizes + 1) / 2)
    return np.logical_not(apart.any(axis=1, keepdims=True))


def top_turnover(score: np.ndarray, count: int) -> np.ndarray:
    """Share of the top quantile that was not in it on the previous date.

    Args:
        score: (dates, instruments), dates ascending; all scored instruments count, whether or not a return follows.
        count: number of quantiles (`assign_quantiles`).

    Returns:
        (dates,); NaN on the first date, and where either date has no top quantile.
    """
    top = assign_quantiles(score, count) == count
    sizes = top.sum(axis=1)
    new = (top[1:] & ~top[:-1]).sum(axis=1)
    known = (sizes[1:] > 0) & (sizes[:-1] > 0)
    return np.append(np.nan, np.where(known, new / np.maximum(sizes[1:], 1), np.nan))[: len(score)]
