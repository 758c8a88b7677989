"""Parts of the page: sections, tiles and charts, ready for the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kronos.utils import MissingExtra
from kronos_strategies.report.figures.base import go, is_empty
from kronos_strategies.report.tables import MonthGrid, Table

try:
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment
    from markupsafe import Markup
except ImportError as error:
    raise MissingExtra("Reports need Jinja: pip install 'kronos-strategies[report]'") from error

TEMPLATES = Path(__file__).parent / "templates"
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
