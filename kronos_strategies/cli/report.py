"""`kronos report`: the report of a run, rebuilt from its saved artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kronos_strategies.cli.common import TRACKING, Tracking


def report(
    run: str,
    /,
    *,
    compare_with: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    to: Path | None = None,
    data: Annotated[Path | None, Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    tracking: Tracking = TRACKING,
) -> None:
    """Write the report of a run: report.html, metrics.json and CSVs. Nothing is forecast or traded again.

    For example: `kronos report 5c857f46 --compare-with 0b1d22f3 --to out/report`

    Args:
        run: run id or the beginning of one, as `qrun` and MLflow show it; an experiment, for its latest finished
            run; the folder of an earlier report; or the artifact folder of any Qlib run, or pred.pkl in it.
        compare_with: other runs to compare with, in a section of their own.
        to: folder of the report; report-RUN when omitted.
        data: Qlib data directory of a run of another Qlib model, if the run does not record it.
        tracking: MLflow tracking store of the runs.
    """
    from kronos_strategies.comparison_inputs import (
        compare_inputs,
        input_from_artifacts,
        load_artifacts,
        load_input,
    )
    from kronos_strategies.report.export import save_report, show_report
    from kronos_strategies.report.report import build_report

    artifacts = load_artifacts(run, tracking, data)
    versions = None
    if compare_with:
        others = [load_input(other, tracking, data, artifacts.metadata.hold) for other in compare_with]
        versions = compare_inputs([input_from_artifacts(artifacts, "this run"), *others])
    made = build_report(artifacts, versions)
    show_report(made, save_report(made, to or Path(f"report-{Path(run).name}")))
