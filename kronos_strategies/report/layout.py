"""Parts of the page, ready for the templates: sections, tiles, charts and tables.

A table is built from a frame: the text of each cell, and the key its column is sorted by.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kronos.utils import MissingExtra
from kronos_strategies.report.figures.base import go, is_empty
from kronos_strategies.report.formatting import DASH, Show, interval, moment

try:
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment
    from markupsafe import Markup
except ImportError as error:
    raise MissingExtra("Reports need Jinja: pip install 'kronos-strategies[report]'") from error

TEMPLATES = Path(__file__).parent / "templates"
Record = Mapping[Hashable, Any]  # a row: values by column


class Cell(NamedTuple):
    """Text of a cell, and the number or text it is sorted by; an empty key is undefined and sorted last.

    A note, such as an interval, is shown below in small print.
    """

    text: str
    key: str
    note: str = ""


class Column(NamedTuple):
    """A column: its heading, a function from a row to a cell, and whether it contains numbers."""

    label: str
    cell: Callable[[Record], Cell]
    number: bool = True


class Row(NamedTuple):
    """A row; `kind` is "highlight" for the subject of the table, "baseline" for a baseline, else empty."""

    cells: tuple[Cell, ...]
    kind: str = ""


class Table(NamedTuple):
    """A table; rows that are `ordered` cannot be sorted. The heading may be empty."""

    id: str
    heading: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    ordered: bool

    @property
    def sortable(self) -> bool:
        """Whether the reader can sort it."""
        return len(self.rows) > 1 and not self.ordered


class HeatCell(NamedTuple):
    """A month: its text, and the strength of its tint from -1 to 1."""

    text: str
    tint: float


class MonthGrid(NamedTuple):
    """Years x months plus a value for the year, tinted by sign and size."""

    id: str
    caption: str
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


def table(
    id_: str, caption: str, frame: pd.DataFrame, columns: Sequence[Column], highlight: str = "",
    baseline_rows: int = 0, ordered: bool = False, heading: str = "",
) -> Table:  # fmt: skip
    """Build a table with one row per row of the frame.

    Args:
        id_: id of its element.
        caption: text above the table.
        frame: one row each; its index, if named, is a column.
        columns: the first is the heading of each row.
        highlight: heading of the highlighted row.
        baseline_rows: number of last rows that are baselines.
        ordered: whether the order of the rows is fixed.
        heading: heading above the caption.
    """
    records = (frame.reset_index() if frame.index.name else frame).to_dict("records")
    rows = []
    for place, record in enumerate(records):
        cells = tuple(column.cell(record) for column in columns)
        kind = "highlight" if highlight and cells[0].text == highlight else ""
        rows.append(Row(cells, "baseline" if place >= len(records) - baseline_rows else kind))
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
    """A column of numbers with a note from the same row below."""
    return Column(label, lambda row: _number(row[name], show)._replace(note=note(row)))


def estimate(name: str, low: str, high: str, label: str, show: Show) -> Column:
    """A column of numbers with their intervals below."""

    def cell(row: Record) -> Cell:
        ends = interval(row[low], row[high], show)
        return _number(row[name], show)._replace(note="" if ends == DASH else ends)

    return Column(label, cell)


def date(name: str, label: str, otherwise: str = DASH, timed: bool = False) -> Column:
    """A column of dates, with the time of day if `timed`; `otherwise` is shown where there is none."""

    def cell(row: Record) -> Cell:
        value = row[name]
        return Cell(otherwise, "") if pd.isna(value) else Cell(moment(value, timed), moment(value, True))

    return Column(label, cell, number=False)


def boolean(name: str, label: str) -> Column:
    """A column of yes and no; a dash where unknown."""

    def cell(row: Record) -> Cell:
        value = row[name]
        return (
            Cell(DASH, "")
            if value is None or pd.isna(value)
            else Cell("yes" if value else "no", f"{int(value)}")
        )

    return Column(label, cell)


def month_grid(id_: str, caption: str, months: pd.DataFrame, show: Show) -> MonthGrid | None:
    """From years x months (1..12) plus column "year"; None without a value. The largest month has the full tint."""
    values = months.loc[:, [*range(1, 13), "year"]].astype(float)
    inner = values[list(range(1, 13))].to_numpy()
    if not np.isfinite(inner).any():
        return None
    largest = float(np.nanmax(np.abs(inner))) or 1.0
    rows = []
    for year, line in zip(values.index, values.to_numpy(), strict=True):
        tints = np.clip(np.nan_to_num(line / largest), -1, 1)
        heats = [HeatCell("" if np.isnan(v) else show(v), float(t)) for v, t in zip(line, tints, strict=True)]
        rows.append((str(year), (*heats[:-1], HeatCell(heats[-1].text, 0.0))))
    return MonthGrid(id_, caption, tuple(rows))


def _number(value: object, show: Show) -> Cell:
    number = float(value) if value is not None and not pd.isna(value) else np.nan  # type: ignore[arg-type, call-overload]
    return Cell(show(number), _key(number))


def _key(value: float) -> str:
    return "" if value is None or not np.isfinite(value) else repr(float(value))


HEIGHT = 19.0  # of a chart, in rem
NAMES_HEIGHT, ROW_HEIGHT = 6.5, 1.7  # of a chart of categories: axes and legend, and each row


def template_environment() -> SandboxedEnvironment:
    """What renders the templates of all pages: all text is escaped, and no template reaches Python's internals."""
    return SandboxedEnvironment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


