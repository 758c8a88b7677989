"""Bars from CSV and parquet files of vendors or your own, tidy or one file per symbol.

One line per file states how it was interpreted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kronos.bars import PRICES
from kronos.calendar import FrequencyVotes, infer_frequency
from kronos.io.files import FileNotes, find_files
from kronos.io.numbers import describe_absent, hide_zeros
from kronos.io.rows import ReadOptions, Rows, has_instruments, is_wanted, read_rows, symbol_of
from kronos.io.table import EmptyFileError
from kronos.io.times import AmbiguousSessionError, to_sessions

_MIN_FREQUENCY_BARS = 10  # bars of an instrument that determine its frequency


class BarsOfFiles(NamedTuple):
    """Result of `read_bars`.

    Attributes:
        bars: bars by instrument: ascending unique DatetimeIndex; open, high, low, close (as in the file, possibly
            NaN) and, if known, volume, amount and factor (adjusted price = price * factor).
        files: how each file was interpreted.
        frequency: frequency of all bars; None if it is not a known one.
    """

    bars: dict[str, pd.DataFrame]
    files: tuple[FileNotes, ...]
    frequency: str | None


class BarFiles:
    """Files of bars, read in groups: files with the same symbol in their names belong together.

    Args:
        paths: files, folders or glob patterns of CSV and parquet files.
        options: options for ambiguous files.
        instruments: read only these, also patterns such as `SH*`; empty for all.

    Raises:
        FileNotFoundError: a path has no file.
        ValueError: an unsupported file type.
    """

    def __init__(
        self,
        paths: Path | str | Iterable[Path | str],
        options: ReadOptions | None = None,
        instruments: Sequence[str] = (),
    ) -> None:
        self.files = find_files(paths)
        self.options = options or ReadOptions()
        self._wanted = frozenset(instruments)
        self._notes: dict[Path, FileNotes] = {}
        self._votes = FrequencyVotes()
        self._zones: dict[str, set[tzinfo | None]] = {}

    @property
    def zones(self) -> dict[str, tzinfo]:
        """Time zone of each instrument read so far whose files agree on one; bars are local times in it."""
        found = {name: next(iter(zones)) for name, zones in self._zones.items() if len(zones) == 1}
        return {name: zone for name, zone in found.items() if zone is not None}

    @property
    def notes(self) -> tuple[FileNotes, ...]:
        """How each file read so far was interpreted, in order of the files."""
        return tuple(self._notes[file] for file in self.files if file in self._notes)

    @property
    def frequency(self) -> str | None:
        """Frequency of the bars read so far; None if it is not a known one.

        Raises:
            ValueError: two instruments have different frequencies.
        """
        return self._votes.result(self._where)

    def rows(self) -> Iterator[pd.DataFrame]:
        """All rows by group, in order of the files: tidy, not sorted and without drops.

        Columns: instrument, datetime, open, high, low, close and, if a file has them, volume, amount, factor.
            Volume and
        amount are NaN if an instrument has none, or only zeros.

        Raises:
            ValueError: a file cannot be read, or there are no rows.
        """
        self._notes.clear()
        self._zones.clear()
        self._votes = FrequencyVotes()
        empty = True
        for files in self._groups():
            frame = self._read_group(files)
            if self._wanted:
                names = [
                    name for name in frame["instrument"].dropna().unique() if is_wanted(name, self._wanted)
                ]
                frame = frame[frame["instrument"].isin(names)]
            empty = empty and frame.empty
            yield frame
        if empty and not self._wanted:
            raise ValueError(f"{self._where} has no rows. Pass files with bars.")

    def series(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Bars by instrument; see `BarsOfFiles.bars` for the form.

        Of several rows with the same time the last is used; rows without a time or an instrument are dropped.

        Raises:
            ValueError: as in `rows`, or a requested instrument is missing.
        """
        absent = set(self._wanted)
        for frame in self.rows():
            dated = frame[frame["datetime"].notna()] if frame["datetime"].hasnans else frame
            # By positions: iterating over the groups would copy all rows in their order.
            for name, rows in sorted(dated.groupby("instrument").indices.items()):
                bars = dated.iloc[rows]
                absent = {pattern for pattern in absent if not is_wanted(str(name), [pattern])}
                bars = bars.drop(columns="instrument").set_index("datetime").sort_index(kind="stable")
                bars = bars[~bars.index.duplicated(keep="last")]
                unknown = [c for c in ("volume", "amount", "factor") if c in bars and bars[c].isna().all()]
                yield str(name), bars.drop(columns=unknown)
        if absent:
            raise ValueError(f"{self._where} does not contain {sorted(absent)}. Check the instruments.")

    @property
    def _where(self) -> str:
        first, last = self.files[0], self.files[-1]
        if len(self.files) == 1:
            return str(first)
        return str(first.parent) if first.parent == last.parent else f"{first} to {last}"

    def _groups(self) -> list[list[Path]]:
        """Files whose rows may belong together: those of one symbol by their names, else all."""
        if len(self.files) == 1:
            return [self.files]
        groups: dict[str, list[Path]] = {}
        for file in self.files:
            try:
                if has_instruments(file, self.options):
                    return [self.files]  # each may contain any instrument
            except EmptyFileError:
                self._skip(file)
                continue
            groups.setdefault(symbol_of(file, self.options), []).append(file)
        return [files for name, files in groups.items() if is_wanted(name, self._wanted)]

    def _read_group(self, files: list[Path]) -> pd.DataFrame:
        """The rows of files, with one interpretation of dates and volume for all; adds notes on each file."""
        parts: dict[Path, Rows] = {}
        for file in files:
            try:
                parts[file] = read_rows(file, self.options)
            except EmptyFileError:
                if len(self.files) == 1:
                    raise
                self._skip(file)
        if not parts:
            return pd.DataFrame(columns=["instrument", "datetime", *PRICES])
        _check_factors(parts)
        frames = [part.frame for part in parts.values()]
        frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
        source = np.repeat(np.arange(len(parts)), [len(part.frame) for part in parts.values()])
        day_notes = self._date_sessions(frame, source, list(parts.items()))
        if len(parts) > 1:
            _check_frequencies(frame, source, list(parts))
        absent = hide_zeros(frame)
        repeated = frame.duplicated(["instrument", "datetime"], keep="last") & frame["datetime"].notna()
        for number, (file, part) in enumerate(parts.items()):
            mine = frame[source == number] if len(parts) > 1 else frame
            moved = self.options.timezone is None and bool(
                day_notes[number]
            )  # to the session of another zone
            for name in mine["instrument"].dropna().unique():
                self._zones.setdefault(str(name), set()).add(None if moved else part.zone)
            notes = [*part.notes, *day_notes[number], *describe_absent(mine, absent)]
            if count := int(repeated[source == number].sum()):
                notes.append(f"rows with a repeated time: {count:,}, the last one is used")
            self._note(file, part.layout, mine, tuple(notes))
        return frame

    def _date_sessions(
        self, frame: pd.DataFrame, source: np.ndarray, parts: list[tuple[Path, Rows]]
    ) -> dict[int, tuple[str, ...]]:
        """Set dates of daily bars in place, separately for instants and local times; notes by part."""
        notes: dict[int, tuple[str, ...]] = {}
        for absolute in (True, False):
            members = [number for number, (_, part) in enumerate(parts) if part.absolute == absolute]
            mine = np.isin(source, members)
            if not members:
                continue
            try:
                dated = to_sessions(
                    frame.loc[mine, "datetime"],
                    frame.loc[mine, "instrument"],
                    absolute=absolute,
                    timezone=self.options.timezone,
                )
            except AmbiguousSessionError as error:
                raise ValueError(f"{parts[members[0]][0]} has {error}") from error
            frame.loc[mine, "datetime"] = dated.wall
            notes |= dict.fromkeys(members, dated.notes)
        return notes

    def _note(self, file: Path, layout: str, frame: pd.DataFrame, notes: tuple[str, ...]) -> None:
        names = sorted(frame["instrument"].dropna().unique())
        votes = FrequencyVotes()
        for name, times in frame.groupby("instrument")["datetime"]:
            votes.add(f"{name} in {file.name}", pd.DatetimeIndex(times))
        self._notes[file] = FileNotes(
            file,
            layout,
            tuple(names),
            len(frame),
            None if votes.mixed else votes.result(str(file)),
            *_span(frame["datetime"]),
            (*notes, "frequencies differ") if votes.mixed else notes,
        )
        self._votes.update(votes)

    def _skip(self, file: Path) -> None:
        self._notes[file] = FileNotes(file, "", (), 0, None, None, None)


