"""Evaluation of forecasts over time, instrument by instrument, where there is no cross-section to rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.distribution.metrics import crps_ensemble, crps_fair, crps_normal
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.evaluation.significance import MeanTest, label_overlap, mean_test

WALK_BARS = 20  # of the standard deviation of the random walk
BINS = 5
MIN_IN_BIN = 5


@dataclass(frozen=True)
class InstrumentEvaluation:
    """Evaluation of one instrument on the dates of its scores; undefined dates are excluded, never taken as zero.

    Attributes:
        name: the instrument.
        pairs: values by datetime; columns score, outcome (the forward return) and contribution (of the date to the
            correlation).
        correlation, rank_correlation: of score and outcome over time (Pearson, Spearman).
        hit_rate: share of dates on which the signs of score and outcome agree; dates with a zero are undefined.
            None where the sign of the score is not a direction.
        share_up: share of positive outcomes on the same dates, the hit rate of always buying.
        hit_rate_difference: hit rate minus that of always betting on the more frequent direction, paired by date.
        bins: outcomes by fifth of the score; columns score, outcome, low, high (95 %), dates.
        bands: values by datetime of each forecast; columns outcome, lower, upper, all as returns over its horizon.
        coverage: share of outcomes within the band; None without a band.
        level: nominal coverage of the band.
        horizon: bars of the band and of the paths.
        crps, crps_walk: mean fair CRPS of the log return, and that of a random walk without drift with the standard
            deviation of the last 20 bars; NaN without paths.
        crps_ensemble: mean CRPS by the estimator that is never optimistic.
        crps_reduction: CRPS of the walk minus that of the paths, paired by date; positive is better. None without
            paths.
    """

    name: str
    pairs: pd.DataFrame
    correlation: MeanTest
    rank_correlation: MeanTest
    hit_rate: MeanTest | None
    share_up: float
    hit_rate_difference: MeanTest | None
    bins: pd.DataFrame
    bands: pd.DataFrame
    coverage: MeanTest | None
    level: float
    horizon: int
    crps: float
    crps_walk: float
    crps_ensemble: float
    crps_reduction: MeanTest | None

    @property
    def crps_skill(self) -> float:
        """1 - CRPS / CRPS of the random walk, fair; positive is better."""
        return 1 - self.crps / self.crps_walk if self.crps_walk > 0 else np.nan

    @property
    def crps_skill_ensemble(self) -> float:
        """The same by the estimator that is never optimistic."""
        return 1 - self.crps_ensemble / self.crps_walk if self.crps_walk > 0 else np.nan


@dataclass(frozen=True)
class TimeSeriesEvaluation:
    """Evaluation of the instruments of a run, each on its own.

    Attributes:
        instruments: evaluations in order of the instruments' names.
        score: name of the evaluated score.
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
        """Flat metrics by their names in metrics.json; with several instruments, these contain the instrument."""
        found: dict[str, float] = {}
        for each in self.instruments:
            prefix = "time_" if len(self.instruments) == 1 else f"time_{each.name}_"
            found |= {prefix + name: value for name, value in _metrics(each).items()}
        return found


def evaluate_time_series(
    score: pd.Series,
    outcome: pd.Series,
    prices: PricePanel,
    hold: int,
    bars_between: int,
    forecasts: pd.DataFrame | None = None,
    signed: bool = True,
) -> TimeSeriesEvaluation:
    """Evaluate scores over time.

    Args:
        score: indexed (datetime, instrument), known at the close of the date.
        outcome: same index: the forward return.
        prices: bars of the instruments.
        hold: bars that the outcome spans.
        bars_between: bars between successive dates.
        forecasts: indexed (datetime, instrument), one row per forecast; columns lower, upper (prices), level,
            horizon, and the closes of the paths at the horizon, in columns numbered from 0. Horizons are counted
            in bars of the instrument.
        signed: whether the sign of the score is a direction.
    """
    names = sorted(score.index.get_level_values("instrument").unique())
    overlap = label_overlap(hold, bars_between)
    found = []
    for name in names:
        pairs = _rows_of(pd.DataFrame({"score": score, "outcome": outcome}), name)
        own = None
        if forecasts is not None and name in forecasts.index.get_level_values("instrument"):
            own = _rows_of(forecasts, name)
        found.append(_evaluate(str(name), pairs, overlap, prices.closes[name].dropna(), own, signed))
    return TimeSeriesEvaluation(tuple(found), str(score.name), hold, bars_between, overlap)


def _rows_of(frame: pd.DataFrame, name: object) -> pd.DataFrame:
    """The rows of an instrument by datetime."""
    own = frame[frame.index.get_level_values("instrument") == name]
    return own.droplevel("instrument").sort_index()


def _evaluate(
    name: str,
    pairs: pd.DataFrame,
    overlap: int,
    closes: pd.Series,
    forecasts: pd.DataFrame | None,
    signed: bool,
) -> InstrumentEvaluation:
    score, outcome = pairs["score"], pairs["outcome"]
    known = score.notna() & outcome.notna() & (score != 0) & (outcome != 0)
    hits = (np.sign(score) == np.sign(outcome)).astype(float).where(known)
    up = (outcome > 0).astype(float).where(known)
    always = up if not up.mean() < 0.5 else 1 - up
    return InstrumentEvaluation(
        name=name,
        pairs=pairs.assign(contribution=correlation_contributions(score, outcome)),
        correlation=correlation_test(score, outcome, overlap),
        rank_correlation=correlation_test(score, outcome, overlap, ranks=True),
        hit_rate=mean_test(hits, overlap) if signed else None,
        share_up=float(up.mean()),
        hit_rate_difference=mean_test(hits - always, overlap) if signed else None,
        bins=_bins(pairs, overlap),
        **_distribution(closes, forecasts),
    )


