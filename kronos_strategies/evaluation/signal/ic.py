"""Information coefficients: how well a score ranks the returns that follow, date by date."""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kronos_strategies.evaluation.panel import PanelIndex

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


def rank_autocorrelation(score: np.ndarray, min_instruments: int = MIN_INSTRUMENTS) -> np.ndarray:
    """(dates, instruments), dates ascending -> (dates,) Spearman correlation with the score of the previous date.

    Over the instruments scored on both dates; NaN on the first date, and where a RankIC would be undefined.
    """
    return np.append(np.nan, information_coefficients_wide(score[1:], score[:-1], min_instruments)[1])[
        : len(score)
    ]


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
