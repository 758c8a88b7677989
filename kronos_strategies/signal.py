"""Forecast -> signal: one row per (datetime, instrument), `score` first.

Every column is known at the close of the bar that its row is dated with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos.bars import CLOSE, PRICES
from kronos.config import as_integer
from kronos.forecast import Forecast, positive_close
from kronos.paths import PRICE_FLOOR
from kronos_strategies.path_signals import (
    PATH_SIGNALS,
    PathSignalSettings,
    drawdowns,
    prob_take_profit,
    return_signals,
)

SUMMARY = ("expected_return", "volatility", "prob_up", "q05", "q95")
SIGNALS = ("score", *SUMMARY, *PATH_SIGNALS)
DEFAULT_LEVELS = PathSignalSettings()


@dataclass(frozen=True)
class SampledPaths:
    """Sampled paths of n instruments, independent of each other, from forecasts of one date.

    Attributes:
        instruments: (n,) names.
        returns: (n, S, B) simple returns from the last close until the close of each bar.
    """

    instruments: pd.Index
    returns: np.ndarray


def signals(
    forecast: Forecast,
    hold: int = 1,
    price: str = "close",
    score: pd.Series | None = None,
    levels: PathSignalSettings = DEFAULT_LEVELS,
) -> pd.DataFrame:
    """Summarize sampled paths as the columns of a signal.

    A signal dated t is known at the close of bar t, the last one that the forecast read. It trades on bar t+1 and
    is held for `hold` bars, so its return is r_s = path_s[t+1+hold] / path_s[t+1] - 1 on path s, the return that
    Qlib's label measures. Returns are fractions, 0.01 for one percent; none is annualized.

    Args:
        forecast: horizon of at least hold + 1.
        hold: bars that a position is held.
        price: price at which trades execute: "close", "open" or "vwap".
        score: scores by (datetime, instrument), such as those of a return head, that replace the paths' score.
        levels: levels that some signals refer to.

    Returns:
        Frame with the index of the forecast, (datetime, instrument), in the time zone of the bars; float64 columns
        SIGNALS:
        score: mean of r_s, a simple return over `hold` bars from t+1; or the score given, in its own unit.
        expected_return: mean of path_s[t+H] / close[t] - 1 on closes, a simple return over the whole horizon H.
        volatility: root mean square of the closes' log returns over paths and steps, per bar.
        prob_up: share of paths with r_s > 0, between 0 and 1.
        q05, q95: quantiles of r_s over paths at Weibull positions, simple returns over `hold` bars.
        deviation, risk_adjusted, conviction, prob_up_tiebreak, downside, expected_shortfall, skew: of r_s over
            paths, see `kronos_strategies.path_signals.return_signals`.
        prob_take_profit: share of paths whose highs reach the take-profit before their lows reach the stop, from
            the entry at path_s[t+1] on; on bars t+2..t+1+hold, and on t+1..t+hold for entries at the open.
        max_drawdown: mean over paths of the largest fall of the closes below their highest one so far, from
            close[t] on over the whole horizon; a simple return, at most 0.
        prob_drawdown: share of paths in which that fall exceeds `levels.drawdown`.

    Raises:
        ValueError: the horizon is too short, or a price is not positive, so that no return exists.
    """
    earned = tradable_returns(forecast, hold, price)
    gained, volatility = _whole_horizon(forecast)
    own = earned.mean(axis=1) if score is None else score.reindex(forecast.index).to_numpy()
    columns = {"score": own, "expected_return": gained.mean(axis=1), "volatility": volatility}
    columns |= _spread(earned) | return_signals(earned, levels.tail)
    first = 0 if price == "open" else 1
    entry = positive_prices(forecast, price)[:, :, 0]
    columns["prob_take_profit"] = _take_profit(forecast, entry, slice(first, first + hold), levels)
    columns |= _drawdown(forecast, levels)
    return pd.DataFrame(columns, index=forecast.index, dtype=np.float64)


def path_signals(forecast: Forecast, levels: PathSignalSettings = DEFAULT_LEVELS) -> pd.DataFrame:
    """The signals PATH_SIGNALS over the whole horizon, independent of how they are traded.

    Returns:
        Frame indexed (datetime, instrument), columns PATH_SIGNALS, as in `signals`, but of g_s =
        path_s[t+H] / close[t] - 1 on closes, with an entry at close[t] that is held on bars t+1..t+H.

    Raises:
        ValueError: a last close is not positive, so that no return exists.
    """
    gained = _whole_horizon(forecast)[0]
    entry = forecast.last_bar[:, CLOSE].astype(np.float64)[:, None]
    columns = return_signals(gained, levels.tail)
    columns["prob_take_profit"] = _take_profit(forecast, entry, slice(0, forecast.horizon), levels)
    columns |= _drawdown(forecast, levels)
    return pd.DataFrame(columns, index=forecast.index, dtype=np.float64)


def tradable_returns(forecast: Forecast, hold: int = 1, price: str = "close") -> np.ndarray:
    """(N, S) tradable returns path[t+1+hold] / path[t+1] - 1 of each path.

    Args:
        forecast: horizon of at least hold + 1.
        hold: bars that a position is held.
        price: price at which trades execute: "close", "open" or "vwap".

    Raises:
        ValueError: the horizon is too short, or a last close is not positive, so that no return exists.
    """
    if as_integer("hold", hold) < 1:
        raise ValueError(f"hold={hold} is too short. Pass at least 1 bar.")
    if forecast.horizon < hold + 1:
        raise ValueError(
            f"A horizon of {forecast.horizon} bars cannot score hold={hold}: a signal trades one bar later. "
            f"Forecast at least {hold + 1} bars."
        )
    traded = positive_prices(forecast, price)  # (N, S, H)
    return traded[:, :, hold] / traded[:, :, 0] - 1


def summary(forecast: Forecast) -> pd.DataFrame:
    """Summary of the paths over the whole horizon, independent of how they are traded.

    Returns:
        Frame indexed (datetime, instrument), columns SUMMARY. With g_s = path_s[t+H] / close[t] - 1 on closes:
        expected_return: mean of g_s, a simple return.
        volatility: root mean square of the closes' log returns over paths and steps, per bar.
        prob_up: share of paths with g_s > 0.
        q05, q95: quantiles of g_s over paths at Weibull positions.

    Raises:
        ValueError: a last close is not positive, so that no return exists.
    """
    gained, volatility = _whole_horizon(forecast)
    columns = {"expected_return": gained.mean(axis=1), "volatility": volatility}
    return pd.DataFrame(columns | _spread(gained), index=forecast.index, dtype=np.float64)


def sampled_paths(forecast: Forecast) -> SampledPaths:
    """Returns of each path from the last close to the close of each bar, for portfolios over joint scenarios.

    Args:
        forecast: N windows of one date, S paths, H bars.

    Raises:
        ValueError: the forecast has several dates, or a last close is not positive.
    """
    if len(forecast.index.get_level_values("datetime").unique()) > 1:
        raise ValueError("Scenarios are of one date, and the forecast has several. Pass one date at a time.")
    last = forecast.last_bar[:, CLOSE].astype(np.float64)[:, None, None]
    return SampledPaths(forecast.index.get_level_values("instrument"), positive_prices(forecast) / last - 1)


def _whole_horizon(forecast: Forecast) -> tuple[np.ndarray, np.ndarray]:
    """(N, S) returns from the last close to the last bar of each path, (N,) volatility per bar."""
    closes = positive_prices(forecast)
    last = forecast.last_bar[:, CLOSE].astype(np.float64)[:, None]  # (N, 1)
    start = np.broadcast_to(last[:, None], (*closes.shape[:2], 1))
    steps = np.diff(np.log(np.concatenate([start, closes], axis=2)))  # (N, S, H)
    return closes[:, :, -1] / last - 1, np.sqrt(np.square(steps).mean(axis=(1, 2)))


def _spread(returns: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of (N, S) returns over paths."""
    low, high = np.quantile(returns, [0.05, 0.95], axis=1, method="weibull")
    return {"prob_up": (returns > 0).mean(axis=1), "q05": low, "q95": high}


