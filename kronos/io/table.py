"""One file as a table: detects encoding, separator, header and compression; values are unchanged."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kronos.io.columns import TIME_NAMES, plain_name
from kronos.io.files import PARQUET

MISSING = (
    *("", "-", "--", "---", "—", ".", "?"),
    *("null", "none", "nan", "na", "n/a", "#n/a", "n.a.", "nat", "<na>", "-nan"),
)
_MISSING = sorted(
    {form for word in MISSING for form in (word, word.upper(), word.title(), word.capitalize())} | {"NaN"}
)
# Of the two levels of columns: the first cells of both rows of headers.
_LEVEL_NAMES = {
    *("", "price", "ticker", "attributes", "symbols"),
    *("field", "fields", "feature", "features", "instrument", "instruments", "symbol", "tickers", "prices"),
}
_SAMPLE = 1 << 16  # bytes that determine encoding, separator and header
_LINES = 60
_SEPARATORS = ("\t", ";", "|", ",")
_NUMBER = re.compile(r"[+-]?[\d.,']*\d[\d.,']*(?:[eE][+-]?\d+)?")


class Table(NamedTuple):
    """The table in a file.

    Attributes:
        frame: one column per column of the file; names without a header are "1", "2", ...
        header: whether the file has a header.
        separator: column separator of a text file; "" for parquet.
        encoding: encoding of a text file, "" for parquet.
    """

    frame: pd.DataFrame
    header: bool = True
    separator: str = ""
    encoding: str = ""


class _Form(NamedTuple):
    """Format of a text file."""

    compression: str | None
    encoding: str
    separator: str
    skip: int  # lines before the header, or before the first row
    rows: list[list[str]]  # the first rows, from the header on


def load_table(file: Path, is_text: Callable[[str], bool]) -> Table:
    """Read a CSV or parquet file.

    Args:
        file: CSV (comma, semicolon, tab or bar; plain, gzip or zip) or parquet.
        is_text: whether a column of that name is text, even if its values look like numbers.

    Raises:
        EmptyFileError: the file is empty.
        ValueError: it cannot be read.
    """
    with _readable(file):
        return Table(_load_parquet(file)) if _is_parquet(file) else _load_text(file, is_text)


def read_heads(file: Path) -> list[str]:
    """The column names of a file, without reading its rows.

    Raises:
        EmptyFileError: the file is empty.
        ValueError: it cannot be read.
    """
    with _readable(file):
        if _is_parquet(file):
            heads = [str(name) for name in pq.read_schema(file.absolute()).names]
            return ["ticker"] if any(head.startswith("('") for head in heads) else heads
        form = _examine(file)
        if not _is_header(form.rows[0]):
            return [str(i + 1) for i in range(len(form.rows[0]))]
        return ["ticker"] if _has_two_levels(form.rows) else form.rows[0]


def _is_parquet(file: Path) -> bool:
    return file.name.lower().endswith(PARQUET)


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Convert errors of table readers to one sentence."""
    try:
        yield
    except EmptyFileError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{file} cannot be read ({reason}). Write it again as CSV or parquet.") from error


class EmptyFileError(ValueError):
    """A file without rows."""


def _load_parquet(file: Path) -> pd.DataFrame:
    frame = pd.read_parquet(file.absolute())  # Arrow reads a relative path with a colon as a URL
    pa.default_memory_pool().release_unused()  # Arrow would keep as much as the file took
    return _flat(frame)


def _load_text(file: Path, is_text: Callable[[str], bool]) -> Table:
    form = _examine(file)
    header = _is_header(form.rows[0])
    two_levels = header and _has_two_levels(form.rows)
    heads = form.rows[0] if header else [str(i + 1) for i in range(len(form.rows[0]))]
    # With semicolons a comma may be decimal, and "84.810" may have a thousands separator: all columns stay text.
    text = {position for position, head in enumerate(heads) if is_text(head) or form.separator == ";"}
    codes = {position for position in text if is_text(heads[position])}
    options: dict[str, object] = {
        "sep": form.separator,
        "compression": form.compression,
        "skiprows": form.skip,
        "header": [0, 1] if two_levels else 0 if header else None,
        "names": None if header else heads,
        "index_col": None if two_levels else False,
        "dtype": None if two_levels else dict.fromkeys(text, str),
        "keep_default_na": False,
        "na_values": _MISSING if two_levels else {p: _MISSING for p in range(len(heads)) if p not in codes},
        "skipinitialspace": True,
        "low_memory": False,
    }
    if not header:  # without a header pandas needs names in place of positions
        options["dtype"] = {heads[p]: str for p in text}
        options["na_values"] = {head: _MISSING for p, head in enumerate(heads) if p not in codes}
    frame = _read_csv(file, form.encoding, options)
    if two_levels:
        frame = _stack(frame.set_axis(pd.Index(frame.iloc[:, 0], name="datetime"), axis=0).iloc[:, 1:])
    elif header and len(heads) == frame.shape[1]:
        frame = frame.set_axis(heads, axis=1)  # pandas numbers repeated names
    return Table(frame, header, form.separator, form.encoding)


