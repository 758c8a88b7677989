"""Pictures of forecasts as files: a page with plotly figures, or a picture by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kronos.forecast import Forecast
from kronos.panels import Bars
from kronos.utils import MissingExtra, explain_write_errors, write_atomic
from kronos_strategies.evaluation.distribution.forecast_chart import PATHS, ForecastChart, forecast_chart
from kronos_strategies.forecast_view.image import FORMATS, render_image
from kronos_strategies.forecast_view.summary import check_suffix

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
