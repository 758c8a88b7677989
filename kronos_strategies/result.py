"""BacktestResult: what a book earned and held, whichever engine traded it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

BARS_PER_YEAR = 252


@dataclass(frozen=True)
class BacktestResult:
    """Per-bar outcome of one portfolio.

    Attributes:
        returns: frame by datetime, simple returns of each bar; columns gross (before costs) and net.
        benchmarks: frame by datetime, simple returns of what it is held against, one column each.
        turnover: (bars,) value traded / value of the book, both sides counted.
        cost: (bars,) costs / value of the book.
        weights: indexed (datetime, instrument), what is held at each close as a fraction of equity, negative if
            short; names that are not held have no row, and what is missing to 1 is cash.
        bars_per_year: that annualise its figures.
    """

    returns: pd.DataFrame
    benchmarks: pd.DataFrame
    turnover: pd.Series
    cost: pd.Series
    weights: pd.Series
    bars_per_year: int = BARS_PER_YEAR

    @property
    def positions(self) -> pd.Series:
        """(bars,) names held at each close; a weight of 0 or NaN holds nothing."""
        held = self.weights.fillna(0.0).ne(0).groupby(level="datetime").sum()
        return held.reindex(self.returns.index, fill_value=0).astype(int).rename("positions")
