"""Fill a ForecastSet: forecast the dates that it lacks, in this process or by workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from kronos.forecast import Forecast
from kronos.utils import package_version
from kronos_strategies.distributed import WorkerPool
from kronos_strategies.forecasters.protocol import Forecaster
from kronos_strategies.forecasting import WindowsByDate, batch_windows, forecast_batch
from kronos_strategies.progress import ProgressReport, offset_progress
from kronos_strategies.store.files import warn_of_damage
from kronos_strategies.store.forecast_set import ForecastSet, StoreStatus
from kronos_strategies.store.location import absolute
from kronos_strategies.store.parallel import WAIT, ShardFiller, claim_dates, fill_shards, prepare
from kronos_strategies.store.settings import update_manifest


@dataclass(frozen=True)
class FillResult:
    """Windows whose forecasts are all in a store; iterating reads them date by date.

    Attributes:
        forecast_set: where they are, which may contain other dates and windows.
        digests: digests of the windows by date, ascending.
        found: status before the fill.
        computed: dates forecast by this process or its workers; other processes may have computed the rest.
        windows: number of windows of these dates.
        seconds: time to forecast and write them.
    """

    forecast_set: ForecastSet
    digests: Mapping[pd.Timestamp, str]
    found: StoreStatus
    computed: int
    windows: int
    seconds: float

    def __len__(self) -> int:
        return len(self.digests)

    def __iter__(self) -> Iterator[Forecast]:
        """Forecasts of these windows, date by date.

        Raises:
            ValueError: a date has since been filled from other bars.
        """
        return (self.forecast_set.read(date, digest) for date, digest in self.digests.items())


def fill(
    forecast_set: ForecastSet,
    forecaster: Forecaster,
    dated: WindowsByDate,
    progress: ProgressReport,
    pool: WorkerPool | None = None,
) -> FillResult:
    """Forecast all dates of some windows that the forecast set lacks.

    Each date is written as soon as its chunk is forecast, so that an interruption loses at most one chunk of each
    worker.

    Args:
        forecast_set: forecast set with the settings of the forecaster and the windows.
        forecaster: the predictor.
        dated: the windows.
        progress: called as progress(windows done, windows due).
        pool: workers that share the dates; None for this process.
    """
    found = forecast_set.coverage(dated)
    warn_of_damage(forecast_set.folder, found.damaged)
    started = time.monotonic()
    try:
        if pool is None:
            computed, windows = _fill_here(forecast_set, forecaster, dated, found.due, progress)
        else:
            task = ForecastTask(absolute(forecast_set.folder), forecaster, pool.device, package_version())
            limit = batch_windows(forecast_set.settings.provenance.sampling, dated.windows.horizon)
            computed, windows, _ = fill_shards(pool, task, dated, found.due, limit, progress)
    finally:
        update_manifest(forecast_set.folder, forecast_set.settings)
    digests = {date: dated.digest(date) for date in dated.dates}
    return FillResult(forecast_set, digests, found, computed, windows, time.monotonic() - started)


def _fill_here(
    forecast_set: ForecastSet,
    forecaster: Forecaster,
    dated: WindowsByDate,
    due: Sequence[pd.Timestamp],
    progress: ProgressReport,
) -> tuple[int, int]:
    """Forecast due dates in this process; returns how many dates and windows."""
    sampling = forecast_set.settings.provenance.sampling
    total = dated.count(due)
    computed = windows = 0
    while due:
        with ExitStack() as locks:
            claim = claim_dates(
                forecast_set, dated, due, batch_windows(sampling, dated.windows.horizon), locks
            )
            due = claim.left
            total -= dated.count(claim.done)
            if claim.dates:
                report = offset_progress(progress, windows, total)
                for forecast in forecast_batch(forecaster, dated, claim.dates, sampling, report):
                    forecast_set.publish(forecast)
                computed, windows = computed + len(claim.dates), windows + dated.count(claim.dates)
        if due and not claim.dates:
            time.sleep(WAIT)
    return computed, windows


@dataclass(frozen=True)
class ForecastTask:
    """Forecast the windows of a shard, see `kronos_strategies.distributed.shards.Task`.

    Attributes:
        folder: folder of the forecast set, which has its manifest.
        forecaster: the predictor, which travels with its weights.
        device: that of the worker, None for the forecaster's own.
        version: version of this package in the process that starts the workers.
    """

    folder: Path
    forecaster: Forecaster
    device: str | None
    version: str

    def open(self) -> ShardFiller:
        """Read the settings of the folder, and move the networks to the device."""
        prepare(self.forecaster, self.device, self.version)
        try:
            forecast_set = ForecastSet(self.folder)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{self.folder} is not visible to a worker on another machine. Use a folder on a file system that "
                "all machines share, or a URL such as s3://bucket/forecasts."
            ) from None
        return ShardFiller(forecast_set, partial(_forecast_shard, forecast_set, self.forecaster))


def _forecast_shard(
    forecast_set: ForecastSet,
    forecaster: Forecaster,
    dated: WindowsByDate,
    due: Collection[pd.Timestamp],
    progress: Callable[[int], None],
) -> None:
    sampling = forecast_set.settings.provenance.sampling
    for forecast in forecast_batch(forecaster, dated, list(dated.dates), sampling, progress):
        if forecast.index.get_level_values("datetime")[0] in due:
            forecast_set.publish(forecast)
