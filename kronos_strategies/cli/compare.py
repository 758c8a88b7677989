"""`kronos compare`: compare model versions, with gates for CI."""

from __future__ import annotations

import json as js
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kronos_strategies.cli.common import TRACKING, Tracking, note

HOLD = 5  # holding period of forecasts, as in configs/kronos_csi300.yaml

if TYPE_CHECKING:
    from pandas import DataFrame

    from kronos_strategies.comparison_inputs import ComparisonInput
    from kronos_strategies.evaluation.comparison.comparison import Comparison, GateResult


def compare(
    *runs: str,
    labels: Path | None = None,
    label_horizon: int | None = None,
    reference: str | None = None,
    every: int | None = None,
    gate: list[str] | None = None,
    html: Path | None = None,
    json: Path | None = None,
    data: Annotated[Path | None, Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    calibration: Annotated[str, Parameter(env_var="KRONOS_CALIBRATION")] = "auto",
    tracking: Tracking = TRACKING,
) -> None:
    """Compare model versions with a reference on their common (date, instrument) rows.

    Each difference has a 95 % interval and a p-value that are valid for overlapping labels, with Holm's correction;
    the model confidence set lists the versions that may be the best.

    For example: `kronos compare old.parquet new.parquet --labels label.parquet --gate "rank_ic>=-0.005"`

    After two runs of `qrun` or `kronos store fill`: `kronos compare old=5c857f46 new=0b1d22f3 --html out.html`

    Args:
        runs: two or more. Each is the id of a run of any Qlib model or its beginning, as MLflow shows it; an
            experiment, for its latest finished run; a folder of a run's artifacts, or pred.pkl in it; the folder of
            a report; a forecast store; or a parquet file of scores by (datetime, instrument). NAME=RUN gives
            it a name.
        labels: parquet file of realized returns with the same index; several columns named by their horizon in
            bars, such as 1, 5 and 10, give the decay. Runs and forecast stores have their own labels.
        label_horizon: bars that the label spans; labels overlap if it is more than one. When omitted: the holding
            period of the runs, 5 for forecasts as in `qrun`, 1 for files. It is required if the runs have different
            holding periods: 1, 2, 3, 5, 10, 20 or the holding period of a run.
        reference: version that the others are compared with; the first one when omitted.
        every: bars from one date to the next in files of scores, 1 when omitted: a label of 10 bars spans two dates
            that are 5 bars apart. Runs and forecast stores record theirs.
        gate: condition that must hold, such as "rank_ic>=-0.005"; may be given several times. The exit
            code is 1 if a version is worse than the reference by more than that, at 95 % one-sided confidence, and
            2 if that cannot be tested.
        html: HTML report to write.
        json: JSON file of all metrics to write.
        data: Qlib data directory for the realized returns of forecasts; when omitted, the recorded one that they
            were made from, else the simulated market.
        calibration: how to calibrate the paths of forecast stores: auto for the checkpoint's own calibration where
            it fits, none, or a file of `kronos calibrate`. Runs of `qrun` keep theirs.
        tracking: MLflow tracking store of the runs.
    """
    from kronos_strategies.comparison_inputs import common_horizon, compare_inputs
    from kronos_strategies.evaluation.comparison.comparison import Gate, InsufficientDataError, check_gate
    from kronos_strategies.evaluation.comparison.version import read_labels

    gates = [Gate.parse(text) for text in gate or ()]
    if label_horizon is not None and label_horizon < 1:
        raise ValueError(f"label_horizon={label_horizon}: a label must span at least 1 bar.")
    if every is not None and every < 1:
        raise ValueError(f"every={every}: dates must be at least 1 bar apart.")
    candidates = _read_inputs(runs, tracking, data, label_horizon or HOLD, calibration)
    chosen = _reference_name(reference, runs, [candidate.version.name for candidate in candidates])
    span = common_horizon(candidates, label_horizon)
    returns = read_labels(labels, span) if labels else None
    comparison = compare_inputs(candidates, returns, span, chosen, every)
    results, untested = [], None
    try:
        results = [result for each in gates for result in check_gate(each, comparison)]
    except InsufficientDataError as error:
        untested = error  # results are shown and written first
    written = [*_write_json(json, comparison, results), *_write_page(html, comparison)]
    _show(comparison, results, written)
    if untested is not None:
        raise untested
    if not all(result.passed for result in results):
        sys.exit(1)


def _read_inputs(
    runs: Sequence[str], tracking: str, data: Path | None, hold: int, calibration: str
) -> list[ComparisonInput]:
    """Load the inputs that the arguments name."""
    from kronos.postprocessing import PathOptions
    from kronos_strategies.comparison_inputs import load_input

    options = PathOptions(calibration)
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} version(s) cannot be compared. Pass two or more runs or score files.")
    candidates = [load_input(run, tracking, data, hold, options) for run in runs]
    names = [candidate.version.name for candidate in candidates]
    if twice := [name for name in names if names.count(name) > 1]:
        same = [run for run, name in zip(runs, names, strict=True) if name == twice[0]]
        raise ValueError(
            f"{' and '.join(same)} would have the same name '{twice[0]}'. Name one of them: NAME={same[-1]}."
        )
    return candidates


