"""Frames as tables of the page: what is shown, and what each column is sorted by."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kronos_strategies.report.formatting import DASH, Show, interval, moment

Record = Mapping[Hashable, Any]  # of a row: values by column


class Cell(NamedTuple):
    """What is shown, and the number or text that it is sorted by; an empty key is undefined and comes last.

    A note, such as an interval, stands below in small print.
    """

    text: str
    key: str
    note: str = ""


class Column(NamedTuple):
    """Of a table: its heading, a cell from a row's values by name, and whether it holds numbers."""

    label: str
    cell: Callable[[Record], Cell]
    number: bool = True


class Row(NamedTuple):
    """A row; `kind` is "own" for what the page is about, "aside" for what is only beside it, else empty."""

    cells: tuple[Cell, ...]
    kind: str = ""


class Table(NamedTuple):
    """Of the page; `ordered` rows follow from one another and are not to be sorted. The heading may be empty."""

    id: str
    heading: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    ordered: bool

    @property
    def sortable(self) -> bool:
        """Whether there is an order to choose."""
        return len(self.rows) > 1 and not self.ordered


class HeatCell(NamedTuple):
    """Of a grid of months: the text, and how strongly it is tinted, from -1 to 1."""

    text: str
    tint: float


class MonthGrid(NamedTuple):
    """Years x months and the year's own figure, tinted by sign and size."""

    id: str
    caption: str
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


def table(
    id_: str, caption: str, frame: pd.DataFrame, columns: Sequence[Column], highlight: str = "", baseline_rows: int = 0,
    ordered: bool = False, heading: str = "",
) -> Table:  # fmt: skip
    """A row of the frame is a row of the table.

    Args:
        id_: of its element.
        caption: above it.
        frame: its index, if it has a name, counts as a column.
        columns: the first is the row's heading.
        own: heading of the row that stands out.
        asides: last rows, which are only beside the others.
        ordered: whether the rows follow from one another.
        heading: above the caption.
    """
    records = (frame.reset_index() if frame.index.name else frame).to_dict("records")
    rows = []
    for place, record in enumerate(records):
        cells = tuple(column.cell(record) for column in columns)
        aside = place >= len(records) - baseline_rows
        rows.append(
            Row(cells, "aside" if aside else "own" if highlight and cells[0].text == highlight else "")
        )
    return Table(id_, heading, caption, tuple(columns), tuple(rows), ordered)


def text(name: str, label: str) -> Column:
    """A column of text."""

    def cell(row: Record) -> Cell:
        value = row[name]
        return Cell(str(value), str(value))

    return Column(label, cell, number=False)


def number(name: str, label: str, show: Show) -> Column:
    """A column of numbers."""
    return Column(label, lambda row: _number(row[name], show))


def number_with_note(name: str, label: str, show: Show, note: Callable[[Record], str]) -> Column:
    """A column of numbers with something else of the row below, in words."""
    return Column(label, lambda row: _number(row[name], show)._replace(note=note(row)))


def estimate(name: str, low: str, high: str, label: str, show: Show) -> Column:
    """A column of numbers with their intervals below."""

    def cell(row: Record) -> Cell:
        ends = interval(row[low], row[high], show)
        return _number(row[name], show)._replace(note="" if ends == DASH else ends)

    return Column(label, cell)


def date(name: str, label: str, otherwise: str = DASH, timed: bool = False) -> Column:
    """A column of dates, with their times of day if `timed`; `otherwise` stands where there is none."""

    def cell(row: Record) -> Cell:
        value = row[name]
        return Cell(otherwise, "") if pd.isna(value) else Cell(moment(value, timed), moment(value, True))

    return Column(label, cell, number=False)


def boolean(name: str, label: str) -> Column:
    """A column of yes and no; a dash where it is not known."""

    def cell(row: Record) -> Cell:
        value = row[name]
        return (
            Cell(DASH, "")
            if value is None or pd.isna(value)
            else Cell("yes" if value else "no", f"{int(value)}")
        )

    return Column(label, cell)


def month_grid(id_: str, caption: str, months: pd.DataFrame, show: Show) -> MonthGrid | None:
    """Of years x months (1..12) and column "year"; None without a value. The tint is full at the largest month."""
    values = months.loc[:, [*range(1, 13), "year"]].astype(float)
    inner = values[list(range(1, 13))].to_numpy()
    if not np.isfinite(inner).any():
        return None
    most = float(np.nanmax(np.abs(inner))) or 1.0
    rows = []
    for year, line in zip(values.index, values.to_numpy(), strict=True):
        tints = np.clip(np.nan_to_num(line / most), -1, 1)
        heats = [HeatCell("" if np.isnan(v) else show(v), float(t)) for v, t in zip(line, tints, strict=True)]
        rows.append((str(year), (*heats[:-1], HeatCell(heats[-1].text, 0.0))))
    return MonthGrid(id_, caption, tuple(rows))


def _number(value: object, show: Show) -> Cell:
    number = float(value) if value is not None and not pd.isna(value) else np.nan  # type: ignore[arg-type, call-overload]
    return Cell(show(number), _key(number))


def _key(value: float) -> str:
    return "" if value is None or not np.isfinite(value) else repr(float(value))
