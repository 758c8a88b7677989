"""Load the inputs of `kronos compare`: score files, forecast sets, report folders or recorded runs.

The Qlib adapter is imported only for runs and for the forward returns of forecasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pandas as pd

from kronos.calibration import checkpoint_calibration
from kronos.postprocessing import PathOptions
from kronos_strategies.data.qlib_bins import DAY, forecast_freq
from kronos_strategies.data.simulate import default_store
from kronos_strategies.evaluation.baselines import baseline_scores
from kronos_strategies.evaluation.comparison.comparison import Comparison, ComparisonInput, compare_versions
from kronos_strategies.evaluation.comparison.version import Version, read_version
from kronos_strategies.evaluation.distribution.path_summary import summarize_forecasts
from kronos_strategies.evaluation.warnings import training_overlap_warnings
from kronos_strategies.progress import track
from kronos_strategies.run_artifacts import (
    ARTIFACTS,
    DECAY_HORIZONS,
    METADATA,
    SCORING_HORIZONS,
    RunArtifacts,
    provenance_table,
    refuse_earlier,
)
from kronos_strategies.store import ForecastSet
from kronos_strategies.store.location import as_location
from kronos_strategies.store.settings import MANIFEST

READ = PathOptions()  # default postprocessing of paths
PREDICTION = "pred.pkl"  # file of any Qlib run
Span = tuple[str | None, str | None]  # first and last date; None for all


def load_input(
    argument: str, tracking: str, data: Path | None, hold: int, options: PathOptions = READ
) -> ComparisonInput:
    """Load what an argument names; the prefix `NAME=` names the version.

    Args:
        argument: a parquet file, a folder or its URL, a run's id, or an experiment.
        tracking: address of the MLflow store of runs.
        data: Qlib data directory for the realized returns of forecasts; that of the run when omitted.
        hold: holding period of the score of forecasts, in bars.
        options: calibration and repair of the paths of forecasts on reading.

    Raises:
        FileNotFoundError: there is no such file, folder, run or experiment.
        ValueError: the argument is none of these.
    """
    name, _, rest = argument.rpartition("=") if not Path(argument).exists() else ("", "", argument)
    path = as_location(rest)
    if path.suffix == ".pkl" and path.is_file():
        return _of_pickle(path, name, data)
    if path.is_file() or path.suffix == ".parquet":
        version = read_version(path)
        return ComparisonInput(
            Version(name or version.name, version.score, version.losses, version.provenance)
        )
    if path.is_dir():
        return _of_folder(path, name or _called(path), data, hold, options)
    return _of_run(rest, name, tracking, data, hold, options)


def load_artifacts(argument: str, tracking: str, data: Path | None = None) -> RunArtifacts:
    """The artifacts of a run: by the folder of its report or of its artifacts, by pred.pkl in it, or by its id.

    Args:
        argument: the folder, the file, or the id.
        tracking: address of the MLflow store of runs.
        data: Qlib data directory of the bars of a run of another model; the recorded one when omitted.

    Raises:
        FileNotFoundError: the run has no artifacts.
        ValueError: there is no such run.
    """
    path = Path(argument).expanduser()
    if path.suffix == ".pkl" and path.is_file():
        from kronos_strategies.qlib.qlib_runs import load_qlib_run

        return load_qlib_run(_folder_of_prediction(path), False, data)
    if path.is_dir():
        if (kept := find_artifacts(path)) is None and (path / PREDICTION).is_file():
            from kronos_strategies.qlib.qlib_runs import load_qlib_run

            return load_qlib_run(path, False, data)
        return RunArtifacts.read(kept or path / ARTIFACTS)
    from kronos_strategies.qlib.tracking import artifact_folder, find_run

    run = find_run(argument, tracking)
    artifacts = artifact_folder(run, tracking)
    folder = find_artifacts(artifacts)
    if folder is None and (artifacts / PREDICTION).is_file():
        from kronos_strategies.qlib.qlib_runs import load_qlib_run

        return load_qlib_run(artifacts, True, data)
    if folder is None:
        raise FileNotFoundError(
            f"Run {run.info.run_id[:8]} ({run.info.run_name}) has no artifacts of a report: it holds "
            "forecasts only, or stopped before its report. `kronos compare` takes forecasts too."
        )
    return RunArtifacts.read(folder)


def find_artifacts(folder: Path) -> Path | None:
    """The folder of run artifacts: this one, one next to a report, or one within the artifacts of a Qlib run.

    Raises:
        ValueError: an earlier version wrote them.
    """
    places = (folder, folder / ARTIFACTS, folder / "kronos" / ARTIFACTS)
    found = next((place for place in places if (place / METADATA).is_file()), None)
    if found is None:
        refuse_earlier(folder)
    return found


def input_from_artifacts(artifacts: RunArtifacts, name: str) -> ComparisonInput:
    """A finished run."""
    own, *baselines = artifacts.scores.columns
    losses = artifacts.paths.losses(artifacts.market) if artifacts.paths is not None else None
    return ComparisonInput(
        version=Version(name, artifacts.scores[own], losses, artifacts.metadata.settings),
        labels=artifacts.labels,
        horizon=artifacts.metadata.hold,
        baselines=artifacts.scores[baselines],
        bars_between=artifacts.metadata.bars_between,
        warnings=artifacts.metadata.warnings,
    )


def _of_folder(
    folder: Path, name: str, data: Path | None, hold: int, options: PathOptions, span: Span = (None, None)
) -> ComparisonInput:
    if (folder / MANIFEST).is_file():
        return input_from_forecasts(folder, name, data, hold, span, options)
    if kept := find_artifacts(folder):
        return input_from_artifacts(RunArtifacts.read(kept), name)
    if (folder / PREDICTION).is_file():
        from kronos_strategies.qlib.qlib_runs import input_from_qlib_run

        return input_from_qlib_run(folder, name, False, data)
    inside = sorted(path.parent for path in folder.glob(f"*/*/{MANIFEST}"))
    hint = f" Did you mean {inside[0]}?" if inside else ""
    raise FileNotFoundError(
        f"{folder} has neither forecasts (no {MANIFEST}) nor the artifacts of a run (no {ARTIFACTS}/{METADATA}, "
        f"no {PREDICTION}).{hint}"
    )


def _of_run(
    argument: str, name: str, tracking: str, data: Path | None, hold: int, options: PathOptions
) -> ComparisonInput:
    from kronos_strategies.qlib.tracking import (
        SHORT,
        artifact_folder,
        data_folder,
        find_run,
        forecast_folder,
        forecast_span,
    )

    run = find_run(argument, tracking)
    model = Path(run.data.params.get("kronos.model", run.info.run_name)).name
    given, name = name, name or f"{model}-{run.info.run_id[:SHORT]}"
    folder = forecast_folder(run)
    if folder is not None:
        return _of_folder(folder, name, data or data_folder(run), hold, options, forecast_span(run))
    artifacts = artifact_folder(run, tracking)
    if find_artifacts(artifacts) is None and (artifacts / PREDICTION).is_file():
        from kronos_strategies.qlib.qlib_runs import input_from_qlib_run

        return input_from_qlib_run(artifacts, given or f"run-{run.info.run_id[:SHORT]}", True, data)
    return input_from_artifacts(load_artifacts(argument, tracking), name)


def _of_pickle(file: Path, name: str, data: Path | None) -> ComparisonInput:
    """A prediction as Qlib's SignalRecord writes it, with what else of the run is in its folder."""
    from kronos_strategies.qlib.qlib_runs import input_from_qlib_run

    return input_from_qlib_run(_folder_of_prediction(file), name, False, data)


