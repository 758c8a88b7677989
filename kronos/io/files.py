"""Files: found by path, folder or glob pattern, symbols in their names, notes on them, and plain tables."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

PARQUET = (".parquet", ".pq")
TEXT = (".csv", ".csv.gz", ".csv.zip", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".zip")
SUFFIXES = (*PARQUET, *TEXT)
_IN_FOLDERS = tuple(suffix for suffix in SUFFIXES if ".txt" not in suffix and suffix != ".zip")

_DATE = r"(?:19|20)\d\d(?:[-_.]?(?:0[1-9]|1[0-2])(?:[-_.]?(?:0[1-9]|[12]\d|3[01])(?:\d{4}(?:\d\d)?)?)?)?"
_STEP = (
    r"\d+(?:s|m|min|mins|minute|minutes|t|h|hour|hours|d|day|days|w|wk|week|weeks|mo|month)"
    r"|m1|m2|m3|m5|m10|m15|m30|h1|h2|h4|h8|h12|d1|w1|mn1|day|daily|week|weekly|hour|hourly|minute|month|monthly"
)
_WORDS = (
    r"bars?|data|klines?|candles?|ohlcv?|prices?|quotes?|hist|history|historical"
    r"|qfq|hfq|bfq|adjusted|unadjusted|raw"
)
_TAIL = re.compile(
    rf"(?:[-_. ]+|, ?)(?:{_DATE}|{_STEP}|{_WORDS})$|, ?\d+[smhdw]?(?:_[0-9a-f]{{5}})?$", re.IGNORECASE
)


def find_files(paths: Path | str | Iterable[Path | str]) -> list[Path]:
    """The files of paths, folders and glob patterns without duplicates; those of a folder sorted by name.

    A folder includes all CSV and parquet files in it and below; if there are none, its .txt and .zip files.

    Raises:
        FileNotFoundError: a path does not exist, or a folder or pattern has no files.
        ValueError: an unsupported file type.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: dict[Path, None] = {}
    for path in given:
        found.update(dict.fromkeys(_expand(Path(path).expanduser())))
    if not found:
        raise FileNotFoundError("There is no file of bars. Pass a file, a folder or a pattern.")
    return list(found)


def symbol_in_name(file: Path) -> str:
    """The symbol at the start of a file name: the name without suffix, frequency, dates and words such as `daily`.

    `600519.SH.csv` -> 600519.SH, `BTCUSDT-1h-2024-01.csv` -> BTCUSDT, `sh600977_5min.csv` -> sh600977,
    `BRK-B.csv` -> BRK-B. The symbol itself is unchanged.
    """
    name = file.name
    suffix = max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default=file.suffix)
    stem = name[: len(name) - len(suffix)].strip()
    while shorter := _TAIL.sub("", stem).strip():
        if shorter == stem:
            break
        stem = shorter
    return stem


def _expand(path: Path) -> list[Path]:
    if path.is_file():
        if not path.name.lower().endswith(SUFFIXES):
            raise ValueError(f"{path} is neither .csv nor .parquet. Convert it first.")
        return [path]
    if path.is_dir():
        return _in_folder(path)
    if glob.has_magic(str(path)):
        matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        files = [file for match in matches if _readable(match) for file in _expand(match)]
        if files:
            return files
        raise FileNotFoundError(f"{path} matches no file of bars. Pass files of the types {list(SUFFIXES)}.")
    raise FileNotFoundError(f"{path} is neither a file nor a folder of bars. Check the path.")


def _readable(path: Path) -> bool:
    return path.is_dir() or path.name.lower().endswith(SUFFIXES)


def _in_folder(folder: Path) -> list[Path]:
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    for suffixes in (_IN_FOLDERS, TEXT):
        if chosen := [file for file in files if file.name.lower().endswith(suffixes)]:
            return chosen
    raise FileNotFoundError(f"{folder} contains no file of bars. Pass files of the types {list(SUFFIXES)}.")


_SHOWN = 3  # instruments listed in a line
_LINES = 20  # up to this number, each file has a line


