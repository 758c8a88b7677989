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

from kronos.bars import adjust_bars
from kronos.io.bars import BarFiles
from kronos.io.notes import summarize
from kronos.io.rows import ReadOptions
from kronos.training.config import Source


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

    def notes(self) -> list[str]:
        """What was understood of the files read so far, a line each; nothing where there is nothing to tell."""
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
    """CSV or parquet files, tidy or one symbol each; a symbol may go on over several files.

    Raises:
        FileNotFoundError: there is no file at the source's path.
        ValueError: a file of another kind, an unknown time zone.
    """

    def __init__(self, source: Source) -> None:
        options = ReadOptions(source.fields, source.timezone, source.pad_codes)
        self._bars = BarFiles(source.path, options, source.instruments)

    def files(self) -> list[Path]:
        """The files, in order of their names."""
        return self._bars.files

    def notes(self) -> list[str]:
        """What was understood of the files read so far: a line each, or one for many that are alike."""
        return summarize(self._bars.notes)

    def series(self) -> Iterator[Series]:
        """Instrument by instrument, adjusted, in order of the files.

        Raises:
            ValueError: a file that cannot be read, or no file holds an instrument asked for.
        """
        for instrument, bars in self._bars.series():
            yield Series(instrument, adjust_bars(bars) if "factor" in bars else bars)


def select(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """Those of the names that one of the patterns stands for: itself, or with `*` and `?`."""
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
