"""What was understood of files: one line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

_SHOWN = 3  # instruments named in a line
_LINES = 20  # files that get a line each


@dataclass(frozen=True)
class FileNotes:
    """What was understood of one file; as text, one line.

    Attributes:
        file: its path.
        layout: what it was taken for: a vendor's, or columns by name.
        instruments: in it, sorted.
        rows: in it.
        frequency: of its bars, from their stamps; None where none of the known ones fits.
        start: its first timestamp; None without any.
        end: its last timestamp; None without any.
        notes: conversions, time zones, what was dropped or counts as absent.
    """

    file: Path
    layout: str
    instruments: tuple[str, ...]
    rows: int
    frequency: str | None
    start: pd.Timestamp | None
    end: pd.Timestamp | None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line."""
        return f"{self.file.name}: {self.describe()}"

    def describe(self) -> str:
        """The line without the file's name."""
        if not self.rows:
            return "no rows, left out"
        names = ", ".join(self.instruments[:_SHOWN])
        if len(self.instruments) > _SHOWN:
            names = f"{len(self.instruments)} instruments ({names}, ...)"
        clock = "%Y-%m-%d" if self.frequency in ("1day", "1week") else "%Y-%m-%d %H:%M"
        span = "no times" if self.start is None else f"{self.start:{clock}} to {self.end:{clock}}"
        frequency = f"bars of {self.frequency}" if self.frequency else "bars"
        return "; ".join([self.layout, names, f"{self.rows:,} {frequency}, {span}", *self.notes])


def summarize(notes: Sequence[FileNotes]) -> list[str]:
    """One line per file; of many files, one line for all that were understood alike."""
    if len(notes) <= _LINES:
        return [str(note) for note in notes]
    alike: dict[FileNotes, list[FileNotes]] = {}
    for note in notes:
        key = replace(note, file=Path(), instruments=(), rows=min(note.rows, 1), start=None, end=None)
        alike.setdefault(key, []).append(note)
    return [str(group[0]) if len(group) == 1 else _joined(group) for group in alike.values()]


def _joined(group: list[FileNotes]) -> str:
    names = tuple(sorted({name for note in group for name in note.instruments}))
    whole = replace(
        group[0],
        instruments=names,
        rows=sum(note.rows for note in group),
        start=min((note.start for note in group if note.start is not None), default=None),
        end=max((note.end for note in group if note.end is not None), default=None),
    )
    return f"{len(group):,} files, {group[0].file.name} to {group[-1].file.name}: {whole.describe()}"
