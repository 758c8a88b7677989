"""Scores of predicted distributions and volatilities at one horizon, compared with baselines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kronos_strategies.evaluation.baselines import (
    MODEL,
    GarchModels,
    ShrunkWalk,
    score_normal,
    score_shape,
    score_student,
)
from kronos_strategies.evaluation.distribution.metrics import VarianceScore, qlike, score_variance
from kronos_strategies.evaluation.distribution.path_summary import coverage_column
from kronos_strategies.evaluation.panel import PanelIndex, PricePanel
from kronos_strategies.evaluation.signal.metrics import information_coefficients_wide
from kronos_strategies.evaluation.significance import MeanTest, mean_test

RANDOM_WALK = "Gaussian random walk"
UNCALIBRATED = f"{MODEL}, uncalibrated"
SHRUNK_WALK = "random walk, shrunk volatility"
EWMA = "EWMA, Gaussian"
GARCH = "GARCH-t"
HISTORICAL = "20-bar historical volatility"


@dataclass(frozen=True)
class HorizonEvaluation:
    """All windows at one horizon, with what their scores are computed from.

    Attributes:
        summary: predictions and losses of the paths, columns as of `summarize_paths`.
        prices: bars that the paths are evaluated on.
        horizon: bars.
        uncalibrated: as `summary`, of the paths before calibration; None without a calibration.
    """

    summary: pd.DataFrame
    prices: PricePanel
    horizon: int
    uncalibrated: pd.DataFrame | None = None

    @cached_property
    def index(self) -> pd.MultiIndex:
        """(datetime, instrument) of the windows."""
        return cast(pd.MultiIndex, self.summary.index)

    @cached_property
    def dates(self) -> pd.DatetimeIndex:
        """Forecast dates, ascending."""
        return self.panel.dates

    @cached_property
    def overlap(self) -> int:
        """Number of successive forecast dates that one label spans."""
        return self.prices.overlap(self.dates, self.horizon)

    @cached_property
    def panel(self) -> PanelIndex:
        """Position of each window in an array of dates x instruments."""
        return PanelIndex.from_index(self.index, "windows")

    def lookup(self, wide: pd.DataFrame) -> pd.Series:
        """The entries of a frame of the price panel at the windows."""
        return self.prices.lookup(wide, self.index)

    def by_date(self, values: ArrayLike | pd.Series) -> pd.Series:
        """Mean of each date over its defined rows; NaN on a date without any."""
        wide = self.to_wide(values)
        known = np.isfinite(wide)
        count = known.sum(axis=1)
        sums = np.where(known, wide, 0.0).sum(axis=1)
        return pd.Series(np.divide(sums, count, out=np.full(len(count), np.nan), where=count > 0), self.dates)

    def to_wide(self, values: ArrayLike | pd.Series) -> np.ndarray:
        """(windows,) -> (dates, instruments) float64."""
        return self.panel.to_wide(np.asarray(values, float))

    def rank_ic(self, score: pd.Series, label: pd.Series) -> pd.Series:
        """RankIC by date."""
        found = information_coefficients_wide(self.to_wide(score), self.to_wide(label))
        return pd.Series(found[1], self.dates)

    def rank_ic_difference(self, first: pd.Series, second: pd.Series, label: pd.Series) -> MeanTest:
        """RankIC of one score minus that of another, paired by date over the instruments that have both."""
        one, other = self.to_wide(first), self.to_wide(second)
        both = np.where(np.isfinite(one) & np.isfinite(other), self.to_wide(label), np.nan)
        ranks = (information_coefficients_wide(score, both)[1] for score in (one, other))
        return self.test(pd.Series(next(ranks) - next(ranks), self.dates))

    def test(self, by_date: pd.Series) -> MeanTest:
        """`mean_test` of a per-date series."""
        return mean_test(by_date, self.overlap)


def evaluations_by_horizon(
    summary: pd.DataFrame, prices: PricePanel, uncalibrated: pd.DataFrame | None = None
) -> list[HorizonEvaluation]:
    """One evaluation per horizon of a path summary.

    Args:
        summary: as of `summarize_paths`, for all dates.
        prices: bars that the paths are evaluated on.
        uncalibrated: as `summary`, of the paths before calibration.
    """
    horizons = summary.columns.get_level_values(0).unique()
    raw = {h: None if uncalibrated is None else pd.DataFrame(uncalibrated[h]) for h in horizons}
    return [HorizonEvaluation(pd.DataFrame(summary[h]), prices, int(h), raw[h]) for h in horizons]


@dataclass(frozen=True)
class DistributionScore:
    """Scores of one predicted distribution of the log return close(t) -> close(t+h).

    Attributes:
        horizon: h, bars.
        name: MODEL; UNCALIBRATED, the model's paths before calibration; RANDOM_WALK, normal with mean 0 and the
            standard deviation of the last 20 returns times sqrt(h); SHRUNK_WALK, EWMA or GARCH, see
            `kronos_strategies.evaluation.baselines`.
        coverage: level of a central band -> share of outcomes inside; None where there are too few samples for it.
        crps: fair CRPS in log return, lower is better.
        crps_ensemble: CRPS with the samples taken as the whole distribution. For quasi-random samples `crps` is
            slightly too low and this slightly too high (see `crps_fair`); for the random walk they are equal.
        crps_difference: CRPS of the model minus that of this forecast, paired by date, so that negative is better;
            None for the model.
        skill: 1 - CRPS / CRPS of the random walk, over rows that have both; 0 for the random walk.
        skill_ensemble: the same from `crps_ensemble`; positive skill by this estimate does not depend on the
            sampling.
        pit_mean: mean PIT over rows; .5 if the distribution is centered.
        pit_deviation: standard deviation of PIT over rows; .289 if the width is right (for S samples
            sqrt((S + 2) / (12 S))), lower if too wide, higher if too narrow.
        outcomes: number of rows with an outcome.
        by_date: columns crps, and covered_80 etc.
    """

    horizon: int
    name: str
    coverage: dict[float, MeanTest | None]
    crps: MeanTest
    crps_ensemble: MeanTest
    crps_difference: MeanTest | None
    skill: float
    skill_ensemble: float
    pit_mean: float
    pit_deviation: float
    outcomes: int
    by_date: pd.DataFrame = field(repr=False, compare=False)


def score_distributions(
    windows: HorizonEvaluation, levels: Sequence[float], garch: GarchModels | None = None
) -> tuple[DistributionScore, ...]:
    """Scores of the model, then the Gaussian random walk, the uncalibrated model and the other baselines.

    Args:
        windows: all windows at one horizon.
        levels: levels of central bands.
        garch: models fitted to bars before the first forecast; None leaves GARCH out.
    """
    walk = _baseline(windows, RANDOM_WALK, levels, None)
    assert walk is not None  # it needs no history
    found = {MODEL: windows.summary, RANDOM_WALK: walk}
    if windows.uncalibrated is not None:
        found[UNCALIBRATED] = windows.uncalibrated
    for name in (SHRUNK_WALK, EWMA, GARCH):
        if (scores := _baseline(windows, name, levels, garch)) is not None:
            found[name] = scores
    return tuple(_score_distribution(windows, name, each, walk, levels) for name, each in found.items())


def _baseline(
    windows: HorizonEvaluation, name: str, levels: Sequence[float], garch: GarchModels | None
) -> pd.DataFrame | None:
    """The same columns as `summarize_paths`, in closed form; None where there is too little history to fit."""
    prices, horizon = windows.prices, windows.horizon
    realized = windows.lookup(prices.log_return(horizon)).to_numpy(float)
    volatility = windows.lookup(prices.historical_volatility).to_numpy(float)
    if name == RANDOM_WALK:
        found = score_normal(volatility * np.sqrt(horizon), realized, levels)
    elif name == EWMA:
        ewma = windows.lookup(prices.ewma).to_numpy(float)
        found = score_normal(ewma * np.sqrt(horizon), realized, levels)
    elif name == SHRUNK_WALK:
        shrunk = ShrunkWalk.fit(prices, horizon, windows.dates[0])
        if shrunk is None:
            return None
        found = score_shape(shrunk.scale(volatility), shrunk.shape, realized, levels)
    else:
        if garch is None:
            return None
        found = score_student(*garch.forecast(windows.index, horizon), realized, levels)
    return found.set_axis(windows.index)


def _score_distribution(
    windows: HorizonEvaluation, name: str, rows: pd.DataFrame, walk: pd.DataFrame, levels: Sequence[float]
) -> DistributionScore:
    bands = {level: coverage_column(level) for level in levels if coverage_column(level) in rows}
    by_date = pd.DataFrame({column: windows.by_date(rows[column]) for column in ("crps", *bands.values())})
    difference = None if name == MODEL else windows.by_date(windows.summary["crps"] - rows["crps"])
    return DistributionScore(
        horizon=windows.horizon,
        name=name,
        coverage={level: windows.test(by_date[bands[level]]) if level in bands else None for level in levels},
        crps=windows.test(by_date["crps"]),
        crps_ensemble=windows.test(windows.by_date(rows["crps_ensemble"])),
        crps_difference=None if difference is None else windows.test(difference),
        skill=_skill(windows, rows["crps"], walk["crps"]),
        skill_ensemble=_skill(windows, rows["crps_ensemble"], walk["crps"]),
        pit_mean=float(rows["pit"].mean()),
        pit_deviation=float(rows["pit"].std()),
        outcomes=int(rows["crps"].notna().sum()),
        by_date=by_date,
    )


def _skill(windows: HorizonEvaluation, crps: pd.Series, walk: pd.Series) -> float:
    both = crps.notna() & walk.notna()
    mean, reference = (windows.by_date(losses.where(both)).mean() for losses in (crps, walk))
    return float(1 - mean / reference) if reference > 0 else np.nan


@dataclass(frozen=True)
class VolatilityScore:
    """Scores of one variance forecast for bars t+1..t+h.

    Attributes:
        horizon: h, bars.
        measure: measure of realized variance, CLOSE_TO_CLOSE or RANGE_BASED (`PricePanel.variance`).
        name: MODEL, the mean over paths of their own sums of squared log returns; or HISTORICAL, h times the
            variance of the last 20 returns.
        rank_ic: per-date rank correlation with realized variance.
        qlike: mean over dates of each date's mean.
        pooled: losses over all pairs at once, with the number of pairs without a `qlike`.
        rank_ic_difference: RankIC of the model minus that of this forecast, paired by date; None for the model.
        qlike_difference: QLIKE of the model minus that of this forecast, paired by date, so that negative is
            better; None for the model.
        by_date: columns rank_ic, qlike.
    """

    horizon: int
    measure: str
    name: str
    rank_ic: MeanTest
    qlike: MeanTest
    pooled: VarianceScore
    rank_ic_difference: MeanTest | None
    qlike_difference: MeanTest | None
    by_date: pd.DataFrame = field(repr=False, compare=False)


def score_volatilities(windows: HorizonEvaluation) -> tuple[VolatilityScore, ...]:
    """Scores by measure, the model first."""
    historical = windows.lookup(windows.prices.historical_volatility)
    forecasts = {MODEL: windows.summary["variance"], HISTORICAL: windows.horizon * historical**2}
    realized = windows.prices.variance(windows.horizon)
    return tuple(
        _score_volatility(windows, measure, windows.lookup(wide), name, forecasts)
        for measure, wide in realized.items()
        for name in forecasts
    )


def _score_volatility(
    windows: HorizonEvaluation, measure: str, realized: pd.Series, name: str, forecasts: dict[str, pd.Series]
) -> VolatilityScore:
    forecast, model, actual = forecasts[name], forecasts[MODEL], realized.to_numpy()
    losses = qlike(actual, forecast.to_numpy())
    by_date = pd.DataFrame({"rank_ic": windows.rank_ic(forecast, realized), "qlike": windows.by_date(losses)})
    rank_ic_difference = qlike_difference = None
    if name != MODEL:
        rank_ic_difference = windows.rank_ic_difference(model, forecast, realized)
        qlike_difference = windows.test(windows.by_date(qlike(actual, model.to_numpy()) - losses))
    return VolatilityScore(
        horizon=windows.horizon,
        measure=measure,
        name=name,
        rank_ic=windows.test(by_date["rank_ic"]),
        qlike=windows.test(by_date["qlike"]),
        pooled=score_variance(actual, forecast.to_numpy()),
        rank_ic_difference=rank_ic_difference,
        qlike_difference=qlike_difference,
        by_date=by_date,
    )


def series_by_date(scores: Iterable[VolatilityScore | DistributionScore]) -> pd.DataFrame:
    """The per-date series of some scores, long: datetime, horizon, of, name, measure, value."""
    parts = []
    for score in scores:
        kind = "distribution"
        if isinstance(score, VolatilityScore):
            kind = f"{score.measure} volatility"
        long = score.by_date.rename_axis("datetime").reset_index().melt("datetime", var_name="measure")
        parts.append(long.assign(horizon=score.horizon, of=kind, name=score.name))
    columns = ["datetime", "horizon", "of", "name", "measure", "value"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
