"""RunArtifacts of a run -> its report."""

from __future__ import annotations

from kronos_strategies.evaluation.distribution.study import study_distribution
from kronos_strategies.evaluation.portfolio.study import study_portfolio
from kronos_strategies.evaluation.portfolio.trades import study_trades
from kronos_strategies.evaluation.signal.study import study_signal
from kronos_strategies.evaluation.timeseries import study_time_series
from kronos_strategies.evaluation.versions.comparison import Comparison
from kronos_strategies.report.report import Report
from kronos_strategies.run_artifacts import RunArtifacts

RETURNS = "Kronos"  # what a forecast return is called among the scores


def report_on(evidence: RunArtifacts, versions: Comparison | None = None) -> Report:
    """Everything that the evidence tells.

    Args:
        evidence: of the run.
        versions: this run beside others, for a section of its own.
    """
    metadata = evidence.metadata
    signal = study_signal(
        evidence.scores,
        evidence.labels,
        metadata.hold,
        evidence.exposures,
        metadata.bars_between,
        min_names=metadata.min_names,
    )
    distribution = portfolio = time_series = trades = None
    own = evidence.scores.iloc[:, 0]
    names = own.index.get_level_values("instrument").nunique()
    if names < metadata.min_names:
        time_series = study_time_series(
            own,
            evidence.labels[metadata.hold],
            evidence.market,
            metadata.hold,
            metadata.bars_between,
            evidence.outlooks,
            signed=str(own.name) == RETURNS or bool((own < 0).any() and (own > 0).any()),
        )
    if evidence.trades is not None:
        trades = study_trades(evidence.trades)
    if evidence.paths is not None and evidence.provenance is not None:
        label = evidence.labels[metadata.hold]
        distribution = study_distribution(
            evidence.paths, evidence.provenance, evidence.market, label, evidence.overlap, metadata.min_names
        )
    if evidence.result is not None:
        exposures = evidence.exposures if names > 1 else None  # one name is always the middle of itself
        portfolio = study_portfolio(evidence.result, exposures, metadata.trials)
    return Report(
        title=metadata.title,
        ledger=metadata.sample_counts,
        provenance=metadata.settings,
        warnings=metadata.warnings,
        signal=signal,
        distribution=distribution,
        portfolio=portfolio,
        versions=versions,
        time_series=time_series,
        trades=trades,
    )
