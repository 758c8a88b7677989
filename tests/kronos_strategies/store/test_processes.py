"""Real processes: killed half-way, and several at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kronos_strategies.store import ForecastStore
from kronos_strategies.store.files import try_lock
from kronos_strategies.store.maintenance import verify_store

from .conftest import SAMPLING, SPEC, Spy

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]


def start(store: Path, pause: float, go: Path) -> subprocess.Popen[str]:
    """A filler that is ready to begin."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kronos_strategies.store.filler", store, str(pause), go],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


def files(store: Path) -> dict[str, int]:
    return {
        str(path.relative_to(store)): path.stat().st_mtime_ns for path in store.glob("*/*/date=*/*.parquet")
    }


@pytest.fixture
def killed(tmp_path) -> Path:
    """A store whose filler was killed by SIGKILL while it computed its third chunk or a later one."""
    store, go = tmp_path / "store", tmp_path / "go"
    process = start(store, 0.2, go)
    go.touch()
    while len(files(store)) < 4:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert 4 <= len(files(store)) < 15
    return store


def test_after_kill_9_a_fill_resumes_with_what_is_missing(killed, tmp_path, predictor, windows):
    finished = files(killed)
    spy = Spy(predictor)
    filled = ForecastStore(killed).fill(spy, windows, SPEC, SAMPLING)
    resumed = files(killed)
    assert {name: resumed.get(name) for name in finished} == finished, "nothing finished was written again"
    assert filled.computed == 15 - len(finished)
    assert len({Path(name).parent for name in resumed}) == len(resumed) == 15, "every date exactly once"
    assert filled.forecast_set.manifest["data"]["dates"] == 15

    whole = ForecastStore(tmp_path / "whole").fill(predictor, windows, SPEC, SAMPLING)
    for ours, theirs in zip(filled, whole, strict=True):
        assert ours.index.equals(theirs.index)
        np.testing.assert_allclose(ours.paths, theirs.paths, rtol=1e-5)
        assert ours.provenance == theirs.provenance


def test_a_killed_process_holds_no_lock(killed):
    (forecast_set,) = ForecastStore(killed).forecast_sets()
    names = [path.stem for path in (forecast_set.folder / "_locks").iterdir()]
    assert len(names) > len(forecast_set), "it held some when it was killed"
    for name in names:
        lock = try_lock(forecast_set.folder, name)
        assert lock is not None, name
        lock.release()


def test_two_processes_share_the_work_and_each_date_is_computed_once(tmp_path):
    store, go = tmp_path / "store", tmp_path / "go"
    both = [start(store, 0.15, go) for _ in range(2)]
    go.touch()
    done = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    first, second = (set(one["dates"]) for one in done)
    assert not first & second
    assert min(len(first), len(second)) > 1
    assert len(first | second) == sum(one["computed"] for one in done) == 15
    assert len(files(store)) == 15
    assert verify_store(store).problems == ()
    (forecast_set,) = ForecastStore(store).forecast_sets()
    assert forecast_set.manifest["data"]["dates"] == 15
