"""Records of runs in Qlib's recorder (MLflow): their parameters, so that they can be found and compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient
from qlib.workflow import R
from qlib.workflow.recorder import MLflowRecorder, Recorder

from kronos.forecast import Provenance
from kronos.utils import git_commit, package_version
from kronos_strategies.qlib.experiment import SQLITE, TRACKING, absolute, local_path
from kronos_strategies.qlib.qlib_runs import QlibRun
from kronos_strategies.store import FillResult, WindowSpec
from kronos_strategies.store.location import as_location

FORECASTS = "kronos_forecasts"  # experiment of `kronos store fill`
PREFIX = "kronos."  # prefix of our parameters and tags, in addition to Qlib's
TRIAL, STORE, DATA = f"{PREFIX}trial", f"{PREFIX}forecast_store", f"{PREFIX}data"
FIRST, LAST = f"{PREFIX}first_date", f"{PREFIX}last_date"


def run_params(known: Provenance, spec: WindowSpec, trade: Mapping[str, str] | None = None) -> dict[str, str]:
    """Parameters of a run: model, settings, data, code.

    Args:
        known: provenance of its forecasts.
        spec: specification of its windows.
        trade: how its scores are made and traded, by name.
    """
    s = known.sampling
    params = {
        "model": known.model,
        "revision": known.revision,
        "weights_sha256": known.weights_sha256,
        "trained_until": known.trained_until,
        "samples": s.samples,
        "T": s.T,
        "top_p": s.top_p,
        "top_k": s.top_k,
        "seed": s.seed,
        "draws": known.draws,
        "context_overflow": known.context_overflow,
        "precision": known.precision,
        "anchor": known.anchor,
        "max_context": known.max_context,
        "universe": spec.universe,
        "lookback": spec.lookback,
        "horizon": spec.horizon,
        **(trade or {}),
        "data_sha256": known.data_sha256,
        "code_commit": git_commit(),
        "version": package_version(),
    }
    return {f"{PREFIX}{name}": "-" if value is None else str(value) for name, value in params.items()}


def qlib_run_params(run: QlibRun, trading: str) -> dict[str, str]:
    """Parameters of a run of another Qlib model: its settings, its label, how its scores are traded."""
    settings = {part: run.task.get(part) for part in ("model", "dataset")}
    text = json.dumps(settings, sort_keys=True, default=str)
    return {
        f"{PREFIX}model": run.model,
        f"{PREFIX}settings_sha256": hashlib.sha256(text.encode()).hexdigest(),
        f"{PREFIX}hold": str(run.hold or "-"),
        f"{PREFIX}deal_price": run.price,
        f"{PREFIX}trading": trading,
        f"{PREFIX}code_commit": git_commit() or "-",
        f"{PREFIX}version": package_version(),
    }


def log_run(recorder: MLflowRecorder, params: Mapping[str, str]) -> None:
    """Write parameters, and the tag that identifies the trial."""
    recorder.log_params(**params)
    recorder.set_tags(**{TRIAL: _trial(params)})


def count_trials(recorder: MLflowRecorder, params: Mapping[str, str]) -> int:
    """Number of different settings that this experiment has tried, including those of `params`.

    Runs of equal model, market and settings are one trial, however often they were started. Another seed, span or
    commit is not another trial; another checkpoint, sampling setting or trading rule is.
    """
    client, tried = MlflowClient(tracking_uri=recorder.uri), {_trial(params)}
    token: str | None = None
    while True:
        page = client.search_runs([recorder.experiment_id], page_token=token)
        tried |= {run.data.tags[TRIAL] for run in page if TRIAL in run.data.tags}
        token = page.token
        if not token:
            return len(tried)


@contextmanager
def forecast_run(
    known: Provenance, spec: WindowSpec, data: Path
) -> Iterator[Callable[[FillResult], FillResult]]:
    """Record a run while forecasts are computed; if it is interrupted, it is recorded as failed.

    Args:
        known: provenance of the forecasts.
        spec: specification of their windows.
        data: the Qlib store.

    Yields:
        A function that records the result of a fill and returns it.
    """
    R.start_exp(experiment_name=FORECASTS)
    recorder = R.get_recorder()
    status = Recorder.STATUS_FA

    def record(filled: FillResult) -> FillResult:
        done: dict[str, float] = {
            "dates": len(filled),
            "dates_computed": filled.computed,
            "windows_computed": filled.windows,
        }
        done |= {"windows_per_second": filled.windows / filled.seconds} if filled.windows else {}
        recorder.log_metrics(**done)
        dates = list(filled.digests)
        folders = {STORE: str(filled.forecast_set.folder.resolve()), DATA: str(data.expanduser().resolve())}
        recorder.set_tags(**folders, **{FIRST: str(dates[0]), LAST: str(dates[-1])})
        return filled

    try:
        log_run(recorder, run_params(known, spec))
        yield record
        status = Recorder.STATUS_FI
    finally:
        R.end_exp(status)


def _trial(params: Mapping[str, str]) -> str:
    apart = {f"{PREFIX}{name}" for name in ("code_commit", "version", "seed", "data_sha256")}
    settings = {name: value for name, value in params.items() if name not in apart}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


SHORT = 8  # characters of a run id in messages


def find_run(name: str, tracking: str = TRACKING) -> Run:
    """A run by its id, or the first characters of it if no other begins so; or the latest run of an experiment.

    Args:
        name: id of the run, at least 4 characters of it; or the name of an experiment, for its latest
            finished run.
        tracking: address of the MLflow store.

    Raises:
        FileNotFoundError: the store is a file that is not there.
        ValueError: no such run, or several.
    """
    check_there(tracking)
    tracking = absolute(tracking)
    recorded = recorded_runs(tracking)
    runs = [run for run in recorded if run.info.run_id.startswith(name)] if len(name) >= 4 else []
    if len(runs) == 1:
        return runs[0]
    if not runs and (latest := _latest_of_experiment(name, recorded, tracking)) is not None:
        return latest
    known = [f"{run.info.run_id[:SHORT]} ({run.info.run_name})" for run in recorded[:10]]
    if not runs:
        raise ValueError(
            f"'{name}' is not a file, a folder of forecasts or of a report, a run or a finished "
            f"experiment in {tracking}, whose latest runs are {', '.join(known) or 'none'}."
        )
    raise ValueError(f"'{name}' is the beginning of {len(runs)} run ids in {tracking}. Pass more characters.")


def _latest_of_experiment(name: str, recorded: list[Run], tracking: str) -> Run | None:
    """The latest finished run of that experiment; `recorded` is sorted from latest to first."""
    experiment = MlflowClient(tracking_uri=tracking).get_experiment_by_name(name)
    if experiment is None:
        return None
    return next(
        (
            run
            for run in recorded
            if (run.info.experiment_id, run.info.status) == (experiment.experiment_id, "FINISHED")
        ),
        None,
    )


def artifact_folder(run: Run, tracking: str = TRACKING) -> Path:
    """The folder of a run's artifacts, downloaded to a temporary one where they are not local."""
    local = local_path(str(run.info.artifact_uri))
    if local is not None:
        return local
    fetched = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, tracking_uri=absolute(tracking))
    return Path(fetched)


