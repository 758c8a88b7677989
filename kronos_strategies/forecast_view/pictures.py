"""Pictures of forecasts as files: a page with plotly figures, or a picture by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kronos.forecast import Forecast
from kronos.panels import Bars
from kronos.utils import MissingExtra, explain_write_errors, write_atomic
from kronos_strategies.evaluation.distribution.forecast_chart import PATHS, ForecastChart, forecast_chart
from kronos_strategies.forecast_view.summary import check_suffix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's colors, as in the report.
BLUE, UP, DOWN, GRAY = "#0072B2", "#009E73", "#D55E00", "#606060"
WIDTH, HEIGHT = 12.0, 6.2  # inches of one chart
DPI = 130
FORMATS = (".png", ".svg", ".pdf")
SUFFIXES = (".html", *FORMATS)
MAX_CHARTS = 20  # of one file
HEADS = {  # of the columns of `forecast_table`
    "score": "score",
    "close": "close",
    "expected_return": "return",
    "volatility": "vol./bar",
    "prob_up": "prob. up",
    "q05": "5 %",
    "q50": "50 %",
    "q95": "95 %",
    "max_drawdown": "drawdown",
}


@dataclass(frozen=True)
class PageText:
    """Text of a page next to its charts.

    Attributes:
        lines: below the title.
        warnings: sentences that a reader must not miss.
        table: result of `forecast_table`; None for no table.
    """

    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    table: pd.DataFrame | None = None


NO_TEXT = PageText()


def save_forecast_plot(
    forecast: Forecast,
    path: str | Path,
    bars: Bars | None = None,
    instruments: Sequence[str] | None = None,
    history: int | None = None,
    paths: int = PATHS,
) -> Path:
    """Write the picture of a forecast; the suffix of the file decides its kind.

    Args:
        forecast: forecast of any number of windows.
        path: .html for a page that can be zoomed and needs no other file, .png, .svg or .pdf for a picture.
        bars, history, paths: as in `kronos_strategies.plot`.
        instruments: which ones to draw, one below the other; all of them when omitted.

    Returns:
        The path.

    Raises:
        ValueError: another suffix, more than 20 instruments, or as in `kronos_strategies.plot`.
        MissingExtra: plotly or matplotlib is missing.
    """
    check_suffix(Path(path), SUFFIXES)
    names = instruments
    if names is None:
        names = list(dict.fromkeys(forecast.index.get_level_values("instrument").astype(str)))
    if not 1 <= len(names) <= MAX_CHARTS:
        raise ValueError(f"{len(names)} instruments do not fit one file. Name 1 to {MAX_CHARTS} of them.")
    charts = [forecast_chart(forecast, bars, name, history, paths) for name in names]
    return write_charts(charts, Path(path))


def write_charts(charts: Sequence[ForecastChart], path: Path, page: PageText = NO_TEXT) -> Path:
    """Write charts, one below the other; the text appears on pages only."""
    check_suffix(path, SUFFIXES)
    path = path.expanduser()
    if path.suffix == ".html":
        content: str | bytes = render_page(charts, page)
    else:
        content = render_image(charts, path.suffix[1:])
    with explain_write_errors(path, "Choose another file for the picture."):
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_atomic(path, content)


def render_page(charts: Sequence[ForecastChart], page: PageText = NO_TEXT) -> str:
    """The page as HTML text, a single file without external resources. Equal charts give equal pages."""
    try:
        from markupsafe import Markup
    except ImportError as error:
        raise MissingExtra("Pages need Jinja: pip install 'kronos-strategies[report]'") from error
    from kronos_strategies.report.figures.base import CONFIG, plotly_js
    from kronos_strategies.report.figures.forecast import draw
    from kronos_strategies.report.layout import TEMPLATES, template_environment

    drawn = []
    for number, chart in enumerate(charts):
        figure = draw(chart).update_layout(
            title=None, margin={"t": 30}
        )  # the heading of the page wraps, a title not
        options = {"full_html": False, "include_plotlyjs": False, "config": CONFIG}
        drawn.append((chart.title, Markup(figure.to_html(div_id=f"chart-{number}", **options))))
    names = [chart.instrument for chart in charts]
    title = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    heads, rows = _cells(page.table)
    return (
        template_environment()
        .get_template("forecast.html.j2")
        .render(
            title=title,
            lines=page.lines,
            warnings=page.warnings,
            charts=drawn,
            heads=heads,
            rows=rows,
            style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
            plotly_js=Markup(plotly_js()),
        )
    )


def _cells(table: pd.DataFrame | None) -> tuple[list[str], list[list[str]]]:
    if table is None:
        return [], []
    heads = table_heads(table)
    names = table.index.get_level_values("instrument")
    rows = [
        [str(name), *(format_cell(head, value) for head, value in zip(heads, values, strict=True))]
        for name, values in zip(names, table[heads].to_numpy(float), strict=True)
    ]
    return ["instrument", *(HEADS[name] for name in heads)], rows


def table_heads(table: pd.DataFrame) -> list[str]:
    """The columns to show; a single instrument has no rank, so no score."""
    return [name for name in HEADS if len(table) > 1 or name != "score"]


def format_cell(name: str, value: float) -> str:
    """A value of `forecast_table` as text; zero has no minus sign."""
    if name in ("expected_return", "max_drawdown"):
        return f"{round(value, 4) + 0.0:+.2%}".replace("-", "−")
    if name == "volatility":
        return f"{value:.2%}"
    if name == "prob_up":
        return f"{value:.0%}"
    if name == "score":
        return f"{round(value, 4) + 0.0:+.4f}".replace("-", "−")
    return f"{value:.6g}"


def render_image(charts: Sequence[ForecastChart], kind: str) -> bytes:
    """Charts, one below the other, as a file.

    Args:
        charts: at least one.
        kind: "png", "svg" or "pdf".

    Raises:
        MissingExtra: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("Pictures need matplotlib: pip install 'kronos-strategies[report]'") from error
    figure = Figure(figsize=(WIDTH, HEIGHT * len(charts)), layout="constrained")
    parts = figure.subfigures(len(charts), 1, squeeze=False)[:, 0]
    for part, chart in zip(parts, charts, strict=True):
        heights = [4, 1] if chart.has_volume else [1]
        panels = part.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        _draw_prices(panels[0], chart)
        part.legend(loc="outside lower left", fontsize=8, frameon=False, ncols=6)
        if chart.has_volume:
            _draw_volume(panels[1], chart)
        _label_times(panels, chart)
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI)
    return buffer.getvalue()