def _folder_of_prediction(file: Path) -> Path:
    if file.name == PREDICTION:
        return file.parent
    raise ValueError(
        f"{file} is a pickle that is not called {PREDICTION}. Name a run's {PREDICTION}, or write the scores as "
        "parquet with DataFrame.to_parquet."
    )


def _called(folder: Path) -> str:
    """A folder of forecasts by its model and settings, any other by its own name."""
    full = folder.resolve()
    return f"{full.parent.name}/{full.name}" if (full / MANIFEST).is_file() else full.name


def common_horizon(candidates: Sequence[ComparisonInput], horizon: int | None = None) -> int:
    """Label horizon at which all candidates are compared, in bars.

    Args:
        candidates: inputs, whose holding periods may differ.
        horizon: horizon that the user chose; that of the candidates when omitted, else 1.

    Raises:
        ValueError: the holding periods differ, and no horizon is chosen.
    """
    known = {c.version.name: c.horizon for c in candidates if c.horizon is not None}
    if horizon is not None:
        return horizon
    if len(set(known.values())) > 1:
        raise ValueError(
            f"The versions have different holding periods, {known} bars. Choose one to evaluate all of them "
            f"by, for example with --label-horizon {max(known.values())}."
        )
    return next(iter(known.values()), 1)


def compare_inputs(
    candidates: Sequence[ComparisonInput],
    labels: pd.Series | pd.DataFrame | None = None,
    horizon: int | None = None,
    reference: str | None = None,
    every: int | None = None,
) -> Comparison:
    """Compare candidates, with the given labels or else those of the first candidate that has any.

    Args:
        candidates: two or more with different names.
        labels: see `compare_versions`.
        horizon: bars that the label spans; that of the candidates when omitted, else 1.
        reference: name of the version that the others are compared with; the first when omitted.
        every: bars between successive dates; the most that a candidate knows of when omitted.

    Raises:
        ValueError: no labels at all or none of `horizon`, or candidates with different holding periods.
    """
    horizon = common_horizon(candidates, horizon)
    if labels is None:
        labels = _labels_of(candidates, horizon)
    comparison = compare_versions(
        [c.version for c in candidates],
        labels,
        horizon,
        reference,
        bars_between=every or max(c.bars_between for c in candidates),
        baselines=next((c.baselines for c in candidates if c.baselines is not None), None),
    )
    known = dict.fromkeys(warning for candidate in candidates for warning in candidate.warnings)
    other = [
        f"'{c.version.name}' has a holding period of {c.horizon} and is evaluated by returns over {horizon} bars."
        for c in candidates
        if c.horizon not in (None, horizon)
    ]
    return replace(comparison, warnings=(*known, *other, *comparison.warnings))