def read_bars(
    paths: Path | str | Iterable[Path | str],
    *,
    columns: Mapping[str, str] | None = None,
    timezone: str | None = None,
    pad_codes: int | None = None,
    instruments: Sequence[str] = (),
) -> BarsOfFiles:
    """Read bars from CSV or parquet files, tidy or one symbol per file.

    Args:
        paths: files, folders or glob patterns.
        columns: see `ReadOptions`.
        timezone: see `ReadOptions`.
        pad_codes: see `ReadOptions`.
        instruments: read only these; empty for all.

    Raises:
        FileNotFoundError: a path has no file.
        ValueError: a file is unreadable, incomplete or ambiguous; the message names the option that helps.
    """
    files = BarFiles(paths, ReadOptions(columns or {}, timezone, pad_codes), instruments)
    bars = dict(files.series())
    return BarsOfFiles(bars, files.notes, files.frequency)


def _check_frequencies(frame: pd.DataFrame, source: np.ndarray, files: Sequence[Path]) -> None:
    """Refuse to join bars of one instrument with different frequencies."""
    found: dict[str, tuple[str, Path]] = {}
    for number, file in enumerate(files):
        for name, times in frame[source == number].groupby("instrument")["datetime"]:
            frequency = (
                infer_frequency(pd.DatetimeIndex(times)) if len(times) >= _MIN_FREQUENCY_BARS else None
            )
            if frequency is None:
                continue
            known, other = found.setdefault(str(name), (frequency, file))
            if known != frequency:
                raise ValueError(
                    f"{other} has {known} bars of {name} and {file} has {frequency} bars: they mix bars of "
                    "different frequencies. Keep one frequency per instrument, e.g. in separate folders."
                )


def _span(times: pd.Series) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    known = times.dropna()
    return (None, None) if known.empty else (known.min(), known.max())


def _check_factors(parts: Mapping[Path, Rows]) -> None:
    """Refuse to mix raw and adjusted prices of one instrument."""
    having = {("factor" in part.frame): file for file, part in parts.items()}
    if len(having) > 1:
        raise ValueError(
            f"{having[False]} and {having[True]} differ in the columns ['factor']. All files need the same "
            "columns: raw prices with a factor, or adjusted ones without."
        )
