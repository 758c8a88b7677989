"""A market of random walks, and forecasts of it by the true distribution or by the realized closes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from kronos.bars import FEATURES
from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance
from kronos_strategies.evaluation.panel import PricePanel

DAYS = pd.bdate_range("2023-01-02", periods=110)
NAMES = [f"N{i:02d}" for i in range(40)]
DEVIATION = np.linspace(0.005, 0.03, len(NAMES))  # of each name's log returns, the same for ever
AT = range(30, 90)  # positions of the forecast dates; at least 19 bars follow
HORIZONS = (1, 5)
PROVENANCE = Provenance(
    "test", None, None, None, SampleConfig(), "none", 512, 5, "recompute", "float32", "last_close", ""
)


def tidy_bars() -> pd.DataFrame:
    """Random walks: 110 days x 40 names."""
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((len(DAYS), len(NAMES))) * DEVIATION
    close = 20 * np.exp(steps.cumsum(axis=0))
    open_ = np.vstack([close[:1], close[:-1]])
    reach = np.exp(np.abs(rng.standard_normal(close.shape)) * DEVIATION / 2)
    high, low = np.maximum(open_, close) * reach, np.minimum(open_, close) / reach
    index = pd.MultiIndex.from_product([DAYS, NAMES], names=["datetime", "instrument"])
    columns = {"open": open_, "high": high, "low": low, "close": close, "volume": np.full(close.shape, 1e6)}
    return pd.DataFrame({name: v.ravel() for name, v in columns.items()}, index).reset_index()


def market_of(bars: pd.DataFrame) -> PricePanel:
    return PricePanel.from_bars(bars.set_index(["datetime", "instrument"]))


def forecast(at: int, last: np.ndarray, log_returns: np.ndarray, names: list[str] = NAMES) -> Forecast:
    """Paths of (N, S, H) log returns from (N,) last closes."""
    paths = np.ones((*log_returns.shape, len(FEATURES)), np.float32)
    paths[..., :4] = (last[:, None, None] * np.exp(log_returns.cumsum(axis=2)))[..., None]
    keys = pd.MultiIndex.from_product([[DAYS[at]], names], names=["datetime", "instrument"])
    times = np.tile(DAYS[at + 1 : at + 1 + log_returns.shape[2]].to_numpy(), (len(names), 1))
    start = np.repeat(last[:, None], len(FEATURES), axis=1).astype(np.float32)
    return Forecast(paths, keys, times, start, PROVENANCE)


def walks(
    market: PricePanel, at: range | list[int] = AT, samples: int = 40, horizon: int = 6
) -> Iterator[Forecast]:
    """True forecasts of this market: random walks with each instrument's own deviation, and no drift."""
    for t in at:
        steps = np.random.default_rng(t).standard_normal((len(NAMES), samples, horizon))
        yield forecast(t, market.closes.iloc[t].to_numpy(), steps * DEVIATION[:, None, None])


def oracles(market: PricePanel, at: range = AT, horizon: int = 6) -> Iterator[Forecast]:
    """Forecasts of the realized closes, on each of 20 paths."""
    steps = np.log(market.closes).diff().to_numpy()
    for t in at:
        ahead = np.tile(steps[t + 1 : t + 1 + horizon].T[:, None], (1, 20, 1))
        yield forecast(t, market.closes.iloc[t].to_numpy(), ahead)
