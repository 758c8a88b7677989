"""Fill a store: forecast the dates that are due, a chunk at a time, beside any other process that does the same.

A process locks the dates of its next chunk, leaves out those that another one holds, and comes back for them at
the end; a date that its holder never finished is then free again, and is computed here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import pandas as pd

from kronos.forecast import Forecast
from kronos_strategies.progress import ProgressReport, part_of
from kronos_strategies.store.files import date_label, try_lock
from kronos_strategies.store.manifest import update_manifest
from kronos_strategies.store.stored import Coverage, StoredForecasts
from kronos_strategies.stream import DatedWindows, Forecaster, chunk_windows, forecast_chunk

WAIT = 0.2  # seconds until dates that another process holds are looked at again


@dataclass(frozen=True)
class Filled:
    """Windows whose forecasts are all in a store; iterating reads them date by date.

    Attributes:
        stored: the forecasts, and perhaps others of the same recipe.
        digests: of the windows by date, ascending.
        found: what was there before.
        computed: dates forecast here; other processes may have done the rest of those due.
        windows: forecast here.
        seconds: that forecasting and writing them took.
    """

    stored: StoredForecasts
    digests: Mapping[pd.Timestamp, str]
    found: Coverage
    computed: int
    windows: int
    seconds: float

    def __len__(self) -> int:
        return len(self.digests)

    def __iter__(self) -> Iterator[Forecast]:
        """Forecasts of these very windows, one date after the other.

        Raises:
            ValueError: somebody has since filled a date from other bars.
        """
        return (self.stored.read(date, digest) for date, digest in self.digests.items())


def fill(
    stored: StoredForecasts, forecaster: Forecaster, dated: DatedWindows, progress: ProgressReport
) -> Filled:
    """Forecast all dates of some windows that `stored` lacks.

    Each date is written as soon as its chunk is forecast, so that whatever ends this process costs one chunk.

    Args:
        stored: of the recipe that the forecaster and the windows belong to.
        forecaster: the predictor.
        dated: the windows.
        progress: called as progress(windows done, windows due).
    """
    found = stored.coverage(dated)
    sampling, started = stored.recipe.provenance.sampling, time.monotonic()
    due, total = list(found.due), dated.count(found.due)
    computed = windows = 0
    try:
        while due:
            with ExitStack() as locks:
                claim = claim_dates(stored, dated, due, chunk_windows(sampling, dated.windows.horizon), locks)
                due = claim.left
                total -= dated.count(claim.done)
                if claim.dates:
                    forecasts = forecast_chunk(
                        forecaster,
                        dated,
                        claim.dates,
                        sampling,
                        part_of(progress, windows, total),
                    )
                    for forecast in forecasts:
                        stored.publish(forecast)
                    computed, windows = computed + len(claim.dates), windows + dated.count(claim.dates)
            if due and not claim.dates:
                time.sleep(WAIT)
    finally:
        update_manifest(stored.folder, stored.recipe)
    digests = {date: dated.digest(date) for date in dated.dates}
    return Filled(stored, digests, found, computed, windows, time.monotonic() - started)


class Claim(NamedTuple):
    """Dates that a process has looked at for its next chunk."""

    dates: list[pd.Timestamp]  # locked by us, due
    done: list[pd.Timestamp]  # finished by somebody else since we looked
    left: list[pd.Timestamp]  # the rest: those that somebody else holds first


class DatedFiles(Protocol):
    """A folder with a file a date."""

    folder: Path

    def state(self, date: pd.Timestamp, digest: str) -> str:
        """Which field of `Coverage` a date with windows of that digest belongs to."""
        ...


def claim_dates(
    stored: DatedFiles, dated: DatedWindows, due: Sequence[pd.Timestamp], limit: int, locks: ExitStack
) -> Claim:
    """Lock the next dates that nobody holds, until they have `limit` windows; `locks` frees them."""
    dates: list[pd.Timestamp] = []
    done: list[pd.Timestamp] = []
    held: list[pd.Timestamp] = []
    for i, date in enumerate(due):
        if dates and dated.count([*dates, date]) > limit:
            return Claim(dates, done, held + list(due[i:]))
        lock = try_lock(stored.folder, date_label(date))
        if lock is None:
            held.append(date)
        elif stored.state(date, dated.digest(date)) == "present":
            lock.release()
            done.append(date)
        else:
            locks.callback(lock.release)
            dates.append(date)
    return Claim(dates, done, held)
