"""A portfolio of 60 days that holds a few of eight instruments, and an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.backtest_result import BacktestResult

DAYS = pd.bdate_range("2024-01-01", periods=60, name="datetime")
NAMES = pd.Index([f"S{i}" for i in range(8)], name="instrument")


@pytest.fixture
def days() -> pd.DatetimeIndex:
    return DAYS


@pytest.fixture
def exposures() -> pd.DataFrame:
    """The size of S0..S7 is 0..7 on all dates; their momentum is drawn."""
    index = pd.MultiIndex.from_product([DAYS, NAMES])
    size = np.tile(np.arange(8.0), len(DAYS))
    return pd.DataFrame({"size": size, "momentum": np.random.default_rng(3).normal(size=len(index))}, index)


@pytest.fixture
def book() -> Callable[[Mapping[str, float]], BacktestResult]:
    """The same weights at every close."""

    def hold(weights: Mapping[str, float], bars: int = len(DAYS)) -> BacktestResult:
        rng, days = np.random.default_rng(0), DAYS[:bars]
        market = pd.Series(rng.normal(0.0005, 0.01, len(DAYS)), DAYS)[:bars]
        gross = market + rng.normal(0.0005, 0.003, len(DAYS))[:bars]
        turnover = pd.Series(rng.uniform(0.1, 0.3, len(DAYS)), DAYS)[:bars]
        names = pd.Index(list(weights), name="instrument", dtype=str)
        index = pd.MultiIndex.from_product([days, names])
        return BacktestResult(
            returns=pd.DataFrame({"gross": gross, "net": gross - 0.001 * turnover}),
            benchmarks=pd.DataFrame({"benchmark": market, "equal weight": 0.5 * market}),
            turnover=turnover,
            cost=0.001 * turnover,
            weights=pd.Series(np.tile(list(weights.values()), bars), index, dtype=float),
            bars_per_year=100,
        )

    return hold
