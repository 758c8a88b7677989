"""Scores and labels from parquet files of (datetime, instrument) rows. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kronos.io.files import ALIASES, file_record, to_dates
from kronos_strategies.evaluation.versions.version import Version

KEYS = ("datetime", "instrument")


def read_version(file: Path) -> Version:
    """A version from its scores, called like the file without its suffix.

    Args:
        file: parquet; datetime and instrument are index levels in any order, or columns, by those names or usual
            ones such as date and symbol, or unnamed levels of which one is dates. Beside them one column of
            numbers, or one called score.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no parquet file, no such keys, or no single column of numbers.
    """
    table = _read(file)
    provenance = {"file": str(file), "sha256": file_record(file)["sha256"]}
    return Version(file.stem, _numbers(table, _value(table, "score", file), file), provenance=provenance)


def read_labels(file: Path, horizon: int) -> pd.Series | pd.DataFrame:
    """Labels for `compare_versions`.

    Args:
        file: as of `read_version`, but its column may be called label; or several, each called by its horizon in
            bars.
        horizon: of the headline label.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as of `read_version`, or columns called by horizons of which none is `horizon`.
    """
    table = _read(file)
    horizons = {
        column: int(text) for column in table if (text := str(column).strip()).isdecimal() and int(text)
    }
    if len(horizons) < table.shape[1]:
        return _numbers(table, _value(table, "label", file), file)
    if horizon not in horizons.values():
        raise ValueError(
            f"{file} has labels of {', '.join(map(str, horizons.values()))} bars, not of {horizon}. "
            f"Say which one is meant, e.g. --horizon {min(horizons.values())}."
        )
    if len(horizons) == 1:
        return _numbers(table, table.columns[0], file)
    return pd.DataFrame({bars: _numbers(table, column, file) for column, bars in horizons.items()})


def _read(file: Path) -> pd.DataFrame:
    """Columns of values, indexed (datetime, instrument): dates as datetime64[ns], instruments as text."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no file. Check the path.")
    try:
        table = pd.read_parquet(file)
    except (ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{file} is no parquet file ({reason}). Write it with DataFrame.to_parquet."
        ) from error
    found = _keys(table)
    if missing := [key for key in KEYS if key not in found]:
        raise ValueError(
            f"{file} has no {' and no '.join(missing)}: its index levels are {list(table.index.names)}, its "
            f"columns {_some(list(table.columns))}. Index it by (datetime, instrument)."
        )
    dates, names = found["datetime"], found["instrument"]
    index = pd.MultiIndex.from_arrays(
        [to_dates(dates, file), names.astype(str).str.strip().where(names.notna())], names=KEYS
    )
    keys = {series.name for series in found.values()}
    values = [column for column in table.columns if column not in keys]
    return table[values].set_axis(index)


def _keys(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Datetime and instrument, as far as they are there, by name; of unnamed levels by type."""
    indices = (table.index.get_level_values(i) for i in range(table.index.nlevels))
    levels = [pd.Series(level, name=level.name) for level in indices]
    columns = [table[column].reset_index(drop=True) for column in table.columns]
    found: dict[str, pd.Series] = {}
    for key in KEYS:
        for series in (*levels, *columns):
            if str(series.name).strip().lower() in (key, *ALIASES[key]):
                found.setdefault(key, series)
    for level in (level for level in levels if level.name is None):
        if pd.api.types.infer_dtype(level) in ("datetime64", "datetime", "date"):
            found.setdefault("datetime", level)
        elif len(levels) > 1:  # a single one numbers the rows
            found.setdefault("instrument", level)
    return found


def _value(table: pd.DataFrame, usual: str, file: Path) -> object:
    """The only column, or the one with the usual name."""
    columns = list(table.columns)
    if len(columns) == 1:
        return columns[0]
    if usual in columns:
        return usual
    if not columns:
        raise ValueError(
            f"{file} has no column of values beside datetime and instrument. Add one, called '{usual}'."
        )
    raise ValueError(
        f"{file} has {len(columns)} columns of values, {_some(columns)}. "
        f"Keep one, or call the one that is meant '{usual}'."
    )


def _numbers(table: pd.DataFrame, column: object, file: Path) -> pd.Series:
    try:
        return pd.to_numeric(table[column]).astype(float)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} has values in '{column}' that are no numbers. Write numbers.") from error


def _some(columns: Sequence[object], most: int = 8) -> str:
    """The first few."""
    text = ", ".join(f"'{column}'" for column in columns[:most])
    return f"{text}, ..." if len(columns) > most else text
