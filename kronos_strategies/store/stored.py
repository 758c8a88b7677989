"""StoredForecasts: the forecasts of one model and one set of settings, a file a date. Knows no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from kronos.forecast import Forecast
from kronos_strategies.store.files import (
    SUFFIX,
    StoredFile,
    date_folder,
    date_label,
    date_state,
    find_dates,
    find_file,
    locked,
    publish,
)
from kronos_strategies.store.manifest import read_manifest, read_recipe
from kronos_strategies.store.recipe import Recipe
from kronos_strategies.store.table import from_parquet, read_summary, to_parquet
from kronos_strategies.stream import DatedWindows


@dataclass(frozen=True)
class Coverage:
    """What a store knows of some windows' dates; each date is in one of the four.

    Attributes:
        present: forecast from these very bars, and whole.
        missing: not there.
        changed: forecast from other bars: prices were adjusted anew, or other instruments were members.
        damaged: there, but not what was written.
    """

    present: tuple[pd.Timestamp, ...]
    missing: tuple[pd.Timestamp, ...]
    changed: tuple[pd.Timestamp, ...]
    damaged: tuple[pd.Timestamp, ...]

    @property
    def due(self) -> tuple[pd.Timestamp, ...]:
        """Dates to forecast, ascending."""
        return tuple(sorted((*self.missing, *self.changed, *self.damaged)))


class StoredForecasts:
    """A folder `<store>/<model>-<sha>/<settings sha>`: forecasts made alike, a file a date.

    As it stands it is a hive-partitioned parquet data set, e.g. in DuckDB
    `FROM read_parquet('FOLDER/date=*/*.parquet', hive_partitioning = true)`; the columns are those of
    `kronos_strategies.store.table`. Iterating reads one date after the other.

    Args:
        folder: of the forecasts.
        lifetime: what must stay for the folder to stay, e.g. that of a temporary store.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: another version wrote them, or somebody has edited the manifest.
    """

    def __init__(self, folder: str | Path, lifetime: object = None) -> None:
        self.folder = Path(folder).expanduser()
        self._lifetime = lifetime
        self.recipe = read_recipe(self.folder)

    @property
    def manifest(self) -> dict[str, Any]:
        """Model, settings, and which data were in at the end of the last fill."""
        return read_manifest(self.folder)

    @property
    def dates(self) -> pd.DatetimeIndex:
        """Dates that have a file, ascending; whether they are whole shows when they are read."""
        return find_dates(self.folder)

    @property
    def size(self) -> int:
        """Bytes of all dates on disk."""
        return sum(path.stat().st_size for path in self.folder.glob(f"date=*/*{SUFFIX}"))

    def __len__(self) -> int:
        return len(self.dates)

    def __iter__(self) -> Iterator[Forecast]:
        return (self.read(date) for date in self.dates)

    def read(self, date: pd.Timestamp | str, digest: str | None = None) -> Forecast:
        """The forecasts of one date as sampled: neither calibrated nor repaired, see `kronos.postprocessing`.

        Args:
            date: of the forecast.
            digest: of the windows that it must be of; None takes what is there.

        Raises:
            ValueError: no forecast of that date, or one of other windows.
            DamagedFileError: the file is not what was written; filling the store again mends it.
        """
        date = pd.Timestamp(date)
        file = self._file(date)
        if digest is not None and not file.holds(digest):
            raise ValueError(
                f"The forecast of {date} in {self.folder} is of other bars than these. Fill the store again."
            )
        return from_parquet(file.read(), self.recipe.provenance)

    def frame(
        self, start: pd.Timestamp | str | None = None, end: pd.Timestamp | str | None = None
    ) -> pd.DataFrame:
        """Last close and summary of every forecast from `start` to `end`, of paths as sampled; reads no path.

        Returns:
            Frame indexed (datetime, instrument), columns last_close and `kronos_strategies.signals.SUMMARY`.

        Raises:
            ValueError: no date in that span.
            DamagedFileError: what was read of a file is not what was written.
        """
        dates = self.dates
        dates = dates[
            (dates >= pd.Timestamp(start or dates.min())) & (dates <= pd.Timestamp(end or dates.max()))
        ]
        if not len(dates):
            raise ValueError(f"{self.folder} has no forecast from {start} to {end}. {self._holds()}")
        return read_summary([self._file(date).path for date in dates])

    def coverage(self, dated: DatedWindows) -> Coverage:
        """Which dates of some windows are there; reads every file of theirs to see that it is whole."""
        dates: dict[str, list[pd.Timestamp]] = {field.name: [] for field in fields(Coverage)}
        for date in dated.dates:
            dates[self.state(date, dated.digest(date))].append(date)
        return Coverage(**{name: tuple(found) for name, found in dates.items()})

    def state(self, date: pd.Timestamp, digest: str) -> str:
        """Which field of `Coverage` a date with windows of that digest belongs to."""
        return date_state(self.folder, date, digest)

    def write(self, forecast: Forecast) -> Path:
        """Store the forecasts of one date in the place of any that are there, e.g. those of another machine.

        Raises:
            ValueError: of several dates, made with other weights or settings than the rest, or not as sampled.
        """
        _check_raw(forecast)
        dates = forecast.index.get_level_values("datetime").unique()
        if len(dates) != 1:
            raise ValueError(f"The forecast is of {len(dates)} dates. Write one at a time.")
        made = Recipe(forecast.provenance, self.recipe.spec, self.recipe.dtype)
        if (made.settings_sha256, made.model["weights_sha256"]) != (
            self.recipe.settings_sha256,
            self.recipe.model["weights_sha256"],
        ):
            raise ValueError(
                f"The forecast of {dates[0]} is by '{made.provenance.model}' with settings {made.settings}, "
                f"which {self.folder} is not for. Write it to a store of its own."
            )
        with locked(self.folder, date_label(dates[0])):
            return self.publish(forecast)

    def publish(self, forecast: Forecast) -> Path:
        """Write the forecasts of one date; whoever calls this holds the date's lock."""
        _check_raw(forecast)
        date = pd.Timestamp(forecast.index.get_level_values("datetime")[0])
        content = to_parquet(forecast, self.recipe.dtype)
        return publish(self.folder, date, forecast.provenance.data_sha256, content)

    def _file(self, date: pd.Timestamp) -> StoredFile:
        file = find_file(self.folder, date)
        if file is None:
            raise ValueError(
                f"There is no forecast of {date} in {date_folder(self.folder, date)}. {self._holds()}"
            )
        return file

    def _holds(self) -> str:
        dates = self.dates
        span = f"{len(dates)} dates, {dates[0]} to {dates[-1]}" if len(dates) else "no date"
        return f"It holds {span}; `kronos forecast` adds others."


def _check_raw(forecast: Forecast) -> None:
    known = forecast.provenance
    if known.calibration is not None or known.limits or known.candles != "raw":
        raise ValueError(
            "The forecast is calibrated, limited or repaired, and a store keeps paths as sampled. Write those of "
            "forecast(..., candles='raw')."
        )
