"""Metrics of a score, date by date: how well it ranks the returns that follow, and returns of its quantiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from kronos_strategies.evaluation.panel import PanelIndex
from kronos_strategies.evaluation.significance import MeanTest, mean_test

MIN_INSTRUMENTS = 10  # with fewer, a cross-sectional correlation is meaningless
CELLS = 32_768  # of a block of dates, whose arrays fit into the L2 cache


def information_coefficients(
    score: pd.Series, label: pd.Series, min_instruments: int = MIN_INSTRUMENTS
) -> pd.DataFrame:
    """Cross-sectional correlations of score and label on each date.

    Args:
        score: indexed (datetime, instrument) in any order, known at the close of its date.
        label: forward return, with the same index levels.
        min_instruments: a date with fewer instruments is undefined.

    Returns:
        Columns ic (Pearson's) and rank_ic (Spearman's), float64, by ascending datetime, for the common dates;
        NaN where undefined (`information_coefficients_wide`).

    Raises:
        ValueError: a (datetime, instrument) occurs twice, or the two share none.
    """
    dates, x, y = _aligned(score, label)
    ic, rank_ic = information_coefficients_wide(x, y, min_instruments)
    return pd.DataFrame({"ic": ic, "rank_ic": rank_ic}, index=dates)


def information_coefficients_wide(
    score: np.ndarray, label: np.ndarray, min_instruments: int = MIN_INSTRUMENTS
) -> np.ndarray:
    """(dates, instruments) twice -> (2, dates) float64: ic and rank_ic (Grinold & Kahn 2000, chapter 6).

    Both are over the instruments whose score and label are finite: the others are left out before ranking, and
        ranks
    are averaged over ties. A coefficient is NaN where there are fewer than `min_instruments` instruments, or where
    score or label does not vary. Pearson's ignores differences due to rounding, on average below 1e-13 of the mean;
    Spearman's counts every difference.

    Raises:
        ValueError: the arrays are not two-dimensional or differ in shape.
    """
    x, y = np.asarray(score), np.asarray(label)
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(
            f"Shapes are {x.shape} and {y.shape}. Pass two arrays of the same dates and instruments."
        )
    dates, instruments = x.shape
    found = np.full((2, dates), np.nan)
    rows = max(1, CELLS // max(1, instruments))
    with np.errstate(over="ignore", invalid="ignore"):  # beyond 1e300 only ranks are defined
        for start in range(0, dates, rows):
            block = slice(start, start + rows)
            one, other = (values[block].astype(float, order="C") for values in (x, y))
            found[:, block] = _correlate(one, other, min_instruments)
    return found


def icir(values: ArrayLike | pd.Series) -> float:
    """Mean / standard deviation (ddof 1) over the defined dates, not annualized.

    NaN with fewer than two dates, and where the variation is due to rounding.
    """
    array = np.asarray(values, float)
    defined = array[np.isfinite(array)]
    if len(defined) < 2:
        return np.nan
    mean, spread = float(defined.mean()), float(defined.std(ddof=1))
    return mean / spread if spread > 1e-12 * abs(mean) else np.nan


def _correlate(x: np.ndarray, y: np.ndarray, min_instruments: int) -> np.ndarray:
    """Two (rows, instruments) arrays in C order, overwritten -> (2, rows): Pearson's and Spearman's."""
    both = np.isfinite(x) & np.isfinite(y)
    count, missing = np.count_nonzero(both, axis=1), np.flatnonzero(~both)
    x.reshape(-1)[missing] = y.reshape(-1)[missing] = 0.0
    dx, size_x = _deviations(x, missing, count)
    dy, size_y = _deviations(y, missing, count)
    key_x, key_y = _keys(dx, size_x, missing), _keys(dy, size_y, missing)
    x.reshape(-1)[missing] = y.reshape(-1)[missing] = np.inf  # sorted after all others
    by_x, x = _sort(x, key_x)
    by_y, y = _sort(y.take(by_x), key_y.take(by_x))
    rank_x, rank_y = _ranks(x, count).take(by_y), _ranks(y, count)
    found = np.array([_cosine(dx, dy), _cosine(rank_x, rank_y)])
    found[:, count < min_instruments] = np.nan
    return found


def _deviations(values: np.ndarray, missing: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From the mean of each row, 0 where missing or of rounding only; and their mean size, a row each, above 0."""
    count = np.maximum(count, 1)
    mean = values.sum(axis=1) / count
    deviations = values - mean[:, None]
    deviations.reshape(-1)[missing] = 0.0
    size = np.abs(deviations).sum(axis=1) / count
    # Rounding leaves tiny deviations in a constant row: compare them with the size of the values.
    constant = ~(size > 1e-13 * np.abs(mean))
    deviations[constant], size[constant] = 0.0, 1.0
    extreme = (size < 1e-100) | (size > 1e100)  # their squares would overflow or underflow
    deviations[extreme] /= size[extreme, None]
    size[extreme] = 1.0
    return deviations, size