class Dropdown(NamedTuple):
    """A drop-down menu that selects one of a chart's figures."""

    label: str
    options: tuple[str, ...]


class Chart(NamedTuple):
    """A chart that shows one figure at a time.

    Attributes:
        id: id of its element, of [a-z0-9-].
        heading: heading above it.
        note: how to read it.
        json: array of the figures; null where a selection has none. With several menus the last one varies fastest.
        dropdowns: menus that select a figure; none for a single figure.
        wide: whether it spans the page.
        rows: number of categories, one above the other; 0 for other figures.
    """

    id: str
    heading: str
    note: str
    json: Markup
    dropdowns: tuple[Dropdown, ...]
    wide: bool
    rows: int

    @property
    def height(self) -> float:
        """In rem."""
        return max(HEIGHT, NAMES_HEIGHT + ROW_HEIGHT * self.rows)


class OmittedChart(NamedTuple):
    """A chart without data, and the reason."""

    heading: str
    why: str


class Charts(NamedTuple):
    """Charts of one part of a section."""

    drawn: tuple[Chart, ...]
    omitted: tuple[OmittedChart, ...]


def chart(
    id_: str, heading: str, note: str, figure: go.Figure, why: str, wide: bool = False, rows: int = 0
) -> Chart | OmittedChart:
    """A chart of one figure.

    Args:
        id_: id of its element.
        heading: heading above it.
        note: how to read it.
        figure: the figure.
        why: sentence that is shown if the figure has no data.
        wide: whether it spans the page.
        rows: number of categories, one above the other, which determine its height.
    """
    if is_empty(figure):
        return OmittedChart(heading, why)
    return Chart(id_, heading, note, _array([figure]), (), wide, rows)


def chart_with_dropdown(
    id_: str, heading: str, note: str, figures: Sequence[go.Figure | None], dropdowns: Sequence[Dropdown], why: str,
    wide: bool = False, rows: int = 0,
) -> Chart | OmittedChart:  # fmt: skip
    """A chart of several figures, one per combination of the menus' options; None where there is none."""
    drawn = [None if figure is None or is_empty(figure) else figure for figure in figures]
    if not any(drawn):
        return OmittedChart(heading, why)
    return Chart(id_, heading, note, _array(drawn), tuple(dropdowns), wide, rows)


def collect_charts(*charts: Chart | OmittedChart) -> Charts:
    """Drawn and omitted charts, each in order."""
    return Charts(
        tuple(each for each in charts if isinstance(each, Chart)),
        tuple(each for each in charts if isinstance(each, OmittedChart)),
    )


def metric_dropdown(figures: Mapping[str, go.Figure]) -> tuple[list[go.Figure], list[Dropdown]]:
    """Figures by metric, and the menu that selects the metric."""
    return list(figures.values()), [Dropdown("Metric", tuple(figures))]


def _array(figures: Sequence[go.Figure | None]) -> Markup:
    # plotly writes "<" as "\u003c", so that no name can close the surrounding script element.
    return Markup("[" + ",".join("null" if each is None else each.to_json() for each in figures) + "]")


class Tile(NamedTuple):
    """A headline metric: its label, value, and a note such as its interval."""

    label: str
    value: str
    note: str = ""


class Part(NamedTuple):
    """Part of a section: a heading with tables, grids of months and charts."""

    heading: str
    tables: tuple[Table, ...] = ()
    grids: tuple[MonthGrid, ...] = ()
    charts: Charts = Charts((), ())


class Section(NamedTuple):
    """Section of one evaluation.

    Attributes:
        id: id of its element, linked from the navigation.
        heading: heading, also in the navigation.
        lead: what was evaluated, in a sentence or two.
        tiles: headline metrics at the top of the page.
        parts: parts in order.
    """

    id: str
    heading: str
    lead: str
    tiles: tuple[Tile, ...]
    parts: tuple[Part, ...]
