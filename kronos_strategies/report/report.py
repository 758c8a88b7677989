"""Report: the evaluations of one run in one frozen object, and how it is built from the artifacts of a run."""

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
    """Of one run, or of versions only; a part that is None has no section.

    Attributes:
        title: of the page.
        signal: of the score.
        distribution: of the sampled paths.
        portfolio: of the book.
        versions: of this run beside others.
        time_series: of the score over time, instrument by instrument; of few instruments only.
        trades: of the book.
        ledger: rows by reason, from the members' rows to those compared.
        provenance: what made the forecast, by label, ready to print.
        warnings: sentences that a reader must see.
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
        """Whether the score is judged across instruments, not over time."""
        return self.signal is not None and (
            self.time_series is None or bool(np.isfinite(self.signal.rank_ic.mean))
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Flat figures of all parts, by their names in metrics.json."""
        parts = (self.signal, self.time_series, self.distribution, self.portfolio, self.trades)
        return {name: value for part in parts if part is not None for name, value in part.metrics().items()}


RETURNS = "Kronos"  # what a forecast return is called among the scores


def build_report(evidence: Evidence, versions: Comparison | None = None) -> Report:
    """Everything that the evidence tells.

    Args:
        evidence: of the run.
        versions: this run beside others, for a section of its own.
    """
    about = evidence.about
    signal = evaluate_signal(
        evidence.scores,
        evidence.labels,
        about.hold,
        evidence.exposures,
        about.bars_between,
        min_names=about.min_names,
    )
    distribution = portfolio = time_series = trades = None
    own = evidence.scores.iloc[:, 0]
    names = own.index.get_level_values("instrument").nunique()
    if names < about.min_names:
        time_series = evaluate_time_series(
            own,
            evidence.labels[about.hold],
            evidence.market,
            about.hold,
            about.bars_between,
            evidence.outlooks,
            signed=str(own.name) == RETURNS or bool((own < 0).any() and (own > 0).any()),
        )
    if evidence.trades is not None:
        trades = evaluate_trades(evidence.trades)
    if evidence.paths is not None and evidence.provenance is not None:
        label = evidence.labels[about.hold]
        distribution = evaluate_distribution(
            evidence.paths, evidence.provenance, evidence.market, label, evidence.overlap, about.min_names
        )
    if evidence.result is not None:
        exposures = evidence.exposures if names > 1 else None  # one name is always the middle of itself
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
