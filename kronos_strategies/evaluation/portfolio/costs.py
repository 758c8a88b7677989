"""What a book would have kept at other costs, had it traded the same. Torch-free, engine-free."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.portfolio.returns import annual_return, max_drawdown, sharpe

COST_BPS = (0, 5, 10, 20, 30, 50)
BPS = 1e-4


def cost_table(gross: pd.Series, turnover: pd.Series, bars_per_year: int) -> pd.DataFrame:
    """Figures of gross less turnover * cost: index bps, columns annual_return, sharpe, max_drawdown.

    Args:
        gross: (bars,) simple returns before costs.
        turnover: (bars,) value traded / value of the book, both sides counted, so that a cost is of each side.
        bars_per_year: that annualise.
    """
    nets = {bps: gross - turnover * bps * BPS for bps in COST_BPS}
    rows = {
        bps: {
            "annual_return": annual_return(net, bars_per_year),
            "sharpe": sharpe(net, bars_per_year),
            "max_drawdown": max_drawdown(net),
        }
        for bps, net in nets.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("bps")


def break_even_bps(gross: pd.Series, turnover: pd.Series) -> float:
    """Cost of what is traded, in basis points, that leaves a mean return, and so a Sharpe ratio, of zero.

    Mean gross return / mean turnover. Compound growth ends a little before, for it also pays for volatility.
    Negative for a book that loses before costs; NaN for one that does not trade.
    """
    pairs = pd.DataFrame({"gross": gross, "turnover": turnover}, dtype=float)
    pairs = pairs.where(np.isfinite(pairs)).dropna()
    traded = pairs["turnover"].sum()
    return float(pairs["gross"].sum() / traded / BPS) if traded > 0 else np.nan
