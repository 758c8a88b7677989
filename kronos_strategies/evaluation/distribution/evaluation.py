"""All that is asked of sampled paths: calibration, loss, volatility, and a few fans to look at. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pandas as pd

from kronos.forecast import Provenance
from kronos_strategies.evaluation.distribution.baselines import GarchModels
from kronos_strategies.evaluation.distribution.calibration import pit_histogram
from kronos_strategies.evaluation.distribution.path_summary import LEVELS, PathSummary
from kronos_strategies.evaluation.distribution.scores import (
    EWMA,
    GARCH,
    MODEL,
    SHRUNK_WALK,
    UNCALIBRATED,
    DistributionScore,
    VolatilityScore,
    evaluations_by_horizon,
    score_distributions,
    score_volatilities,
)
from kronos_strategies.evaluation.panel import Grid
from kronos_strategies.evaluation.price_panel import CLOSES, PricePanel
from kronos_strategies.evaluation.signal.ic import MIN_INSTRUMENTS, information_coefficients_wide
from kronos_strategies.evaluation.significance import mean_test

PIT_BINS, VOLATILITY_BINS = 10, 20
BASELINES = {SHRUNK_WALK: "shrunk_walk", EWMA: "ewma", GARCH: "garch_t"}  # in names of metrics


@dataclass(frozen=True)
class DistributionEvaluation:
    """Of the forecasts of a run, compared with random walks, EWMA, GARCH-t and the volatility of the last 20 days.

    Attributes:
        windows: that were forecast.
        samples: paths of each.
        dates: of the forecasts, ascending.
        distributions: coverage and CRPS by horizon, the model's own first (`scorecard.distributions`).
        volatilities: rank correlation and QLIKE by horizon and measure (`scorecard.volatilities`).
        pit: long: columns horizon, bin (0..9, tenths of the probability integral transform), share of outcomes
            (.1 if calibrated).
        volatility_bins: long: columns horizon, bin (0..19, by forecast), forecast, realised: means of the root of
            variance over the horizon, in log return.
        by_samples: index number of paths; columns rank_ic, low, high, dates: of the score from the first k paths.
        fans: long, of a few chosen instruments and dates: columns datetime (of the forecast), instrument, step
            (negative and 0: bars seen; 1..H: forecast), timestamp, close (that was, or came; NaN if not yet),
            q05, q25, q50, q75, q95 (of sampled closes, quote currency; NaN for bars seen).
        checks: of the paths as sampled: see `PathSummary`; empty where they were not kept.
    """

    windows: int
    samples: int
    dates: pd.DatetimeIndex
    distributions: tuple[DistributionScore, ...]
    volatilities: tuple[VolatilityScore, ...]
    pit: pd.DataFrame
    volatility_bins: pd.DataFrame
    by_samples: pd.DataFrame
    fans: pd.DataFrame
    checks: dict[str, float] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Flat figures by their names in metrics.json: coverage_80_h1, crps_h1, crps_skill_h1, qlike_h1, ..."""
        figures: dict[str, float] = {f"candles_{name}": value for name, value in self.checks.items()}
        for score in self.distributions:
            if score.name == MODEL:
                figures |= _calibration(score)
            elif score.name == UNCALIBRATED:
                figures |= {f"sampled_{name}": value for name, value in _calibration(score).items()}
            elif (name := BASELINES.get(score.name)) and score.excess is not None:
                figures[f"crps_excess_{name}_h{score.horizon}"] = score.excess.mean
        for volatility in self.volatilities:
            if volatility.name == MODEL and volatility.measure == CLOSES:
                h = f"_h{volatility.horizon}"
                figures |= {
                    f"volatility_rank_ic{h}": volatility.rank_ic.mean,
                    f"qlike{h}": volatility.qlike.mean,
                    f"volatility_mae{h}": volatility.pooled.mae,
                    f"volatility_r2{h}": volatility.pooled.r2,
                }
            elif volatility.measure == CLOSES:
                h = f"_h{volatility.horizon}"
                lead, excess = volatility.lead, volatility.excess
                figures |= {f"volatility_rank_ic_lead{h}": lead.mean} if lead else {}
                figures |= {f"qlike_excess{h}": excess.mean} if excess else {}
        return figures


