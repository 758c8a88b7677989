"""Workers on a Ray cluster, each an actor with its own model. Needs the `ray` extra; only this module imports Ray.

The task goes to each node once, through Ray's object store, and each shard of windows to one actor. Results go from
the actors to the forecast store.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from kronos.utils import MissingExtra
from kronos_strategies.distributed.processes import describe_error, error_of
from kronos_strategies.distributed.shards import Compute, Event, Outcome, Shard, Task, WorkerError

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError as error:
    raise MissingExtra("Ray is not installed: pip install 'kronos-strategies[ray]'.") from error

log = logging.getLogger(__name__)

LOCAL = "local"
WAIT = 1.0  # seconds
WAIT_CONNECTED = 10.0  # seconds
NEEDS_SHARE = 1e-4  # rounding of fractions of a GPU, as Ray counts them


class Node(NamedTuple):
    """CPUs and GPUs of a node."""

    cpus: float
    gpus: float

    def fits(self, cpus: int, gpus: float) -> int:
        """How many workers with these needs it can hold."""
        slots = int(self.cpus // cpus)
        return min(slots, int((self.gpus + NEEDS_SHARE) // gpus)) if gpus else slots


def cpus_per_worker(nodes: list[Node], workers: int, gpus: float) -> int:
    """The most CPUs with which all workers fit the nodes; 1 if they do not fit at all."""
    most = int(max((node.cpus for node in nodes), default=1))
    fitting = (cpus for cpus in range(most, 1, -1) if sum(n.fits(cpus, gpus) for n in nodes) >= workers)
    return next(fitting, 1)


@dataclass(frozen=True)
class RayWorkers:
    """Ray actors, see `kronos_strategies.distributed.shards.WorkerPool`.

    Args:
        workers: number of actors. Those that the cluster has no room for start when nodes join.
        address: "auto", "local" or the address of a cluster, see `kronos_strategies.distributed.worker_pool`.
        gpus_per_worker: GPUs of each; 0 computes on the CPU.

    Raises:
        ValueError: no cluster at that address, or it has no such GPUs.
    """

    workers: int
    address: str
    gpus_per_worker: float = 0.0

    @property
    def device(self) -> str:
        """Device of the actors: Ray shows each its own GPUs only."""
        return "cuda" if self.gpus_per_worker else "cpu"

    @property
    def described(self) -> str:
        """Number of actors, and what each has."""
        gpus = f"{self.gpus_per_worker:g} GPU each" if self.gpus_per_worker else "on CPUs"
        return f"{self.workers} Ray actors, {gpus}"

    @contextmanager
    def start(self, task: Task, shards: int) -> Iterator[Actors]:
        """Connect, and start actors; they end with this context, or with this process."""
        ours = not ray.is_initialized()  # otherwise the caller's connection is used, and left open
        if ours:
            _connect(self.address)
        try:
            actors = self._actors(task, min(self.workers, shards))
            try:
                yield actors
            finally:
                actors.stop()
        finally:
            if ours:
                ray.shutdown()

    def _actors(self, task: Task, workers: int) -> Actors:
        nodes = [Node(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in _alive()]
        cpus = cpus_per_worker(nodes, workers, self.gpus_per_worker)
        room = sum(node.fits(cpus, self.gpus_per_worker) for node in nodes)
        if not room and self.gpus_per_worker:
            raise ValueError(
                f"No node of the Ray cluster has {self.gpus_per_worker:g} GPU; its {len(nodes)} nodes have "
                f"{sum(node.gpus for node in nodes):g} in all. Lower gpus_per_worker, or add nodes with GPUs."
            )
        if room < workers:
            log.warning(
                "The Ray cluster has room for %d of %d workers; the others start when nodes join.",
                room,
                workers,
            )
        log.info("Ray: %d workers of %d CPUs on %d nodes", workers, cpus, len(nodes))
        options = {"num_cpus": cpus, "num_gpus": self.gpus_per_worker}
        started = Actors(ray.put(task), options)
        for _ in range(workers):
            started.add()
        return started


@dataclass
class Actors:
    """Started actors, see `kronos_strategies.distributed.shards.Workers`."""

    task: Any  # a reference to the task
    options: dict[str, float]
    found: dict[Hashable, Any] = field(default_factory=dict)  # actors by number
    asked: dict[Any, tuple[Hashable, Shard | None]] = field(
        default_factory=dict
    )  # by reference to the answer
    started: int = 0

    def add(self) -> None:
        """Start one more actor; Ray places it when there is room."""
        name = self.started
        self.started += 1
        # Ray starts no dead actor again and repeats no call: `run_shards` hands the shard to another one.
        made: Any = ray.remote(_Actor)
        actor = made.options(max_restarts=0, max_task_retries=0, **self.options).remote(self.task)
        self.found[name] = actor
        self.asked[actor.open.remote()] = name, None

    def submit(self, worker: Hashable, shard: Shard) -> None:
        """Hand a shard to an idle actor."""
        self.asked[self.found[worker].compute.remote(shard)] = worker, shard

    def wait(self) -> list[Event]:
        """News since the last call, after at most a second; an actor that has died is replaced."""
        answers, _ = ray.wait(list(self.asked), num_returns=len(self.asked), timeout=0)
        if not answers:
            answers, _ = ray.wait(list(self.asked), num_returns=1, timeout=WAIT)
        return [self._event(answer, *self.asked.pop(answer)) for answer in answers]

    def stop(self) -> None:
        """End all actors at once."""
        for actor in self.found.values():
            with suppress(Exception):  # the cluster may be gone
                ray.kill(actor)

    def _event(self, answer: Any, worker: Hashable, shard: Shard | None) -> Event:
        try:
            result = ray.get(answer)
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            raise error_of(describe_error(cause), shard) from error
        except RayError as error:
            actor = self.found.pop(worker)
            with suppress(Exception):
                ray.kill(actor)
            self.add()
            return Event(worker, "died", reason=_reason(error))
        return Event(worker, "ready") if shard is None else Event(worker, "done", outcome=Outcome(*result))


class _Actor:
    """A process with the task; one call at a time."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.compute_shard: Compute | None = None

    def open(self) -> None:
        self.compute_shard = self.task.open()

    def compute(self, shard: Shard) -> tuple[int, int, bool]:
        assert self.compute_shard is not None
        return tuple(self.compute_shard(shard, _ignore))  # type: ignore[return-value]


def _ignore(windows: int) -> None:
    """Progress of a part of a shard stays on the worker."""


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _connect(address: str) -> None:
    """Connect to a cluster, or start Ray here."""
    init: Callable[..., Any] = partial(ray.init, log_to_driver=False, logging_level=logging.ERROR)
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported from here
        init(address=LOCAL, include_dashboard=False)
        return
    try:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon:
            socket.create_connection(
                (host, int(port)), WAIT_CONNECTED
            ).close()  # Ray would try for a long time
        init(address=address)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise WorkerError(
            f"There is no Ray cluster at '{address}' ({reason[:200]}). Start one with `ray start --head`, or use "
            "--ray local."
        ) from error


def _reason(error: RayError) -> str:
    """One line of Ray's long messages: what happened comes first, but an error of our own code last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return (lines[-1] if "creation task" in lines[0] else lines[0])[:300]