@dataclass(frozen=True)
class FileNotes:
    """How one file was interpreted; one line as text.

    Attributes:
        file: path of the file.
        layout: recognized layout: that of a vendor, or columns by name.
        instruments: sorted instruments.
        rows: number of rows.
        frequency: frequency from the timestamps; None if it is not a known one.
        start: first timestamp; None without any.
        end: last timestamp; None without any.
        notes: conversions, time zones, and what was dropped or ignored.
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
            return "no rows, skipped"
        names = ", ".join(self.instruments[:_SHOWN])
        if len(self.instruments) > _SHOWN:
            names = f"{len(self.instruments)} instruments ({names}, ...)"
        clock = "%Y-%m-%d" if self.frequency in ("1day", "1week") else "%Y-%m-%d %H:%M"
        span = "no times" if self.start is None else f"{self.start:{clock}} to {self.end:{clock}}"
        frequency = f"bars of {self.frequency}" if self.frequency else "bars"
        return "; ".join([self.layout, names, f"{self.rows:,} {frequency}, {span}", *self.notes])


def summarize(notes: Sequence[FileNotes]) -> list[str]:
    """One line per file; with many files, one line per group that was interpreted in the same way."""
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


ALIASES = {
    "instrument": ("symbol", "ticker", "code"),
    "datetime": ("date", "timestamp", "timestamps"),
    "volume": ("vol",),
}


def read_table(
    file: Path,
    required: Sequence[str],
    optional: Sequence[str],
) -> pd.DataFrame:
    """Read the given columns of a table that is not bars; instruments as text, empty ones missing.

    Names are compared without case; ALIASES apply to columns that do not exist under their own name.

    Args:
        file: CSV or parquet.
        required: columns that must exist.
        optional: columns that may exist.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither CSV nor parquet, unreadable, or a column is missing or ambiguous.
    """
    # Codes such as 000001 are text.
    table = _load(file, text={"instrument", *ALIASES["instrument"]})
    found = {n: head for n in (*required, *optional) if (head := _find(n, table, file)) is not None}
    if missing := [name for name in required if name not in found]:
        raise ValueError(
            f"{file} lacks the columns {missing}; it has {list(table.columns)}. Rename or add them."
        )
    table = table[list(found.values())].set_axis(list(found), axis=1)
    if "instrument" not in table:
        return table
    text = table["instrument"]
    return table.assign(instrument=text.astype(str).str.strip().where(text.notna()))


def to_dates(column: pd.Series, file: Path) -> pd.Series:
    """Dates or times, year first, as datetime64[ns] without time zone (local time is kept).

    Whole numbers are read as YYYYMMDD; other numbers are refused.

    Raises:
        ValueError: a value is not a date from 1900 to 2199.
    """
    if pd.api.types.is_numeric_dtype(column):
        text = column.fillna(0).astype("int64").astype(str)
        dates = pd.to_datetime(text.where(column.notna()), format="%Y%m%d", errors="coerce")
    else:
        dates = _parse(column, file)
    if dates.dt.tz is not None:
        dates = dates.dt.tz_localize(None)
    dates = dates.where(dates.between(pd.Timestamp("1900-01-01"), pd.Timestamp("2199-12-31")))
    bad = dates.isna() & column.notna()
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise ValueError(
            f"{file} has {bad.sum()} values in '{column.name}' that are not dates, the first "
            f"'{column.iloc[row]}' in row {row + 1}. Write them as YYYY-MM-DD."
        )
    return dates.astype("datetime64[ns]")


def file_record(file: Path) -> dict[str, str]:
    """Name and sha256 of a file."""
    return {"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _load(file: Path, text: set[str]) -> pd.DataFrame:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file. Check the path.")
    name = file.name.lower()
    try:
        if name.endswith((".parquet", ".pq")):
            table = pd.read_parquet(file.absolute())  # Arrow reads a relative path with a colon as a URL
            return table.reset_index() if any(table.index.names) else table
        if name.endswith((".csv", ".csv.gz")):
            heads = pd.read_csv(file, nrows=0).columns
            return pd.read_csv(file, dtype={head: str for head in heads if head.strip().lower() in text})
    except (ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{file} cannot be read ({reason}). Write it again as CSV or parquet.") from error
    raise ValueError(f"{file} is neither .csv nor .parquet. Convert it first.")


def _find(name: str, table: pd.DataFrame, file: Path) -> str | None:
    """Name of the column `name` in a table."""
    heads = {head: str(head).strip().lower() for head in table.columns}
    for names in ((name,), ALIASES.get(name, ())):
        matches = [head for head, plain in heads.items() if plain in names]
        if len(matches) > 1:
            raise ValueError(f"{file} has {matches}, which are all candidates for '{name}'. Keep one.")
        if matches:
            return matches[0]
    return None


def _parse(column: pd.Series, file: Path) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(column):
        return column
    try:
        return pd.to_datetime(column.astype(object), errors="coerce", format="ISO8601")
    except ValueError as error:
        raise ValueError(f"{file} mixes time zones in '{column.name}'. Write local dates.") from error
