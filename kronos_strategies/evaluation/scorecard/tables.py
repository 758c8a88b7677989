"""Scorecard -> tables of text, for a terminal or a model card. Torch-free, knows no printer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from kronos_strategies.evaluation.scorecard.card import Scorecard
from kronos_strategies.evaluation.scorecard.distributions import DistributionScore
from kronos_strategies.evaluation.scorecard.rankings import RankingScore
from kronos_strategies.evaluation.scorecard.rows import MODEL
from kronos_strategies.evaluation.scorecard.volatilities import VolatilityScore
from kronos_strategies.evaluation.significance import MeanTest

_Score = TypeVar("_Score", RankingScore, VolatilityScore, DistributionScore)

NOTHING = "–"

DEFINITIONS = (
    "Means over dates ± half of a 95 % interval: EWC (Lazarus et al. 2018), or non-overlapping dates where "
    "there are fewer than 50 spans of the label; NW t is Newey-West's. Lead and excess over it: the model's "
    "RankIC, QLIKE or CRPS less that of the row, paired by date over the names that both have.",
    "RankIC of returns: close(t+1) to close(t+1+h), for a signal trades at the next close; neutral: what is left "
    "of it beyond 20-day volatility. Volatility and distribution: close(t) to close(t+h). No trade on either "
    "end, no label.",
    "QLIKE is on variance, without the share dropped because nothing moved; 'closes' sums squared log returns, "
    "'ranges' Garman-Klass and squared overnight gaps. MAE and R2 are of its square root, MAE and CRPS in % of log "
    "return. CRPS is the fair one; skill is against the Gaussian random walk, first with S^2 in place of "
    "S (S - 1), since for evenly drawn paths the truth lies between. PIT: mean ± deviation over rows; if "
    "calibrated .500 ± sqrt((S + 2) / (12 S)), .289 for many samples; a larger deviation says too narrow. The "
    "shrunk random walk draws 20-day volatility to its average and has the shape that returns had, both "
    "fitted to bars before the first forecast; EWMA is RiskMetrics' (.94).",
)


@dataclass(frozen=True)
class TextTable:
    """A heading, column names and rows, all text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As a GitHub table; the first two columns are text, the others are set right."""
        rule = ["---" if i < 2 else "---:" for i in range(len(self.columns))]
        lines = [self.columns, rule, *self.rows]
        return "\n".join([f"**{self.title}**", "", *("| " + " | ".join(line) + " |" for line in lines)])


def tables(card: Scorecard, name: str) -> tuple[TextTable, ...]:
    """The three tables of a scorecard; `name` stands for the model."""
    return (
        TextTable(
            "Returns",
            ("h", "score", "RankIC", "t", "NW t", "IC", "neutral RankIC", "lead over it", "dates"),
            tuple(_ranking(score, name) for score in card.rankings),
        ),
        TextTable(
            "Volatility",
            ("h", "forecast", "measure", "RankIC", "QLIKE", "MAE", "R2", "lead over it", "excess over it",
             "dropped"),
            tuple(_volatility(score, name) for score in card.volatilities),
        ),
        TextTable(
            "Distribution",
            ("h", "forecast", *(f"{level:.0%} band" for level in card.distributions[0].coverage), "CRPS", "skill",
             "excess over it", "PIT"),
            tuple(_distribution(score, name) for score in card.distributions),
        ),
    )  # fmt: skip


def grid(cards: Mapping[str, Scorecard]) -> TextTable:
    """One row a setting and horizon, the model's own figures only, for choosing between settings."""
    some = next(iter(cards.values()))
    levels = tuple(some.distributions[0].coverage)
    columns = (
        "h", "setting", "RankIC", "neutral", "of volatility", "QLIKE",
        *(f"{level:.0%} band" for level in levels), "CRPS", "skill", "PIT",
    )  # fmt: skip
    horizons = [score.horizon for score in some.distributions if score.name == MODEL]
    rows = [(str(h), setting, *_brief(card, h)) for h in horizons for setting, card in cards.items()]
    return TextTable("Settings", columns, tuple(rows))


def _brief(card: Scorecard, horizon: int) -> tuple[str, ...]:
    rank, vol, dist = (
        _own(card.rankings, horizon),
        _own(card.volatilities, horizon),
        _own(card.distributions, horizon),
    )
    return (
        _interval(rank.rank_ic),
        _signed(rank.neutral.mean),
        _signed(vol.rank_ic.mean),
        _figure(vol.qlike.mean),
        *_coverage(dist),
        _percent(dist.crps.mean),
        _skill(dist),
        _pit(dist),
    )


def _own(scores: Sequence[_Score], horizon: int) -> _Score:
    """The model's; of several measures the first, which is by closes."""
    return next(score for score in scores if score.name == MODEL and score.horizon == horizon)


def _ranking(score: RankingScore, model: str) -> tuple[str, ...]:
    return (
        str(score.horizon),
        _name(score.name, model),
        _interval(score.rank_ic),
        _signed(score.rank_ic.t, 2),
        _signed(score.newey_west.t, 2),
        _signed(score.ic.mean),
        _interval(score.neutral),
        NOTHING if score.lead is None else _interval(score.lead),
        f"{score.rank_ic.dates}",
    )


def _volatility(score: VolatilityScore, model: str) -> tuple[str, ...]:
    return (
        str(score.horizon),
        _name(score.name, model),
        score.measure,
        _interval(score.rank_ic),
        _figure(score.qlike.mean),
        _percent(score.pooled.mae),
        _figure(score.pooled.r2),
        NOTHING if score.lead is None else _interval(score.lead),
        NOTHING if score.excess is None else _interval(score.excess),
        f"{score.pooled.dropped / max(score.pooled.pairs, 1):.1%}",
    )


def _distribution(score: DistributionScore, model: str) -> tuple[str, ...]:
    return (
        str(score.horizon),
        _name(score.name, model),
        *_coverage(score),
        _percent(score.crps.mean),
        _skill(score),
        NOTHING if score.excess is None else _interval(score.excess, 100),
        _pit(score),
    )


def _coverage(score: DistributionScore) -> Sequence[str]:
    return [NOTHING if test is None else f"{test.mean:.1%}" for test in score.coverage.values()]


def _skill(score: DistributionScore) -> str:
    if not np.isfinite(score.skill):
        return NOTHING
    low, high = f"{score.ensemble_skill:+.1%}", f"{score.skill:+.1%}"
    return high if low == high else f"{low} to {high}"


def _pit(score: DistributionScore) -> str:
    return f"{_figure(score.pit_mean, 3)} ± {_figure(score.pit_deviation, 3)}"


def _name(name: str, model: str) -> str:
    return model if name == MODEL else name


def _interval(test: MeanTest, unit: float = 1) -> str:
    if not np.isfinite(test.mean):
        return NOTHING
    if not np.isfinite(test.low):
        return _signed(unit * test.mean)
    return f"{unit * test.mean:+.4f} ± {unit * (test.high - test.mean):.4f}"


def _signed(value: float, digits: int = 4) -> str:
    return f"{value:+.{digits}f}" if np.isfinite(value) else NOTHING


def _figure(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else NOTHING


def _percent(value: float) -> str:
    return f"{100 * value:.3f}" if np.isfinite(value) else NOTHING
