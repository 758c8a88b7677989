"""The store of runs, as several processes find it."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from kronos_strategies.qlib.experiment import prepare_database

from .conftest import CONFIG, TINY

BIN = Path(sys.executable).parent
SPAN = ("2023-05-08", "2023-05-10")
RECORD = """
import sys, time
from kronos_strategies.qlib.experiment import KronosExpManager
while time.time() < float(sys.argv[1]): pass
manager = KronosExpManager("sqlite:///mlflow.db", "kronos")
manager.start_exp(experiment_name="kronos")
manager.end_exp("FINISHED")
"""


def ended(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err[-3000:]


def statuses(folder: Path) -> list[str]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    return [run.info.status for run in client.search_runs(experiments)]


def start(command: list[object], folder: Path, **settings: str) -> subprocess.Popen:
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("KRONOS_", "MLFLOW_"))}
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=folder,
        env={**ours, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_processes_that_start_at_the_same_time_create_one_tracking_store(tmp_path):
    import time

    moment = time.time() + 15  # all have loaded MLflow by then
    ended([start([sys.executable, "-c", RECORD, moment], tmp_path) for _ in range(3)])
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
    ended([start([sys.executable, "script.py", small_store, TINY], tmp_path)])
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
