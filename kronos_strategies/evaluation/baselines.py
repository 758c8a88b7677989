"""Baselines: naive signals that a forecast has to beat, computed from closes alone."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from kronos_strategies.evaluation.distribution.volatility import historical_volatility
from kronos_strategies.evaluation.panel import PricePanel

MODEL = "Kronos"  # name of the evaluated score and forecast next to the baselines
MIN_COVERAGE = 0.5  # of the scored rows; differences are paired on the rows that both scores have


def momentum_12_1(closes: pd.DataFrame) -> pd.DataFrame:
    """Return from 252 to 21 bars ago (Jegadeesh & Titman 1993): past winners score high. Dates x instruments."""
    return closes.shift(21) / closes.shift(252) - 1


def reversal_5(closes: pd.DataFrame) -> pd.DataFrame:
    """Negative return of the last 5 bars (Lehmann 1990): past losers score high."""
    return 1 - closes / closes.shift(5)


def reversal_20(closes: pd.DataFrame) -> pd.DataFrame:
    """Negative return of the last 20 bars (Jegadeesh 1990): losers of the last month score high."""
    return 1 - closes / closes.shift(20)


def low_volatility_20(closes: pd.DataFrame) -> pd.DataFrame:
    """Negative standard deviation of the last 20 returns: instruments of low volatility score high."""
    return -historical_volatility(closes)


BASELINES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "12-1 momentum": momentum_12_1,
    "5-day reversal": reversal_5,
    "20-day reversal": reversal_20,
    "low 20-day volatility": low_volatility_20,
}
IN_BARS = {  # names of the baselines where bars are not days
    "12-1 momentum": "momentum of 252 to 21 bars ago",
    "5-day reversal": "5-bar reversal",
    "20-day reversal": "20-bar reversal",
    "low 20-day volatility": "low 20-bar volatility",
}


def baseline_scores(
    prices: PricePanel, index: pd.MultiIndex, daily: bool = True
) -> tuple[pd.DataFrame, list[str]]:
    """Scores of all baselines on the given rows, by one rule for every engine.

    On a day without a trade the last known close is used. A baseline that has a value on less than half of the
    rows, for lack of history, is left out.

    Args:
        prices: bars of the instruments, with the history that the baselines need.
        index: (datetime, instrument) rows to score.
        daily: whether bars are days, which decides the names of the baselines.

    Returns:
        One column per baseline, known at the close of the row's date; and one sentence per baseline left out.
    """
    scores = {
        name if daily else IN_BARS.get(name, name): prices.lookup(signal(prices.last_close), index)
        for name, signal in BASELINES.items()
    }
    scarce = [name for name, score in scores.items() if score.notna().mean() < MIN_COVERAGE]
    kept = {name: score for name, score in scores.items() if name not in scarce}
    reasons = [
        f"{name} is left out: more than half of the rows lack the history it needs." for name in scarce
    ]
    return pd.DataFrame(kept, index=index), reasons