def _reference_name(reference: str | None, runs: Sequence[str], names: Sequence[str]) -> str:
    """Name of the reference, which may be given as a version's name or as its argument."""
    if reference is None:
        return names[0]
    if reference in names:
        return reference
    by_run = dict(zip(runs, names, strict=True))
    if reference not in by_run:
        raise ValueError(
            f"The reference '{reference}' is not one of the versions. Choose one of {list(names)}."
        )
    return by_run[reference]


def _write_json(file: Path | None, comparison: Comparison, results: Sequence[GateResult]) -> list[Path]:
    if file is None:
        return []
    gates = [
        {
            "gate": str(result.gate),
            "version": result.version,
            "difference": result.difference,
            "bound": result.bound,
            "passed": result.passed,
        }
        for result in results
    ]
    text = js.dumps({**comparison.as_dict(), "gates": gates}, indent=2, allow_nan=False)
    return [_write(file, f"{text}\n")]


def _write_page(file: Path | None, comparison: Comparison) -> list[Path]:
    if file is None:
        return []
    from kronos_strategies.report.export import render
    from kronos_strategies.report.report import Report

    report = Report(
        title=" against ".join([", ".join(_others(comparison)), comparison.reference]),
        sample_counts=comparison.sample_counts,
        provenance={},
        warnings=comparison.warnings,
        versions=comparison,
    )
    page = render(report)
    return [_write(file, page)]


def _write(file: Path, text: str) -> Path:
    from kronos.utils import explain_write_errors, write_atomic

    with explain_write_errors(file, "Choose another file."):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, text)
    return file


def _others(comparison: Comparison) -> list[str]:
    return [version for version in comparison.versions if version != comparison.reference]


def _show(comparison: Comparison, results: Sequence[GateResult], written: Sequence[Path]) -> None:
    """Print one table per metric, what was compared, the warnings, the gates, and the files written."""
    from kronos_strategies.evaluation.warnings import sample_warnings

    console = Console()
    for metric in comparison.by_date:
        rows = comparison.table[comparison.table["metric"] == metric]
        console.print(_block(metric, rows, comparison.reference))
    reasons = [f"{rows:,} {reason}" for reason, rows in comparison.sample_counts.items() if rows]
    dates = len(comparison.by_date["rank_ic"])
    console.print(
        f"Sample: {escape(', '.join(reasons))}, on {dates:,} dates", soft_wrap=True, highlight=False
    )
    for warning in (*sample_warnings(comparison.sample_counts), *comparison.warnings):
        note(console, warning)
    for result in results:
        console.print(_verdict(result), soft_wrap=True, highlight=False)
    for file in written:
        console.print("Wrote", escape(str(file)), soft_wrap=True, highlight=False)


def _block(metric: str, rows: DataFrame, reference: str) -> Table:
    from kronos_strategies.report.formatting import DASH, decimals

    places = _places(float(rows["mean"].abs().max()))
    table = Table(
        title=metric,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("\nversion", overflow="fold", min_width=8)
    for head in (
        "\nmean",
        "differ-\nence",
        "\n95 % interval",
        "\np",
        "p\n(Holm)",
        "in\nMCS",
        "detect-\nable",
    ):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows.to_dict("records"):
        other = row["version"] != reference
        low, high = (decimals(row[f"difference_{end}"], places) for end in ("low", "high"))
        table.add_row(
            escape(row["version"]),
            decimals(row["mean"], places),
            decimals(row["difference"], places) if other else "reference",
            DASH if low == DASH else f"{low} to {high}",
            _p(row["p"]),
            _p(row["p_holm"]),
            {None: DASH, True: "yes", False: "no"}[row["in_mcs"]],
            decimals(row["detectable"], places),
        )
    return table


def _places(size: float) -> int:
    """Decimals that show three digits of a figure below 1, and of a larger one three decimals."""
    from math import floor, isfinite, log10

    return 2 - floor(log10(size)) if isfinite(size) and 0 < size < 1 else 3


def _p(value: float) -> str:
    """Never a p of zero."""
    from kronos_strategies.report.formatting import decimals

    return "<0.001" if value < 0.001 else decimals(value)


def _verdict(result: GateResult) -> str:
    word = "[green]Passed[/green]" if result.passed else "[red]Failed[/red]"
    better = "at most" if result.gate.sign == ">=" else "at least"
    return (
        f"{word} {escape(str(result.gate))}: '{escape(result.version)}' differs by {result.difference:+.4g}, "
        f"{better} {result.bound:+.4g} at 95 %"
    )
