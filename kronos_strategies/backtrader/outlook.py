"""Sampled paths -> the figures of the lines. Knows no engine and no torch.

All are known at the close of the bar that the forecast is dated with.
"""

from __future__ import annotations

import numpy as np

from kronos.bars import CLOSE
from kronos.forecast import Forecast
from kronos_strategies.signals import summary

LINES = ("expected_return", "volatility", "prob_up", "forecast_close", "lower", "upper", "max_drawdown")
COLUMNS = (*LINES, "age")  # bars of the feed since the forecast
ENDS = 4  # columns of `outlooks` before each path's close at the horizon
_SUMMARY = ("expected_return", "volatility", "prob_up")


def outlooks(forecast: Forecast) -> np.ndarray:
    """What all lines, of whatever band, are made of.

    Returns:
        (N, 4 + S) float64: expected_return, volatility and prob_up as `kronos_strategies.signals.summary` has them,
        max_drawdown, and each path's close at the horizon.
    """
    last = forecast.last[:, CLOSE].astype(np.float64)
    # A violent path can cross zero, from where no return is defined: lifted as `summary` does.
    closes = np.maximum(forecast.path("close"), 1e-3 * last[:, None, None])  # (N, S, H)
    start = np.broadcast_to(last[:, None, None], (*closes.shape[:2], 1))
    wealth = np.concatenate([start, closes], axis=2)
    falls = (wealth / np.maximum.accumulate(wealth, axis=2) - 1).min(axis=2)  # (N, S)
    figures = summary(forecast)[list(_SUMMARY)].to_numpy()
    return np.concatenate([figures, falls.mean(axis=1)[:, None], closes[:, :, -1]], axis=1)


def lines(found: np.ndarray, level: float) -> np.ndarray:
    """(N, 4 + S) outlooks -> (N, 7) LINES with a band that holds `level` of the paths."""
    ends = found[:, ENDS:]
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(ends, tails, axis=1, method="weibull") if len(ends) else (ends[:, 0], ends[:, 0])
    return np.column_stack([found[:, :3], ends.mean(axis=1), low, high, found[:, 3]])
