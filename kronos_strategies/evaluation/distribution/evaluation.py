"""Evaluation of sampled paths: calibration, losses, volatility, and a few fan charts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pandas as pd

from kronos.forecast import Provenance
from kronos_strategies.evaluation.baselines import MODEL, GarchModels
from kronos_strategies.evaluation.distribution.metrics import pit_histogram
from kronos_strategies.evaluation.distribution.path_summary import LEVELS, PathSummary
from kronos_strategies.evaluation.distribution.scores import (
    EWMA,
    GARCH,
    SHRUNK_WALK,
    UNCALIBRATED,
    DistributionScore,
    VolatilityScore,
    evaluations_by_horizon,
    score_distributions,
    score_volatilities,
)
from kronos_strategies.evaluation.panel import CLOSE_TO_CLOSE, PanelIndex, PricePanel
from kronos_strategies.evaluation.signal.metrics import MIN_INSTRUMENTS, information_coefficients_wide
from kronos_strategies.evaluation.significance import mean_test

PIT_BINS, VOLATILITY_BINS = 10, 20
METRIC_NAMES = {SHRUNK_WALK: "shrunk_walk", EWMA: "ewma", GARCH: "garch_t"}  # of baselines, in metrics.json


@dataclass(frozen=True)
class DistributionEvaluation:
    """Evaluation of the forecasts of a run, compared with random walks, EWMA, GARCH-t and historical volatility.

    Attributes:
        windows: number of forecasts.
        samples: number of paths of each forecast.
        dates: forecast dates, ascending.
        distributions: coverage and CRPS by horizon, the model first (`distribution.scores`).
        volatilities: rank correlation and QLIKE by horizon and measure (`distribution.scores`).
        pit: long: columns horizon, bin (0..9, tenths of the probability integral transform), share of outcomes
            (.1 if calibrated).
        volatility_bins: long: columns horizon, bin (0..19, by forecast), forecast, realized: means of the square
            root of variance over the horizon, in log return.
        rank_ic_by_num_paths: index number of paths; columns rank_ic, low, high, dates: of the score from the
            first k paths.
        fan_charts: long, of a few instruments and dates, see `FanChartData`.
        checks: checks of the paths as sampled, see `PathSummary`; empty where they were not computed.
    """

    windows: int
    samples: int
    dates: pd.DatetimeIndex
    distributions: tuple[DistributionScore, ...]
    volatilities: tuple[VolatilityScore, ...]
    pit: pd.DataFrame
    volatility_bins: pd.DataFrame
    rank_ic_by_num_paths: pd.DataFrame
    fan_charts: pd.DataFrame
    checks: dict[str, float] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Flat metrics by their names in metrics.json: coverage_80_h1, crps_h1, crps_skill_h1, qlike_h1, ..."""
        found: dict[str, float] = {f"candles_{name}": value for name, value in self.checks.items()}
        for score in self.distributions:
            if score.name == MODEL:
                found |= _calibration_metrics(score)
            elif score.name == UNCALIBRATED:
                found |= {f"sampled_{name}": value for name, value in _calibration_metrics(score).items()}
            elif (name := METRIC_NAMES.get(score.name)) and score.crps_difference is not None:
                found[f"crps_excess_{name}_h{score.horizon}"] = score.crps_difference.mean
        for volatility in self.volatilities:
            if volatility.measure == CLOSE_TO_CLOSE:
                found |= _volatility_metrics(volatility)
        return found


