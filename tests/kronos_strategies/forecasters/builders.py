"""Markets of known volatility, their windows, and Sobol numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos.sampling import sobol_uniforms
from kronos.windows import Windows


def candles(returns: np.ndarray, start: str = "2021-01-04", seed: int = 0) -> pd.DataFrame:
    """Daily bars whose closes have these log returns."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(returns))
    open_ = np.append(100.0, close[:-1]) * np.exp(rng.normal(0, 0.002, len(close)))
    size = np.abs(returns) / 2 + 1e-4
    high = np.maximum(open_, close) * np.exp(size * rng.random(len(close)))
    low = np.minimum(open_, close) * np.exp(-size * rng.random(len(close)))
    volume = rng.lognormal(10, 1, len(close))
    columns = {"open": open_, "high": high, "low": low, "close": close, "volume": volume}
    return pd.DataFrame(columns, index=pd.bdate_range(start, periods=len(close), name="datetime"))


def garch_returns(
    count: int, omega: float, alpha: float, gamma: float, beta: float, freedom: float, seed: int = 0
) -> np.ndarray:
    """Log returns in percent of a GJR-GARCH process with Student's t innovations."""
    rng = np.random.default_rng(seed)
    innovations = rng.standard_t(freedom, count) * np.sqrt((freedom - 2) / freedom)
    returns, variance = np.empty(count), omega / (1 - alpha - gamma / 2 - beta)
    for bar, innovation in enumerate(innovations):
        returns[bar] = np.sqrt(variance) * innovation
        variance = omega + (alpha + gamma * (returns[bar] < 0)) * returns[bar] ** 2 + beta * variance
    return returns


def market(instruments: int = 3, bars: int = 300, first: int = 0) -> dict[str, pd.DataFrame]:
    """Bars of instruments with clustered volatility."""
    made = {}
    for number in range(first, first + instruments):
        returns = garch_returns(bars, 0.05, 0.08, 0.0, 0.88, 6.0, seed=number) / 100
        made[f"S{number}"] = candles(returns, seed=number)
    return made


def windows_of(
    panel: dict[str, pd.DataFrame], lookback: int = 90, horizon: int = 5, last: int = 4
) -> Windows:
    """The windows of the last dates of a panel."""
    start = next(iter(panel.values())).index[-last]
    return Windows.rolling(panel, lookback, horizon, "B", start=start)


def uniforms_of(windows: Windows, samples: int, seed: int = 0) -> np.ndarray:
    """The random numbers of the windows' dates."""
    dates = pd.DatetimeIndex(windows.index.get_level_values("datetime"))
    return sobol_uniforms(seed, dates, samples, windows.horizon)
