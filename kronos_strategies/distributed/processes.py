"""Worker processes of this machine, each with its own model and its share of the processor's cores."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import cast

from kronos_strategies.distributed.shards import Compute, Event, Outcome, Shard, Task, WorkerError, span

log = logging.getLogger(__name__)

THREADS = "OMP_NUM_THREADS"
WAIT = 1.0  # seconds
GUARD = "a script that starts processes does so below `if __name__ == '__main__':`"


def threads_per_worker(workers: int) -> int:
    """Threads of each worker: OMP_NUM_THREADS if it is set, otherwise an equal share of the cores."""
    given = os.environ.get(THREADS, "")
    if given.isdecimal() and int(given):
        return int(given)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


@dataclass(frozen=True)
class Processes:
    """Spawned processes, see `kronos_strategies.distributed.shards.WorkerPool`.

    Args:
        workers: number of processes.
    """

    workers: int

    @property
    def device(self) -> None:
        """Processes compute on the device of the model, which they share."""
        return

    @property
    def described(self) -> str:
        """Number of processes and threads of each."""
        threads = threads_per_worker(self.workers)
        return f"{self.workers} processes of {threads} thread{'s' if threads > 1 else ''}"

    @contextmanager
    def start(self, task: Task, shards: int) -> Iterator[ProcessWorkers]:
        """Start them; they end with this context, and with this process however it ends."""
        started = ProcessWorkers(pickle.dumps(task), threads_per_worker(self.workers))
        try:
            names = [started.spawn() for _ in range(min(self.workers, shards))]
            for name in names:  # only now: a process reads when it has started, and all start at once
                started.assign(name)
            yield started
        finally:
            started.stop()


@dataclass
class ProcessWorkers:
    """Started processes, see `kronos_strategies.distributed.shards.Workers`."""

    task: bytes
    threads: int
    found: dict[Hashable, tuple[BaseProcess, Connection]] = field(default_factory=dict)
    working: dict[Hashable, Shard] = field(default_factory=dict)
    ready: set[Hashable] = field(default_factory=set)

    def spawn(self) -> Hashable:
        """Start one more process, and return its name."""
        context = get_context("spawn")  # a forked one would share locks of this process's threads
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs,), daemon=True)
        with environment_variable(THREADS, str(self.threads)):  # read when the process loads PyTorch
            process.start()
        theirs.close()  # the last copy is in the process, so that its end is the end of the pipe
        self.found[process.pid] = process, ours
        return process.pid

    def assign(self, worker: Hashable) -> None:
        """Send the task to a process."""
        with suppress(OSError):  # it has ended already, which `wait` sees
            self.found[worker][1].send_bytes(self.task)

    def submit(self, worker: Hashable, shard: Shard) -> None:
        """Hand a shard to an idle process."""
        self.working[worker] = shard
        with suppress(OSError):
            self.found[worker][1].send(shard)

    def wait(self) -> list[Event]:
        """News since the last call, after at most a second; a process that has ended is replaced."""
        ready = connection.wait([pipe for _, pipe in self.found.values()], WAIT)
        events = []
        for worker, (process, pipe) in list(self.found.items()):
            if pipe in ready:
                try:
                    events.append(self._event(worker, *pipe.recv()))
                except (EOFError, OSError):
                    process.join()
                    hint = "" if worker in self.ready or process.exitcode != 1 else f" ({GUARD})"
                    events.append(Event(worker, "died", reason=_ended(process.exitcode) + hint))
                    del self.found[worker]
                    self.assign(self.spawn())
        return events

    def stop(self) -> None:
        """End all processes at once."""
        for process, pipe in self.found.values():
            process.terminate()
            pipe.close()
        for process, _ in self.found.values():
            process.join()

    def _event(self, worker: Hashable, kind: str, content: object) -> Event:
        if kind == "error":
            raise error_of(str(content), self.working.get(worker))
        if kind == "progress":
            return Event(worker, "progress", windows=int(str(content)))
        if kind == "ready":
            self.ready.add(worker)
            return Event(worker, "ready")
        del self.working[worker]
        return Event(worker, "done", outcome=cast(Outcome, content))


def serve(pipe: Connection) -> None:
    """Open a task and compute shards until the other end of the pipe closes, in a process of its own."""
    # Ctrl-C reaches all processes of a terminal; the one that started the others ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    compute: Compute | None = None
    while True:
        try:
            if compute is None:
                compute = cast(Task, pickle.loads(pipe.recv_bytes())).open()
                answer: tuple[str, object] = ("ready", None)
            else:
                answer = ("done", compute(pipe.recv(), _report(pipe)))
        except EOFError:
            return  # the process that started this one has ended
        except Exception as error:
            log.debug("%s", traceback.format_exc())
            answer = ("error", describe_error(error))
        try:
            pipe.send(answer)
        except OSError:
            return


def describe_error(error: Exception) -> str:
    """One line: the sentence of an error that is meant for users, otherwise with its type."""
    from kronos.utils import USER_ERRORS

    text = " ".join(str(error).split())
    return text if isinstance(error, USER_ERRORS) and text else f"{type(error).__name__}: {text}"


def error_of(text: str, shard: Shard | None) -> WorkerError:
    """The error that the starting process raises."""
    where = f"A worker failed at {span(shard.dates)}" if shard else "A worker could not start"
    return WorkerError(f"{where}: {text}")


def _report(pipe: Connection) -> Callable[[int], None]:
    """Report windows done, which `Compute` counts from the start of the shard, as differences."""
    before = 0

    def report(done: int) -> None:
        nonlocal before
        try:
            pipe.send(("progress", done - before))
        except OSError:
            raise SystemExit(1) from None  # the process that started this one has ended
        before = done

    return report


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"it was ended by {signal.Signals(-code).name}"
    return f"it ended with exit code {code}"


@contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Set a variable that processes started meanwhile inherit."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
