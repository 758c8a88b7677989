"""Fill folders of a store with several workers: which dates a shard has, and what a worker does with it.

A worker writes its results to the store and returns only counts. It computes the whole of a shard even if some of
its dates are there, so that the matrix products, and with them the stored bytes, are those of one process that
fills an empty store, whatever interrupted the run. That is at most one shard more for each gap.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import pandas as pd

from kronos.utils import package_version
from kronos_strategies.distributed.shards import Outcome, Shard, Task, WorkerPool, plan_shards, run_shards
from kronos_strategies.forecasters.protocol import Embedder, Forecaster
from kronos_strategies.forecasting import WindowsByDate
from kronos_strategies.progress import ProgressReport
from kronos_strategies.store.files import date_label, try_lock

WAIT = 0.2  # seconds between checks of dates that another process has locked
Write = Callable[[WindowsByDate, Collection[pd.Timestamp], Callable[[int], None]], None]


class Claim(NamedTuple):
    """Dates that a process has considered for its next chunk."""

    dates: list[pd.Timestamp]  # locked by this process, due
    done: list[pd.Timestamp]  # finished by another process in the meantime
    left: list[pd.Timestamp]  # the rest, starting with those locked by another process


class DatedFolder(Protocol):
    """A folder with one file per date."""

    folder: Path

    def state(self, date: pd.Timestamp, digest: str) -> str:
        """Which field of `StoreStatus` a date with windows of that digest belongs to."""
        ...


def claim_dates(
    forecast_set: DatedFolder, dated: WindowsByDate, due: Sequence[pd.Timestamp], limit: int, locks: ExitStack
) -> Claim:
    """Lock the next dates that no process holds, until they have `limit` windows; closing `locks` releases them."""
    dates: list[pd.Timestamp] = []
    done: list[pd.Timestamp] = []
    held: list[pd.Timestamp] = []
    for i, date in enumerate(due):
        if dates and dated.count([*dates, date]) > limit:
            return Claim(dates, done, held + list(due[i:]))
        lock = try_lock(forecast_set.folder, date_label(date))
        if lock is None:
            held.append(date)
        elif forecast_set.state(date, dated.digest(date)) == "present":
            lock.release()
            done.append(date)
        else:
            locks.callback(lock.release)
            dates.append(date)
    return Claim(dates, done, held)


@dataclass(frozen=True)
class ShardFiller:
    """What a worker calls with each shard, see `kronos_strategies.distributed.shards.Compute`.

    Attributes:
        folder: folder of the store.
        write: computes the dates of some windows, and stores those that are due.
    """

    folder: DatedFolder
    write: Write

    def __call__(self, shard: Shard, progress: Callable[[int], None]) -> Outcome:
        """Compute the dates of a shard that no other process has stored or is computing."""
        dated = WindowsByDate(shard.windows)
        with ExitStack() as locks:
            claim = claim_dates(self.folder, dated, list(dated.dates), len(dated.windows), locks)
            if claim.dates:
                self.write(dated, set(claim.dates), progress)
        if not claim.dates and claim.left:
            time.sleep(random.uniform(WAIT, 2 * WAIT))  # another run holds all that is left
        windows = dated.count(claim.dates) if claim.dates else 0
        return Outcome(len(claim.dates), windows, bool(claim.left))


def fill_shards(
    pool: WorkerPool,
    task: Task,
    dated: WindowsByDate,
    due: Sequence[pd.Timestamp],
    limit: int,
    progress: ProgressReport,
) -> Outcome:
    """Run a task on every shard of all dates that has a due one.

    Args:
        pool: the workers.
        task: opens a `ShardFiller`.
        dated: the windows, due or not.
        due: dates to compute.
        limit: windows of a shard.
        progress: called as progress(windows done, windows of these shards).
    """
    if not due:
        return Outcome(0, 0, False)
    wanted = set(due)
    shards = [
        shard for shard in plan_shards(list(dated.dates), dated.rows.tolist(), limit) if wanted & set(shard)
    ]
    return run_shards(pool, task, shards, dated, progress)


def prepare(model: Forecaster | Embedder, device: str | None, version: str) -> None:
    """Check that a worker runs this version of the package, and move the networks to its device.

    Raises:
        ValueError: another version.
    """
    if version != package_version():
        raise ValueError(
            f"kronos-strategies is {package_version()} here, but {version} where the run was started. Install the "
            "same version on all machines."
        )
    if device is not None:
        model.device = device
