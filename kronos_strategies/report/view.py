"""What a section of the page holds, ready to be laid out by its template."""

from __future__ import annotations

from typing import NamedTuple

from kronos_strategies.report.charts import Charts
from kronos_strategies.report.tables import Grid, Table


class Tile(NamedTuple):
    """A headline figure: its label, the figure, and a small line such as its interval."""

    label: str
    value: str
    note: str = ""


class Part(NamedTuple):
    """Of a section: tables, grids of months and charts under a heading of their own."""

    heading: str
    tables: tuple[Table, ...] = ()
    grids: tuple[Grid, ...] = ()
    charts: Charts = Charts((), ())


class Section(NamedTuple):
    """Of one study.

    Attributes:
        id: of its element, and of its entry in the navigation.
        heading: of both.
        lead: what was studied, in a sentence or two.
        tiles: at the top of the page.
        parts: in order.
    """

    id: str
    heading: str
    lead: str
    tiles: tuple[Tile, ...]
    parts: tuple[Part, ...]
