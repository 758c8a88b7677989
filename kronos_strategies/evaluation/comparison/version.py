"""A version of a model to be compared, and reading scores and labels from parquet files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from kronos.io.files import ALIASES, file_record, to_dates


@dataclass(frozen=True)
class Version:
    """Scores of one model, or of one setting of it, to be compared with others.

    Attributes:
        name: short and unique among the compared versions.
        score: indexed (datetime, instrument), known at the close of the date.
        losses: same index, losses of single rows, lower is better, such as crps_h5 or qlike_h5; None without any.
        provenance: how it was produced, label -> text.
    """

    name: str
    score: pd.Series
    losses: pd.DataFrame | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparisonInput:
    """A version, and what it is compared by.

    Attributes:
        version: scores of a model.
        labels: indexed (datetime, instrument), columns = horizons in bars: forward returns; None for scores alone.
        horizon: holding period of its trade in bars; None for scores alone.
        references: baseline scores of its rows; None for scores alone.
        bars_between: bars between successive dates.
        warnings: sentences for the reader of its metrics.
    """

    version: Version
    labels: pd.DataFrame | None = None
    horizon: int | None = None
    references: pd.DataFrame | None = None
    bars_between: int = 1
    warnings: tuple[str, ...] = ()


KEYS = ("datetime", "instrument")


def read_version(file: Path) -> Version:
    """Read a version from a file of scores; its name is the file's without the suffix.

    Args:
        file: parquet; datetime and instrument are index levels in any order, or columns, with these names or usual
            ones such as date and symbol, or unnamed levels of which one contains dates. In addition one column of
            numbers, or one called score.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a parquet file, no such keys, or not exactly one column of numbers.
    """
    table = _read(file)
    provenance = {"file": str(file), "sha256": file_record(file)["sha256"]}
    return Version(file.stem, _numbers(table, _value(table, "score", file), file), provenance=provenance)


def read_labels(file: Path, label_horizon: int) -> pd.Series | pd.DataFrame:
    """Read labels for `compare_versions`.

    Args:
        file: as in `read_version`, but its column may be called label; or several columns, each named by its
            horizon in bars.
        label_horizon: horizon of the headline label.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as in `read_version`, or columns named by horizons of which none is `label_horizon`.
    """
    table = _read(file)
    horizons = {
        column: int(text) for column in table if (text := str(column).strip()).isdecimal() and int(text)
    }
    if len(horizons) < table.shape[1]:
        return _numbers(table, _value(table, "label", file), file)
    if label_horizon not in horizons.values():
        raise ValueError(
            f"{file} has labels of {', '.join(map(str, horizons.values()))} bars, not of {label_horizon}. "
            f"Name one of them, e.g. --label-horizon {min(horizons.values())}."
        )
    if len(horizons) == 1:
        return _numbers(table, table.columns[0], file)
    return pd.DataFrame({bars: _numbers(table, column, file) for column, bars in horizons.items()})


def _read(file: Path) -> pd.DataFrame:
    """Columns of values, indexed (datetime, instrument): dates as datetime64[ns], instruments as text."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file. Check the path.")
    try:
        table = pd.read_parquet(file)
    except (ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{file} is not a parquet file ({reason}). Write it with DataFrame.to_parquet."
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
    """Datetime and instrument, where present: by name, unnamed levels by type."""
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
            f"{file} has only the columns datetime and instrument. Add a column '{usual}' of values."
        )
    raise ValueError(
        f"{file} has {len(columns)} columns of values, {_some(columns)}. "
        f"Keep one of them, or name the right one '{usual}'."
    )


def _numbers(table: pd.DataFrame, column: object, file: Path) -> pd.Series:
    try:
        return pd.to_numeric(table[column]).astype(float)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{file} has values in '{column}' that are not numbers. Replace them with numbers."
        ) from error


def _some(columns: Sequence[object], most: int = 8) -> str:
    """The first few."""
    text = ", ".join(f"'{column}'" for column in columns[:most])
    return f"{text}, ..." if len(columns) > most else text
