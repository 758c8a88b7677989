"""Scores of predicted distributions and volatilities at one horizon, compared with baselines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kronos_strategies.evaluation.distribution.baselines import (
    GarchModels,
    ShrunkWalk,
    score_normal,
    score_shape,
    score_student,
)
from kronos_strategies.evaluation.distribution.path_summary import band
from kronos_strategies.evaluation.distribution.volatility import VarianceScore, qlike, score_variance
from kronos_strategies.evaluation.panel import Grid
from kronos_strategies.evaluation.price_panel import PricePanel
from kronos_strategies.evaluation.signal.ic import information_coefficients_wide
from kronos_strategies.evaluation.significance import MeanTest, mean_test

MODEL = "model"


@dataclass(frozen=True)
class HorizonEvaluation:
    """All windows at one horizon.

    Attributes:
        said: what the paths say and how far off they were, columns as of `summarize_paths`.
        market: that they are scored on.
        horizon: bars.
        sampled: as `said`, of the paths before a calibration moved them; None where none did.
    """

    said: pd.DataFrame
    market: PricePanel
    horizon: int
    sampled: pd.DataFrame | None = None

    @cached_property
    def keys(self) -> pd.MultiIndex:
        """Of the windows."""
        return cast(pd.MultiIndex, self.said.index)

    @cached_property
    def dates(self) -> pd.DatetimeIndex:
        """Of the forecasts, ascending."""
        return self.grid.dates

    @cached_property
    def overlap(self) -> int:
        """Forecast dates that one label spans."""
        return self.market.overlap(self.dates, self.horizon)

    @cached_property
    def grid(self) -> Grid:
        """Where the windows lie on dates x names."""
        return Grid.of(self.keys, "windows")

    def of(self, wide: pd.DataFrame) -> pd.Series:
        """The windows' own entries of a frame of the market."""
        return self.market.at(wide, self.keys)

    def by_date(self, values: ArrayLike | pd.Series) -> pd.Series:
        """Mean of each date over its defined rows; NaN on a date without one."""
        wide = self.wide(values)
        known = np.isfinite(wide)
        count = known.sum(axis=1)
        sums = np.where(known, wide, 0.0).sum(axis=1)
        return pd.Series(np.divide(sums, count, out=np.full(len(count), np.nan), where=count > 0), self.dates)

    def wide(self, values: ArrayLike | pd.Series) -> np.ndarray:
        """(windows,) -> (dates, names) float64."""
        return self.grid.wide(np.asarray(values, float))

    def coefficients(self, score: pd.Series, label: pd.Series) -> pd.DataFrame:
        """Columns ic and rank_ic by date."""
        ic, rank_ic = information_coefficients_wide(self.wide(score), self.wide(label))
        return pd.DataFrame({"ic": ic, "rank_ic": rank_ic}, self.dates)

    def lead(self, first: pd.Series, second: pd.Series, label: pd.Series) -> MeanTest:
        """Of RankIC of one score less that of another, paired by date over the names that have both."""
        one, other = self.wide(first), self.wide(second)
        came = np.where(np.isfinite(one) & np.isfinite(other), self.wide(label), np.nan)
        ranks = (information_coefficients_wide(score, came)[1] for score in (one, other))
        return self.test(pd.Series(next(ranks) - next(ranks), self.dates))

    def test(self, by_date: pd.Series) -> MeanTest:
        """Of a series of the dates."""
        return mean_test(by_date, self.overlap)


RANDOM_WALK = "Gaussian random walk"
UNCALIBRATED = "as sampled, uncalibrated"
SHRUNK_WALK = "shrunk random walk"
EWMA = "EWMA, Gaussian"
GARCH = "GARCH-t"


@dataclass(frozen=True)
class DistributionScore:
    """Of one distribution of the log return close(t) -> close(t+h).

    Attributes:
        horizon: h, bars.
        name: MODEL; RANDOM_WALK, normal with mean 0 and the deviation of the last 20 daily returns times sqrt(h);
            UNCALIBRATED, the model's paths before a calibration moved them; SHRUNK_WALK, EWMA or GARCH, see
            `kronos_strategies.evaluation.distribution.baselines` and `garch`.
        coverage: level of a central band -> share of outcomes within; None where the samples are too few to
            reach it.
        crps: fair, in log return, lower is better.
        ensemble_crps: with the samples taken as the whole distribution. For even draws `crps` is a little too
            low and this a little too high (see `crps_fair`); for the random walk they are equal.
        excess: CRPS of the model less this one's, paired, so that negative is better; None for the model.
        skill: 1 - CRPS / CRPS of the random walk, over rows that have both; 0 for the random walk.
        ensemble_skill: the same from `crps_ensemble`: skill that holds by this one is no matter of the draws.
        pit_mean: over rows; .5 if the centre is right.
        pit_deviation: over rows; .289 if the width is right (for S samples sqrt((S + 2) / (12 S))), less if too
            wide, more if too narrow.
        outcomes: rows with one.
        by_date: columns crps, and inside_80 etc.
    """

    horizon: int
    name: str
    coverage: dict[float, MeanTest | None]
    crps: MeanTest
    crps_ensemble: MeanTest
    excess: MeanTest | None
    skill: float
    ensemble_skill: float
    pit_mean: float
    pit_deviation: float
    outcomes: int
    by_date: pd.DataFrame = field(repr=False, compare=False)


