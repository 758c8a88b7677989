"""Sampled paths -> the figures of the lines. Knows no engine and no torch.

All are known at the close of the bar that the forecast is dated with.
"""

from __future__ import annotations

import numpy as np

from kronos.bars import CLOSE
from kronos.forecast import Forecast
from kronos.paths import price_band
from kronos_strategies.signals import summary

LINES = (
    "expected_return",
    "volatility",
    "prob_up",
    "forecast_close",
    "lower",
    "upper",
    "max_drawdown",
    "score",
)
COLUMNS = (*LINES, "age")  # bars of the feed since the forecast
_SUMMARY = ("expected_return", "volatility", "prob_up")
SCORE, ENDS = 4, 5  # columns of `outlooks`: the score, and where the paths' closes begin


def outlooks(forecast: Forecast) -> np.ndarray:
    """What all lines, of whatever band, are made of.

    Returns:
        (N, 5 + S) float64: expected_return, volatility and prob_up as `kronos_strategies.signals.summary` has them,
        max_drawdown, the score, which is the expected return where no return head gives it, and each path's close
        at the horizon.
    """
    last = forecast.last_bar[:, CLOSE].astype(np.float64)
    # A violent path can cross zero, from where no return is defined: lifted as `summary` does.
    closes = np.maximum(forecast.path("close"), 1e-3 * last[:, None, None])  # (N, S, H)
    start = np.broadcast_to(last[:, None, None], (*closes.shape[:2], 1))
    wealth = np.concatenate([start, closes], axis=2)
    falls = (wealth / np.maximum.accumulate(wealth, axis=2) - 1).min(axis=2)  # (N, S)
    figures = summary(forecast)[list(_SUMMARY)].to_numpy()
    columns = [figures, falls.mean(axis=1)[:, None], figures[:, :1], closes[:, :, -1]]
    return np.concatenate(columns, axis=1)


def lines(found: np.ndarray, level: float, factors: np.ndarray | None = None) -> np.ndarray:
    """(N, 5 + S) outlooks -> (N, 8) LINES with a band that holds `level` of the paths; NaN without any path.

    Args:
        found: of `outlooks`.
        level: share of the paths within the band.
        factors: (N,) of the band's half-widths around its median, in log prices, see `Forecast.band_factors`; None
            for those of the paths.
    """
    ends = found[:, ENDS:] if found.shape[1] > ENDS else np.full((len(found), 1), np.nan)
    factors = np.ones(len(ends)) if factors is None else factors
    low, high = price_band(ends, level, factors) if len(ends) else (ends[:, 0], ends[:, 0])
    return np.column_stack([found[:, :3], ends.mean(axis=1), low, high, found[:, 3], found[:, SCORE]])
