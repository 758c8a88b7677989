"""Qlib's own figures, only to be compared with other Qlib runs. Torch-free, engine-free.

Qlib sums returns where it could compound them, counts 238 days a year, does not see a fall from the first bar on,
and counts the bars before the first purchase, on which the book earns nothing and the benchmark moves. Elsewhere in
this project nothing is computed so.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos_strategies.backtest_result import QLIB_BARS_PER_YEAR
from kronos_strategies.evaluation.portfolio.returns import defined, is_constant


def qlib_figures(
    net: pd.Series, benchmarks: pd.DataFrame, bars_per_year: float = QLIB_BARS_PER_YEAR
) -> dict[str, float]:
    """Qlib's `risk_analysis` of net, and of net less each benchmark ("excess return with cost" over its own).

    Args:
        net: (bars,) by datetime, simple returns; Qlib's own are of all bars of a backtest.
        benchmarks: by datetime, simple returns, a column each.
        bars_per_year: 238 for days, 238 * 240 for minutes.

    Returns:
        net_annualized_return, net_information_ratio, net_max_drawdown, and the same three for each benchmark by
        name, as excess_over_benchmark_annualized_return. NaN where undefined.
    """
    streams = {"net": net}
    streams |= {f"excess_over_{str(name).replace(' ', '_')}": net - b for name, b in benchmarks.items()}
    return {
        f"{of}_{name}": value for of, r in streams.items() for name, value in _risk(r, bars_per_year).items()
    }


def _risk(returns: pd.Series, year: float) -> dict[str, float]:
    returns = defined(returns)
    summed = returns.cumsum()
    ratio = np.nan if is_constant(returns) else returns.mean() / returns.std(ddof=1)
    return {
        "annualized_return": float(returns.mean() * year),
        "information_ratio": float(ratio * np.sqrt(year)),
        "max_drawdown": float((summed - summed.cummax()).min()),
    }
