"""Qlib's experiment manager over MLflow, quiet outside a git repository.

Use it with a database URI such as `sqlite:///mlflow.db`: MLflow 3.13 and later refuse Qlib's default of plain
files. Artifacts go to `./mlruns` as before.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from traceback import walk_tb
from types import TracebackType
from urllib.parse import urlparse
from urllib.request import url2pathname

from filelock import FileLock
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from qlib.workflow import R
from qlib.workflow.exp import MLflowExperiment
from qlib.workflow.expm import MLflowExpManager
from qlib.workflow.recorder import MLflowRecorder
from qlib.workflow.utils import experiment_exception_hook
from sqlalchemy import event
from sqlalchemy.engine import Engine

import kronos
import kronos_strategies
from kronos.utils import USER_ERRORS, collect_less, explain_write_errors, write_atomic

TRACKING = "sqlite:///mlflow.db"  # default, in the working directory
SQLITE = "sqlite:///"
INSTEAD = (
    "Runs are recorded there: start from a writable folder, or choose another tracking store "
    "(--tracking, MLFLOW_TRACKING_URI, exp_manager in qlib_init)."
)
ROOTS = [Path(str(package.__file__)).parent for package in (kronos, kronos_strategies)]


def absolute(tracking: str) -> str:
    """The address of an MLflow store, a relative file's with its folder.

    MLflow keeps the connection to an address for as long as the process lives: with a relative one it would keep
    using the file in the folder where it was first used.
    """
    file = Path(tracking.removeprefix(SQLITE)).expanduser()
    return f"{SQLITE}{file.resolve()}" if tracking.startswith(SQLITE) else tracking


@cache
def prepare_database(tracking: str) -> None:
    """Create or upgrade the database of an MLflow tracking store under a lock.

    MLflow itself does not lock: if two processes create the database at once, one fails on incomplete tables.

    Args:
        tracking: address of the store, absolute; nothing is done for one that is not a file of SQLite.

    Raises:
        OSError: the database cannot be written; one sentence that names it.
    """
    if not tracking.startswith(SQLITE):
        return
    file = Path(tracking.removeprefix(SQLITE).partition("?")[0])
    lock = FileLock(f"{file}.lock")
    with explain_write_errors(file, INSTEAD):
        file.parent.mkdir(parents=True, exist_ok=True)
        Path(lock.lock_file).open("a").close()  # without permission, a lock would wait forever
    with lock:
        if not file.exists():
            content = new_database()
            with explain_write_errors(file, INSTEAD):
                write_atomic(file, content)
        MlflowClient(tracking_uri=tracking).search_experiments(max_results=1)


@cache
def new_database() -> bytes:
    """The file of an MLflow database without experiments.

    MLflow creates one by its whole history of migrations and waits for the disk after each, for seconds in all.
    This one is made in a temporary folder without waiting.
    """
    # Windows keeps a file that MLflow has open.
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder).resolve() / "mlflow.db"

        def write_behind(connection: object, _: object) -> None:
            if isinstance(connection, sqlite3.Connection):
                (_, _, of), *_ = connection.execute("PRAGMA database_list")
                if Path(of) == file:
                    connection.execute("PRAGMA synchronous = OFF")

        event.listen(Engine, "connect", write_behind)
        try:
            MlflowClient(tracking_uri=f"{SQLITE}{file}").search_experiments(max_results=1)
        finally:
            event.remove(Engine, "connect", write_behind)
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("DELETE FROM experiments")  # the default one has its artifacts in this folder
        return file.read_bytes()


def local_path(uri: str) -> Path | None:
    """The path of an artifact's address; None where it is on another machine."""
    parsed = urlparse(uri)
    return Path(url2pathname(parsed.path)) if parsed.scheme in ("", "file") else None


