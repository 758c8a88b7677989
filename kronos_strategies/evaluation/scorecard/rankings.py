"""How well a model ranks the returns that can be earned, beside signals that need no model. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from kronos_strategies.evaluation.scorecard.rows import MODEL, HorizonRows
from kronos_strategies.evaluation.signal.exposures import Exposure
from kronos_strategies.evaluation.signal.neutral import neutral_rank_ic
from kronos_strategies.evaluation.significance import MeanTest, newey_west

PERSISTENCE = "persistence"


@dataclass(frozen=True)
class RankingScore:
    """Of one score against close(t+1) -> close(t+1+h), over the rows that the model scored.

    Attributes:
        horizon: h, bars.
        name: MODEL, PERSISTENCE or one of BASELINES. Persistence expects no return of anyone: it ranks nothing,
            and all of its figures are undefined.
        rank_ic: Spearman's.
        newey_west: of the same series; beside the headline, not instead.
        ic: Pearson's.
        neutral: RankIC of what the score ranks beyond 20-day volatility (`neutral_rank_ic`).
        lead: RankIC of the model less this one's, paired by date over names that have both; None for the model.
        by_date: columns rank_ic, ic, neutral.
    """

    horizon: int
    name: str
    rank_ic: MeanTest
    newey_west: MeanTest
    ic: MeanTest
    neutral: MeanTest
    lead: MeanTest | None
    by_date: pd.DataFrame = field(repr=False, compare=False)


def score_rankings(rows: HorizonRows) -> tuple[RankingScore, ...]:
    """The model first, then persistence and each of BASELINES, all against the same label."""
    label = rows.of(rows.market.earned(rows.horizon))
    calm = rows.of(rows.market.deviation)
    model = rows.said["score"]
    naive = {name: rows.of(wide) for name, wide in rows.market.naive.items()}
    scores = {MODEL: model, PERSISTENCE: pd.Series(0.0, index=rows.keys), **naive}
    return tuple(_score(rows, name, score, label, calm, model) for name, score in scores.items())


def _score(
    rows: HorizonRows, name: str, score: pd.Series, label: pd.Series, calm: pd.Series, model: pd.Series
) -> RankingScore:
    beyond = neutral_rank_ic(rows.wide(score), rows.wide(label), [Exposure.of(calm, rows.grid)])
    by_date = rows.coefficients(score, label)[["rank_ic", "ic"]].assign(neutral=beyond)
    return RankingScore(
        horizon=rows.horizon,
        name=name,
        rank_ic=rows.test(by_date["rank_ic"]),
        newey_west=newey_west(by_date["rank_ic"], rows.overlap),
        ic=rows.test(by_date["ic"]),
        neutral=rows.test(by_date["neutral"]),
        lead=None if name == MODEL else rows.lead(model, score, label),
        by_date=by_date,
    )
