"""A book beside its benchmarks. Torch-free, engine-free."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos.utils import MissingExtra
from kronos_strategies.evaluation.portfolio.returns import is_constant, sharpe, volatility
from kronos_strategies.evaluation.significance import mean_test

try:
    from scipy import stats
except ImportError as error:
    raise MissingExtra("Beta is found with scipy: pip install 'kronos-strategies[evaluation]'") from error

ROUNDING = 1e-12  # of a return
COLUMNS = (
    "active_return",
    "low",
    "high",
    "tracking_error",
    "information_ratio",
    "beta",
    "alpha",
    "correlation",
)


def active_table(net: pd.Series, benchmarks: pd.DataFrame, bars_per_year: int) -> pd.DataFrame:
    """A row a benchmark, over the bars on which both it and the book have a return.

    Args:
        net: (bars,) by datetime, simple returns of the book.
        benchmarks: by datetime, simple returns, a column each; NaN where unknown.
        bars_per_year: that annualise.

    Returns:
        With N the bars a year and d = net - benchmark, the columns active_return (mean(d) * N, arithmetic), low and
        high (its 95 % interval by `significance.mean_test`), tracking_error (std(d) * sqrt(N)), information_ratio
        (mean(d) / std(d) * sqrt(N), active_return / tracking_error), beta, alpha (Jensen's over a rate of zero,
        mean(net - beta * benchmark) * N) and correlation. A benchmark that equals the book has no interval and no
        information ratio.
    """
    rows = {name: _against(net, benchmark, bars_per_year) for name, benchmark in benchmarks.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS), dtype=float)


def _against(net: pd.Series, benchmark: pd.Series, bars_per_year: int) -> list[float]:
    """One row, in the order of COLUMNS."""
    both = pd.DataFrame({"net": net, "benchmark": benchmark}, dtype=float)
    both = both.where(np.isfinite(both)).dropna()
    difference = both["net"] - both["benchmark"]
    # Equal returns that were computed in two ways differ by rounding, which has a mean and a spread.
    difference = difference.where(difference.abs() > ROUNDING * both.abs().max(axis=1), 0.0)
    test = mean_test(difference)
    year = [bars_per_year * figure for figure in (test.mean, test.low, test.high)]
    ratios = [volatility(difference, bars_per_year), sharpe(difference, bars_per_year)]
    return [*year, *ratios, *_line(both, bars_per_year)]


def _line(both: pd.DataFrame, bars_per_year: int) -> list[float]:
    """Beta, annual alpha and correlation, by least squares; what is constant moves with nothing."""
    if is_constant(both["benchmark"]):
        return [np.nan, np.nan, np.nan]
    line = stats.linregress(both["benchmark"], both["net"])
    correlation = np.nan if is_constant(both["net"]) else float(line.rvalue)
    return [float(line.slope), bars_per_year * float(line.intercept), correlation]