class KronosRecorder(MLflowRecorder):
    """Recorder that logs uncommitted code only within a git repository."""

    def save_objects(
        self, local_path: str | None = None, artifact_path: str | None = None, **objects: object
    ) -> None:
        """Save objects or files; a task, which Qlib saves first, is checked before."""
        task = objects.get("task")
        if isinstance(task, Mapping):
            from kronos_strategies.qlib.checks import check_task  # which reads tracking stores

            check_task(task)
        super().save_objects(local_path, artifact_path, **objects)

    def _log_uncommitted_code(self) -> None:
        inside = subprocess.run(
            ["git", "rev-parse", "--is-inside-work-tree"], capture_output=True, check=False
        )
        if inside.returncode == 0:
            super()._log_uncommitted_code()


class KronosExperiment(MLflowExperiment):
    """Experiment whose recorders are `KronosRecorder`."""

    def create_recorder(self, recorder_name: str | None = None) -> KronosRecorder:
        """A new run of this experiment."""
        return KronosRecorder(self.id, self._uri, recorder_name or self._default_rec_name)


class KronosExpManager(MLflowExpManager):
    """Manager whose experiments are `KronosExperiment`; arguments of Qlib's manager: `uri`, `default_exp_name`."""

    def __init__(self, uri: str, default_exp_name: str) -> None:
        super().__init__(absolute(uri), default_exp_name)
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it logs each table that it creates
        # One progress bar per small local file would hide qrun's output.
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        if Path(sys.argv[0]).stem == "qrun":
            collect_less()

    def _start_exp(self, **which: object) -> MLflowExperiment:
        """Start the experiment; from here on `qrun` reports user errors in one sentence."""
        if Path(sys.argv[0]).stem == "qrun":
            sys.excepthook = report_user_errors
        return super()._start_exp(**which)

    @property
    def client(self) -> MlflowClient:
        """The client of the store of runs, whose database the first call creates."""
        prepare_database(self.uri)
        return super().client

    def create_exp(self, experiment_name: str | None = None) -> KronosExperiment:
        """A new experiment."""
        return _ours(super().create_exp(experiment_name))

    def _get_exp(
        self, experiment_id: str | None = None, experiment_name: str | None = None
    ) -> KronosExperiment:
        return _ours(super()._get_exp(experiment_id, experiment_name))


def active_recorder() -> MLflowRecorder | None:
    """The recorder of the run in progress; None outside of one."""
    experiment = R.exp_manager.active_experiment
    return None if experiment is None else experiment.active_recorder


@contextmanager
def nested_run(experiment: str, name: str) -> Iterator[MLflowRecorder]:
    """A run of another experiment within the run in progress, which is active again afterwards.

    Qlib itself has one run at a time. In MLflow the new run is a child of the other one, and fails if it is
    interrupted.

    Args:
        experiment: name of the experiment, created if there is none.
        name: name of the run.
    """
    manager, parent = R.exp_manager, active_recorder()
    outer, inner = manager.active_experiment, manager.get_exp(experiment_name=experiment)
    tags = {} if parent is None else {MLFLOW_PARENT_RUN_ID: parent.id}
    run = manager.client.create_run(inner.id, run_name=name, tags=tags)
    inner.active_recorder = KronosRecorder(inner.id, manager.uri, mlflow_run=run)
    manager.active_experiment, status = inner, MLflowRecorder.STATUS_FA
    try:
        yield inner.active_recorder
        status = MLflowRecorder.STATUS_FI
    finally:
        manager.active_experiment = outer
        manager.client.set_terminated(run.info.run_id, status)


def report_user_errors(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Exception hook: print an error that this project raised as one sentence on stderr.

    Other errors keep Qlib's hook and their traceback. In both cases the run is recorded as failed.
    """
    if not (isinstance(error, USER_ERRORS) and _raised_here(trace)):
        experiment_exception_hook(kind, error, trace)
        return
    sys.stderr.write(f"\n{error}\n")
    R.end_exp(recorder_status=MLflowRecorder.STATUS_FA)


def _raised_here(trace: TracebackType | None) -> bool:
    """Whether the innermost frame of a trace is of this project."""
    files = [Path(frame.f_code.co_filename) for frame, _ in walk_tb(trace)]
    return bool(files) and any(files[-1].is_relative_to(root) for root in ROOTS)


def _ours(experiment: MLflowExperiment) -> KronosExperiment:
    return KronosExperiment(experiment.id, experiment.name, experiment._uri)
