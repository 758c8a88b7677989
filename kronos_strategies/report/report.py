"""Report: all evaluations of one run in one frozen object, built from the artifacts of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kronos_strategies.evaluation.comparison.comparison import Comparison
from kronos_strategies.evaluation.distribution.evaluation import DistributionEvaluation, evaluate_distribution
from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation, evaluate_portfolio
from kronos_strategies.evaluation.portfolio.trades import TradeEvaluation, evaluate_trades
from kronos_strategies.evaluation.signal.evaluation import SignalEvaluation, evaluate_signal
from kronos_strategies.evaluation.time_series import TimeSeriesEvaluation, evaluate_time_series
from kronos_strategies.evidence import Evidence


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


def build_report(evidence: Evidence, versions: Comparison | None = None) -> Report:
    """Evaluate the artifacts of a run.

    Args:
        evidence: artifacts of the run.
        versions: comparison of this run with others, for a section of its own.
    """
    about = evidence.about
    label = evidence.labels[about.hold]
    signal = evaluate_signal(
        evidence.scores,
        evidence.labels,
        about.hold,
        evidence.exposures,
        about.bars_between,
        min_instruments=about.min_names,
    )
    distribution = portfolio = time_series = trades = None
    score = evidence.scores.iloc[:, 0]
    instruments = score.index.get_level_values("instrument").nunique()
    if instruments < about.min_names:
        time_series = evaluate_time_series(
            score,
            label,
            evidence.market,
            about.hold,
            about.bars_between,
            evidence.outlooks,
            signed=about.score_is_return,
        )
    if evidence.trades is not None:
        trades = evaluate_trades(evidence.trades)
    if evidence.paths is not None and evidence.provenance is not None:
        distribution = evaluate_distribution(
            evidence.paths, evidence.provenance, evidence.market, label, evidence.overlap, about.min_names
        )
    if evidence.result is not None:
        exposures = evidence.exposures if instruments > 1 else None  # a single one has no percentile
        portfolio = evaluate_portfolio(evidence.result, exposures, about.trials)
    return Report(
        title=about.title,
        sample_counts=about.ledger,
        provenance=about.described,
        warnings=about.warnings,
        signal=signal,
        distribution=distribution,
        portfolio=portfolio,
        versions=versions,
        time_series=time_series,
        trades=trades,
    )
