"""Versions to be compared: scores and labels, read from parquet files and aligned on their common rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from kronos.io.files import ALIASES, file_record, to_dates
from kronos_strategies.evaluation.panel import PanelIndex

KEYS = ("datetime", "instrument")


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
        table = pd.read_parquet(file.absolute())
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


ROWS = "rows of any version"


@dataclass(frozen=True)
class AlignedPanel:
    """Arrays of (dates, instruments), NaN except where every version and the headline label have a finite value.

    Attributes:
        dates: dates with at least one such row, ascending.
        instruments: instruments with at least one such row, sorted.
        scores: version -> scores, in the order given.
        losses: loss that all versions have -> version -> values, NaN where one of the versions has none.
        missing_losses: loss that only some versions have -> a version without it.
        labels: horizon in bars -> labels, ascending; NaN also where a horizon has no label.
        baselines: name of a baseline -> scores.
        sample_counts: numbers of rows by reason, from the rows of any version to the compared rows.
    """

    dates: pd.DatetimeIndex
    instruments: pd.Index
    scores: Mapping[str, np.ndarray]
    losses: Mapping[str, Mapping[str, np.ndarray]]
    missing_losses: Mapping[str, str]
    labels: Mapping[int, np.ndarray]
    baselines: Mapping[str, np.ndarray]
    sample_counts: Mapping[str, int]


def align(
    versions: Sequence[Version],
    labels: Mapping[int, pd.Series],
    label_horizon: int,
    baselines: pd.DataFrame | None,
) -> AlignedPanel:
    """Align everything on the dates and instruments that all versions and the label have.

    Args:
        versions: versions with different names.
        labels: horizon -> labels indexed (datetime, instrument).
        label_horizon: horizon of the headline label.
        baselines: scores of naive signals, one column each, or None.

    Raises:
        ValueError: an index without these levels, keys that are missing or occur twice, a version or label without
            a finite value, or no common row.
    """
    frame = _Frame.of(versions)
    scores = {v.name: frame.place(v.score, f"scores of '{v.name}'", needed=True) for v in versions}
    wide = {
        h: frame.place(label, f"labels of {h} bars", needed=h == label_horizon) for h, label in labels.items()
    }
    common, sample_counts = _common(frame.mask, scores, wide[label_horizon])
    if not common.any():
        raise ValueError(frame.nothing_shared())
    rows, columns = np.flatnonzero(common.any(axis=1)), np.flatnonzero(common.any(axis=0))

    def cut(values: np.ndarray) -> np.ndarray:
        return np.where(common, values, np.nan)[np.ix_(rows, columns)]

    losses, missing_losses = _losses(versions, frame)
    scored = {} if baselines is None else {str(name): baselines[name] for name in baselines}
    return AlignedPanel(
        dates=frame.dates[rows],
        instruments=frame.instruments[columns],
        scores={name: cut(values) for name, values in scores.items()},
        losses={loss: {name: cut(v) for name, v in of.items()} for loss, of in losses.items()},
        missing_losses=missing_losses,
        labels={h: cut(wide[h]) for h in sorted(wide)},
        baselines={name: cut(frame.place(score, f"baseline '{name}'")) for name, score in scored.items()},
        sample_counts=sample_counts,
    )


def _common(
    mask: np.ndarray, scores: Mapping[str, np.ndarray], label: np.ndarray
) -> tuple[np.ndarray, dict[str, int]]:
    """The common rows, and the numbers of rows lost by reason."""
    needed = {**{f"no score of '{name}'": values for name, values in scores.items()}, "no label": label}
    left = int(mask.sum())
    sample_counts, common = {ROWS: left}, mask.copy()
    for reason, values in needed.items():
        common &= np.isfinite(values)
        sample_counts[reason] = left - int(common.sum())
        left -= sample_counts[reason]
    return common, {**sample_counts, "compared": left}


def _losses(
    versions: Sequence[Version], frame: _Frame
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, str]]:
    """Losses that all versions have, where all are finite; and a version without each of the others."""
    columns = {v.name: [] if v.losses is None else list(v.losses.columns) for v in versions}
    known = dict.fromkeys(loss for of in columns.values() for loss in of)
    missing_losses = {
        str(loss): next(name for name, of in columns.items() if loss not in of)
        for loss in known
        if not all(loss in of for of in columns.values())
    }
    losses = {}
    for loss in (loss for loss in known if str(loss) not in missing_losses):
        of = {
            v.name: frame.place(v.losses[loss], f"'{loss}' of '{v.name}'")
            for v in versions
            if v.losses is not None
        }
        everywhere = np.logical_and.reduce([np.isfinite(values) for values in of.values()])
        losses[str(loss)] = {name: np.where(everywhere, values, np.nan) for name, values in of.items()}
    return losses, missing_losses


@dataclass(frozen=True)
class _Frame:
    """Dates and instruments of all versions; where any version has a row; and the indices placed so far."""

    dates: pd.DatetimeIndex
    instruments: pd.Index
    mask: np.ndarray
    placed: dict[str, PanelIndex] = field(default_factory=dict)

    @classmethod
    def of(cls, versions: Sequence[Version]) -> _Frame:
        panels = [_panel_index(version.score, f"scores of '{version.name}'") for version in versions]
        if len(zones := {str(panel.dates.tz) for panel in panels}) > 1:
            raise ValueError(
                f"The versions' dates are in the time zones {sorted(zones)}. Convert them to one time zone."
            )
        dates = reduce(pd.DatetimeIndex.union, (panel.dates for panel in panels))
        names = reduce(pd.Index.union, (panel.instruments for panel in panels))
        mask = np.zeros((len(dates), len(names)), bool)
        for panel in panels:
            mask[
                dates.get_indexer(panel.dates)[panel.row], names.get_indexer(panel.instruments)[panel.column]
            ] = True
        return cls(dates, names, mask)

    def place(self, series: pd.Series, what: str, needed: bool = False) -> np.ndarray:
        """(dates, instruments); NaN where the series has no row or no finite value.

        Args:
            series: values indexed (datetime, instrument).
            what: name of the series in error messages.
            needed: whether to refuse a series without a finite value.
        """
        panel = _panel_index(series, what)
        values = panel.to_wide(series.to_numpy(dtype=float, na_value=np.nan))
        if needed and np.isnan(values).all():
            raise ValueError(
                f"The {what} have no finite value in {len(series):,} rows. Check how they were computed."
            )
        if needed:
            self.placed[what] = panel
        rows, columns = self.dates.get_indexer(panel.dates), self.instruments.get_indexer(panel.instruments)
        wide = np.full((len(self.dates), len(self.instruments)), np.nan)
        known = values[np.ix_(rows >= 0, columns >= 0)]
        wide[np.ix_(rows[rows >= 0], columns[columns >= 0])] = known
        return wide

    def nothing_shared(self) -> str:
        """Why there is no common row: dates, instruments, or missing values."""
        dates = [set(panel.dates) for panel in self.placed.values()]
        names = [set(panel.instruments) for panel in self.placed.values()]
        if not set.intersection(*dates):
            spans = "; ".join(f"{_span(panel)} in the {what}" for what, panel in self.placed.items())
            return f"There is no common date: {spans}. Score the same dates, at the same time of day."
        if not set.intersection(*names):
            some = "; ".join(
                f"{panel.instruments[0]}, ... in the {what}" for what, panel in self.placed.items()
            )
            return f"There is no common instrument: {some}. Use the same names in all of them."
        return (
            f"There is no row in which the {', the '.join(self.placed)} all have a finite value. "
            "Check which dates and instruments each of them covers."
        )


def _span(panel: PanelIndex) -> str:
    """First and last date; with the time of day where there is one, since dates may differ only by that."""
    form = "%Y-%m-%d" if (panel.dates == panel.dates.normalize()).all() else "%Y-%m-%d %H:%M"
    return f"{panel.dates[0].strftime(form)} to {panel.dates[-1].strftime(form)}"


def _panel_index(series: pd.Series, what: str) -> PanelIndex:
    if series.empty:
        raise ValueError(f"The {what} have no rows. Check how they were computed.")
    return PanelIndex.from_index(cast(pd.MultiIndex, series.index), what)