def _take_profit(
    forecast: Forecast, entry: np.ndarray, bars: slice, levels: PathSignalSettings
) -> np.ndarray:
    """(N,) see `prob_take_profit`; highs and lows are widened to include open and close, as in valid bars."""
    prices = [forecast.path(name)[:, :, bars] for name in PRICES]
    highs, lows = np.maximum.reduce(prices), np.minimum.reduce(prices)
    return prob_take_profit(highs, lows, entry, levels.take_profit, levels.stop_loss)


def _drawdown(forecast: Forecast, levels: PathSignalSettings) -> dict[str, np.ndarray]:
    falls = drawdowns(positive_prices(forecast), forecast.last_bar[:, CLOSE].astype(np.float64))
    return {
        "max_drawdown": falls.mean(axis=1),
        "prob_drawdown": (falls < -levels.drawdown).mean(axis=1),
    }


def sampled_price(forecast: Forecast, price: str) -> np.ndarray:
    """(N, S, H) sampled open, high, low or close; of "vwap", which is not sampled, the mean of the four."""
    if price == "vwap":
        return forecast.paths[..., : len(PRICES)].mean(axis=-1, dtype=np.float64)
    return forecast.path(price)


def positive_prices(forecast: Forecast, price: str = "close") -> np.ndarray:
    """(N, S, H) float64, with sampled prices at or below zero lifted to a thousandth of the last close.

    A path is sampled on a linear scale, so a violent one can cross zero; a return from there has no meaning.

    Raises:
        ValueError: a last close is not positive.
    """
    last = positive_close(forecast.last_bar[:, CLOSE], forecast.index)
    return np.maximum(sampled_price(forecast, price), PRICE_FLOOR * last[:, None, None])
