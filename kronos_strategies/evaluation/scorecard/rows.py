"""What is scored at one horizon: a row a window, and the market's own values beside it. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kronos_strategies.evaluation.grid import Grid
from kronos_strategies.evaluation.scorecard.market import Market
from kronos_strategies.evaluation.signal.ic import coefficients_of_grid
from kronos_strategies.evaluation.significance import MeanTest, mean_test

MODEL = "model"


@dataclass(frozen=True)
class HorizonRows:
    """All windows at one horizon.

    Attributes:
        said: what the paths say and how far off they were, columns as of `summarise_paths`.
        market: that they are scored on.
        horizon: bars.
        sampled: as `said`, of the paths before a calibration moved them; None where none did.
    """

    said: pd.DataFrame
    market: Market
    horizon: int
    sampled: pd.DataFrame | None = None

    @cached_property
    def keys(self) -> pd.MultiIndex:
        """Of the windows."""
        return cast(pd.MultiIndex, self.said.index)

    @cached_property
    def dates(self) -> pd.DatetimeIndex:
        """Of the forecasts, ascending."""
        return self.grid.dates

    @cached_property
    def overlap(self) -> int:
        """Forecast dates that one label spans."""
        return self.market.overlap(self.dates, self.horizon)

    @cached_property
    def grid(self) -> Grid:
        """Where the windows lie on dates x names."""
        return Grid.of(self.keys, "windows")

    def of(self, wide: pd.DataFrame) -> pd.Series:
        """The windows' own entries of a frame of the market."""
        return self.market.at(wide, self.keys)

    def by_date(self, values: ArrayLike | pd.Series) -> pd.Series:
        """Mean of each date over its defined rows; NaN on a date without one."""
        wide = self.wide(values)
        known = np.isfinite(wide)
        count = known.sum(axis=1)
        sums = np.where(known, wide, 0.0).sum(axis=1)
        return pd.Series(np.divide(sums, count, out=np.full(len(count), np.nan), where=count > 0), self.dates)

    def wide(self, values: ArrayLike | pd.Series) -> np.ndarray:
        """(windows,) -> (dates, names) float64."""
        return self.grid.wide(np.asarray(values, float))

    def coefficients(self, score: pd.Series, label: pd.Series) -> pd.DataFrame:
        """Columns ic and rank_ic by date."""
        ic, rank_ic = coefficients_of_grid(self.wide(score), self.wide(label))
        return pd.DataFrame({"ic": ic, "rank_ic": rank_ic}, self.dates)

    def lead(self, first: pd.Series, second: pd.Series, label: pd.Series) -> MeanTest:
        """Of RankIC of one score less that of another, paired by date over the names that have both."""
        one, other = self.wide(first), self.wide(second)
        came = np.where(np.isfinite(one) & np.isfinite(other), self.wide(label), np.nan)
        ranks = (coefficients_of_grid(score, came)[1] for score in (one, other))
        return self.test(pd.Series(next(ranks) - next(ranks), self.dates))

    def test(self, by_date: pd.Series) -> MeanTest:
        """Of a series of the dates."""
        return mean_test(by_date, self.overlap)
