"""Worker processes: the same bytes as one process, whatever ends a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kronos_strategies.distributed import worker_pool
from kronos_strategies.distributed.processes import Processes, describe_error, threads_per_worker
from kronos_strategies.distributed.shards import WorkerError
from kronos_strategies.store import ForecastStore
from kronos_strategies.store.files import try_lock
from tests.kronos.builders import make_head
from tests.kronos_strategies.store.conftest import SAMPLING, SPEC

from .conftest import content
from .workers import Crowd, Failing, Traced, pids, wait_for

ROOT = Path(__file__).parents[3]


@pytest.fixture
def traces(tmp_path):
    folder = tmp_path / "traces"
    folder.mkdir()
    return folder


@pytest.fixture
def alone(predictor, windows, tmp_path):
    """Content of a store that one process has filled."""
    ForecastStore(tmp_path / "alone").fill(predictor, windows, SPEC, SAMPLING)
    return content(tmp_path / "alone")


@pytest.mark.integration
def test_a_store_is_byte_for_byte_that_of_one_process_even_if_a_worker_is_killed(
    predictor, windows, alone, traces, tmp_path
):
    killed = []

    def kill_one(done: int, total: int) -> None:
        if len(pids(traces)) == 2 and not killed:
            killed.append(min(pids(traces)))
            os.kill(killed[0], signal.SIGKILL)

    store = ForecastStore(tmp_path / "shared")
    # Two processes work, one of them is killed, and the rest waits for the one that takes its place.
    crowd = Crowd(predictor, traces, {"2024-02-16": 2, "2024-02-22": 3})
    filled = store.fill(crowd, windows, SPEC, SAMPLING, kill_one, worker_pool(2))
    assert killed
    assert len(pids(traces)) == 3
    assert content(tmp_path / "shared") == alone
    assert filled.computed == 15
    assert filled.forecast_set.manifest["data"]["dates"] == 15


@pytest.mark.integration
def test_a_partly_filled_store_resumes_to_the_same_bytes(predictor, windows, alone, traces, tmp_path):
    """A date of a shard is missing, as after a kill between the two files of a shard."""
    folder = tmp_path / "shared"
    store = ForecastStore(folder)
    store.fill(predictor, windows, SPEC, SAMPLING)
    removed = sorted(folder.glob("*/*/date=*/*.parquet"))[3::4]
    for path in removed:
        path.unlink()
    reports = []
    pool = worker_pool(2)
    filled = store.fill(
        Traced(predictor, traces), windows, SPEC, SAMPLING, lambda *r: reports.append(r), pool
    )
    assert (filled.computed, filled.windows) == (len(removed), 4 * len(removed))
    assert content(folder) == alone
    assert reports[-1][0] == reports[-1][1]
    again = store.fill(Traced(predictor, traces), windows, SPEC, SAMPLING, pool=pool)
    assert again.computed == 0


@pytest.mark.integration
def test_a_date_that_another_run_computes_is_waited_for(predictor, windows, alone, tmp_path):
    """The other run stops without it."""
    store = ForecastStore(tmp_path / "shared")
    folder = store.fill(predictor, windows[:4], SPEC, SAMPLING).forecast_set.folder
    lock = try_lock(folder, "2024-02-20")
    assert lock is not None
    reports = []

    def release(done: int, total: int) -> None:
        reports.append(done)
        if done == total - 8:  # the windows of its shard
            lock.release()

    filled = store.fill(predictor, windows, SPEC, SAMPLING, release, worker_pool(2))
    assert not lock.is_locked
    assert filled.computed == 14
    assert reports[-1] == 60
    stored = content(tmp_path / "shared")
    del stored[next(name for name in stored if "2024-02-12" in name)]  # was computed by itself
    assert stored.items() <= alone.items()
    assert len(stored) == 14


@pytest.mark.integration
def test_a_script_without_a_main_guard_gets_an_error_that_explains_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from kronos_strategies.distributed import worker_pool\n"
        "with worker_pool(2).start(print, 1) as workers:\n"
        "    while True:\n"
        "        for event in workers.wait():\n"
        "            raise SystemExit(event.reason)\n"
    )
    done = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1].endswith("below `if __name__ == '__main__':`)")


@pytest.mark.integration
def test_an_error_of_a_worker_is_one_sentence_that_names_the_dates(predictor, windows, traces, tmp_path):
    failing = Failing(predictor, traces, ValueError("The bars are upside down. Turn them."))
    says = r"^A worker failed at the dates 2024-02-\d\d.* to .*: The bars are upside down. Turn them.$"
    with pytest.raises(WorkerError, match=says):
        ForecastStore(tmp_path / "store").fill(failing, windows, SPEC, SAMPLING, pool=worker_pool(2))
    wait_for(lambda: not any(map(exists, pids(traces))))
    assert content(tmp_path / "store")  # earlier dates are kept


def test_an_error_that_is_not_meant_for_users_has_its_type():
    assert describe_error(ValueError("too\n  long")) == "too long"
    assert describe_error(ZeroDivisionError("by zero")) == "ZeroDivisionError: by zero"
    assert describe_error(OSError()) == "OSError: "


def exists(pid: int) -> bool:
    """Whether a process runs; one that has ended but is not yet collected does not."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_the_end_of_the_starting_process_ends_all_workers(number, alone, traces, tmp_path):
    store = tmp_path / "shared"
    command = [sys.executable, "-m", "tests.kronos_strategies.distributed.fill", store, traces, "0.5", "2"]
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: len(pids(traces)) == 2 or process.poll() is not None)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    wait_for(lambda: not any(map(exists, pids(traces))))
    if number == signal.SIGINT:
        assert err.count("Traceback") == 1, (
            err
        )  # only of the starting process, which a command turns into a sentence
        assert "KeyboardInterrupt" in err
    stored = content(store)
    assert {name: alone[name] for name in stored} == stored, "what is there is whole"


@pytest.mark.integration
def test_outputs_of_a_head_are_those_of_one_process(predictor, windows, tmp_path, monkeypatch):
    monkeypatch.setattr("kronos_strategies.store.window_outputs.CHUNK_WINDOWS", 8)
    head = make_head(predictor.model.config.d_model, SPEC.lookback)
    both = [
        ForecastStore(tmp_path / name).head_outputs(predictor, head, windows, SPEC, pool=pool)
        for name, pool in (("alone", None), ("shared", worker_pool(2)))
    ]
    np.testing.assert_array_equal(*both)
    assert content_of_heads(tmp_path / "shared") == content_of_heads(tmp_path / "alone")


def content_of_heads(store: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(store)): path.read_bytes() for path in store.glob("*/heads/*/date=*/*")}
    assert len(found) == 15
    return found


def test_threads_are_shares_of_the_cores_unless_they_are_set(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    assert [threads_per_worker(workers) for workers in (2, 5, 12, 40)] == [6, 2, 1, 1]
    assert Processes(5).described == "5 processes of 2 threads"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_per_worker(2) == 3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"workers": 0}, "workers=0"),
        ({"workers": 1.5}, "workers=1.5"),
        ({"gpus_per_worker": -1}, "negative"),
        ({"workers": 2, "gpus_per_worker": 1}, "ray='local'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        worker_pool(**settings)


def test_one_worker_is_this_process():
    assert worker_pool(1) is None