def evaluate_distribution(
    paths: PathSummary,
    provenance: Provenance,
    prices: PricePanel,
    label: pd.Series,
    overlap: int,
    min_instruments: int = MIN_INSTRUMENTS,
) -> DistributionEvaluation:
    """Evaluate the summary of a run's forecasts.

    Args:
        paths: summary of the forecasts.
        provenance: provenance of the forecasts.
        prices: bars that they are evaluated on.
        label: forward return that the score is compared with, indexed (datetime, instrument).
        overlap: successive dates that the label spans.
        min_instruments: a date with fewer has no coefficient.
    """
    by_horizon = evaluations_by_horizon(paths.summary, prices, paths.uncalibrated)
    dates = by_horizon[0].dates
    instruments = pd.Index(paths.summary.index.get_level_values("instrument").unique())
    garch, samples = GarchModels.fit(prices, instruments, dates[0]), provenance.sampling.samples
    checks = {} if paths.checks is None else paths.checks["value"].to_dict()
    return DistributionEvaluation(
        windows=len(paths.summary),
        samples=samples,
        dates=dates,
        distributions=tuple(
            score for each in by_horizon for score in score_distributions(each, LEVELS, garch)
        ),
        volatilities=tuple(score for each in by_horizon for score in score_volatilities(each)),
        pit=_pit(paths.summary, samples),
        volatility_bins=_volatility_bins(paths.summary, prices),
        rank_ic_by_num_paths=_rank_ic_by_num_paths(paths.score_by_num_paths, label, overlap, min_instruments),
        fan_charts=paths.fan_charts,
        checks={str(name): float(value) for name, value in checks.items()},
    )


def _calibration_metrics(score: DistributionScore) -> dict[str, float]:
    h = f"_h{score.horizon}"
    coverage = {
        f"coverage_{100 * level:g}{h}": test.mean
        for level, test in score.coverage.items()
        if test is not None
    }
    return coverage | {
        f"crps{h}": score.crps.mean,
        f"crps_skill{h}": score.skill,
        f"crps_skill_ensemble{h}": score.skill_ensemble,
        f"pit_mean{h}": score.pit_mean,
        f"pit_deviation{h}": score.pit_deviation,
    }


def _volatility_metrics(score: VolatilityScore) -> dict[str, float]:
    h = f"_h{score.horizon}"
    if score.rank_ic_difference is not None and score.qlike_difference is not None:
        return {
            f"volatility_rank_ic_lead{h}": score.rank_ic_difference.mean,
            f"qlike_excess{h}": score.qlike_difference.mean,
        }
    return {
        f"volatility_rank_ic{h}": score.rank_ic.mean,
        f"qlike{h}": score.qlike.mean,
        f"volatility_mae{h}": score.pooled.mae,
        f"volatility_r2{h}": score.pooled.r2,
    }


def _pit(summary: pd.DataFrame, samples: int) -> pd.DataFrame:
    parts = []
    for horizon in summary.columns.get_level_values(0).unique():
        shares = pit_histogram(summary[horizon, "pit"].to_numpy(float), samples, PIT_BINS)
        parts.append(pd.DataFrame({"horizon": horizon, "bin": np.arange(PIT_BINS), "share": shares}))
    return pd.concat(parts, ignore_index=True)


def _volatility_bins(summary: pd.DataFrame, prices: PricePanel) -> pd.DataFrame:
    parts = []
    for horizon in summary.columns.get_level_values(0).unique():
        wide = prices.variance(int(horizon))[CLOSE_TO_CLOSE]
        realized = prices.lookup(wide, cast(pd.MultiIndex, summary.index))
        pairs = pd.DataFrame({"forecast": summary[horizon, "variance"], "realized": realized}).dropna() ** 0.5
        if pairs.empty:
            continue
        order = pairs["forecast"].rank(method="first").to_numpy()
        bins = ((order - 1) * VOLATILITY_BINS // len(pairs)).astype(int)
        means = pairs.groupby(bins).mean().rename_axis("bin").reset_index()
        parts.append(means.assign(horizon=int(horizon)))
    columns = ["horizon", "bin", "forecast", "realized"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _rank_ic_by_num_paths(
    scores: pd.DataFrame, label: pd.Series, overlap: int, min_instruments: int
) -> pd.DataFrame:
    panel = PanelIndex.from_index(cast(pd.MultiIndex, scores.index), "scores")
    returns = panel.to_wide(label.reindex(scores.index))
    rows = {}
    for count in scores:
        by_date = information_coefficients_wide(panel.to_wide(scores[count]), returns, min_instruments)[1]
        test = mean_test(by_date, overlap)
        rows[count] = {"rank_ic": test.mean, "low": test.low, "high": test.high, "dates": test.dates}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("samples")
