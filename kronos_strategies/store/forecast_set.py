"""ForecastSet: the forecasts of one model and one set of settings, one file per date."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from kronos.forecast import Forecast
from kronos_strategies.forecasting import WindowsByDate
from kronos_strategies.store.files import (
    StoredFile,
    date_files,
    date_folder,
    date_label,
    date_state,
    find_dates,
    find_file,
    listed_states,
    locked,
    publish,
)
from kronos_strategies.store.location import as_location
from kronos_strategies.store.parquet import from_parquet, read_summary, to_parquet
from kronos_strategies.store.settings import (
    MANIFEST,
    StoreSettings,
    read_manifest,
    read_settings,
)


@dataclass(frozen=True)
class StoreStatus:
    """Status of the dates of some windows in a store; each date is in one of the four fields.

    Attributes:
        present: forecast from the same bars, and intact.
        missing: not stored.
        changed: forecast from other bars: prices were adjusted again, or other instruments were members.
        damaged: stored, but the file is corrupt.
    """

    present: tuple[pd.Timestamp, ...]
    missing: tuple[pd.Timestamp, ...]
    changed: tuple[pd.Timestamp, ...]
    damaged: tuple[pd.Timestamp, ...]

    @property
    def due(self) -> tuple[pd.Timestamp, ...]:
        """Dates to forecast, ascending."""
        return tuple(sorted((*self.missing, *self.changed, *self.damaged)))


class ForecastSet:
    """A folder `<store>/<model>-<sha>/<settings sha>`: forecasts of one model and settings, a file per date.

    As it stands it is a hive-partitioned parquet data set, e.g. in DuckDB
    `FROM read_parquet('FOLDER/date=*/*.parquet', hive_partitioning = true)`; the columns are those of
    `kronos_strategies.store.parquet`. Iterating reads one date after the other.

    Args:
        folder: folder of the forecasts.
        lifetime: object that keeps a temporary folder from being deleted.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: another version wrote them, or the manifest was edited.
    """

    def __init__(self, folder: str | Path, lifetime: object = None) -> None:
        self.folder = as_location(folder)
        self._lifetime = lifetime
        self.settings = read_settings(self.folder)

    @classmethod
    def find(cls, folder: str | Path) -> ForecastSet:
        """The forecasts of a store that holds one set, of that set's own folder, or of the one of its model.

        Raises:
            FileNotFoundError: there are no forecasts.
            ValueError: there are several sets.
        """
        folder = as_location(folder)
        below = (folder.glob(f"{'*/' * depth}{MANIFEST}") for depth in range(3))
        sets = [path.parent for found in below for path in sorted(found)]
        if not sets:
            raise FileNotFoundError(
                f"{folder} contains no forecasts. Fill it with `kronos store fill {folder} ...`."
            )
        if len(sets) > 1:
            names = ", ".join(map(str, sets))
            raise ValueError(f"{folder} contains {len(sets)} sets of forecasts. Pass one of them: {names}.")
        return cls(sets[0])

    @property
    def manifest(self) -> dict[str, Any]:
        """Model, settings, and the data at the end of the last fill."""
        return read_manifest(self.folder)

    @property
    def dates(self) -> pd.DatetimeIndex:
        """Dates that have a file, ascending; files are checked when they are read."""
        return find_dates(self.folder)

    @property
    def size(self) -> int:
        """Bytes of all dates on disk."""
        return sum(date_files(self.folder).values())

    def __len__(self) -> int:
        return len(self.dates)

    def __iter__(self) -> Iterator[Forecast]:
        return (self.read(date) for date in self.dates)

    def read(self, date: pd.Timestamp | str, digest: str | None = None) -> Forecast:
        """The forecasts of one date as sampled: neither calibrated nor repaired, see `kronos.postprocessing`.

        Args:
            date: forecast date.
            digest: expected digest of the windows; None for any.

        Raises:
            ValueError: there is no forecast of that date, or one of other windows.
            CorruptFileError: the file is damaged; filling the store again recomputes it.
        """
        date = pd.Timestamp(date)
        file = self._file(date)
        if digest is not None and not file.holds(digest):
            raise ValueError(
                f"The forecast of {date} in {self.folder} was made from other bars. Fill the store again."
            )
        return from_parquet(file.read(), self.settings.provenance)

    def frame(
        self, start: pd.Timestamp | str | None = None, end: pd.Timestamp | str | None = None
    ) -> pd.DataFrame:
        """Last close and summary of every forecast from `start` to `end`, of raw paths; does not read the paths.

        Returns:
            Frame indexed (datetime, instrument), columns last_close and `kronos_strategies.signal.SUMMARY`.

        Raises:
            ValueError: no date in that span.
            CorruptFileError: a file is damaged.
        """
        dates = self.dates
        dates = dates[
            (dates >= pd.Timestamp(start or dates.min())) & (dates <= pd.Timestamp(end or dates.max()))
        ]
        if not len(dates):
            raise ValueError(f"{self.folder} has no forecast from {start} to {end}. {self._holds()}")
        return read_summary([self._file(date).path for date in dates])

    def coverage(self, dated: WindowsByDate) -> StoreStatus:
        """Status of the dates of some windows; reads every local file to check that it is intact."""
        dates: dict[str, list[pd.Timestamp]] = {field.name: [] for field in fields(StoreStatus)}
        digests = {date: dated.digest(date) for date in dated.dates}
        for date, state in listed_states(self.folder, digests).items():
            dates[state].append(date)
        return StoreStatus(**{name: tuple(found) for name, found in dates.items()})

    def state(self, date: pd.Timestamp, digest: str) -> str:
        """Which field of `StoreStatus` a date with windows of that digest belongs to."""
        return date_state(self.folder, date, digest)

    def write(self, forecast: Forecast) -> Path:
        """Store the forecasts of one date, e.g. from another machine, and replace existing ones.

        Times are stored by the local clock, without time zones.

        Raises:
            ValueError: the forecast has several dates, other weights or settings, or is not as sampled.
        """
        _check_raw(forecast)
        forecast = forecast.without_zones()
        dates = forecast.index.get_level_values("datetime").unique()
        if len(dates) != 1:
            raise ValueError(f"The forecast is of {len(dates)} dates. Write one at a time.")
        made = StoreSettings(forecast.provenance, self.settings.spec, self.settings.dtype)
        if (made.settings_sha256, made.model["weights_sha256"]) != (
            self.settings.settings_sha256,
            self.settings.model["weights_sha256"],
        ):
            raise ValueError(
                f"The forecast of {dates[0]} is by '{made.provenance.model}' with settings {made.settings}, "
                f"which {self.folder} is not for. Write it to a store of its own."
            )
        with locked(self.folder, date_label(dates[0])):
            return self.publish(forecast)

    def publish(self, forecast: Forecast) -> Path:
        """Write the forecasts of one date; the caller holds the date's lock."""
        _check_raw(forecast)
        date = pd.Timestamp(forecast.index.get_level_values("datetime")[0])
        content = to_parquet(forecast, self.settings.dtype)
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
        return f"It has {span}; `kronos store fill` adds others."


def _check_raw(forecast: Forecast) -> None:
    known = forecast.provenance
    if known.calibration is not None or known.limits or known.candles != "raw":
        raise ValueError(
            "The forecast is calibrated, limited or repaired, but a store keeps raw paths. Write those of "
            "forecast(..., candles='raw')."
        )