def _labels_of(candidates: Sequence[ComparisonInput], horizon: int) -> pd.DataFrame:
    """Labels of the first candidate that holds for `horizon` bars, else of the first that has that horizon."""
    found = [c for c in candidates if c.labels is not None]
    if not found:
        raise ValueError("Score files need realized returns to compare with. Pass them with --labels.")
    having = [c.labels for c in found if c.labels is not None and horizon in c.labels]
    own = [c.labels for c in found if c.horizon == horizon]
    chosen = next(iter([*own, *having]), None)
    if chosen is None:
        spans = sorted({cast(int, h) for c in found if c.labels is not None for h in c.labels})
        raise ValueError(
            f"The runs have no returns over {horizon} bars, only over {spans}. Choose one with --label-horizon, or "
            "pass a file of returns with --labels."
        )
    return chosen


def input_from_forecasts(
    folder: Path,
    name: str,
    data: Path | None,
    hold: int,
    span: Span = (None, None),
    options: PathOptions = READ,
) -> ComparisonInput:
    """Forecasts of a folder, scored for a holding period of `hold` bars.

    Args:
        folder: folder of a `ForecastSet`.
        name: name of the version.
        data: Qlib data directory of the forecast bars and of later ones; the simulated market when omitted.
        hold: bars that a position is held.
        span: first and last date; all dates when omitted.
        options: calibration and repair of the paths on reading.

    Raises:
        ValueError: the paths are too short for this holding period, or a calibration does not fit them.
    """
    from kronos_strategies.qlib.artifacts import read_price_panel
    from kronos_strategies.qlib.data_access import init_qlib

    bars = data or default_store()
    forecast_set = ForecastSet(folder)
    spec = forecast_set.settings.spec
    if spec.horizon <= hold:
        raise ValueError(
            f"{folder} has forecasts of {spec.horizon} bars, too short for a holding period of {hold}. Forecast "
            f"with --horizon {hold + 1}, or compare with --label-horizon {max(1, spec.horizon - 1)}."
        )
    keys = cast(pd.MultiIndex, forecast_set.frame(*span).index)
    dates = pd.DatetimeIndex(keys.get_level_values("datetime").unique())
    freq = forecast_freq(bars, spec.universe, dates)
    store_warnings = init_qlib(bars, freq=freq)
    market = read_price_panel(keys, freq)
    horizons = [h for h in SCORING_HORIZONS if h < spec.horizon]
    forecasts = (forecast_set.read(date) for date in track(dates, f"read {name}", "dates"))
    known = forecast_set.settings.provenance
    first = forecast_set.read(dates[0])
    post = options.resolve(checkpoint_calibration(known.model), known, spec.horizon, first.spacing)
    paths, provenance = summarize_forecasts(forecasts, market, horizons, hold, post=post)
    score = paths.score_by_num_paths.iloc[:, -1].rename("score")
    labels = {h: market.lookup(market.forward_return(h), keys) for h in sorted({*DECAY_HORIZONS, hold})}
    return ComparisonInput(
        version=Version(
            name, score, paths.losses(market), {**provenance_table(provenance), "calibration": post.reason}
        ),
        labels=pd.DataFrame(labels),
        horizon=hold,
        baselines=baseline_scores(market, keys, daily=freq == DAY)[0],
        warnings=(
            *store_warnings,
            *(
                f"'{name}': {warning}"
                for warning in [*training_overlap_warnings(provenance, dates[0]), *post.warnings(dates[0])]
            ),
        ),
    )
