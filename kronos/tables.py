"""Tables from files: CSV or parquet, columns by their usual names, dates that are dates. Bars: `kronos.io`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

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
