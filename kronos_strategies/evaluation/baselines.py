"""Naive signals that any forecast has to beat, from closes alone."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

BASELINE_BARS = 252  # bars of history the longest of them wants


def momentum_12_1(closes: pd.DataFrame) -> pd.DataFrame:
    """Return from 252 to 21 bars ago (Jegadeesh & Titman 1993): winners score high. Dates x instruments."""
    return closes.shift(21) / closes.shift(252) - 1


def reversal_5(closes: pd.DataFrame) -> pd.DataFrame:
    """Minus the return of the last 5 bars (Lehmann 1990): losers score high."""
    return 1 - closes / closes.shift(5)


def reversal_20(closes: pd.DataFrame) -> pd.DataFrame:
    """Minus the return of the last 20 bars (Jegadeesh 1990): losers of the month score high."""
    return 1 - closes / closes.shift(20)


def low_volatility_20(closes: pd.DataFrame) -> pd.DataFrame:
    """Minus the deviation of the last 20 returns: calm names score high."""
    return -closes.pct_change(fill_method=None).rolling(20, min_periods=15).std()


BASELINES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "12-1 momentum": momentum_12_1,
    "5-day reversal": reversal_5,
    "20-day reversal": reversal_20,
    "low 20-day volatility": low_volatility_20,
}
