"""Files of bars: found by path, folder or glob pattern; the symbol that a file name holds."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path

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
