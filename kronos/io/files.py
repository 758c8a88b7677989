"""Files of bars: found by path, folder or glob pattern; the symbol that a file name holds."""

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
_TAIL = re.compile(rf"(?:[-_. ]+|, ?)(?:{_DATE}|{_STEP}|{_WORDS})$|, ?\d+$", re.IGNORECASE)


def find_files(paths: Path | str | Iterable[Path | str]) -> list[Path]:
    """The files that paths, folders and glob patterns stand for, each once; those of a folder by name.

    A folder stands for all CSV and parquet files in it and below; without any, for its .txt and .zip files.

    Raises:
        FileNotFoundError: a path that does not exist, a folder or pattern without files.
        ValueError: a file of another kind.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: dict[Path, None] = {}
    for path in given:
        found.update(dict.fromkeys(_expand(Path(path).expanduser())))
    if not found:
        raise FileNotFoundError("no file of bars is given. Name a file, a folder or a pattern.")
    return list(found)


def symbol_in_name(file: Path) -> str:
    """The symbol that a file name starts with: the name without suffix, step, dates and words such as `daily`.

    `600519.SH.csv` -> 600519.SH, `BTCUSDT-1h-2024-01.csv` -> BTCUSDT, `sh600977_5min.csv` -> sh600977,
    `BRK-B.csv` -> BRK-B. The symbol itself is kept as it is written.
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
        raise FileNotFoundError(f"{path} matches no file of bars. It needs some of {list(SUFFIXES)}.")
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
    raise FileNotFoundError(f"{folder} holds no file of bars. It needs some of {list(SUFFIXES)}.")


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
    """Read the columns asked for, under the names asked for; instruments as text, empty ones missing.

    Names are compared without case, and ALIASES count for a column that is not there under its own name.

    Args:
        file: CSV or parquet.
        required: columns that must be there.
        optional: columns that may be.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither CSV nor parquet, unreadable, or a column that is missing or there twice.
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
    """Dates or times, year first, as datetime64[ns] without time zone (the local clock is kept).

    Whole numbers are read as YYYYMMDD; what else a number may mean is refused.

    Raises:
        ValueError: names the first value that is no date of 1900 to 2199.
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
            f"{file} has {bad.sum()} values in '{column.name}' that are no dates, the first "
            f"'{column.iloc[row]}' in row {row + 1}. Write them as YYYY-MM-DD."
        )
    return dates.astype("datetime64[ns]")


def file_record(file: Path) -> dict[str, str]:
    """Name and sha256 of a file."""
    return {"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _load(file: Path, text: set[str]) -> pd.DataFrame:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no file. Check the path.")
    name = file.name.lower()
    try:
        if name.endswith((".parquet", ".pq")):
            table = pd.read_parquet(file)
            return table.reset_index() if any(table.index.names) else table
        if name.endswith((".csv", ".csv.gz")):
            heads = pd.read_csv(file, nrows=0).columns
            return pd.read_csv(file, dtype={head: str for head in heads if head.strip().lower() in text})
    except (ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{file} cannot be read ({reason}). Write it again as CSV or parquet.") from error
    raise ValueError(f"{file} is neither .csv nor .parquet. Convert it first.")


def _find(name: str, table: pd.DataFrame, file: Path) -> str | None:
    """The head under which a table has the column `name`."""
    heads = {head: str(head).strip().lower() for head in table.columns}
    for names in ((name,), ALIASES.get(name, ())):
        matches = [head for head, plain in heads.items() if plain in names]
        if len(matches) > 1:
            raise ValueError(f"{file} has {matches}, any of which may be '{name}'. Keep one.")
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
