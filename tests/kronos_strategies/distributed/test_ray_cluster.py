"""A real Ray cluster of two nodes on this machine: it grows, loses a worker, loses a node, loses its driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("ray", reason="Ray is not installed")

import ray
from ray.cluster_utils import Cluster

from kronos_strategies.distributed import worker_pool
from kronos_strategies.distributed.ray_cluster import Node, cpus_per_worker
from kronos_strategies.distributed.shards import WorkerError
from kronos_strategies.store import ForecastStore
from tests.kronos_strategies.store.conftest import SAMPLING, SPEC

from .conftest import content
from .workers import Failing, Traced, nodes, pids, wait_for

ROOT = Path(__file__).parents[3]
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
TRIES = 5


def add_node(cluster: Cluster) -> Any:
    """A small node; Ray gives its helpers 15 seconds to start, so that a busy machine gets several tries."""
    for _ in range(TRIES - 1):
        with suppress(Exception):
            return cluster.add_node(**NODE)
    return cluster.add_node(**NODE)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of one node with one CPU, until a test adds others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_worker_register_timeout_seconds", "300")  # on a busy machine
        patch.setenv("PYTHONPATH", str(ROOT))  # workers load the forecasters of these tests
        started = Cluster(initialize_head=False)
        try:
            add_node(started)
            yield started
        finally:
            if ray.is_initialized():
                ray.shutdown()
            started.shutdown()


@dataclass
class Events(Traced):
    """Waits from given dates on for what happens to the cluster, so that every event comes in mid-run."""

    waits: dict[str, str]  # event by the first date that waits for it

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def before(self, date: pd.Timestamp) -> None:
        for first, event in self.waits.items():
            if date >= pd.Timestamp(first):
                wait_for(lambda event=event: (self.folder / event).exists())


@pytest.mark.integration
def test_a_cluster_that_grows_and_loses_a_worker_and_a_node_stores_the_bytes_of_one_process(
    cluster, predictor, windows, tmp_path
):
    traces, added, killed = tmp_path / "traces", [], []
    traces.mkdir()

    def happen(done: int, total: int) -> None:
        """One event after the other, each once its predecessor shows in the traces."""
        if done and not added:
            added.append(add_node(cluster))
        elif len(nodes(traces)) == 2 and not killed:
            (traces / "grown").touch()
            killed.append(min(pids(traces)))
            os.kill(killed[0], signal.SIGKILL)
        elif len(pids(traces)) == 3 and not (traces / "replaced").exists():
            cluster.remove_node(added[0], allow_graceful=False)
            (traces / "replaced").touch()

    waits = {"2024-02-16": "grown", "2024-02-26": "replaced"}
    store = ForecastStore(tmp_path / "shared")
    pool = worker_pool(2, cluster.address)
    filled = store.fill(Events(predictor, traces, waits), windows, SPEC, SAMPLING, happen, pool)
    assert (traces / "replaced").exists()
    assert filled.computed == 15
    assert filled.forecast_set.manifest["data"]["dates"] == 15
    ForecastStore(tmp_path / "alone").fill(predictor, windows, SPEC, SAMPLING)
    assert content(tmp_path / "shared") == content(tmp_path / "alone")
    assert len({Path(name).parent for name in content(tmp_path / "shared")}) == 15
    assert not ray.is_initialized()


@pytest.mark.integration
def test_after_its_driver_is_killed_a_run_resumes_to_the_same_bytes(cluster, predictor, windows, tmp_path):
    traces = tmp_path / "traces"
    traces.mkdir()
    words = ["-m", "tests.kronos_strategies.distributed.fill", tmp_path / "shared", traces, "0.3", "1"]
    process = subprocess.Popen([sys.executable, *map(str, words), cluster.address], cwd=ROOT)
    wait_for(lambda: len(content(tmp_path / "shared")) >= 3 or process.poll() is not None)
    process.kill()
    process.wait()
    done = content(tmp_path / "shared")
    assert 3 <= len(done) < 15
    store = ForecastStore(tmp_path / "shared")
    store.fill(predictor, windows, SPEC, SAMPLING, pool=worker_pool(1, cluster.address))
    ForecastStore(tmp_path / "alone").fill(predictor, windows, SPEC, SAMPLING)
    assert content(tmp_path / "shared") == content(tmp_path / "alone")
    assert done.items() <= content(tmp_path / "shared").items()


@pytest.mark.integration
def test_an_error_of_an_actor_is_one_sentence_that_names_the_dates(cluster, predictor, windows, tmp_path):
    failing: Any = Failing(predictor, tmp_path, ValueError("The bars are upside down. Turn them."))
    with pytest.raises(WorkerError) as caught:
        ForecastStore(tmp_path / "s").fill(
            failing, windows, SPEC, SAMPLING, pool=worker_pool(1, cluster.address)
        )
    text = str(caught.value)
    assert text.startswith("A worker failed at the dates 2024-02-20")
    assert text.endswith("The bars are upside down. Turn them.")
    assert "\n" not in text


@pytest.mark.integration
def test_gpus_that_no_node_has_are_refused(cluster, predictor, windows, tmp_path):
    with pytest.raises(ValueError, match=r"No node of the Ray cluster has 1 GPU; its 1 nodes have 0 in all"):
        ForecastStore(tmp_path).fill(
            predictor, windows, SPEC, SAMPLING, pool=worker_pool(1, cluster.address, 1)
        )


@pytest.mark.integration
def test_an_address_without_a_cluster_is_one_sentence(predictor, windows, tmp_path):
    with pytest.raises(ValueError, match=r"^There is no Ray cluster at '127.0.0.1:9'.*ray start --head"):
        ForecastStore(tmp_path).fill(predictor, windows, SPEC, SAMPLING, pool=worker_pool(1, "127.0.0.1:9"))


def test_workers_get_the_most_cpus_with_which_all_of_them_fit():
    nodes = [Node(8, 0), Node(8, 0)]
    assert [cpus_per_worker(nodes, workers, 0) for workers in (1, 2, 3, 4, 5, 16, 17)] == [
        8,
        8,
        4,
        4,
        2,
        1,
        1,
    ]
    assert cpus_per_worker([Node(96, 8)], 8, 1) == 12
    assert cpus_per_worker([Node(96, 8)], 16, 0.5) == 6
    assert cpus_per_worker([Node(64, 0), Node(16, 1)], 1, 1) == 16, "only the node with a GPU counts"
    assert cpus_per_worker([], 4, 0) == 1
    assert Node(16, 1).fits(1, 0.1) == 10