def forecast_folder(run: Run) -> Path | None:
    """Where the forecasts of a run by `kronos store fill` are; None for any other run."""
    folder = run.data.tags.get(STORE)
    return as_location(folder) if folder else None


def forecast_span(run: Run) -> tuple[str | None, str | None]:
    """First and last date that a run by `kronos store fill` was asked for; its folder may hold others."""
    return run.data.tags.get(FIRST), run.data.tags.get(LAST)


def data_folder(run: Run) -> Path | None:
    """The Qlib store that a run by `kronos store fill` read; None for any other run."""
    folder = run.data.tags.get(DATA)
    return Path(folder) if folder else None


def recorded_runs(tracking: str) -> list[Run]:
    """Runs of all experiments, latest first."""
    client, found, token = MlflowClient(tracking_uri=tracking), [], None
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    while experiments:
        page = client.search_runs(
            experiments,
            run_view_type=ViewType.ACTIVE_ONLY,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        found += list(page)
        token = page.token
        if not token:
            break
    return found


def check_there(tracking: str) -> None:
    """Check that the database exists: MLflow would create an empty one."""
    file = Path(tracking.removeprefix(SQLITE)).expanduser()
    if tracking.startswith(SQLITE) and not file.is_file():
        if any(Path("mlruns").glob("*/meta.yaml")):
            raise FileNotFoundError(
                f"There is no record of runs at {file.resolve()}, but mlruns has runs as files. Pass "
                "--tracking ./mlruns."
            )
        raise FileNotFoundError(
            f"There is no record of runs at {file.resolve()}. Run from the folder of the experiment, or pass its "
            "tracking store with --tracking."
        )
