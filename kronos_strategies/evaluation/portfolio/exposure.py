"""How much a book holds, and of what. Torch-free, engine-free."""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd

from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.evaluation.grid import Grid


def exposure_by_date(result: BacktestResult) -> pd.DataFrame:
    """A row a bar: gross and net (sums of |weight| and of weight at its close) and positions; 0 where none is held.

    Raises:
        ValueError: keys of the weights that occur twice, or lack a level.
    """
    grid = Grid.of(cast(pd.MultiIndex, result.weights.index), "weights")
    weights = np.nan_to_num(grid.wide(result.weights.to_numpy(float)))
    sums = pd.DataFrame({"gross": np.abs(weights).sum(axis=1), "net": weights.sum(axis=1)}, index=grid.dates)
    return sums.reindex(result.returns.index, fill_value=0.0).assign(positions=result.positions)


def tilts_by_date(result: BacktestResult, exposures: pd.DataFrame) -> pd.DataFrame:
    """Where the names that are held stand among all names: bars x numeric exposures, in (0, 1), .5 is neutral.

    A name's percentile is (average rank - 1/2) / names, among those with a value of the exposure at that close; a
    short position counts from the other end, so that long the highest and short the lowest is a tilt too. The tilt
    is the mean over held names that have a percentile, weighted by |weight|; NaN where there is none.

    Args:
        result: whose weights are at the closes of its bars.
        exposures: indexed (datetime, instrument), known at the same closes, of all names that could be held.
            Columns that are not numeric have no percentile and are left out. NaN and infinite where unknown.

    Raises:
        ValueError: keys of the exposures that occur twice, or lack a level.
    """
    numeric = exposures.select_dtypes("number")
    dates = result.returns.index
    tilts = pd.DataFrame(np.nan, index=dates, columns=numeric.columns)
    if numeric.empty:
        return tilts
    numeric = numeric[numeric.index.get_level_values("datetime").isin(dates)]
    grid = Grid.of(cast(pd.MultiIndex, numeric.index), "exposures")
    weights = _on(grid, result.weights)
    rows = dates.get_indexer(grid.dates)
    for place, name in enumerate(numeric.columns):
        tilts.iloc[rows, place] = _tilt(weights, grid.wide(numeric[name].to_numpy(float)))
    return tilts


def _on(grid: Grid, weights: pd.Series) -> np.ndarray:
    """(dates, names) weights, 0 where nothing is held; a name that is not on the grid has no percentile anyway."""
    row = grid.dates.get_indexer(weights.index.get_level_values("datetime"))
    column = grid.names.get_indexer(weights.index.get_level_values("instrument"))
    known = (row >= 0) & (column >= 0)
    wide = np.zeros((len(grid.dates), len(grid.names)))
    wide[row[known], column[known]] = weights.fillna(0.0).to_numpy(float)[known]
    return wide


def _tilt(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(dates, names) twice -> (dates,)."""
    percentile = (pd.DataFrame(values).rank(axis=1).to_numpy() - 0.5) / np.isfinite(values).sum(axis=1)[
        :, None
    ]
    known = np.isfinite(percentile)
    size = np.abs(np.where(known, weights, 0.0)).sum(axis=1)
    lean = np.where(known, weights * (percentile - 0.5), 0.0).sum(axis=1)
    return 0.5 + lean / np.where(size > 0, size, np.nan)
