"""What is scored at one horizon: a row a window, and the market's own values beside it. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import pandas as pd
from numpy.typing import ArrayLike

from kronos_strategies.evaluation.scorecard.market import Market
from kronos_strategies.evaluation.significance import MeanTest, mean_test

MODEL = "model"


@dataclass(frozen=True)
class HorizonRows:
    """All windows at one horizon.

    Attributes:
        said: what the paths say and how far off they were, columns as of `summarise_paths`.
        market: that they are scored on.
        horizon: bars.
    """

    said: pd.DataFrame
    market: Market
    horizon: int

    @cached_property
    def keys(self) -> pd.MultiIndex:
        """Of the windows."""
        return cast(pd.MultiIndex, self.said.index)

    @cached_property
    def dates(self) -> pd.DatetimeIndex:
        """Of the forecasts, ascending."""
        return pd.DatetimeIndex(self.keys.get_level_values("datetime").unique().sort_values())

    @cached_property
    def overlap(self) -> int:
        """Forecast dates that one label spans."""
        return self.market.overlap(self.dates, self.horizon)

    def of(self, wide: pd.DataFrame) -> pd.Series:
        """The windows' own entries of a frame of the market."""
        return self.market.at(wide, self.keys)

    def by_date(self, values: ArrayLike | pd.Series) -> pd.Series:
        """Mean of each date over its defined rows; NaN on a date without one."""
        return pd.Series(values, index=self.keys).groupby(level="datetime").mean().reindex(self.dates)

    def test(self, by_date: pd.Series) -> MeanTest:
        """Of a series of dates; a date that it lacks is undefined."""
        return mean_test(by_date.reindex(self.dates), self.overlap)
