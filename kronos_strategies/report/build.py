"""Evidence of a run -> its report."""

from __future__ import annotations

from kronos_strategies.evaluation.distribution.study import study_distribution
from kronos_strategies.evaluation.portfolio.study import study_portfolio
from kronos_strategies.evaluation.portfolio.trades import study_trades
from kronos_strategies.evaluation.signal.study import study_signal
from kronos_strategies.evaluation.timeseries import study_time_series
from kronos_strategies.evaluation.versions.comparison import Comparison
from kronos_strategies.evidence import Evidence
from kronos_strategies.report.report import Report


def report_on(evidence: Evidence, versions: Comparison | None = None) -> Report:
    """Everything that the evidence tells.

    Args:
        evidence: of the run.
        versions: this run beside others, for a section of its own.
    """
    about = evidence.about
    signal = study_signal(
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
        time_series = study_time_series(
            own,
            evidence.labels[about.hold],
            evidence.market,
            about.hold,
            about.bars_between,
            evidence.outlooks,
            signed=about.score_is_return,
        )
    if evidence.trades is not None:
        trades = study_trades(evidence.trades)
    if evidence.paths is not None and evidence.provenance is not None:
        label = evidence.labels[about.hold]
        distribution = study_distribution(
            evidence.paths, evidence.provenance, evidence.market, label, evidence.overlap, about.min_names
        )
    if evidence.result is not None:
        exposures = evidence.exposures if names > 1 else None  # one name is always the middle of itself
        portfolio = study_portfolio(evidence.result, exposures, about.trials)
    return Report(
        title=about.title,
        ledger=about.ledger,
        provenance=about.described,
        warnings=about.warnings,
        signal=signal,
        distribution=distribution,
        portfolio=portfolio,
        versions=versions,
        time_series=time_series,
        trades=trades,
    )
