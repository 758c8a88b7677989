"""The picture of a forecast as PNG, SVG or PDF, on machines without a screen."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kronos.utils import MissingExtra
from kronos_strategies.evaluation.distribution.forecast_chart import ForecastChart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's colors, as in the report.
BLUE, UP, DOWN, GRAY = "#0072B2", "#009E73", "#D55E00", "#606060"
WIDTH, HEIGHT = 12.0, 6.2  # inches of one chart
DPI = 130
FORMATS = (".png", ".svg", ".pdf")


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
