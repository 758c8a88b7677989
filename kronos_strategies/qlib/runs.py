"""Runs on record: found again by id in the MLflow store that Qlib's recorder wrote."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from kronos_strategies.qlib.experiment import SQLITE, TRACKING, absolute, local_path
from kronos_strategies.qlib.registry import DATA, FIRST, LAST, STORE

SHORT = 8  # characters of an id that runs are shown by


def find_run(name: str, tracking: str = TRACKING) -> Run:
    """A run by its id, or the first characters of it if no other begins so; or the latest run of an experiment.

    Args:
        name: id of the run, at least 4 characters of it; or the name of an experiment, whose latest finished run
            is meant.
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
            f"'{name}' is no file, no folder of forecasts or of a report, and no run and no finished "
            f"experiment in {tracking}, whose latest runs are {', '.join(known) or 'none'}."
        )
    raise ValueError(f"'{name}' begins {len(runs)} runs in {tracking}. Give more characters of the id.")


def _latest_of_experiment(name: str, recorded: list[Run], tracking: str) -> Run | None:
    """The first finished run of that experiment; `recorded` has the latest first."""
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


def artefacts(run: Run, tracking: str = TRACKING) -> Path:
    """The folder of a run's artefacts, fetched to a temporary one where they are not local."""
    local = local_path(str(run.info.artifact_uri))
    if local is not None:
        return local
    fetched = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, tracking_uri=absolute(tracking))
    return Path(fetched)


def forecast_folder(run: Run) -> Path | None:
    """Where the forecasts of a run by `kronos forecast` are; None for any other run."""
    folder = run.data.tags.get(STORE)
    return Path(folder) if folder else None


def forecast_span(run: Run) -> tuple[str | None, str | None]:
    """First and last date that a run by `kronos forecast` was asked for; its folder may hold others."""
    return run.data.tags.get(FIRST), run.data.tags.get(LAST)


def data_folder(run: Run) -> Path | None:
    """The Qlib store that a run by `kronos forecast` read; None for any other run."""
    folder = run.data.tags.get(DATA)
    return Path(folder) if folder else None


def recorded_runs(tracking: str) -> list[Run]:
    """Of all experiments, latest first."""
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
    """MLflow would make an empty database in the place of one that is not there."""
    file = Path(tracking.removeprefix(SQLITE)).expanduser()
    if tracking.startswith(SQLITE) and not file.is_file():
        if any(Path("mlruns").glob("*/meta.yaml")):
            raise FileNotFoundError(
                f"There is no record of runs at {file.resolve()}, while Qlib keeps runs as files in mlruns. Name "
                "them with --tracking ./mlruns."
            )
        raise FileNotFoundError(
            f"There is no record of runs at {file.resolve()}. Run from the folder of the experiment, or name its "
            "store with --tracking."
        )
