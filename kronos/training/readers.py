"""Where bars come from: files here; other kinds, such as Qlib stores, from whoever announces a reader for them.

A reader for a kind of source is an entry point of the group `kronos.bars`: a callable that takes a `Source`, or
None for the market that is simulated where no source is given. So this package learns from stores that it knows
nothing of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import pandas as pd

from kronos.bars import PRICES, adjust_bars
from kronos.tables import read_table, to_dates
from kronos.training.config import Source

SUFFIXES = (".parquet", ".pq", ".csv", ".csv.gz")
FACTORS = ("factor", "factor_est")  # the exact one first


class Series(NamedTuple):
    """The adjusted bars of one instrument, by DatetimeIndex; prices may be NaN, volume and amount absent."""

    instrument: str
    bars: pd.DataFrame


class Reader(Protocol):
    """Reads the bars of one source."""

    def files(self) -> list[Path]:
        """All that is read; when one of them changes, so may the bars."""
        ...

    def series(self) -> Iterator[Series]:
        """Instrument by instrument, in an order that is always the same."""
        ...


def open_reader(source: Source | None) -> Reader:
    """The reader that fits a source; None stands for the simulated market.

    Raises:
        FileNotFoundError: there is nothing at its path.
        ImportError: nobody has announced a reader for this kind.
    """
    if source is not None and not is_qlib_store(source.path):
        return FileBars(source)
    announced = entry_points(group="kronos.bars", name="qlib")
    if not announced:
        raise ImportError(
            "Qlib stores and the simulated market need kronos_strategies to be installed: pip install "
            "kronos-strategies, or name files of bars as sources."
        )
    return cast(Reader, next(iter(announced)).load()(source))


def is_qlib_store(path: Path) -> bool:
    """Whether a folder looks like a Qlib data folder."""
    return (path.expanduser() / "calendars").is_dir() and (path.expanduser() / "features").is_dir()


class FileBars:
    """CSV or parquet files, tidy or one instrument each."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._files = _files(source.path.expanduser())

    def files(self) -> list[Path]:
        """The files, in order of their names."""
        return self._files

    def series(self) -> Iterator[Series]:
        """Instrument by instrument, file by file; a series does not go on in another file.

        Raises:
            ValueError: a file lacks a column or holds a date that is none; no file holds an instrument asked for.
        """
        absent = set(self.source.instruments)
        for file in self._files:
            for series in self._series(file):
                absent -= {pattern for pattern in absent if fnmatchcase(series.instrument, pattern)}
                yield series
        if absent:
            raise ValueError(f"{self.source.path} holds no {sorted(absent)}. Check the instruments.")

    def _series(self, file: Path) -> Iterator[Series]:
        optional = ("instrument", "volume", "amount", *FACTORS)
        table = read_table(file, ("datetime", *PRICES), optional, self.source.fields)
        table["datetime"] = to_dates(table["datetime"], file)
        if "instrument" not in table:
            table["instrument"] = file.name.partition(".")[0]
        if wanted := self.source.instruments:
            table = table[table["instrument"].isin(select(table["instrument"].unique(), wanted))]
        for name, bars in table.groupby("instrument", sort=True):
            bars = bars.drop(columns="instrument").set_index("datetime").sort_index(kind="stable")
            yield Series(str(name), _adjusted(bars[~bars.index.duplicated(keep="last")]))


def select(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """Those of the names that one of the patterns stands for: itself, or with `*` and `?`."""
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is neither a file nor a folder of bars. Check the path.")
    files = sorted(file for file in path.rglob("*") if file.name.lower().endswith(SUFFIXES))
    if not files:
        raise FileNotFoundError(f"{path} holds no file of bars. It needs some of {list(SUFFIXES)}.")
    return files


def _adjusted(bars: pd.DataFrame) -> pd.DataFrame:
    for name in FACTORS:
        if name in bars:
            return adjust_bars(bars, name)
    return bars
