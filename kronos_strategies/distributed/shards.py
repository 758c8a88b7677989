"""Shards of dates on a pool of workers: an idle one gets the next shard; that of a dead one is handed out again."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import pandas as pd

from kronos.windows import Windows
from kronos_strategies.forecasting import WindowsByDate
from kronos_strategies.progress import ProgressReport

log = logging.getLogger(__name__)

DEATHS = 3  # workers that may die over one shard before the run ends
Dates = tuple[pd.Timestamp, ...]


class WorkerError(ValueError):
    """A worker failed in a way that would fail again."""


class Shard(NamedTuple):
    """Dates that one worker computes together, so that their rows share matrix products as they do anywhere."""

    dates: Dates
    windows: Windows  # compact: this is what travels to the worker


def span(dates: Dates) -> str:
    """The dates of a shard, for a message."""
    return f"the dates {dates[0]} to {dates[-1]}" if len(dates) > 1 else f"the date {dates[0]}"


class Outcome(NamedTuple):
    """Outcome of a shard; the results themselves are in the store."""

    dates: int  # computed and stored
    windows: int  # of these dates
    held: bool  # some dates are being computed by another run


Compute = Callable[[Shard, Callable[[int], None]], Outcome]


class Task(Protocol):
    """The work of a worker; it is pickled once for each worker."""

    def open(self) -> Compute:
        """Load what every shard needs."""
        ...


class Event(NamedTuple):
    """News of a worker.

    `ready` comes once, when it has opened the task; `progress` has the windows of its shard that are done since the
    last one; `done` the outcome; `died` the reason.
    """

    worker: Hashable
    kind: Literal["ready", "progress", "done", "died"]
    windows: int = 0
    outcome: Outcome | None = None
    reason: str = ""


class Workers(Protocol):
    """Started workers."""

    def submit(self, worker: Hashable, shard: Shard) -> None:
        """Hand a shard to an idle worker."""
        ...

    def wait(self) -> list[Event]:
        """News since the last call, after at most a second; a worker that has died is replaced.

        Raises:
            WorkerError: the task failed with an error.
        """
        ...


class WorkerPool(Protocol):
    """Workers that can be started, see `kronos_strategies.distributed.worker_pool`."""

    @property
    def described(self) -> str:
        """Number and kind of workers, and threads of each."""
        ...

    @property
    def device(self) -> str | None:
        """Device of the workers; None for the device of the model."""
        ...

    def start(self, task: Task, shards: int) -> AbstractContextManager[Workers]:
        """Start workers, not more than there are shards; leaving the context stops them at once."""
        ...


@dataclass
class _Run:
    """State of `run_shards`."""

    waiting: deque[Dates]
    running: dict[Hashable, Dates]
    idle: list[Hashable]
    deaths: Counter[Dates]
    partial: dict[Hashable, int]  # windows of the running shards that are done
    done: int = 0  # windows of finished shards
    dates: int = 0
    windows: int = 0

    def note(self, event: Event, dated: WindowsByDate) -> None:
        """Take in one event."""
        if event.kind == "progress":
            self.partial[event.worker] = self.partial.get(event.worker, 0) + event.windows
            return
        dates = self.running.pop(event.worker, None)
        self.partial.pop(event.worker, None)
        if event.kind == "died":
            log.warning("A worker ended because %s; another one takes its place.", event.reason)
            self.idle = [worker for worker in self.idle if worker != event.worker]
            self._again(dates or (), event.reason)
            return
        self.deaths[()] = 0
        self.idle.append(event.worker)
        if dates is not None and event.outcome is not None:
            self.dates, self.windows = self.dates + event.outcome.dates, self.windows + event.outcome.windows
            if event.outcome.held:
                self.waiting.append(dates)  # another run computes it; look again at the end
            else:
                self.done += dated.count(dates)

    def _again(self, dates: Dates, reason: str) -> None:
        """Put back the shard of a dead worker, () if it had none."""
        self.deaths[dates] += 1
        if self.deaths[dates] >= DEATHS:
            over = f"they computed {span(dates)}" if dates else "they started"
            raise WorkerError(
                f"{DEATHS} workers ended while {over}, the last one because {reason}. If memory ran out, use fewer "
                "workers; finished dates are in the store."
            )
        if dates:
            self.waiting.appendleft(dates)


def run_shards(
    pool: WorkerPool,
    task: Task,
    shards: Sequence[Dates],
    dated: WindowsByDate,
    progress: ProgressReport,
) -> Outcome:
    """Compute all shards; windows of a shard are copied when it is handed out, so that few copies are in memory.

    Args:
        pool: workers that are started for this call.
        task: what they do.
        shards: dates of each, in the order in which they are handed out.
        dated: their windows.
        progress: called as progress(windows done, windows of all shards).

    Returns:
        Sums over all shards.

    Raises:
        WorkerError: a worker failed, or several died over the same shard.
    """
    run = _Run(deque(shards), {}, [], Counter(), {})
    total = sum(map(dated.count, shards))
    with pool.start(task, len(shards)) as workers:
        while run.waiting or run.running:
            for event in workers.wait():
                run.note(event, dated)
            while run.idle and run.waiting:
                worker, dates = run.idle.pop(), run.waiting.popleft()
                run.running[worker] = dates
                workers.submit(worker, Shard(dates, dated.select(dates).compact()))
            progress(min(total, run.done + sum(run.partial.values())), total)
    return Outcome(run.dates, run.windows, False)


def plan_shards(dates: Sequence[pd.Timestamp], rows: Sequence[int], limit: int) -> list[Dates]:
    """Consecutive dates of at most `limit` windows together; a date with more is a shard of its own.

    Args:
        dates: ascending.
        rows: number of windows of each date.
        limit: windows of a shard.
    """
    shards: list[list[pd.Timestamp]] = []
    size = 0
    for date, count in zip(dates, rows, strict=True):
        if not shards or size + count > limit:
            shards.append([])
            size = 0
        shards[-1].append(date)
        size += count
    return [tuple(shard) for shard in shards]
