"""The store of runs, as several processes find it."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from kronos_strategies.qlib.experiment import prepare_database
from tests.kronos_strategies.warm import Script

from .conftest import CONFIG, TINY

BIN = Path(sys.executable).parent
SPAN = ("2023-05-08", "2023-05-10")
RECORD = """
import sys, time
from pathlib import Path
from kronos_strategies.qlib.experiment import KronosExpManager
Path(f"ready-{sys.argv[1]}").touch()
while not Path("go").exists():
    time.sleep(0.001)
manager = KronosExpManager("sqlite:///mlflow.db", "kronos")
manager.start_exp(experiment_name="kronos")
manager.end_exp("FINISHED")
"""


def ended(scripts: list[Script]) -> None:
    for script in scripts:
        done = script.finished()
        assert done.returncode == 0, done.stderr[-3000:]


def statuses(folder: Path) -> list[str]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    return [run.info.status for run in client.search_runs(experiments)]


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("KRONOS_", "MLFLOW_"))}


def start(command: list[object], folder: Path, **settings: str) -> Script:
    return Script(command, folder, {**environment(), **settings})


@pytest.mark.slow
def test_processes_that_start_at_the_same_time_create_one_tracking_store(tmp_path):
    (tmp_path / "record.py").write_text(RECORD)
    scripts = [start(["record.py", number], tmp_path) for number in range(3)]
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("ready-*"))) < 3:
        assert time.monotonic() < deadline, "three processes did not start within five minutes"
        time.sleep(0.01)
    (tmp_path / "go").touch()
    ended(scripts)
    assert statuses(tmp_path) == ["FINISHED"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("programs", [("qrun", "qrun"), ("forecast", "forecast"), ("qrun", "forecast")])
def test_two_programs_started_in_a_fresh_folder_both_finish(small_store, tmp_path, programs):
    common = ["--model", TINY, "--samples", 2, "--device", "cpu", "--lookback", 30, "--data", small_store]
    forecast = [BIN / "kronos", "store", "fill", "forecasts", "--start", SPAN[0], "--end", SPAN[1], *common]
    commands = {"qrun": [BIN / "qrun", CONFIG], "forecast": forecast}
    settings = {
        "KRONOS_QLIB_DATA": str(small_store), "KRONOS_TEST_START": SPAN[0], "KRONOS_TEST_END": SPAN[1],
        "KRONOS_MODEL": str(TINY), "KRONOS_SAMPLES": "2", "KRONOS_DEVICE": "cpu", "KRONOS_LOOKBACK": "30",
        "KRONOS_TOPK": "4", "KRONOS_N_DROP": "1",
    }  # fmt: skip
    ended([start(commands[program], tmp_path, **settings) for program in programs])
    assert statuses(tmp_path) == ["FINISHED"] * 2


FILES = """
import sys, qlib
from qlib.workflow import R
from qlib.workflow.record_temp import SignalRecord
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.model import KronosModel
if __name__ == "__main__":
    qlib.init(provider_uri=sys.argv[1], kernels=1)
    with R.start(experiment_name="files"):
        data = KronosDataset({"test": ("2023-06-29", None)}, lookback=30)
        SignalRecord(KronosModel(sys.argv[2], device="cpu", samples=2), data, R.get_recorder()).generate()
"""


def test_qlibs_default_store_of_files_works_from_a_script(small_store, tmp_path):
    (tmp_path / "script.py").write_text(FILES)
    # Not forked: that Qlib may use its store depends on the order of what a process loads.
    command = [sys.executable, "script.py", small_store, TINY]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.glob("mlruns/*/*/artifacts/pred.pkl"))) == 1


def content(database: Path) -> tuple[dict[str, list[str]], list[tuple]]:
    """Every table, index and trigger, with its definition line by line; the version of MLflow's schema."""
    with closing(sqlite3.connect(database)) as connection:
        schema = connection.execute("SELECT name, coalesce(sql, '') FROM sqlite_master").fetchall()
        # Migrations write the constraints of a table in any order.
        lines = {name: sorted(line.strip(" ,\t") for line in sql.splitlines()) for name, sql in schema}
        return lines, connection.execute("SELECT * FROM alembic_version").fetchall()


def test_a_new_database_is_that_of_mlflow_with_its_default_experiment(empty_record, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare_database(f"sqlite:///{tmp_path}/mlflow.db")
    assert content(tmp_path / "mlflow.db") == content(empty_record)
    (default,) = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_experiments()
    assert (default.experiment_id, default.name) == ("0", "Default")
    assert Path(default.artifact_location) == tmp_path / "mlruns" / "0"
    prepare_database(f"sqlite:///{tmp_path}/other.db?timeout=30")
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert names == {"mlflow.db", "mlflow.db.lock", "other.db", "other.db.lock"}


def test_an_existing_database_keeps_its_runs(empty_record, tmp_path):
    address = f"sqlite:///{shutil.copy(empty_record, tmp_path)}"
    MlflowClient(address).create_experiment("mine")
    prepare_database(address)
    names = {each.name for each in MlflowClient(address).search_experiments()}
    assert names == {"mine", "Default"}
