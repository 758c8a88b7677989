"""Labels of the return head: where a name's next return ranks among the names of its market and date.

The label of bar t and horizon h is the rank of close(t + 1) to close(t + 1 + h) among all names with a bar of that
date, in [-0.5, 0.5] times sqrt(12), less its regression on the rank of the 20-day volatility at t. Bars are counted
within a clean stretch of one instrument, on adjusted closes, and a label never reaches into another stretch.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos.bars import CLOSE
from kronos.training.tape import BarTape, midnight

HORIZONS = (1, 5, 10)  # bars from close(t + 1)
MIN_NAMES = 20  # of a date; one with fewer has no label
VOLATILITY_BARS = 20
LABEL = (
    "rank of close(t+1) to close(t+1+h) among the names of a market and date, in [-0.5, 0.5] x sqrt(12), less its "
    f"least-squares regression on the equally scaled rank of the {VOLATILITY_BARS}-bar volatility; dates with "
    f"{MIN_NAMES} names or more"
)


def return_labels(tape: BarTape, until: str | None) -> np.ndarray:
    """(M, len(HORIZONS)) float32 label of each bar of a tape.

    A label of date t uses closes up to bar t + 1 + h, and none after `until`: where a name's return would reach
    further, the name has no part in that date's ranks.

    Args:
        tape: of one market.
        until: last date that any label may use.

    Returns:
        NaN without a label: closes or volatility missing, after `until`, or fewer than MIN_NAMES names.
    """
    volatility = trailing_volatility(tape)
    labels = np.full((len(tape.values), len(HORIZONS)), np.nan, np.float32)
    for column, returns in enumerate(forward_returns(tape, until).T):
        rows = np.flatnonzero(np.isfinite(returns) & np.isfinite(volatility))
        if len(rows):
            groups = np.unique(tape.dates[rows], return_inverse=True)[1]
            labels[rows, column] = _residual_ranks(returns[rows], volatility[rows], groups)
    return labels


def forward_returns(tape: BarTape, until: str | None) -> np.ndarray:
    """(M, len(HORIZONS)) returns of close(t + 1) to close(t + 1 + h); NaN past the stretch's end or `until`."""
    close = tape.values[:, CLOSE].astype(float)
    rows = np.arange(len(close))
    ends = np.repeat(tape.bounds[1:], np.diff(tape.bounds))
    returns = np.full((len(close), len(HORIZONS)), np.nan)
    for column, horizon in enumerate(HORIZONS):
        inside = rows[rows + 1 + horizon < ends]
        if until is not None:
            inside = inside[tape.dates[inside + 1 + horizon] < midnight(until) + np.timedelta64(1, "D")]
        returns[inside, column] = close[inside + 1 + horizon] / close[inside + 1] - 1
    return returns


def trailing_volatility(tape: BarTape) -> np.ndarray:
    """(M,) deviation of the last VOLATILITY_BARS log returns, bar t included; NaN where a stretch has fewer."""
    close = np.log(tape.values[:, CLOSE].astype(float))
    volatility = np.full(len(close), np.nan)
    for first, end in zip(tape.bounds[:-1], tape.bounds[1:], strict=True):
        if end - first > VOLATILITY_BARS:
            steps = np.lib.stride_tricks.sliding_window_view(np.diff(close[first:end]), VOLATILITY_BARS)
            volatility[first + VOLATILITY_BARS : end] = steps.std(axis=1)
    return volatility


def centered_ranks(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(N,) ranks within each group, ties averaged, from -0.5 for the lowest to 0.5 for the highest."""
    ranks = pd.Series(values).groupby(groups).rank().to_numpy()
    counts = np.bincount(groups)[groups]
    return (ranks - 1) / np.maximum(counts - 1, 1) - 0.5


def residual(values: np.ndarray, exposure: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """What least squares on the exposure leave of the values, group by group; both have mean 0 in each group."""
    shared = np.bincount(groups, values * exposure)
    own = np.bincount(groups, exposure**2)
    return values - (shared / np.where(own > 0, own, 1.0))[groups] * exposure


def _residual_ranks(returns: np.ndarray, volatility: np.ndarray, groups: np.ndarray) -> np.ndarray:
    left = residual(centered_ranks(returns, groups), centered_ranks(volatility, groups), groups)
    return np.where(np.bincount(groups)[groups] >= MIN_NAMES, np.sqrt(12) * left, np.nan)
