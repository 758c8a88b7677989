"""Information coefficients: how well a score ranks the returns that follow, date by date. Torch-free."""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kronos_strategies.evaluation.panel import Grid

MIN_INSTRUMENTS = 10  # below, a cross-sectional correlation says nothing
CELLS = 32_768  # of a block of dates: its arrays stay in the second cache of a core


def coefficients(score: pd.Series, label: pd.Series, min_names: int = MIN_INSTRUMENTS) -> pd.DataFrame:
    """Cross-sectional correlations of score and label on each date.

    Args:
        score: indexed (datetime, instrument) in any order, known at the close of its date.
        label: same index levels, the return that follows.
        min_names: a date with fewer names is undefined.

    Returns:
        Columns ic (Pearson's) and rank_ic (Spearman's), float64, by ascending datetime: the dates that both have;
        NaN where undefined (`information_coefficients_wide`).

    Raises:
        ValueError: a (datetime, instrument) occurs twice, or the two share none.
    """
    dates, x, y = _aligned(score, label)
    ic, rank_ic = information_coefficients_wide(x, y, min_names)
    return pd.DataFrame({"ic": ic, "rank_ic": rank_ic}, index=dates)


def information_coefficients_wide(
    score: np.ndarray, label: np.ndarray, min_names: int = MIN_INSTRUMENTS
) -> np.ndarray:
    """(dates, names) twice -> (2, dates) float64: ic and rank_ic (Grinold & Kahn 2000, chapter 6).

    Both are over the names whose score and label are finite: who lacks one of them is left out before the others
    are ranked, and ranks are averaged over ties. A coefficient is NaN where there are fewer than `min_names`
    names, or where score or label does not vary. Differences of rounding only, on average below 1e-13 of the
    mean, are no variation to Pearson's; Spearman's sees every difference.

    Raises:
        ValueError: the two are no grids of one shape.
    """
    x, y = np.asarray(score), np.asarray(label)
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(f"Shapes are {x.shape} and {y.shape}. Pass two grids of the same dates and names.")
    dates, names = x.shape
    found = np.full((2, dates), np.nan)
    rows = max(1, CELLS // max(1, names))
    with np.errstate(over="ignore", invalid="ignore"):  # past 1e300 only ranks are defined
        for start in range(0, dates, rows):
            block = slice(start, start + rows)
            one, other = (values[block].astype(float, order="C") for values in (x, y))
            found[:, block] = _correlate(one, other, min_names)
    return found


def icir(values: ArrayLike | pd.Series) -> float:
    """Mean / standard deviation (ddof 1) over the defined dates, not annualised.

    NaN of fewer than two dates, and where the spread is rounding only.
    """
    array = np.asarray(values, float)
    defined = array[np.isfinite(array)]
    if len(defined) < 2:
        return np.nan
    mean, spread = float(defined.mean()), float(defined.std(ddof=1))
    return mean / spread if spread > 1e-12 * abs(mean) else np.nan


def rank_autocorrelation(score: np.ndarray, min_names: int = MIN_INSTRUMENTS) -> np.ndarray:
    """(dates, names), dates ascending -> (dates,) Spearman correlation of a score with itself on the date before.

    Over names scored on both; NaN on the first date, and where a RankIC would be undefined.
    """
    return np.append(np.nan, information_coefficients_wide(score[1:], score[:-1], min_names)[1])[: len(score)]


def _correlate(x: np.ndarray, y: np.ndarray, min_names: int) -> np.ndarray:
    """(rows, names) twice, in C order, which are overwritten -> (2, rows): Pearson's and Spearman's."""
    both = np.isfinite(x) & np.isfinite(y)
    count, missing = np.count_nonzero(both, axis=1), np.flatnonzero(~both)
    x.reshape(-1)[missing] = y.reshape(-1)[missing] = 0.0
    dx, size_x = _deviations(x, missing, count)
    dy, size_y = _deviations(y, missing, count)
    key_x, key_y = _keys(dx, size_x, missing), _keys(dy, size_y, missing)
    x.reshape(-1)[missing] = y.reshape(-1)[missing] = np.inf  # sorted behind all others
    by_x, x = _sort(x, key_x)
    by_y, y = _sort(y.take(by_x), key_y.take(by_x))
    rank_x, rank_y = _ranks(x, count).take(by_y), _ranks(y, count)
    found = np.array([_cosine(dx, dy), _cosine(rank_x, rank_y)])
    found[:, count < min_names] = np.nan
    return found


def _deviations(values: np.ndarray, missing: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From the mean of each row, 0 where missing or of rounding only; and their mean size, a row each, above 0."""
    count = np.maximum(count, 1)
    mean = values.sum(axis=1) / count
    deviations = values - mean[:, None]
    deviations.reshape(-1)[missing] = 0.0
    size = np.abs(deviations).sum(axis=1) / count
    # Rounding leaves tiny deviations behind in a constant row: compare with the values' own size.
    constant = ~(size > 1e-13 * np.abs(mean))
    deviations[constant], size[constant] = 0.0, 1.0
    extreme = (size < 1e-100) | (size > 1e100)  # their squares would leave the range of floats
    deviations[extreme] /= size[extreme, None]
    size[extreme] = 1.0
    return deviations, size


def _keys(deviations: np.ndarray, size: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """uint32 in the order of the values but for near ties, whatever the tails; the last one where missing."""
    squashed = np.abs(deviations)
    squashed += size[:, None]
    np.divide(deviations, squashed, out=squashed)  # in (-1, 1)
    squashed += 1
    squashed *= 2**31 - 1
    keys = squashed.astype(np.uint32)
    keys.reshape(-1)[missing] = 2**32 - 1
    return keys


def _sort(values: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row in ascending order: the places that its values have in the flattened block, and the values.

    numpy sorts 16-bit keys by radix: halves of 32-bit keys take a third of the time of `argsort` on float64.
    A row that the keys leave unsorted is sorted again by its values.
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
    """Of rows in ascending order, averaged over ties, less their mean; 0 beyond the first `count`."""
    names, middle = np.arange(ordered.shape[1]), (count - 1) / 2
    ranks = np.subtract(names, middle[:, None])
    alike = np.zeros(ordered.shape, bool)  # with the one before
    np.equal(ordered[:, 1:], ordered[:, :-1], out=alike[:, 1:])
    places = np.flatnonzero(alike)
    if len(places):
        starts = np.diff(places, prepend=-1) > 1
        run = np.cumsum(starts) - 1
        first = places[starts] - 1
        mean = first % len(names) + np.bincount(run) / 2 - middle[first // len(names)]
        flat = ranks.ravel()
        flat[first], flat[places] = mean, mean[run]
    fewest = count.min()
    np.copyto(ranks[:, fewest:], 0.0, where=names[fewest:] >= count[:, None])
    return ranks


def _cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the angle between rows; NaN where one of them is 0."""
    xx, yy, xy = (np.einsum("ij,ij->i", *pair) for pair in ((x, x), (y, y), (x, y)))
    product = np.sqrt(xx) * np.sqrt(yy)
    return np.divide(xy, product, out=np.full(len(x), np.nan), where=product > 0).clip(-1, 1)


def _aligned(score: pd.Series, label: pd.Series) -> tuple[pd.DatetimeIndex, np.ndarray, np.ndarray]:
    """Common dates, and both series wide over them and over common names."""
    keys, others = cast(pd.MultiIndex, score.index), cast(pd.MultiIndex, label.index)
    left = Grid.of(keys, "score")
    if len(keys) and _same(keys, others):
        return left.dates, left.wide(score), left.wide(label)
    right = Grid.of(others, "label")
    dates, names = left.dates.intersection(right.dates), left.names.intersection(right.names)
    held = (_part(grid.held, grid, dates, names) for grid in (left, right))
    if not np.logical_and(*held).any():
        raise ValueError("Score and label share no (datetime, instrument). Check dates and instrument names.")
    x, y = (_part(g.wide(series), g, dates, names) for g, series in ((left, score), (right, label)))
    return dates, x, y


def _part(wide: np.ndarray, grid: Grid, dates: pd.DatetimeIndex, names: pd.Index) -> np.ndarray:
    rows, columns = grid.dates.get_indexer(dates), grid.names.get_indexer(names)
    return wide if wide.shape == (len(rows), len(columns)) else wide[np.ix_(rows, columns)]


def _same(keys: pd.MultiIndex, others: pd.MultiIndex) -> bool:
    """Whether two indexes are equal, told by their codes; a wrong no costs time only."""
    return keys is others or (
        keys.names == others.names
        and all(a.equals(b) for a, b in zip(keys.levels, others.levels, strict=True))
        and all(np.array_equal(a, b) for a, b in zip(keys.codes, others.codes, strict=True))
    )
