"""How well forecasts of a single instrument predict it over time, where there is no cross-section to rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.distribution.calibration import crps_ensemble, crps_fair, crps_normal
from kronos_strategies.evaluation.price_panel import PricePanel
from kronos_strategies.evaluation.significance import MeanTest, label_overlap, mean_test

WALK_BARS = 20  # whose deviation the random walk has
BINS = 5
MIN_IN_BIN = 5
SIGNED = "sign"  # a score whose sign is a direction


@dataclass(frozen=True)
class InstrumentEvaluation:
    """Of one instrument. Dates are those of its scores; undefined ones are left out, never counted as zero.

    Attributes:
        name: of the instrument.
        pairs: by datetime; columns score, outcome (the return that followed) and added: what the date adds to the
            correlation.
        correlation, rank_correlation: of score and outcome over time (Pearson, Spearman).
        hits: share of dates on which the signs of score and outcome agree; dates with a zero are undefined. None
            where the sign of the score is no direction.
        rises: share of positive outcomes on the same dates, which always buying would have hit.
        hit_lead: hits less those of the more frequent direction, paired by date.
        bins: outcomes by fifth of the score; columns score, outcome, low, high (95%), dates.
        bands: by datetime of each forecast; columns outcome, lower, upper, all as returns over its horizon.
        coverage: share of outcomes within the band; None without one.
        level: that the band is to hold.
        horizon: bars of the band and of the paths.
        crps, crps_walk: mean CRPS of the log return, fair, and of a random walk without drift whose deviation is
            that of the last 20 bars; NaN without paths.
        crps_ensemble: by the estimator that never flatters.
        crps_lead: CRPS of the walk less that of the paths, paired by date; above 0 is better. None without paths.
    """

    name: str
    pairs: pd.DataFrame
    correlation: MeanTest
    rank_correlation: MeanTest
    hits: MeanTest | None
    rises: float
    hit_lead: MeanTest | None
    bins: pd.DataFrame
    bands: pd.DataFrame
    coverage: MeanTest | None
    level: float
    horizon: int
    crps: float
    crps_walk: float
    crps_ensemble: float
    crps_lead: MeanTest | None

    @property
    def crps_skill(self) -> float:
        """1 - CRPS / CRPS of the random walk, fair; above 0 is better."""
        return 1 - self.crps / self.crps_walk if self.crps_walk > 0 else np.nan


@dataclass(frozen=True)
class TimeSeriesEvaluation:
    """Of a run's instruments, each on its own.

    Attributes:
        instruments: in order of their names.
        score: name of what is judged.
        hold: bars that the outcome spans.
        bars_between: bars between successive dates.
        overlap: successive dates that one outcome spans.
    """

    instruments: tuple[InstrumentEvaluation, ...]
    score: str
    hold: int
    bars_between: int
    overlap: int

    def metrics(self) -> dict[str, float]:
        """Flat figures by their names in metrics.json: of a single instrument, or each under its name."""
        found: dict[str, float] = {}
        for each in self.instruments:
            prefix = "time_" if len(self.instruments) == 1 else f"time_{each.name}_"
            found |= {prefix + name: value for name, value in _figures(each).items()}
        return found


def evaluate_time_series(
    score: pd.Series,
    outcome: pd.Series,
    market: PricePanel,
    hold: int,
    bars_between: int,
    forecasts: pd.DataFrame | None = None,
    signed: bool = True,
) -> TimeSeriesEvaluation:
    """Study scores over time.

    Args:
        score: indexed (datetime, instrument), known at that bar's close.
        outcome: of the same index: the return that follows.
        market: bars of the instruments.
        hold: bars that the outcome spans.
        bars_between: bars between successive dates.
        forecasts: indexed (datetime, instrument), of each forecast that was made; columns lower, upper (prices),
            level, horizon, and the closes of the paths at the horizon, called by their numbers from 0 on. Horizons
            are counted in bars of the instrument.
        signed: whether the sign of the score is a direction.
    """
    names = sorted(score.index.get_level_values("instrument").unique())
    overlap = label_overlap(hold, bars_between)
    studies = []
    for name in names:
        pairs = _of(pd.DataFrame({"score": score, "outcome": outcome}), name)
        own = None
        if forecasts is not None and name in forecasts.index.get_level_values("instrument"):
            own = _of(forecasts, name)
        studies.append(_study(str(name), pairs, overlap, market.closes[name].dropna(), own, signed))
    return TimeSeriesEvaluation(tuple(studies), str(score.name), hold, bars_between, overlap)


def _of(frame: pd.DataFrame, name: object) -> pd.DataFrame:
    """The rows of an instrument by datetime."""
    own = frame[frame.index.get_level_values("instrument") == name]
    return own.droplevel("instrument").sort_index()


def _study(
    name: str,
    pairs: pd.DataFrame,
    overlap: int,
    closes: pd.Series,
    forecasts: pd.DataFrame | None,
    signed: bool,
) -> InstrumentEvaluation:
    pairs = pairs.assign(added=contributions(pairs["score"], pairs["outcome"]))
    right = (np.sign(pairs["score"]) == np.sign(pairs["outcome"])).astype(float)
    known = (
        pairs["score"].notna() & pairs["outcome"].notna() & (pairs["score"] != 0) & (pairs["outcome"] != 0)
    )
    right, rose = right.where(known), (pairs["outcome"] > 0).astype(float).where(known)
    always = rose if not rose.mean() < 0.5 else 1 - rose
    return InstrumentEvaluation(
        name=name,
        pairs=pairs,
        correlation=correlation_test(pairs["score"], pairs["outcome"], overlap),
        rank_correlation=correlation_test(pairs["score"], pairs["outcome"], overlap, ranks=True),
        hits=mean_test(right, overlap) if signed else None,
        rises=float(rose.mean()),
        hit_lead=mean_test(right - always, overlap) if signed else None,
        bins=_bins(pairs, overlap),
        **_distribution(closes, forecasts),
    )


def _bins(pairs: pd.DataFrame, overlap: int) -> pd.DataFrame:
    """Mean outcome by fifth of the score, with the interval of the dates of each fifth."""
    columns = ["score", "outcome", "low", "high", "dates"]
    both = pairs.dropna(subset=["score", "outcome"])
    count = min(BINS, len(both) // MIN_IN_BIN)
    if count < 2 or both["score"].nunique() < count:
        return pd.DataFrame(columns=columns, dtype=float)
    which = np.minimum((both["score"].rank(method="average", pct=True) * count - 1e-9).astype(int), count - 1)
    rows = []
    for _, own in both.groupby(which):
        test = mean_test(pairs["outcome"].where(pairs.index.isin(own.index)), overlap)
        rows.append((own["score"].mean(), test.mean, test.low, test.high, test.dates))
    return pd.DataFrame(rows, columns=columns)


def _distribution(closes: pd.Series, forecasts: pd.DataFrame | None) -> dict[str, Any]:
    """What `InstrumentEvaluation` has of bands and paths."""
    nothing: dict[str, Any] = {
        "bands": pd.DataFrame(columns=["outcome", "lower", "upper"], dtype=float),
        "coverage": None, "level": np.nan, "horizon": 0, "crps": np.nan, "crps_walk": np.nan,
        "crps_ensemble": np.nan, "crps_lead": None,
    }  # fmt: skip
    if forecasts is None or not len(forecasts):
        return nothing
    forecasts = forecasts[forecasts.index.isin(closes.index)]
    if not forecasts["lower"].notna().any():  # a score alone, without any path
        return nothing
    horizon, level = int(forecasts["horizon"].iloc[0]), float(forecasts["level"].iloc[0])
    now = closes[forecasts.index]
    then = closes.shift(-horizon)[forecasts.index]
    rows = closes.index.get_indexer(forecasts.index)
    overlap = label_overlap(horizon, max(1, int(np.median(np.diff(rows))))) if len(rows) > 1 else 1
    bands = pd.DataFrame(
        {
            "outcome": then / now - 1,
            "lower": forecasts["lower"] / now - 1,
            "upper": forecasts["upper"] / now - 1,
        }
    )
    inside = ((bands["lower"] <= bands["outcome"]) & (bands["outcome"] <= bands["upper"])).astype(float)
    found = nothing | {
        "bands": bands,
        "coverage": mean_test(inside.where(bands.notna().all(axis=1)), overlap),
        "level": level,
        "horizon": horizon,
    }
    ends = forecasts[[column for column in forecasts if str(column).isdigit()]].to_numpy(float)
    if ends.shape[1] < 2 or not np.isfinite(ends).any():
        return found
    moved = np.log((then / now).to_numpy())
    paths = np.log(ends / now.to_numpy()[:, None])
    deviation = closes.apply(np.log).diff().rolling(WALK_BARS).std()[forecasts.index] * np.sqrt(horizon)
    fair, walk = crps_fair(paths, moved), crps_normal(np.zeros(len(moved)), deviation.to_numpy(), moved)
    both = np.isfinite(fair) & np.isfinite(walk)
    if not both.any():
        return found
    return found | {
        "crps": float(fair[both].mean()),
        "crps_walk": float(walk[both].mean()),
        "crps_ensemble": float(crps_ensemble(paths, moved)[both].mean()),
        "crps_lead": mean_test(np.where(both, walk - fair, np.nan), overlap),
    }


def _figures(study: InstrumentEvaluation) -> dict[str, float]:
    found = {
        "correlation": study.correlation.mean,
        "correlation_low": study.correlation.low,
        "correlation_high": study.correlation.high,
        "correlation_t": study.correlation.t,
        "rank_correlation": study.rank_correlation.mean,
        "rank_correlation_low": study.rank_correlation.low,
        "rank_correlation_high": study.rank_correlation.high,
        "dates": study.correlation.dates,
    }
    if study.hits is not None and study.hit_lead is not None:
        found |= {
            "hit_rate": study.hits.mean,
            "hit_rate_low": study.hits.low,
            "hit_rate_high": study.hits.high,
        }
        found |= {"hit_rate_lead": study.hit_lead.mean, "rises": study.rises}
    if study.coverage is not None:
        found |= {"band_level": study.level, "band_coverage": study.coverage.mean}
    if study.crps_lead is not None:
        found |= {"crps": study.crps, "crps_walk": study.crps_walk, "crps_skill": study.crps_skill}
        found["crps_skill_ensemble"] = 1 - study.crps_ensemble / study.crps_walk
    return found


def correlation_test(
    forecasts: pd.Series, outcomes: pd.Series, overlap: int, ranks: bool = False
) -> MeanTest:
    """Pearson correlation over time of two series that go together, tested against zero.

    The correlation r is treated as the mean of what each date adds to it, r + zx zy - r (zx^2 + zy^2) / 2 with zx
    and zy the standardized series (its influence function), so that `mean_test` finds the standard error from the
    long-run variance of these. As of any mean, the interval allows for labels that overlap.

    Args:
        forecasts: (dates,) in order of time; NaN where there was none.
        outcomes: of the same dates; NaN where none followed.
        overlap: successive dates that one outcome spans.
        ranks: correlate ranks over time (Spearman), their ties at the average rank.

    Returns:
        The test, whose mean is r; NaN where a series does not vary.
    """
    return mean_test(contributions(forecasts, outcomes, ranks), overlap)


def contributions(forecasts: pd.Series, outcomes: pd.Series, ranks: bool = False) -> pd.Series:
    """What each date adds to the correlation: (dates,), their mean is the correlation; NaN where one is missing."""
    x, y = (
        series.astype(float).where(forecasts.notna() & outcomes.notna()) for series in (forecasts, outcomes)
    )
    if ranks:
        x, y = x.rank(), y.rank()
    with np.errstate(invalid="ignore", divide="ignore"):
        zx, zy = ((each - each.mean()) / each.std(ddof=0) for each in (x, y))
        product = zx * zy
        r = product.mean()
        return product.where(np.isfinite(product)) - r * (zx**2 + zy**2) / 2 + r