def evaluate_distribution(
    paths: PathSummary,
    provenance: Provenance,
    market: PricePanel,
    label: pd.Series,
    overlap: int,
    min_names: int = MIN_INSTRUMENTS,
) -> DistributionEvaluation:
    """Study what is left of a run's forecasts.

    Args:
        paths: of the run.
        provenance: of its forecasts.
        market: that they are scored on.
        label: return that the score is held against, indexed (datetime, instrument).
        overlap: successive dates that it spans.
        min_names: a date with fewer has no coefficient.
    """
    rows = evaluations_by_horizon(paths.said, market, paths.sampled)
    names = pd.Index(paths.said.index.get_level_values("instrument").unique())
    garch = GarchModels.fit(market, names, rows[0].dates[0])
    return DistributionEvaluation(
        windows=len(paths.said),
        samples=provenance.sampling.samples,
        dates=rows[0].dates,
        distributions=tuple(score for each in rows for score in score_distributions(each, LEVELS, garch)),
        volatilities=tuple(score for each in rows for score in score_volatilities(each)),
        pit=_pit(paths.said, provenance.sampling.samples),
        volatility_bins=_volatility_bins(paths.said, market),
        by_samples=_by_samples(paths.by_samples, label, overlap, min_names),
        fans=paths.fans,
        checks={} if paths.checks is None else {str(k): float(v) for k, v in paths.checks["value"].items()},
    )


def _calibration(score: DistributionScore) -> dict[str, float]:
    h = f"_h{score.horizon}"
    covered = {
        f"coverage_{100 * level:g}{h}": test.mean
        for level, test in score.coverage.items()
        if test is not None
    }
    return covered | {
        f"crps{h}": score.crps.mean,
        f"crps_skill{h}": score.skill,
        f"crps_skill_ensemble{h}": score.ensemble_skill,
        f"pit_mean{h}": score.pit_mean,
        f"pit_deviation{h}": score.pit_deviation,
    }


def _pit(said: pd.DataFrame, samples: int) -> pd.DataFrame:
    parts = []
    for horizon in said.columns.get_level_values(0).unique():
        shares = pit_histogram(said[horizon, "pit"].to_numpy(float), samples, PIT_BINS)
        parts.append(pd.DataFrame({"horizon": horizon, "bin": np.arange(PIT_BINS), "share": shares}))
    return pd.concat(parts, ignore_index=True)


def _volatility_bins(said: pd.DataFrame, market: PricePanel) -> pd.DataFrame:
    parts = []
    for horizon in said.columns.get_level_values(0).unique():
        came = market.at(market.variance(int(horizon))[CLOSES], cast(pd.MultiIndex, said.index))
        pairs = pd.DataFrame({"forecast": said[horizon, "variance"], "realised": came}).dropna() ** 0.5
        if pairs.empty:
            continue
        order = pairs["forecast"].rank(method="first").to_numpy()
        bins = ((order - 1) * VOLATILITY_BINS // len(pairs)).astype(int)
        means = pairs.groupby(bins).mean().rename_axis("bin").reset_index()
        parts.append(means.assign(horizon=int(horizon)))
    columns = ["horizon", "bin", "forecast", "realised"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _by_samples(scores: pd.DataFrame, label: pd.Series, overlap: int, min_names: int) -> pd.DataFrame:
    grid = Grid.of(cast(pd.MultiIndex, scores.index), "scores")
    came = grid.wide(label.reindex(scores.index))
    rows = {}
    for count in scores:
        test = mean_test(information_coefficients_wide(grid.wide(scores[count]), came, min_names)[1], overlap)
        rows[count] = {"rank_ic": test.mean, "low": test.low, "high": test.high, "dates": test.dates}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("samples")