def score_distributions(
    rows: HorizonEvaluation, levels: Sequence[float], garch: GarchModels | None = None
) -> tuple[DistributionScore, ...]:
    """The model, then the Gaussian random walk, the model's paths as sampled, and the other baselines.

    Args:
        rows: of one horizon.
        levels: of central bands.
        garch: fitted to bars before the first forecast; None leaves GARCH out.
    """
    walk = _baseline(rows, RANDOM_WALK, levels, None)
    assert walk is not None  # it takes no history
    found = {MODEL: rows.said, RANDOM_WALK: walk}
    if rows.sampled is not None:
        found[UNCALIBRATED] = rows.sampled
    for name in (SHRUNK_WALK, EWMA, GARCH):
        if (scores := _baseline(rows, name, levels, garch)) is not None:
            found[name] = scores
    return tuple(
        _score_distribution(rows, name, figures, walk["crps"], levels) for name, figures in found.items()
    )


def _baseline(
    rows: HorizonEvaluation, name: str, levels: Sequence[float], garch: GarchModels | None
) -> pd.DataFrame | None:
    """The same columns as `summarize_paths` gives, in closed form; None where the past is too short to fit to."""
    market, horizon = rows.market, rows.horizon
    came = rows.of(market.log_return(horizon)).to_numpy(float)
    if name == RANDOM_WALK:
        found = score_normal(rows.of(market.deviation).to_numpy(float) * np.sqrt(horizon), came, levels)
    elif name == EWMA:
        found = score_normal(rows.of(market.ewma).to_numpy(float) * np.sqrt(horizon), came, levels)
    elif name == SHRUNK_WALK:
        shrunk = ShrunkWalk.fit(market, horizon, rows.dates[0])
        if shrunk is None:
            return None
        deviation = shrunk.deviation(rows.of(market.deviation).to_numpy(float))
        found = score_shape(deviation, shrunk.shape, came, levels)
    else:
        if garch is None:
            return None
        found = score_student(*garch.forecast(rows.keys, horizon), came, levels)
    return found.set_axis(rows.keys)


def _score_distribution(
    rows: HorizonEvaluation, name: str, figures: pd.DataFrame, walk: pd.Series, levels: Sequence[float]
) -> DistributionScore:
    bands = {level: band(level) for level in levels if band(level) in figures}
    by_date = pd.DataFrame({name: rows.by_date(figures[name]) for name in ("crps", *bands.values())})
    return DistributionScore(
        horizon=rows.horizon,
        name=name,
        coverage={level: rows.test(by_date[bands[level]]) if level in bands else None for level in levels},
        crps=rows.test(by_date["crps"]),
        crps_ensemble=rows.test(rows.by_date(figures["ensemble_crps"])),
        excess=None if name == MODEL else rows.test(rows.by_date(rows.said["crps"] - figures["crps"])),
        skill=_skill(rows, figures["crps"], walk),
        ensemble_skill=_skill(rows, figures["ensemble_crps"], walk),
        pit_mean=float(figures["pit"].mean()),
        pit_deviation=float(figures["pit"].std()),
        outcomes=int(figures["crps"].notna().sum()),
        by_date=by_date,
    )


def _skill(rows: HorizonEvaluation, crps: pd.Series, walk: pd.Series) -> float:
    both = crps.notna() & walk.notna()
    mean, reference = (rows.by_date(losses.where(both)).mean() for losses in (crps, walk))
    return float(1 - mean / reference) if reference > 0 else np.nan


HISTORICAL = "last 20 days"


@dataclass(frozen=True)
class VolatilityScore:
    """Of one variance forecast for bars t+1..t+h.

    Attributes:
        horizon: h, bars.
        measure: of what came, "closes" or "ranges" (`PricePanel.variance`).
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


def score_volatilities(rows: HorizonEvaluation) -> tuple[VolatilityScore, ...]:
    """By measure; the model first."""
    said = {
        MODEL: rows.said["variance"],
        HISTORICAL: rows.horizon * rows.of(rows.market.deviation) ** 2,
    }
    came = {measure: rows.of(wide) for measure, wide in rows.market.variance(rows.horizon).items()}
    return tuple(
        _score_volatility(rows, measure, realised, name, forecast, said[MODEL])
        for measure, realised in came.items()
        for name, forecast in said.items()
    )


def _score_volatility(
    rows: HorizonEvaluation,
    measure: str,
    realised: pd.Series,
    name: str,
    forecast: pd.Series,
    model: pd.Series,
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


def evaluations_by_horizon(
    said: pd.DataFrame, market: PricePanel, sampled: pd.DataFrame | None = None
) -> list[HorizonEvaluation]:
    """What is scored at each horizon of `summarize_paths`; `sampled` is of the paths before calibration."""
    horizons = said.columns.get_level_values(0).unique()
    before = {horizon: None if sampled is None else pd.DataFrame(sampled[horizon]) for horizon in horizons}
    return [
        HorizonEvaluation(pd.DataFrame(said[horizon]), market, int(horizon), before[horizon])
        for horizon in horizons
    ]


def series_by_date(scores: Iterable[VolatilityScore | DistributionScore]) -> pd.DataFrame:
    """The series behind some scores, long: datetime, horizon, of, name, measure, value."""
    parts = []
    for score in scores:
        kind = "distribution"
        if isinstance(score, VolatilityScore):
            kind = f"volatility by {score.measure}"
        long = score.by_date.rename_axis("datetime").reset_index().melt("datetime", var_name="measure")
        parts.append(long.assign(horizon=score.horizon, of=kind, name=score.name))
    columns = ["datetime", "horizon", "of", "name", "measure", "value"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