def _draw_prices(axes: Axes, chart: ForecastChart) -> None:
    start, ahead = len(chart.history), chart.ahead
    fan = np.vstack([np.full(4, chart.last_close), chart.fan])
    axes.fill_between(ahead, fan[:, 2], fan[:, 3], color=BLUE, alpha=0.13, linewidth=0, label="90% band")
    axes.fill_between(ahead, fan[:, 0], fan[:, 1], color=BLUE, alpha=0.2, linewidth=0, label="50% band")
    for number, path in enumerate(chart.paths):
        label = None if number else f"{len(chart.paths)} sampled paths"
        axes.plot(ahead, np.r_[chart.last_close, path], color=BLUE, alpha=0.3, linewidth=0.6, label=label)
    _draw_candles(axes, chart.history, 0, UP, DOWN, "bars")
    if len(chart.truth):
        _draw_candles(axes, chart.truth, start, UP, DOWN, "held back")
    _draw_candles(axes, chart.median, start, BLUE, BLUE, "median of paths")
    axes.set_title(chart.title, loc="left", fontsize=11)
    axes.set_ylabel("price")
    axes.margins(x=0.01)


def _draw_candles(axes: Axes, bars: pd.DataFrame, start: int, up: str, down: str, label: str) -> None:
    at = np.arange(start, start + len(bars))
    open_, high, low, close = (bars[price].to_numpy(float) for price in ("open", "high", "low", "close"))
    colors = np.where(close >= open_, up, down).tolist()
    axes.vlines(at, low, high, colors=colors, linewidth=0.8)
    heights = np.abs(close - open_)
    axes.bar(
        at, heights, 0.7, np.minimum(open_, close), color=colors, edgecolor=colors, linewidth=0.6, label=label
    )


def _draw_volume(axes: Axes, chart: ForecastChart) -> None:
    from matplotlib.ticker import EngFormatter

    start = len(chart.history)
    for bars, first, color in (
        (chart.history, 0, GRAY), (chart.truth, start, GRAY), (chart.median, start, BLUE)
    ):  # fmt: skip
        at = np.arange(first, first + len(bars))
        axes.bar(at, bars["volume"].to_numpy(float), 0.75, color=color, alpha=0.5)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylabel("volume")


def _label_times(panels: Sequence[Axes], chart: ForecastChart) -> None:
    for axes in panels:
        axes.axvline(len(chart.history) - 0.5, color=GRAY, linewidth=1, linestyle=":")
        axes.grid(axis="y", color=GRAY, alpha=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xticks(chart.ticks, [chart.tick_text(place) for place in chart.ticks], fontsize=9)
