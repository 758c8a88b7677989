"""Forecasts and the market they are of -> one frozen scorecard. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd

from kronos.forecast import Forecast, Provenance
from kronos_strategies.evaluation.scorecard.distributions import DistributionScore, score_distributions
from kronos_strategies.evaluation.scorecard.market import Market
from kronos_strategies.evaluation.scorecard.paths import summarise_paths
from kronos_strategies.evaluation.scorecard.rankings import RankingScore, score_rankings
from kronos_strategies.evaluation.scorecard.rows import HorizonRows
from kronos_strategies.evaluation.scorecard.volatilities import VolatilityScore, score_volatilities

HORIZONS = (1, 5, 10)
LEVELS = (0.8, 0.9)
KINDS = {RankingScore: "ranking", VolatilityScore: "volatility", DistributionScore: "distribution"}


@dataclass(frozen=True)
class Scorecard:
    """Of one model under one sampling setting.

    Every figure is a mean over dates of one date's figure, with an interval that survives overlapping labels
    (`significance.mean_test`): the names of a date move together and are never counted as separate evidence.
    Differences are paired by date.

    Attributes:
        provenance: of the first forecast; its data hash is of the first date's windows.
        first: forecast date.
        last: forecast date.
        dates: with a forecast.
        windows: forecasts of all dates.
        rankings: by horizon, the model first.
        volatilities: by horizon and measure, the model first.
        distributions: by horizon, the model first.
    """

    provenance: Provenance
    first: pd.Timestamp
    last: pd.Timestamp
    dates: int
    windows: int
    rankings: tuple[RankingScore, ...]
    volatilities: tuple[VolatilityScore, ...]
    distributions: tuple[DistributionScore, ...]

    def by_date(self) -> pd.DataFrame:
        """Every per-date series, long: datetime, horizon, of, name, measure, value; to compare models pairwise."""
        return series_by_date((*self.rankings, *self.volatilities, *self.distributions))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without the per-date series; what is undefined is null."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}


def score_forecasts(
    forecasts: Iterable[Forecast],
    market: Market,
    horizons: Sequence[int] = HORIZONS,
    levels: Sequence[float] = LEVELS,
) -> Scorecard:
    """Score forecasts one date at a time; paths are let go of as soon as they are summarised.

    Args:
        forecasts: of one date each, e.g. from `kronos_strategies.stream.stream`; on every trading date or on
            every k-th. Paths of at least max(horizons) + 1 bars and 2 samples.
        market: of the bars that the forecasts were made of, which should go on for max(horizons) + 1 days more;
            dates whose label is not there yet are counted as undefined.
        horizons: bars.
        levels: of central bands.

    Raises:
        ValueError: no forecast, too short or too few paths, or forecasts of another market.
    """
    moved = {horizon: market.moved(horizon) for horizon in sorted(set(horizons))}
    parts, provenance = [], None
    for forecast in forecasts:
        came = {horizon: market.at(wide, forecast.index) for horizon, wide in moved.items()}
        parts.append(summarise_paths(forecast, came, levels))
        provenance = provenance or forecast.provenance
    if provenance is None:
        raise ValueError("There are no forecasts to score. Pass at least one date's.")
    return score_summaries(pd.concat(parts).sort_index(), provenance, market, levels)


def score_summaries(
    said: pd.DataFrame, provenance: Provenance, market: Market, levels: Sequence[float] = LEVELS
) -> Scorecard:
    """Score what is left of forecasts once their paths are let go.

    Args:
        said: by `summarise_paths`, of all dates, sorted.
        provenance: of the forecasts.
        market: that they are scored on.
        levels: of the central bands that `said` has.
    """
    rows = rows_by_horizon(said, market)
    dates = rows[0].dates
    return Scorecard(
        provenance=provenance,
        first=dates[0],
        last=dates[-1],
        dates=len(dates),
        windows=len(said),
        rankings=tuple(score for each in rows for score in score_rankings(each)),
        volatilities=tuple(score for each in rows for score in score_volatilities(each)),
        distributions=tuple(score for each in rows for score in score_distributions(each, levels)),
    )


def rows_by_horizon(
    said: pd.DataFrame, market: Market, sampled: pd.DataFrame | None = None
) -> list[HorizonRows]:
    """What is scored at each horizon of `summarise_paths`; `sampled` is of the paths before calibration."""
    horizons = said.columns.get_level_values(0).unique()
    before = {horizon: None if sampled is None else pd.DataFrame(sampled[horizon]) for horizon in horizons}
    return [
        HorizonRows(pd.DataFrame(said[horizon]), market, int(horizon), before[horizon])
        for horizon in horizons
    ]


def series_by_date(scores: Iterable[RankingScore | VolatilityScore | DistributionScore]) -> pd.DataFrame:
    """The series behind some scores, long: datetime, horizon, of, name, measure, value."""
    parts = []
    for score in scores:
        kind = KINDS[type(score)]
        if isinstance(score, VolatilityScore):
            kind = f"{kind} by {score.measure}"
        long = score.by_date.rename_axis("datetime").reset_index().melt("datetime", var_name="measure")
        parts.append(long.assign(horizon=score.horizon, of=kind, name=score.name))
    columns = ["datetime", "horizon", "of", "name", "measure", "value"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _plain(value: Any) -> Any:
    """Dataclasses as dicts, frames left out, NaN as None."""
    if is_dataclass(value):
        pairs = ((f.name, getattr(value, f.name)) for f in fields(value))
        return {name: _plain(each) for name, each in pairs if not isinstance(each, pd.DataFrame)}
    if isinstance(value, dict):
        return {f"{key:g}" if isinstance(key, float) else key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}"
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
