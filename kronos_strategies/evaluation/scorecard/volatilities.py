"""How well sampled paths foretell volatility, beside that of the last 20 days. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from kronos_strategies.evaluation.distribution.volatility import VarianceScore, qlike, score_variance
from kronos_strategies.evaluation.scorecard.rows import MODEL, HorizonRows
from kronos_strategies.evaluation.significance import MeanTest

HISTORICAL = "last 20 days"


@dataclass(frozen=True)
class VolatilityScore:
    """Of one variance forecast for bars t+1..t+h.

    Attributes:
        horizon: h, bars.
        measure: of what came, "closes" or "ranges" (`Market.variance`).
        name: MODEL, the mean over paths of their own sums of squared log returns; or HISTORICAL, h times the
            squared deviation of the last 20 daily returns.
        rank_ic: per-date rank correlation with what came.
        qlike: mean over dates of each date's mean.
        pooled: over all pairs at once; says how many of them had no `qlike`.
        lead: RankIC of the model less this one's, paired; None for the model.
        excess: QLIKE of the model less this one's, paired, so that negative is better; None for the model.
        by_date: columns rank_ic, qlike.
    """

    horizon: int
    measure: str
    name: str
    rank_ic: MeanTest
    qlike: MeanTest
    pooled: VarianceScore
    lead: MeanTest | None
    excess: MeanTest | None
    by_date: pd.DataFrame = field(repr=False, compare=False)


def score_volatilities(rows: HorizonRows) -> tuple[VolatilityScore, ...]:
    """By measure; the model first."""
    said = {
        MODEL: rows.said["variance"],
        HISTORICAL: rows.horizon * rows.of(rows.market.deviation) ** 2,
    }
    came = {measure: rows.of(wide) for measure, wide in rows.market.variance(rows.horizon).items()}
    return tuple(
        _score(rows, measure, realised, name, forecast, said[MODEL])
        for measure, realised in came.items()
        for name, forecast in said.items()
    )


def _score(
    rows: HorizonRows, measure: str, realised: pd.Series, name: str, forecast: pd.Series, model: pd.Series
) -> VolatilityScore:
    losses = pd.Series(qlike(realised.to_numpy(), forecast.to_numpy()), index=rows.keys)
    ranks = rows.coefficients(forecast, realised)["rank_ic"]
    by_date = pd.DataFrame({"rank_ic": ranks, "qlike": rows.by_date(losses)})
    lead = excess = None
    if name != MODEL:
        lead = rows.lead(model, forecast, realised)
        excess = rows.test(rows.by_date(qlike(realised.to_numpy(), model.to_numpy()) - losses))
    return VolatilityScore(
        horizon=rows.horizon,
        measure=measure,
        name=name,
        rank_ic=rows.test(by_date["rank_ic"]),
        qlike=rows.test(by_date["qlike"]),
        pooled=score_variance(realised.to_numpy(), forecast.to_numpy()),
        lead=lead,
        excess=excess,
        by_date=by_date,
    )
