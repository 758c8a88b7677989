"""Signals that only sampled paths allow, as functions of arrays: N windows, S paths, B bars.

Every value is known at the close of the bar that its forecast is dated with. Higher is better for all of them but
`deviation`, `conviction`, `prob_drawdown` and `skew`, whose use is a matter of the strategy.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from kronos.config import as_number

RETURN_SIGNALS = (
    "deviation", "risk_adjusted", "conviction", "prob_up_tiebreak", "downside", "expected_shortfall", "skew",
)  # fmt: skip
PATH_SIGNALS = (*RETURN_SIGNALS, "prob_take_profit", "max_drawdown", "prob_drawdown")


@dataclass(frozen=True)
class PathSignalSettings:
    """Levels that some signals refer to; plain numbers, so that YAML can set them.

    Attributes:
        tail: share of the worst paths, in (0, 1), that `downside` and `expected_shortfall` describe.
        take_profit: return above the entry price at which a position is closed with a profit, above 0.
        stop_loss: return below the entry price, in (0, 1), at which it is closed with a loss.
        drawdown: drawdown, in (0, 1), that `prob_drawdown` refers to.

    Raises:
        ValueError: a level is out of range.
    """

    tail: float = 0.1
    take_profit: float = 0.05
    stop_loss: float = 0.05
    drawdown: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = as_number(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            most = np.inf if field.name == "take_profit" else 1.0
            if not 0 < value < most:
                span = "above 0" if most == np.inf else "between 0 and 1"
                raise ValueError(
                    f"{field.name}={value} is out of range. Pass a number {span}, such as {field.default}."
                )


def return_signals(returns: np.ndarray, tail: float) -> dict[str, np.ndarray]:
    """Signals from the returns of all paths.

    Args:
        returns: (N, S) simple returns r_s of each path.
        tail: share of the worst paths.

    Returns:
        RETURN_SIGNALS, each (N,) float64:
        deviation: standard deviation of r_s over paths (S - 1), a simple return; NaN for a single path.
        risk_adjusted: mean / deviation, a Sharpe ratio of the forecast; NaN where the deviation is not positive.
        conviction: |mean| / Monte-Carlo error, the error being deviation / sqrt(S) as for independent paths, which
            is too large for Sobol points. A mean with a conviction below 2 may be sampling noise.
        prob_up_tiebreak: share of paths with r_s > 0, ties broken by risk_adjusted: it adds less than half of the
            1 / S between two shares, so that it never changes the order of different shares.
        downside: quantile of r_s at `tail`, at Weibull positions, a simple return.
        expected_shortfall: mean of the worst `tail` of the paths, a simple return; the path at the boundary counts
            with the share of it that is needed.
        skew: third standardized moment of r_s over paths; NaN where the deviation is not positive.
    """
    samples = returns.shape[1]
    mean = returns.mean(axis=1)
    centered = returns - mean[:, None]
    variance = np.square(centered).mean(axis=1)
    spread = variance > np.square(1e-9 * (1 + np.abs(mean)))  # equal paths differ by rounding errors only
    variance = np.where(spread, variance, np.nan)
    deviation = np.sqrt(variance * samples / (samples - 1)) if samples > 1 else np.full(len(mean), np.nan)
    ratio = mean / deviation
    tie = np.where(np.isnan(ratio), np.sign(mean), ratio / (1 + np.abs(ratio)))  # within [-1, 1]
    ordered = np.sort(returns, axis=1)
    return {
        "deviation": np.where(spread, deviation, 0.0 if samples > 1 else np.nan),
        "risk_adjusted": ratio,
        "conviction": np.abs(ratio) * samples**0.5,
        "prob_up_tiebreak": (returns > 0).mean(axis=1) + 0.49 * tie / samples,
        "downside": np.quantile(ordered, tail, axis=1, method="weibull"),
        "expected_shortfall": expected_shortfall(ordered, tail),
        "skew": np.einsum("ns,ns,ns->n", centered, centered, centered) / samples / variance**1.5,
    }


def expected_shortfall(ordered: np.ndarray, tail: float) -> np.ndarray:
    """(N,) mean of the lowest `tail` of (N, S) returns that ascend along S: the CVaR of their distribution."""
    paths = tail * ordered.shape[1]
    whole = int(paths)
    total = ordered[:, :whole].sum(axis=1)
    if whole < ordered.shape[1]:
        total = total + (paths - whole) * ordered[:, whole]
    return total / paths


def prob_take_profit(
    highs: np.ndarray, lows: np.ndarray, entry: np.ndarray, take_profit: float, stop_loss: float
) -> np.ndarray:
    """(N,) share of paths that reach the take-profit before the stop, while the position is held.

    A path that touches both within one bar counts as stopped, since the order of its high and low is unknown. One
    that touches neither counts as not having reached the take-profit.

    Args:
        highs: (N, S, B) highs of the bars on which the position is held from open to close.
        lows: (N, S, B) lows of these bars.
        entry: (N, S) or (N, 1) price at which the position is opened.
        take_profit: return above the entry price.
        stop_loss: return below the entry price.
    """
    bars = highs.shape[2]
    if bars == 0:
        return np.zeros(len(highs))
    profit = highs >= (entry * (1 + take_profit))[:, :, None]
    loss = lows <= (entry * (1 - stop_loss))[:, :, None]
    first_profit = np.where(profit.any(axis=2), profit.argmax(axis=2), bars)
    first_loss = np.where(loss.any(axis=2), loss.argmax(axis=2), bars)
    share: np.ndarray = (first_profit < first_loss).mean(axis=1)
    return share


def drawdowns(closes: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(N, S) largest fall of each path below its highest close so far, at most 0.

    Args:
        closes: (N, S, H).
        start: (N,) close before the first bar, which counts as a close of all paths.
    """
    peaks = np.maximum.accumulate(np.maximum(closes, start[:, None, None]), axis=2)
    return np.minimum((closes / peaks).min(axis=2) - 1, 0.0)
