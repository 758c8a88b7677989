"""Versions and labels -> the rows that all of them have, as dates x names. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import cast

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.comparison.version import Version
from kronos_strategies.evaluation.panel import Grid

ROWS = "rows of any version"


@dataclass(frozen=True)
class AlignedPanel:
    """Arrays of (dates, names), NaN but where every version and the headline label have a finite value.

    Attributes:
        dates: with at least one such row, ascending.
        names: with at least one such row, sorted.
        scores: of each version, in the order given.
        losses: of each loss that all versions have: version -> figures, NaN where one of the versions lacks it.
        lacking: losses that only some versions have, and one that has not.
        labels: by horizon in bars, ascending; NaN also where that horizon has none.
        references: naive scores.
        ledger: rows by reason, from those that any version has to those compared.
    """

    dates: pd.DatetimeIndex
    names: pd.Index
    scores: Mapping[str, np.ndarray]
    losses: Mapping[str, Mapping[str, np.ndarray]]
    lacking: Mapping[str, str]
    labels: Mapping[int, np.ndarray]
    references: Mapping[str, np.ndarray]
    ledger: Mapping[str, int]


def align(
    versions: Sequence[Version],
    labels: Mapping[int, pd.Series],
    horizon: int,
    references: pd.DataFrame | None,
) -> AlignedPanel:
    """Lay everything out on the dates and names that all versions and the label have.

    Args:
        versions: of different names.
        labels: by horizon, indexed (datetime, instrument).
        horizon: of the headline label.
        references: naive scores, a column each, or none.

    Raises:
        ValueError: an index without those levels, keys that are missing or occur twice, a version or label without
            a finite value, or no row that all have.
    """
    frame = _Frame.of(versions)
    scores = {v.name: frame.place(v.score, f"scores of '{v.name}'", needed=True) for v in versions}
    wide = {h: frame.place(label, f"labels of {h} bars", needed=h == horizon) for h, label in labels.items()}
    common, ledger = _common(frame.held, scores, wide[horizon])
    if not common.any():
        raise ValueError(frame.nothing_shared())
    rows, columns = np.flatnonzero(common.any(axis=1)), np.flatnonzero(common.any(axis=0))

    def cut(values: np.ndarray) -> np.ndarray:
        return np.where(common, values, np.nan)[np.ix_(rows, columns)]

    losses, lacking = _losses(versions, frame)
    naive = {} if references is None else {str(name): references[name] for name in references}
    return AlignedPanel(
        dates=frame.dates[rows],
        names=frame.names[columns],
        scores={name: cut(values) for name, values in scores.items()},
        losses={loss: {name: cut(v) for name, v in of.items()} for loss, of in losses.items()},
        lacking=lacking,
        labels={h: cut(wide[h]) for h in sorted(wide)},
        references={name: cut(frame.place(score, f"naive scores '{name}'")) for name, score in naive.items()},
        ledger=ledger,
    )


def _common(
    held: np.ndarray, scores: Mapping[str, np.ndarray], label: np.ndarray
) -> tuple[np.ndarray, dict[str, int]]:
    """Which rows all have, and where those that any version has were lost."""
    needed = {**{f"no score of '{name}'": values for name, values in scores.items()}, "no label": label}
    left = int(held.sum())
    ledger, common = {ROWS: left}, held.copy()
    for reason, values in needed.items():
        common &= np.isfinite(values)
        ledger[reason] = left - int(common.sum())
        left -= ledger[reason]
    return common, {**ledger, "compared": left}


def _losses(
    versions: Sequence[Version], frame: _Frame
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, str]]:
    """Of the losses that all versions have: version -> figures where all are finite; and who lacks the others."""
    columns = {v.name: [] if v.losses is None else list(v.losses.columns) for v in versions}
    known = dict.fromkeys(loss for of in columns.values() for loss in of)
    lacking = {
        str(loss): next(name for name, of in columns.items() if loss not in of)
        for loss in known
        if not all(loss in of for of in columns.values())
    }
    losses = {}
    for loss in (loss for loss in known if str(loss) not in lacking):
        of = {
            v.name: frame.place(v.losses[loss], f"'{loss}' of '{v.name}'")
            for v in versions
            if v.losses is not None
        }
        everywhere = np.logical_and.reduce([np.isfinite(values) for values in of.values()])
        losses[str(loss)] = {name: np.where(everywhere, values, np.nan) for name, values in of.items()}
    return losses, lacking


@dataclass(frozen=True)
class _Frame:
    """Dates and names of all versions, on which everything is laid; where any has a row; and what was laid."""

    dates: pd.DatetimeIndex
    names: pd.Index
    held: np.ndarray
    laid: dict[str, Grid] = field(default_factory=dict)

    @classmethod
    def of(cls, versions: Sequence[Version]) -> _Frame:
        grids = [_grid(version.score, f"scores of '{version.name}'") for version in versions]
        if len(zones := {str(grid.dates.tz) for grid in grids}) > 1:
            raise ValueError(f"The versions' dates are in the time zones {sorted(zones)}. Write them in one.")
        dates = reduce(pd.DatetimeIndex.union, (grid.dates for grid in grids))
        names = reduce(pd.Index.union, (grid.names for grid in grids))
        held = np.zeros((len(dates), len(names)), bool)
        for grid in grids:
            held[dates.get_indexer(grid.dates)[grid.row], names.get_indexer(grid.names)[grid.column]] = True
        return cls(dates, names, held)

    def place(self, series: pd.Series, what: str, needed: bool = False) -> np.ndarray:
        """(dates, names); NaN where the series has no row or no finite value.

        Args:
            series: to place.
            what: it is called in an error.
            needed: refuse a series without a finite value.
        """
        grid = _grid(series, what)
        values = grid.wide(series.to_numpy(dtype=float, na_value=np.nan))
        if needed and np.isnan(values).all():
            raise ValueError(
                f"The {what} have no finite value in {len(series):,} rows. Check what made them."
            )
        if needed:
            self.laid[what] = grid
        rows, columns = self.dates.get_indexer(grid.dates), self.names.get_indexer(grid.names)
        wide = np.full((len(self.dates), len(self.names)), np.nan)
        known = values[np.ix_(rows >= 0, columns >= 0)]
        wide[np.ix_(rows[rows >= 0], columns[columns >= 0])] = known
        return wide

    def nothing_shared(self) -> str:
        """Why no row is common: dates, names, or gaps."""
        dates = [set(grid.dates) for grid in self.laid.values()]
        names = [set(grid.names) for grid in self.laid.values()]
        if not set.intersection(*dates):
            spans = "; ".join(f"{_span(grid)} in the {what}" for what, grid in self.laid.items())
            return f"There is no date that all have: {spans}. Score the same dates, at the same time of day."
        if not set.intersection(*names):
            some = "; ".join(f"{grid.names[0]}, ... in the {what}" for what, grid in self.laid.items())
            return f"There is no instrument that all have: {some}. Write their names alike."
        return (
            f"There is no row in which the {', the '.join(self.laid)} all have a finite value. "
            "Check which dates and names each of them covers."
        )


def _span(grid: Grid) -> str:
    """First and last date; with the time of day, which may be all that keeps dates apart, where there is one."""
    form = "%Y-%m-%d" if (grid.dates == grid.dates.normalize()).all() else "%Y-%m-%d %H:%M"
    return f"{grid.dates[0].strftime(form)} to {grid.dates[-1].strftime(form)}"


def _grid(series: pd.Series, what: str) -> Grid:
    if series.empty:
        raise ValueError(f"The {what} have no rows. Check what made them.")
    return Grid.of(cast(pd.MultiIndex, series.index), what)
