"""Exposures of instruments, known at the close, that may explain a score: volatility, size, beta, groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kronos.io.files import read_table
from kronos_strategies.evaluation.baselines import reversal_20
from kronos_strategies.evaluation.distribution.volatility import historical_volatility
from kronos_strategies.evaluation.panel import PanelIndex

SIZE_BARS, SIZE_TRADES = 20, 10
BETA_BARS, BETA_RETURNS = 60, 40


@dataclass(frozen=True)
class Exposure:
    """One exposure of every instrument on every date.

    Attributes:
        values: (dates, instruments) float64: the value of a numeric exposure, else a position in `groups`; NaN if
            unknown.
        groups: names of the groups, e.g. industries, ascending; empty for a numeric exposure.
    """

    values: np.ndarray
    groups: tuple[str, ...] = ()

    @classmethod
    def from_column(cls, column: pd.Series, panel: PanelIndex) -> Exposure:
        """From a column in the order of the panel's rows: numbers, or strings for groups."""
        if pd.api.types.is_numeric_dtype(column):
            return cls(panel.to_wide(column.to_numpy(dtype=float, na_value=np.nan)))
        codes, groups = pd.factorize(column.astype("string"), sort=True)
        return cls(panel.to_wide(np.where(codes < 0, np.nan, codes)), tuple(map(str, groups)))


def price_exposures(closes: pd.DataFrame, amounts: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Exposures that can be computed from bars: volatility, reversal, size and beta; callers may add an industry.

    `pd.DataFrame({name: wide.stack().reindex(scores.index) for name, wide in price_exposures(...).items()})` gives
    the exposures for `evaluate_signal`.

    Args:
        closes: adjusted, dates x instruments; NaN on a day without a trade.
        amounts: traded amounts in quote currency, same shape.
    """
    return {
        "volatility": volatility(closes),
        "reversal": reversal(closes),
        "size": size(amounts),
        "beta": beta(closes),
    }


def volatility(closes: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation of the last 20 returns, at least 15; a day without a trade uses the last close."""
    return historical_volatility(closes.ffill())


def reversal(closes: pd.DataFrame) -> pd.DataFrame:
    """Negative return of the last 20 bars; a day without a trade uses the last close."""
    return reversal_20(closes.ffill())


def size(amounts: pd.DataFrame) -> pd.DataFrame:
    """Log of the mean traded amount over the bars with a trade among the last 20, at least 10.

    The traded amount is a proxy of the market capitalization, which bars do not have. A bar with a missing or zero
    amount had no trade and is left out.
    """
    traded = amounts.where(amounts > 0).rolling(SIZE_BARS, min_periods=SIZE_TRADES).mean()
    return traded.where(traded > 0).apply(np.log)


def beta(closes: pd.DataFrame) -> pd.DataFrame:
    """Slope of an instrument's last 60 returns, at least 40, on those of the market.

    The market is the equal-weighted mean of the instruments that traded on the day. Returns of an instrument use
    the last close on a day without a trade, as in `volatility`. NaN where the market did not move.

    The market includes all columns: where these are all members over a period, instruments that join later are
    included from the start. That affects the exposure that a score is compared with, never the score.
    """
    returns = closes.ffill().pct_change(fill_method=None)
    market = returns.where(closes.notna()).mean(axis=1).to_numpy()[:, None]
    both = returns.notna() & np.isfinite(market)
    own = returns.where(both)
    # Market returns on the days of each instrument.
    common = pd.DataFrame(np.where(both, market, np.nan), own.index, own.columns)
    x, m = _recent(own), _recent(common)
    covariance, variance = _recent(own * common) - x * m, _recent(common**2) - m**2
    return covariance / variance.where(variance > 1e-12 * _recent(common**2))


def _recent(values: pd.DataFrame) -> pd.DataFrame:
    return values.rolling(BETA_BARS, min_periods=BETA_RETURNS).mean()


def read_industries(file: Path) -> pd.Series:
    """The industry of each instrument, from columns instrument and industry of a CSV or parquet file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it lacks a column, or has an instrument twice.
    """
    table = read_table(file.expanduser(), ("instrument", "industry"), ()).dropna()
    twice = table["instrument"].duplicated()
    if twice.any():
        name = table["instrument"][twice].iloc[0]
        raise ValueError(f"{file} has several industries of {name}. Keep one row per instrument.")
    return table.set_index("instrument")["industry"].astype(str)
