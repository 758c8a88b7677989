"""Qlib's own figures, only to be compared with other Qlib runs. Torch-free, engine-free.

Qlib sums returns where it could compound them, counts 238 bars a year, and does not see a fall from the first bar
on. Elsewhere in this project nothing is computed so.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.portfolio.returns import defined, is_constant

QLIB_BARS_PER_YEAR = 238


def qlib_figures(net: pd.Series, benchmarks: pd.DataFrame) -> dict[str, float]:
    """Qlib's `risk_analysis` of net, and of net less each benchmark ("excess return with cost" over its own).

    Args:
        net: (bars,) by datetime, simple daily returns.
        benchmarks: by datetime, simple daily returns, a column each.

    Returns:
        net_annualized_return, net_information_ratio, net_max_drawdown, and the same three for each benchmark by
        name, as excess_over_benchmark_annualized_return. NaN where undefined.
    """
    streams = {"net": net}
    streams |= {f"excess_over_{str(name).replace(' ', '_')}": net - b for name, b in benchmarks.items()}
    return {f"{of}_{name}": value for of, r in streams.items() for name, value in _risk(r).items()}


def _risk(returns: pd.Series) -> dict[str, float]:
    returns = defined(returns)
    summed = returns.cumsum()
    ratio = np.nan if is_constant(returns) else returns.mean() / returns.std(ddof=1)
    return {
        "annualized_return": float(returns.mean() * QLIB_BARS_PER_YEAR),
        "information_ratio": float(ratio * np.sqrt(QLIB_BARS_PER_YEAR)),
        "max_drawdown": float((summed - summed.cummax()).min()),
    }
