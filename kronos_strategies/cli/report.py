"""`kronos report`: the report of a run, made anew from its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kronos_strategies.cli.show import TRACKING, Tracking


def report(
    run: str,
    /,
    *,
    beside: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    to: Path | None = None,
    data: Annotated[Path | None, Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    tracking: Tracking = TRACKING,
) -> None:
    """Write the report of a run: report.html, metrics.json and CSVs. Nothing is forecast or traded again.

    For example: `kronos report 5c857f46 --beside 0b1d22f3 --to out/report`

    Args:
        run: its id or the beginning of it, as `qrun` and MLflow show it; an experiment, for its latest finished
            run; or the folder of an older report.
        beside: other runs, which get a section that holds this one against them.
        to: folder to write; report-RUN when omitted.
        data: Qlib store of the bars of a run by another Qlib model, where that is not on record.
        tracking: MLflow store of the runs.
    """
    from kronos_strategies.contenders import find_contender, find_evidence, hold_against, of_evidence
    from kronos_strategies.report.export import save_report
    from kronos_strategies.report.report import build_report
    from kronos_strategies.report.terminal import show_report

    evidence = find_evidence(run, tracking, data)
    versions = None
    if beside:
        others = [find_contender(other, tracking, None, evidence.about.hold) for other in beside]
        versions = hold_against([of_evidence(evidence, "this run"), *others])
    made = build_report(evidence, versions)
    show_report(made, save_report(made, to or Path(f"report-{Path(run).name}")))
