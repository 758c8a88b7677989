"""Figures as the page holds them: JSON that is safe inside a script element, or a sentence why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kronos.utils import MissingExtra
from kronos_strategies.report.figures.base import go, is_empty

try:
    from markupsafe import Markup
except ImportError as error:
    raise MissingExtra("Reports are written with Jinja: pip install 'kronos-strategies[report]'") from error


HEIGHT = 19.0
NAMES_HEIGHT, ROW_HEIGHT = 6.5, 1.7  # of a figure of names: beside its rows, and of each


class Pick(NamedTuple):
    """A drop-down that chooses among a chart's figures."""

    label: str
    options: tuple[str, ...]


class Chart(NamedTuple):
    """A place on the page for one figure at a time.

    Attributes:
        id: of its element, of [a-z0-9-].
        heading: above it.
        note: how to read it.
        json: array of the figures; null where a choice has none. With several picks the last one turns fastest.
        picks: what chooses among them; none for a single figure.
        wide: across the page.
        rows: of names, one above the other; 0 for any other figure.
    """

    id: str
    heading: str
    note: str
    json: Markup
    picks: tuple[Pick, ...]
    wide: bool
    rows: int

    @property
    def height(self) -> float:
        """In rem."""
        return max(HEIGHT, NAMES_HEIGHT + ROW_HEIGHT * self.rows)


class LeftOut(NamedTuple):
    """A chart without data, and why it has none."""

    heading: str
    why: str


class Charts(NamedTuple):
    """Of one part of a section."""

    drawn: tuple[Chart, ...]
    left_out: tuple[LeftOut, ...]


def chart(
    id_: str, heading: str, note: str, figure: go.Figure, why: str, wide: bool = False, rows: int = 0
) -> Chart | LeftOut:
    """Of one figure.

    Args:
        id_: of its element.
        heading: above it.
        note: how to read it.
        figure: to be drawn.
        why: sentence for a reader where it has nothing to show.
        wide: across the page.
        rows: of names, one above the other, that it has to have room for.
    """
    if is_empty(figure):
        return LeftOut(heading, why)
    return Chart(id_, heading, note, _array([figure]), (), wide, rows)


def choice(
    id_: str, heading: str, note: str, figures: Sequence[go.Figure | None], picks: Sequence[Pick], why: str,
    wide: bool = False, rows: int = 0,
) -> Chart | LeftOut:  # fmt: skip
    """Of several figures, one for each combination of what the `picks` offer; None where there is none."""
    drawn = [None if figure is None or is_empty(figure) else figure for figure in figures]
    if not any(drawn):
        return LeftOut(heading, why)
    return Chart(id_, heading, note, _array(drawn), tuple(picks), wide, rows)


def gather(*charts: Chart | LeftOut) -> Charts:
    """Those that are drawn and those that are not, each in order."""
    return Charts(
        tuple(each for each in charts if isinstance(each, Chart)),
        tuple(each for each in charts if isinstance(each, LeftOut)),
    )


def of_metrics(figures: Mapping[str, go.Figure]) -> tuple[list[go.Figure], list[Pick]]:
    """Figures by metric, and the drop-down that chooses the metric."""
    return list(figures.values()), [Pick("Metric", tuple(figures))]


def _array(figures: Sequence[go.Figure | None]) -> Markup:
    # plotly writes "<" as "\u003c", so that no name can end the script element around it.
    return Markup("[" + ",".join("null" if each is None else each.to_json() for each in figures) + "]")
