"""`kronos report` and `kronos evaluate`: the report of a run, and of a checkpoint on bars."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kronos_strategies.cli import common
from kronos_strategies.cli.common import TRACKING, Tracking


def report(
    run: str,
    /,
    *,
    compare_with: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    output: Path | None = None,
    data: Annotated[Path | None, Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    tracking: Tracking = TRACKING,
) -> None:
    """Write the report of a run: report.html, metrics.json and CSVs. Nothing is forecast or traded again.

    For example: `kronos report 5c857f46 --compare-with 0b1d22f3 --output out/report`

    Args:
        run: run id or the beginning of one, as `qrun` and MLflow show it; an experiment, for its latest finished
            run; the folder of an earlier report; or the artifact folder of any Qlib run, or pred.pkl in it.
        compare_with: other runs to compare with, in a section of their own.
        output: folder of the report; report-RUN when omitted.
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
    show_report(made, save_report(made, output or Path(f"report-{Path(run).name}")))


def evaluate(
    checkpoint: str,
    /,
    *,
    data: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)],
    start: datetime,
    end: datetime | None = None,
    market: str = "all",
    every: int = 1,
    hold: int = 5,
    samples: int = 32,
    temperature: common.Temperature = None,
    top_p: common.TopP = None,
    top_k: common.TopK = None,
    seed: common.Seed = 0,
    lookback: int = 90,
    calibration: common.Calibration = "auto",
    device: common.Device = None,
    output: Path | None = None,
) -> None:
    """Evaluate a checkpoint on bars: the report on its signal and its predicted distribution, without a portfolio.

    For example: `kronos evaluate kronos-nano --data bars.parquet --start 2022-01-04 --every 5 --output out/nano`

    Reports of two checkpoints on the same bars: `kronos compare out/nano out/mine --html compare.html`

    Args:
        checkpoint: bundled name, folder or hub id; or another forecaster, such as baseline:garch.
        data: CSV or parquet files, folders of such files, or a Qlib data directory.
        start: first forecast date; earlier bars serve as context and as history of the baselines.
        end: last forecast date; the last bar when omitted. The last dates have no outcome yet.
        market: universe of a Qlib data directory.
        every: forecast every k-th date.
        hold: holding period of the score, in bars.
        samples: paths per forecast; 19 or more give a 90 % band.
        lookback: bars that the model reads.
        output: folder of the report; evaluation-CHECKPOINT when omitted.
    """
    from pandas import Timestamp

    from kronos.postprocessing import PathOptions
    from kronos_strategies.checkpoint_evaluation import (
        EvaluationSettings,
        evaluate_checkpoint,
        read_evaluation_data,
    )
    from kronos_strategies.forecasters import load_forecaster
    from kronos_strategies.forecasters.registry import parse_name
    from kronos_strategies.progress import progress_bar
    from kronos_strategies.report.export import save_report, show_report
    from kronos_strategies.report.report import build_report
    from kronos_strategies.run_artifacts import ARTIFACTS
    from kronos_strategies.store.settings import label_of

    options = PathOptions(calibration)
    last = None if end is None else Timestamp(end)
    settings = EvaluationSettings(Timestamp(start), last, every, hold, lookback)
    bars = read_evaluation_data(data, market)
    predictor = load_forecaster(checkpoint, device=device)
    sampling = predictor.sampling.with_overrides(samples, temperature, top_p, top_k, seed)
    name = checkpoint if parse_name(checkpoint) else Path(checkpoint).name
    with progress_bar("evaluate", "windows") as progress:
        artifacts = evaluate_checkpoint(predictor, name, bars, settings, sampling, options, progress)
    report = build_report(artifacts)
    folder = output or Path(f"evaluation-{label_of(name)}")
    show_report(report, [*save_report(report, folder)[:2], artifacts.write(folder / ARTIFACTS)])
