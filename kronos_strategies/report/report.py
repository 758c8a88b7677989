"""Report: all evaluations of one run in one frozen object, built from the artifacts of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kronos_strategies.evaluation.comparison.comparison import Comparison
from kronos_strategies.evaluation.distribution.evaluation import DistributionEvaluation, evaluate_distribution
from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation, evaluate_portfolio
from kronos_strategies.evaluation.portfolio.returns import TradeEvaluation, evaluate_trades
from kronos_strategies.evaluation.signal.evaluation import SignalEvaluation, evaluate_signal
from kronos_strategies.evaluation.time_series import TimeSeriesEvaluation, evaluate_time_series
from kronos_strategies.run_artifacts import RunArtifacts


@dataclass(frozen=True)
class Report:
    """Evaluations of one run, or a comparison of versions; a part that is None has no section.

    Attributes:
        title: title of the page.
        sample_counts: numbers of rows by reason, from the members' rows to the evaluated rows.
        provenance: how the forecasts were made, label -> text.
        warnings: warnings of the run; `summary.report_warnings` adds those of the evaluations.
        signal: evaluation of the score.
        distribution: evaluation of the sampled paths.
        portfolio: evaluation of the backtest.
        versions: comparison of this run with other versions.
        time_series: evaluation of the score over time, by instrument; only for few instruments.
        trades: evaluation of the trades of the backtest.
    """

    title: str
    sample_counts: Mapping[str, int]
    provenance: Mapping[str, str]
    warnings: Sequence[str]
    signal: SignalEvaluation | None = None
    distribution: DistributionEvaluation | None = None
    portfolio: PortfolioEvaluation | None = None
    versions: Comparison | None = None
    time_series: TimeSeriesEvaluation | None = None
    trades: TradeEvaluation | None = None

    @property
    def is_cross_sectional(self) -> bool:
        """Whether the score is evaluated across instruments, not over time."""
        return self.signal is not None and (
            self.time_series is None or bool(np.isfinite(self.signal.rank_ic.mean))
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Flat metrics of all parts, by their names in metrics.json."""
        parts = (self.signal, self.time_series, self.distribution, self.portfolio, self.trades)
        return {name: value for part in parts if part is not None for name, value in part.metrics().items()}


def build_report(artifacts: RunArtifacts, versions: Comparison | None = None) -> Report:
    """Evaluate the artifacts of a run.

    Args:
        artifacts: artifacts of the run.
        versions: comparison of this run with others, for a section of its own.
    """
    metadata = artifacts.metadata
    label = artifacts.labels[metadata.hold]
    signal = evaluate_signal(
        artifacts.scores,
        artifacts.labels,
        metadata.hold,
        artifacts.exposures,
        metadata.bars_between,
        min_instruments=metadata.min_instruments,
    )
    distribution = portfolio = time_series = trades = None
    score = artifacts.scores.iloc[:, 0]
    instruments = score.index.get_level_values("instrument").nunique()
    if instruments < metadata.min_instruments:
        time_series = evaluate_time_series(
            score,
            label,
            artifacts.market,
            metadata.hold,
            metadata.bars_between,
            artifacts.outlooks,
            signed=metadata.score_is_return,
        )
    if artifacts.trades is not None:
        trades = evaluate_trades(artifacts.trades)
    if artifacts.paths is not None and artifacts.provenance is not None:
        distribution = evaluate_distribution(
            artifacts.paths,
            artifacts.provenance,
            artifacts.market,
            label,
            artifacts.overlap,
            metadata.min_instruments,
        )
    if artifacts.result is not None:
        exposures = artifacts.exposures if instruments > 1 else None  # a single one has no percentile
        portfolio = evaluate_portfolio(
            artifacts.result, exposures, metadata.trials, trials_deviation=metadata.trials_deviation
        )
    return Report(
        title=metadata.title,
        sample_counts=metadata.sample_counts,
        provenance=metadata.settings,
        warnings=metadata.warnings,
        signal=signal,
        distribution=distribution,
        portfolio=portfolio,
        versions=versions,
        time_series=time_series,
        trades=trades,
    )