def _bins(pairs: pd.DataFrame, overlap: int) -> pd.DataFrame:
    """Mean outcome by fifth of the score, with the interval over the dates of each fifth."""
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
    """The fields of `InstrumentEvaluation` on bands and paths."""
    nothing: dict[str, Any] = {
        "bands": pd.DataFrame(columns=["outcome", "lower", "upper"], dtype=float),
        "coverage": None, "level": np.nan, "horizon": 0, "crps": np.nan, "crps_walk": np.nan,
        "crps_ensemble": np.nan, "crps_reduction": None,
    }  # fmt: skip
    if forecasts is None or not len(forecasts):
        return nothing
    forecasts = forecasts[forecasts.index.isin(closes.index)]
    if not forecasts["lower"].notna().any():  # a score without paths
        return nothing
    horizon, level = int(forecasts["horizon"].iloc[0]), float(forecasts["level"].iloc[0])
    now = closes[forecasts.index]
    then = closes.shift(-horizon)[forecasts.index]
    rows = closes.index.get_indexer(forecasts.index)
    overlap = label_overlap(horizon, max(1, int(np.median(np.diff(rows))))) if len(rows) > 1 else 1
    lower, upper = (forecasts[end] / now - 1 for end in ("lower", "upper"))
    bands = pd.DataFrame({"outcome": then / now - 1, "lower": lower, "upper": upper})
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
    realized = np.log((then / now).to_numpy())
    paths = np.log(ends / now.to_numpy()[:, None])
    deviation = closes.apply(np.log).diff().rolling(WALK_BARS).std()[forecasts.index] * np.sqrt(horizon)
    fair = crps_fair(paths, realized)
    walk = crps_normal(np.zeros(len(realized)), deviation.to_numpy(), realized)
    both = np.isfinite(fair) & np.isfinite(walk)
    if not both.any():
        return found
    return found | {
        "crps": float(fair[both].mean()),
        "crps_walk": float(walk[both].mean()),
        "crps_ensemble": float(crps_ensemble(paths, realized)[both].mean()),
        "crps_reduction": mean_test(np.where(both, walk - fair, np.nan), overlap),
    }


def _metrics(instrument: InstrumentEvaluation) -> dict[str, float]:
    found = {
        "correlation": instrument.correlation.mean,
        "correlation_low": instrument.correlation.low,
        "correlation_high": instrument.correlation.high,
        "correlation_t": instrument.correlation.t,
        "rank_correlation": instrument.rank_correlation.mean,
        "rank_correlation_low": instrument.rank_correlation.low,
        "rank_correlation_high": instrument.rank_correlation.high,
        "dates": instrument.correlation.dates,
    }
    hits, difference = instrument.hit_rate, instrument.hit_rate_difference
    if hits is not None and difference is not None:
        found |= {"hit_rate": hits.mean, "hit_rate_low": hits.low, "hit_rate_high": hits.high}
        found |= {"hit_rate_lead": difference.mean, "rises": instrument.share_up}
    if instrument.coverage is not None:
        found |= {"band_level": instrument.level, "band_coverage": instrument.coverage.mean}
    if instrument.crps_reduction is not None:
        found |= {"crps": instrument.crps, "crps_walk": instrument.crps_walk}
        found |= {"crps_skill": instrument.crps_skill, "crps_skill_ensemble": instrument.crps_skill_ensemble}
    return found


def correlation_test(scores: pd.Series, outcomes: pd.Series, overlap: int, ranks: bool = False) -> MeanTest:
    """Correlation of two aligned series over time, tested against zero.

    The correlation r is the mean of the contributions of the dates (`correlation_contributions`), so that
    `mean_test` computes the standard error from their long-run variance, which allows for overlapping labels.

    Args:
        scores: (dates,) in order of time; NaN where there is none.
        outcomes: same dates; NaN where there is none.
        overlap: successive dates that one outcome spans.
        ranks: whether to correlate ranks over time (Spearman), ties at their average rank.

    Returns:
        The test, whose mean is r; NaN where a series does not vary.
    """
    return mean_test(correlation_contributions(scores, outcomes, ranks), overlap)


def correlation_contributions(scores: pd.Series, outcomes: pd.Series, ranks: bool = False) -> pd.Series:
    """Contributions of the dates to the correlation: (dates,), whose mean is the correlation; NaN where incomplete.

    r + zx zy - r (zx^2 + zy^2) / 2, the influence function of the correlation r, with zx and zy the standardized
    series.
    """
    both = scores.notna() & outcomes.notna()
    x, y = (series.astype(float).where(both) for series in (scores, outcomes))
    if ranks:
        x, y = x.rank(), y.rank()
    with np.errstate(invalid="ignore", divide="ignore"):
        zx, zy = ((each - each.mean()) / each.std(ddof=0) for each in (x, y))
        product = zx * zy
        r = product.mean()
        return product.where(np.isfinite(product)) - r * (zx**2 + zy**2) / 2 + r
