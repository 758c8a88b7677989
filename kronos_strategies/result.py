"""BacktestResult: what a book earned, whichever engine traded it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from kronos_strategies.evaluation.returns import BARS_PER_YEAR


@dataclass(frozen=True)
class BacktestResult:
    """Per-bar outcome of one portfolio.

    Attributes:
        returns: frame by datetime, simple returns of each bar; columns gross (before costs) and net.
        benchmarks: frame by datetime, simple returns of what it is held against, one column each.
        turnover: (bars,) value traded / value of the book, both sides counted.
        cost: (bars,) costs / value of the book.
        positions: (bars,) names held at the close.
        bars_per_year: that annualise its figures.
    """

    returns: pd.DataFrame
    benchmarks: pd.DataFrame
    turnover: pd.Series
    cost: pd.Series
    positions: pd.Series
    bars_per_year: int = BARS_PER_YEAR