def _keys(deviations: np.ndarray, size: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """uint32 keys in the order of the values except for near ties, for any tails; the largest key where missing."""
    squashed = np.abs(deviations)
    squashed += size[:, None]
    np.divide(deviations, squashed, out=squashed)  # in (-1, 1)
    squashed += 1
    squashed *= 2**31 - 1
    keys = squashed.astype(np.uint32)
    keys.reshape(-1)[missing] = 2**32 - 1
    return keys


def _sort(values: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row in ascending order: the positions of its values in the flattened block, and the values.

    numpy uses a radix sort for 16-bit keys: sorting the halves of 32-bit keys takes a third of the time of
    `argsort` on float64. A row that the keys leave unsorted is sorted again by its values.
    """
    rows = np.arange(len(values))[:, None] * values.shape[1]
    by_low = np.argsort(keys.astype(np.uint16), axis=1, kind="stable")
    by_low += rows
    high = (keys >> 16).astype(np.uint16).take(by_low)
    order = np.argsort(high, axis=1, kind="stable")
    order += rows
    order = by_low.take(order)
    ordered = values.take(order)
    unsorted = (ordered[:, 1:] < ordered[:, :-1]).any(axis=1)
    if unsorted.any():
        order[unsorted] = np.argsort(values[unsorted], axis=1) + rows[unsorted]
        ordered[unsorted] = values.take(order[unsorted])
    return order, ordered


def _ranks(ordered: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Centered ranks of rows in ascending order, averaged over ties; 0 beyond the first `count`."""
    columns, middle = np.arange(ordered.shape[1]), (count - 1) / 2
    ranks = np.subtract(columns, middle[:, None])
    tied = np.zeros(ordered.shape, bool)  # with the value before
    np.equal(ordered[:, 1:], ordered[:, :-1], out=tied[:, 1:])
    places = np.flatnonzero(tied)
    if len(places):
        starts = np.diff(places, prepend=-1) > 1
        run = np.cumsum(starts) - 1
        first = places[starts] - 1
        mean = first % len(columns) + np.bincount(run) / 2 - middle[first // len(columns)]
        flat = ranks.ravel()
        flat[first], flat[places] = mean, mean[run]
    fewest = count.min()
    np.copyto(ranks[:, fewest:], 0.0, where=columns[fewest:] >= count[:, None])
    return ranks


def _cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosine of the angle between rows; NaN where one of them is 0."""
    xx, yy, xy = (np.einsum("ij,ij->i", *pair) for pair in ((x, x), (y, y), (x, y)))
    product = np.sqrt(xx) * np.sqrt(yy)
    return np.divide(xy, product, out=np.full(len(x), np.nan), where=product > 0).clip(-1, 1)


def _aligned(score: pd.Series, label: pd.Series) -> tuple[pd.DatetimeIndex, np.ndarray, np.ndarray]:
    """Common dates, and both series wide over the common dates and instruments."""
    index, other = cast(pd.MultiIndex, score.index), cast(pd.MultiIndex, label.index)
    left = PanelIndex.from_index(index, "score")
    if len(index) and _same(index, other):
        return left.dates, left.to_wide(score), left.to_wide(label)
    right = PanelIndex.from_index(other, "label")
    dates, names = left.dates.intersection(right.dates), left.instruments.intersection(right.instruments)
    masks = (_part(panel.mask, panel, dates, names) for panel in (left, right))
    if not np.logical_and(*masks).any():
        raise ValueError("Score and label share no (datetime, instrument). Check dates and instrument names.")
    x, y = (_part(g.to_wide(series), g, dates, names) for g, series in ((left, score), (right, label)))
    return dates, x, y


def _part(wide: np.ndarray, panel: PanelIndex, dates: pd.DatetimeIndex, names: pd.Index) -> np.ndarray:
    rows, columns = panel.dates.get_indexer(dates), panel.instruments.get_indexer(names)
    return wide if wide.shape == (len(rows), len(columns)) else wide[np.ix_(rows, columns)]


def _same(index: pd.MultiIndex, other: pd.MultiIndex) -> bool:
    """Whether two indexes have equal codes; a false negative only costs time."""
    return index is other or (
        index.names == other.names
        and all(a.equals(b) for a, b in zip(index.levels, other.levels, strict=True))
        and all(np.array_equal(a, b) for a, b in zip(index.codes, other.codes, strict=True))
    )


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
