"""Forecasters that are sent to workers: they leave traces, wait for events, or fail."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance
from kronos.paths import Candles
from kronos.predictor import KronosPredictor
from kronos.windows import Windows

LONGEST = 120  # seconds that a worker waits for an event


@dataclass
class Traced:
    """A predictor that notes in a folder which process forecasts which date."""

    inner: KronosPredictor
    folder: Path

    @property
    def sampling(self) -> SampleConfig:
        return self.inner.sampling

    @property
    def device(self) -> Any:
        return self.inner.device

    @device.setter
    def device(self, name: str) -> None:
        self.inner.device = name

    def forecast(
        self,
        windows: Windows,
        sampling: SampleConfig | None = None,
        progress: Callable[[int], None] | None = None,
        candles: Candles = "valid",
    ) -> Forecast:
        date = pd.Timestamp(windows.index.get_level_values("datetime")[0])
        (self.folder / f"{os.getpid()}@{self.node()}@{date:%Y-%m-%d}").touch()
        self.before(date)
        return self.inner.forecast(windows, sampling, progress, candles)

    def before(self, date: pd.Timestamp) -> None:
        """Called before a date is forecast."""

    def node(self) -> str:
        """Name of the machine."""
        return "here"

    def provenance(self, sampling: SampleConfig, data_sha256: str) -> Provenance:
        return self.inner.provenance(sampling, data_sha256)


@dataclass
class Failing(Traced):
    """Raises an error in the middle of a run."""

    error: Exception

    def before(self, date: pd.Timestamp) -> None:
        if date >= pd.Timestamp("2024-02-20"):
            raise self.error


@dataclass
class Slow(Traced):
    """Takes its time for each shard."""

    seconds: float

    def before(self, date: pd.Timestamp) -> None:
        time.sleep(self.seconds)


@dataclass
class Crowd(Traced):
    """Waits from given dates on until that many processes have begun to forecast."""

    processes: dict[str, int]  # by the first date that waits for them

    def before(self, date: pd.Timestamp) -> None:
        wanted = max((n for first, n in self.processes.items() if date >= pd.Timestamp(first)), default=0)
        wait_for(lambda: len(pids(self.folder)) >= wanted)


def pids(folder: Path) -> set[int]:
    """Processes that have forecast."""
    return {int(path.name.split("@")[0]) for path in folder.iterdir() if "@" in path.name}


def nodes(folder: Path) -> set[str]:
    """Machines that have forecast."""
    return {path.name.split("@")[1] for path in folder.iterdir() if "@" in path.name}


def wait_for(event: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    started = time.monotonic()
    while not event():
        if time.monotonic() - started > LONGEST:
            raise TimeoutError(f"nothing happened in {LONGEST} s")
        time.sleep(0.02)
