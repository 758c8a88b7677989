"""Figures of one stream of per-bar simple returns. The annualisation is always an argument or a default of 252."""

from __future__ import annotations

import numpy as np
import pandas as pd

BARS_PER_YEAR = 252


def annual_return(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Compound annual growth: (prod(1 + r))**(bars_per_year / n) - 1."""
    returns = returns.dropna()
    if returns.empty:
        return np.nan
    growth = float(np.prod((1 + returns).clip(lower=0).to_numpy()))  # what is lost stays lost
    return growth ** (bars_per_year / len(returns)) - 1


def sharpe(returns: pd.Series, bars_per_year: int = BARS_PER_YEAR) -> float:
    """Mean / standard deviation (ddof 1) * sqrt(bars_per_year), over a rate of zero; NaN if constant."""
    spread = returns.std(ddof=1)
    # A constant stream has a spread of rounding only.
    if not spread > 1e-12 * max(abs(returns.mean()), 1e-12):
        return np.nan
    return float(returns.mean() / spread * np.sqrt(bars_per_year))


def drawdowns(returns: pd.Series) -> pd.Series:
    """Wealth below its running maximum, compounded from 1: (n,) in [-1, 0]; a loss on the first bar counts."""
    wealth = (1 + returns).cumprod()
    return wealth / wealth.cummax().clip(lower=1.0) - 1


def max_drawdown(returns: pd.Series) -> float:
    """The deepest of `drawdowns`, 0 or negative; NaN for no returns."""
    return float(drawdowns(returns).min())
