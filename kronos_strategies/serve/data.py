"""Bars that the page offers: the paths of the command line, read on first use and again where files change."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Protocol

import pandas as pd

from kronos.io.files import find_files
from kronos.io.rows import ReadOptions
from kronos.training.sources import is_qlib_directory
from kronos_strategies.data.qlib_bins import DAY, bin_folder, read_market, store_freq
from kronos_strategies.forecast_view.inputs import (
    DEFAULT_OPTIONS,
    AllBars,
    read_all_bars,
    refuse_forecast_store,
)

RECENT = 600  # bar times of an instrument that the page may choose from


class Span(NamedTuple):
    """An instrument with its first and last bar."""

    instrument: str
    first: pd.Timestamp
    last: pd.Timestamp


class Listing(NamedTuple):
    """What there is to choose from.

    Attributes:
        spans: instruments by name.
        intraday: whether bars have a time of day.
        notes: how files were read, one line each.
    """

    spans: tuple[Span, ...]
    intraday: bool
    notes: tuple[str, ...]


class Data(Protocol):
    """Bars of one choice of the page."""

    label: str

    def listing(self) -> Listing:
        """Its instruments."""
        ...

    def read(self, names: Sequence[str]) -> AllBars:
        """The bars of some instruments."""
        ...

    def members(self, date: pd.Timestamp) -> list[str]:
        """Instruments to rank on a date."""
        ...


class FileData:
    """A file, a folder or a glob pattern of bars.

    Files that are links to places outside of the folder are left out.

    Args:
        path: as on the command line.
        options: options for ambiguous files.

    Raises:
        FileNotFoundError: no file is there.
        ValueError: a forecast store, or no file of a known type.
    """

    def __init__(self, path: Path, options: ReadOptions = DEFAULT_OPTIONS) -> None:
        refuse_forecast_store(path)
        self.label, self.options = str(path), options
        self._path = path.expanduser()
        self._lock = Lock()
        self._state: list[tuple[Path, int, int]] = []
        self._bars: AllBars | None = None
        self.files()

    def files(self) -> list[Path]:
        """The files as they are now."""
        found = find_files(self._path)
        if self._path.is_file():
            return found
        root = _fixed_folder(self._path).resolve()
        kept = [file for file in found if file.resolve().is_relative_to(root)]
        if not kept:
            raise FileNotFoundError(f"{self.label} contains only links to other places. Pass these as well.")
        return kept

    def read(self, names: Sequence[str]) -> AllBars:
        """The bars of some instruments.

        Raises:
            ValueError: files cannot be read, or an unknown name.
        """
        bars = self._all()
        if absent := [name for name in names if name not in bars.bars]:
            raise ValueError(f"{self.label} has no instrument '{absent[0]}'. Choose one of the list.")
        return bars.select(names)

    def listing(self) -> Listing:
        """Its instruments, those with bars."""
        bars = self._all()
        spans = [Span(name, each.index[0], each.index[-1]) for name, each in bars.bars.items() if len(each)]
        clocks = (pd.DatetimeIndex(each.index) for each in bars.bars.values())
        intraday = any(bool((clock != clock.normalize()).any()) for clock in clocks)
        return Listing(tuple(sorted(spans)), intraday, bars.notes)

    def members(self, date: pd.Timestamp) -> list[str]:
        """Instruments that have a bar at this time."""
        return sorted(name for name, bars in self._all().bars.items() if date in bars.index)

    def _all(self) -> AllBars:
        with self._lock:
            files = self.files()
            state = [(file, (known := file.stat()).st_mtime_ns, known.st_size) for file in files]
            if self._bars is None or state != self._state:
                self._bars, self._state = read_all_bars(files, (), self.options), state
            return self._bars


class QlibData:
    """A market of a Qlib data directory.

    Args:
        path: the directory.
        market: name of the market.
    """

    def __init__(self, path: Path, market: str) -> None:
        self.label = f"{path} · {market}"
        self._root, self._market = path.expanduser(), market
        self._lock = Lock()
        self._modified = 0
        self._bars: dict[str, AllBars] = {}

    def read(self, names: Sequence[str]) -> AllBars:
        """The bars of some instruments; those once read are kept until the calendar of the directory changes.

        Raises:
            ValueError: an unknown name, or bars outside of the directory.
        """
        known, root = set(self._spans()["instrument"]), self._root.resolve()
        for name in names:
            if name not in known or not bin_folder(self._root, name).resolve().is_relative_to(root):
                raise ValueError(f"{self.label} has no instrument '{name}'. Choose one of the list.")
        with self._lock:
            modified = max(file.stat().st_mtime_ns for file in (self._root / "calendars").iterdir())
            if modified != self._modified:
                self._bars, self._modified = {}, modified
            for name in names:
                if name not in self._bars:
                    self._bars[name] = read_all_bars([self._root], [glob.escape(name)])
            parts = [self._bars[name] for name in names]
        frames = {name: frame for part in parts for name, frame in part.bars.items()}
        return AllBars(frames, parts[0].calendar if parts else None)

    def listing(self) -> Listing:
        """All members that the market ever had."""
        stays = self._spans().groupby("instrument")
        rows = zip(stays["start"].min().items(), stays["end"].max(), strict=True)
        spans = sorted(Span(str(name), first, last) for (name, first), last in rows)
        return Listing(tuple(spans), store_freq(self._root) != DAY, ())

    def members(self, date: pd.Timestamp) -> list[str]:
        """Members of the market on this date."""
        spans, day = self._spans(), date.normalize()
        inside = (spans["start"] <= date) & (spans["end"] >= day)
        return sorted(set(spans["instrument"][inside]))

    def _spans(self) -> pd.DataFrame:
        return read_market(self._root, self._market)


def offer_data(paths: Sequence[Path], options: ReadOptions = DEFAULT_OPTIONS) -> dict[str, Data]:
    """The choices of the page by key: a path of files is one, a Qlib data directory has one per market.

    Raises:
        FileNotFoundError: a path has no file.
        ValueError: no path, a forecast store, or no file of a known type.
    """
    if not paths:
        raise ValueError("There are no bars to forecast. Pass files, folders or a Qlib data directory.")
    return {str(number): data for number, data in enumerate(_each(paths, options))}


def _each(paths: Sequence[Path], options: ReadOptions) -> Iterator[Data]:
    for path in paths:
        if is_qlib_directory(path):
            markets = sorted(file.stem for file in (path.expanduser() / "instruments").glob("*.txt"))
            yield from (QlibData(path, market) for market in sorted(markets, key=lambda name: name == "all"))
        else:
            yield FileData(path, options)


def _fixed_folder(path: Path) -> Path:
    """The path itself, or of a pattern the folder above its first wildcard."""
    parts = path.parts
    first = next((place for place, part in enumerate(parts) if glob.has_magic(part)), None)
    return path if first is None or path.exists() else Path(*parts[:first])
