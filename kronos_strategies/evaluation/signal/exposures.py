"""What a name loads on, known at the close: styles that a score may owe its rank to. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.baselines import low_volatility_20, reversal_20
from kronos_strategies.evaluation.grid import Grid

SIZE_BARS, SIZE_TRADES = 20, 10
BETA_BARS, BETA_RETURNS = 60, 40


@dataclass(frozen=True)
class Exposure:
    """Of each name on each date.

    Attributes:
        values: (dates, names) float64: of a numeric exposure its value, else a place in `groups`; NaN if unknown.
        groups: that names are in, e.g. industries, ascending; empty for a numeric exposure.
    """

    values: np.ndarray
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, column: pd.Series, grid: Grid) -> Exposure:
        """From a column in the order of the grid's keys: numbers, or strings for groups."""
        if pd.api.types.is_numeric_dtype(column):
            return cls(grid.wide(column.to_numpy(dtype=float, na_value=np.nan)))
        codes, groups = pd.factorize(column.astype("string"), sort=True)
        return cls(grid.wide(np.where(codes < 0, np.nan, codes)), tuple(map(str, groups)))


def price_exposures(closes: pd.DataFrame, amounts: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All that bars tell: volatility, reversal, size and beta; an industry is the caller's to add.

    `pd.DataFrame({name: wide.stack().reindex(scores.index) for name, wide in price_exposures(...).items()})` are
    the exposures of `study_signal`.

    Args:
        closes: adjusted, dates x names; NaN on a day without a trade.
        amounts: traded in quote currency, of the same shape.
    """
    return {
        "volatility": volatility(closes),
        "reversal": reversal(closes),
        "size": size(amounts),
        "beta": beta(closes),
    }


def volatility(closes: pd.DataFrame) -> pd.DataFrame:
    """Deviation of the last 20 daily returns, at least 15; on a day without a trade the last close stands in."""
    return -low_volatility_20(closes.ffill())


def reversal(closes: pd.DataFrame) -> pd.DataFrame:
    """Minus the return of the last 20 bars; on a day without a trade the last close stands in."""
    return reversal_20(closes.ffill())


def size(amounts: pd.DataFrame) -> pd.DataFrame:
    """Log of the mean amount of those of the last 20 bars that traded, at least 10.

    Bars do not tell capitalisation; what is traded of a name stands in for it. A bar of no or zero amount had no
    trade and is left out.
    """
    traded = amounts.where(amounts > 0).rolling(SIZE_BARS, min_periods=SIZE_TRADES).mean()
    return traded.where(traded > 0).apply(np.log)


def beta(closes: pd.DataFrame) -> pd.DataFrame:
    """Slope of a name's last 60 daily returns, at least 40, on the market's.

    The market is the mean of the names that traded on the day, equal weights. In a name's own returns the last
    close stands in on a day without a trade, as in `volatility`. NaN where the market did not move.

    The market is made of all columns: where these are everybody who was a member within a span, those that join
    later are in it from the start. That moves what a score is held against, and no score.
    """
    returns = closes.ffill().pct_change(fill_method=None)
    market = returns.where(closes.notna()).mean(axis=1).to_numpy()[:, None]
    both = returns.notna() & np.isfinite(market)
    own = returns.where(both)
    common = pd.DataFrame(
        np.where(both, market, np.nan), own.index, own.columns
    )  # the market's, in days of each
    x, m = _recent(own), _recent(common)
    covariance, variance = _recent(own * common) - x * m, _recent(common**2) - m**2
    return covariance / variance.where(variance > 1e-12 * _recent(common**2))


def _recent(values: pd.DataFrame) -> pd.DataFrame:
    return values.rolling(BETA_BARS, min_periods=BETA_RETURNS).mean()
