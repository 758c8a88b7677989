"""BacktestResult: returns and positions of a portfolio, from either engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from kronos_strategies.portfolio import BARS_PER_YEAR

QLIB_BARS_PER_YEAR = 238
DAYS_PER_YEAR, SATURDAY = 365, 5
SATURDAYS = 0.05  # share of days; markets with more trade every day, others have a rare Saturday session
LONGEST_DAYS = 4  # between daily bars; weekly bars are further apart


@dataclass(frozen=True)
class BacktestResult:
    """Per-bar outcome of one portfolio.

    Attributes:
        returns: frame by datetime, simple returns of each bar; columns gross (before costs) and net.
        benchmarks: frame by datetime, simple returns of the benchmarks, one column each.
        turnover: (bars,) value traded / portfolio value, purchases and sales.
        cost: (bars,) costs / portfolio value.
        weights: indexed (datetime, instrument), what is held at each close as a fraction of equity, negative if
            short; instruments that are not held have no row, and the rest up to 1 is cash.
        bars_per_year: bars per year, used to annualize metrics.
        whole: frame by datetime of all bars of the backtest, those before the first purchase too: net, then the
            benchmarks as they moved. Qlib's own metrics use these; None if `returns` has all bars.
        qlib_bars_per_year: bars per year that Qlib annualizes with: 238 days, each of 240 minutes.
        unsolved: reason by date of the rebalances whose optimization had no result, so that the weights stayed; not
            saved with the result, but among the warnings of a report.
    """

    returns: pd.DataFrame
    benchmarks: pd.DataFrame
    turnover: pd.Series
    cost: pd.Series
    weights: pd.Series
    bars_per_year: int = BARS_PER_YEAR
    whole: pd.DataFrame | None = None
    qlib_bars_per_year: float = QLIB_BARS_PER_YEAR
    unsolved: Mapping[pd.Timestamp, str] = field(default_factory=dict)

    @property
    def all_bars(self) -> pd.DataFrame:
        """`whole`, or the same from `returns` if that is None: net, then the benchmarks, by datetime."""
        return self.returns[["net"]].join(self.benchmarks) if self.whole is None else self.whole

    @property
    def positions(self) -> pd.Series:
        """(bars,) number of instruments held at each close; a weight of 0 or NaN does not count."""
        held = self.weights.fillna(0.0).ne(0).groupby(level="datetime").sum()
        return held.reindex(self.returns.index, fill_value=0).astype(int).rename("positions")


def bars_per_year(times: pd.Index) -> int:
    """Bars per year, used to annualize metrics, from (bars,) ascending datetimes.

    Bars on Saturdays mean a market that never closes, 365 days a year, else 252; times that several bars a day, by
    the median of the days. Bars further apart than a day are counted in calendar time, weekly ones 52 a year.
    """
    index = pd.DatetimeIndex(times)
    days, counts = np.unique(index.normalize(), return_counts=True)
    if len(days) > 1:
        step = float(np.median(np.diff(days) / np.timedelta64(1, "D")))
        if step > LONGEST_DAYS:
            return max(1, round(DAYS_PER_YEAR / step))
    every_day = (pd.DatetimeIndex(days).day_of_week == SATURDAY).mean() > SATURDAYS
    year = DAYS_PER_YEAR if every_day else BARS_PER_YEAR
    return round(year * float(np.median(counts))) if len(days) else BARS_PER_YEAR
