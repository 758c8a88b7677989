"""The verdict: what the figures of one run say, in two plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos_strategies.report.formats import decimals, listing, percent

CRITICAL_T = 2.0  # about a two-sided test at 5 %


@dataclass(frozen=True)
class Verdict:
    """Of one run.

    Attributes:
        tone: "good", "mixed", "none" or "bad".
        headline: the tone in a few words.
        signal: sentence on the score: its mean RankIC, whether that is zero, and which naive signals it beats.
        book: sentence on the portfolio after costs; empty where no metric tells of it.
    """

    tone: str
    headline: str
    signal: str
    book: str


def judge(metrics: Mapping[str, float], comparison: pd.DataFrame) -> Verdict:
    """Read the verdict from a report's metrics and comparison, the score in its first row."""
    mean, t = metrics.get("rank_ic", np.nan), metrics.get("rank_ic_t", np.nan)
    book = _book(metrics)
    if not np.isfinite(mean):
        signal = "RankIC is undefined: on no date did enough names have both a score and a return."
        return Verdict("none", "No verdict", signal, book)
    if not np.isfinite(t):
        signal = f"Mean RankIC is {decimals(mean)}, on too few dates for a t: they say nothing yet."
        return Verdict("none", "No verdict", signal, book)
    beaten, unbeaten = _baselines(comparison)
    if abs(t) < CRITICAL_T:
        tone, headline, claim = "none", "No evidence of skill", "not distinguishable from zero"
    elif mean < 0:
        tone, headline, claim = (
            "bad",
            "Ranks the wrong way round",
            "below zero: names scored high earned less",
        )
    elif unbeaten:
        tone, headline, claim = "mixed", "No better than a naive signal", "above zero"
    elif beaten:
        tone, headline, claim = "good", "Better than chance and naive signals", "above zero"
    else:
        tone, headline, claim = "mixed", "Better than chance", "above zero"
    measured = f"Mean RankIC is {decimals(mean)} (t {decimals(t, 2)} on non-overlapping dates), {claim}"
    return Verdict(tone, headline, f"{measured}; {_against(beaten, unbeaten)}.", book)


def _baselines(comparison: pd.DataFrame) -> tuple[list[str], dict[str, float]]:
    """Baselines with a mean RankIC below the score's, and the others with theirs, best first.

    A baseline keeps its sign: turning one round because it lost in the test period would be hindsight.
    """
    means = comparison["rank_ic"].astype(float).set_axis(comparison.index.astype(str))
    score, others = means.iloc[:1].max(), means.iloc[1:].dropna()
    beaten = others < score  # by an undefined score, none
    unbeaten = others[~beaten].sort_values(ascending=False, kind="stable")
    return list(others.index[beaten]), {str(name): float(value) for name, value in unbeaten.items()}


def _against(beaten: list[str], unbeaten: dict[str, float]) -> str:
    total = len(beaten) + len(unbeaten)
    if not total:
        return "there is no naive baseline to hold it against"
    if not unbeaten:
        return f"it beats all {total} naive baselines" if total > 1 else f"it beats the naive {beaten[0]}"
    reached = listing([f"{name} ({decimals(mean)})" for name, mean in unbeaten.items()])
    if not beaten:
        return f"it beats nothing, not even {reached}"
    return f"it beats {len(beaten)} of {total} naive baselines, not {reached}"


def _book(metrics: Mapping[str, float]) -> str:
    if "sharpe" not in metrics:
        return ""
    names = {"benchmark_sharpe": "the benchmark", "equal_weight_sharpe": "equal weight"}
    held = [f"{decimals(metrics[key], 2)} for {name}" for key, name in names.items() if key in metrics]
    against = f", against {listing(held)}" if held else ""
    fall = (
        f"; its deepest drawdown was {percent(metrics['max_drawdown'])}" if "max_drawdown" in metrics else ""
    )
    return f"After costs the book's Sharpe ratio was {decimals(metrics['sharpe'], 2)}{against}{fall}."
