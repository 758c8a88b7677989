"""Figures of one stream of per-bar simple returns, by empyrical. Torch-free, engine-free.

A bar without a return, NaN or infinite, is left out. Nothing is earned after a total loss. The rate that is earned
without risk is taken to be zero. A figure that is not defined is NaN, never 0 and never infinite.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos.utils import MissingExtra
from kronos_strategies.result import BARS_PER_YEAR

try:
    import empyrical
    from empyrical.stats import drawdown_series
except ImportError as error:
    raise MissingExtra(
        "Books are judged with empyrical: pip install 'kronos-strategies[evaluation]'"
    ) from error


def annual_return(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Compound annual growth: (prod(1 + r))**(bars_per_year / n) - 1."""
    with np.errstate(over="ignore"):  # of few bars, to the power of a whole year
        growth = float(empyrical.annual_return(compounding(returns), annualization=bars_per_year))
    return growth if np.isfinite(growth) else np.nan


def volatility(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Standard deviation (ddof 1) * sqrt(bars_per_year); 0 if constant, NaN for fewer than two bars."""
    returns = defined(returns)
    if len(returns) > 1 and is_constant(returns):
        return 0.0
    return float(empyrical.annual_volatility(returns, annualization=bars_per_year))


def sharpe(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Mean / standard deviation (ddof 1) * sqrt(bars_per_year); NaN if constant."""
    returns = defined(returns)
    if is_constant(returns):
        return np.nan
    return float(empyrical.sharpe_ratio(returns, annualization=bars_per_year))


def sortino(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Mean / sqrt(sum(min(r, 0)**2) / n) * sqrt(bars_per_year), n = all bars; NaN if none is negative."""
    returns = defined(returns)
    if not (returns < 0).any():
        return np.nan  # where empyrical says infinite
    return float(empyrical.sortino_ratio(returns, annualization=bars_per_year))


def calmar(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Compound annual growth / |max drawdown|; NaN if it never falls."""
    fall = max_drawdown(returns)
    return annual_return(returns, bars_per_year) / -fall if fall < 0 else np.nan


def drawdowns(returns: pd.Series) -> pd.Series:
    """Wealth below its running maximum, compounded from 1: (n,) in [-1, 0]; a loss on the first bar counts.

    A bar without a return leaves wealth where it was.
    """
    returns = returns.astype(float)
    if returns.empty:
        return returns  # where empyrical gives a number
    earned = returns.where(np.isfinite(returns), 0.0).clip(lower=-1.0)
    return drawdown_series(earned)


def max_drawdown(returns: pd.Series) -> float:
    """The deepest of `drawdowns`, 0 or negative; NaN for no returns."""
    return float(empyrical.max_drawdown(compounding(returns)))


def defined(returns: pd.Series) -> pd.Series:
    """Without the bars whose return is NaN or infinite; float64."""
    returns = returns.astype(float)
    return returns[np.isfinite(returns)]


def compounding(returns: pd.Series) -> pd.Series:
    """`defined`, and no bar loses more than everything: two debts in succession would multiply to a fortune."""
    return defined(returns).clip(lower=-1.0)


def is_constant(returns: pd.Series) -> bool:
    """Whether a spread would be of rounding only; True for fewer than two bars."""
    values = returns.to_numpy(float)
    return len(values) < 2 or bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