def _read_csv(file: Path, encoding: str, options: dict[str, object]) -> pd.DataFrame:
    """Read with the encoding of the sample; later characters may require another one."""
    for attempt in dict.fromkeys((encoding, "gb18030", "latin-1")):
        try:
            return pd.read_csv(file, encoding=attempt, **options)  # type: ignore[call-overload]
        except UnicodeDecodeError:
            continue
    raise ValueError("its encoding is unknown")


def _examine(file: Path) -> _Form:
    content, compression = _sample(file)
    encoding = _encoding(content)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(content).replace("\ufeff", "")
    lines = text.splitlines()
    if len(content) >= _SAMPLE and len(lines) > 1:
        lines.pop()  # may be cut
    lines = lines[: _LINES + 1]
    if not any(line.strip() for line in lines):
        raise EmptyFileError(f"{file} is empty. Pass a file with a header and bars.")
    separator, fields = _separator(lines)
    rows = [next(csv.reader([line], delimiter=separator, skipinitialspace=True), []) for line in lines]
    skip = next(i for i, row in enumerate(rows) if len(row) == fields)
    return _Form(compression, encoding, separator, skip, [row for row in rows[skip:] if row])


def _sample(file: Path) -> tuple[bytes, str | None]:
    """The first bytes of a text file, and its compression."""
    with file.open("rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with gzip.open(raw) as stream:
                return stream.read(_SAMPLE), "gzip"
        if magic == b"PK\x03\x04":
            with zipfile.ZipFile(raw) as archive:
                members = archive.namelist()
                if len(members) != 1:
                    raise ValueError(f"the archive contains {len(members)} files, not one")
                with archive.open(members[0]) as stream:
                    return stream.read(_SAMPLE), "zip"
        return raw.read(_SAMPLE), None


def _encoding(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if content.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    for encoding in ("utf-8", "gb18030"):
        try:
            codecs.getincrementaldecoder(encoding)().decode(content)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"


def _separator(lines: list[str]) -> tuple[str, int]:
    """The separator with which most lines have the same number of fields, at least five; and that number."""
    best = (",", 1)
    for separator in _SEPARATORS:
        rows = csv.reader(
            [line for line in lines if line.strip()], delimiter=separator, skipinitialspace=True
        )
        counts = Counter(len(row) for row in rows)
        fields, lines_with = counts.most_common(1)[0]
        if fields >= 5 and lines_with * 2 > sum(counts.values()):
            return separator, fields
        if fields > best[1]:
            best = (separator, fields)
    return best


def _is_header(row: list[str]) -> bool:
    """Whether a row has names: no number, or codes of instruments after the name of the times."""
    if len(row) > 2 and plain_name(row[0]) in TIME_NAMES:
        return True
    return not any(_NUMBER.fullmatch(cell.strip()) for cell in row)


def _has_two_levels(rows: list[list[str]]) -> bool:
    """Whether columns are named by price and ticker, as yfinance does for several tickers."""
    if len(rows) < 3 or not _is_header(rows[1]):
        return False
    first = {rows[0][0].strip().lower(), rows[1][0].strip().lower()}
    third = [cell.strip() for cell in rows[2]]
    if not first <= _LEVEL_NAMES:
        return False
    named = third[0].lower() in {"date", "datetime"} and not any(third[1:])
    return named or _NUMBER.match(third[0]) is not None


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its index, if meaningful, as columns."""
    if frame.columns.nlevels == 2:
        return _stack(frame.rename_axis(str(frame.index.name or "datetime")))
    if isinstance(frame.index, pd.DatetimeIndex) and frame.index.name is None:
        return frame.rename_axis("datetime").reset_index()
    if isinstance(frame.index, pd.RangeIndex) and frame.index.name is None:
        return frame
    return frame.reset_index(drop=not any(frame.index.names))


def _stack(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns by price and ticker, in either order -> rows by time and ticker."""
    columns = [frame.columns.get_level_values(level) for level in (0, 1)]
    level = next((i for i in (0, 1) if "close" in {str(head).strip().lower() for head in columns[i]}), None)
    if level is None:
        raise ValueError(f"neither level of its columns has 'close': {frame.columns.tolist()[:8]}")
    frame = frame[frame.index.notna() & ~frame.index.astype(str).str.lower().isin(["date", "datetime"])]
    tall = pd.DataFrame(frame.stack(level=1 - level, future_stack=True))
    tall.index.names = [tall.index.names[0] or "datetime", "ticker"]
    return tall.dropna(how="all").rename_axis(columns=None).reset_index()
