"""Sampled paths -> values of the lines of an indicator."""

from __future__ import annotations

import numpy as np

from kronos.forecast import Forecast
from kronos.paths import price_band
from kronos_strategies.path_signals import PATH_SIGNALS, PathSignalSettings
from kronos_strategies.signal import DEFAULT_LEVELS, path_signals, positive_prices, summary

OTHER_PATH_SIGNALS = tuple(name for name in PATH_SIGNALS if name != "max_drawdown")
LINES = (
    "expected_return", "volatility", "prob_up", "forecast_close", "lower", "upper", "max_drawdown", "score",
    *OTHER_PATH_SIGNALS,
)  # fmt: skip
ALL_LINES = (*LINES, "age")  # bars of the feed since the forecast
# Columns of `path_statistics`: the score, the first of OTHER_PATH_SIGNALS and of the S closes at the horizon.
SCORE, FIRST_PATH_SIGNAL, FINAL_CLOSES = 4, 5, 5 + len(OTHER_PATH_SIGNALS)


def path_statistics(
    forecast: Forecast, levels: PathSignalSettings = DEFAULT_LEVELS, bars: int = 1
) -> np.ndarray:
    """Statistics of sampled paths for the lines, for any level of the band.

    Args:
        forecast: N windows, S paths.
        levels: levels that some signals refer to.
        bars: last bars whose closes are returned.

    Returns:
        (N, FINAL_CLOSES + bars * S) float64: expected_return, volatility and prob_up as in
        `kronos_strategies.signal.summary`, max_drawdown, the score (here the expected return; a return head
        replaces it), OTHER_PATH_SIGNALS as in `kronos_strategies.signal.path_signals`, and the close of each path
        at the horizon, then at the bar before it, and so on, in quote currency. Known at the close of the bar that
        the forecast is dated with.
    """
    closes = positive_prices(forecast, "close")[:, :, ::-1][:, :, :bars]  # (N, S, bars)
    figures = summary(forecast)[["expected_return", "volatility", "prob_up"]].to_numpy()
    of_paths = path_signals(forecast, levels)
    drawdown, others = of_paths[["max_drawdown"]].to_numpy(), of_paths[list(OTHER_PATH_SIGNALS)].to_numpy()
    flat = closes.transpose(0, 2, 1).reshape(len(closes), -1)
    return np.concatenate([figures, drawdown, figures[:, :1], others, flat], axis=1)


def split_closes(statistics: np.ndarray, bars: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, FINAL_CLOSES + bars * S) path statistics -> those of `bars` = 1, and (N, S, bars) closes, ascending."""
    samples = (statistics.shape[1] - FINAL_CLOSES) // bars
    closes = statistics[:, FINAL_CLOSES:].reshape(len(statistics), bars, samples)
    return statistics[:, : FINAL_CLOSES + samples], closes[:, ::-1].transpose(0, 2, 1)


def indicator_lines(statistics: np.ndarray, level: float, factors: np.ndarray | None = None) -> np.ndarray:
    """(N, FINAL_CLOSES + S) path statistics -> (N, L) LINES; all but the score are NaN without paths.

    Args:
        statistics: result of `path_statistics`.
        level: share of the paths between lower and upper.
        factors: (N,) multipliers of the band's half-widths around its median, in log prices, see
            `Forecast.band_factors`; None for a band without calibration.
    """
    has_paths = statistics.shape[1] > FINAL_CLOSES
    closes = statistics[:, FINAL_CLOSES:] if has_paths else np.full((len(statistics), 1), np.nan)
    factors = np.ones(len(closes)) if factors is None else factors
    low, high = price_band(closes, level, factors) if len(closes) else (closes[:, 0], closes[:, 0])
    mean, drawdown, score = closes.mean(axis=1), statistics[:, 3], statistics[:, SCORE]
    others = statistics[:, FIRST_PATH_SIGNAL:FINAL_CLOSES]
    return np.column_stack([statistics[:, :3], mean, low, high, drawdown, score, others])
