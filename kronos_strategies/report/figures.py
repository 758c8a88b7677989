"""One plotly figure a function: data in, go.Figure out. The only module that imports plotly.

Backgrounds are transparent and colours hold a contrast of 3:1 on white and on near-black, so that a figure sits on
either. Long samples are thinned to what a screen can show; the CSVs keep every bar.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kronos.extras import MissingExtra
from kronos_strategies.evaluation.portfolio.returns import drawdowns
from kronos_strategies.result import BacktestResult

try:
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise MissingExtra("Reports draw with plotly: pip install 'kronos-strategies[report]'") from error

# Okabe & Ito's colours that are neither too light for white nor too dark for black, and a grey for text.
BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#808080"
BENCHMARK_COLOURS = (VERMILLION, GREEN, PURPLE, GREY)
MAX_POINTS = 1500  # of a line; a wide screen has no more pixels
CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtons": [["toImage", "resetScale2d"]]}
DATE_FORMATS = [  # by the distance of ticks; what stands after the line break is shown only where it changes
    {"dtickrange": [None, 86_399_999], "value": "%H:%M\n%d %b %Y"},
    {"dtickrange": [86_400_000, 2_419_200_000], "value": "%d %b\n%Y"},
    {"dtickrange": [2_419_200_001, "M6"], "value": "%b\n%Y"},
    {"dtickrange": ["M12", None], "value": "%Y"},
]


def plotly_js() -> str:
    """The library, to be inlined once in a page that draws figures given as JSON."""
    return str(get_plotlyjs())


def cumulative_ic(coefficients: pd.DataFrame) -> go.Figure:
    """Running sums of RankIC and IC, columns `rank_ic` and `ic`; an undefined date adds nothing."""
    sums = _thin(coefficients[["rank_ic", "ic"]].cumsum().ffill(), "last")
    traces = [
        _line(sums["rank_ic"], "RankIC", BLUE, width=2.4),
        _line(sums["ic"], "IC", VERMILLION, dash="dot"),
    ]
    return _figure(traces, "running sum", ".2f")


def monthly_rank_ic(coefficients: pd.DataFrame) -> go.Figure:
    """Mean RankIC of each calendar month with a defined date; bars below zero in another colour."""
    return _figure([_monthly(coefficients["rank_ic"], "mean RankIC")], "mean RankIC", ".3f")


def wealth(result: BacktestResult) -> go.Figure:
    """One unit of wealth in the book, before and after costs, and in each benchmark, compounded."""
    grown = _thin((1 + _streams(result)).cumprod(), "last")
    return _figure(_book_lines(grown), "wealth, from 1", ".3f")


def drawdown(result: BacktestResult) -> go.Figure:
    """Wealth below its running maximum, of the book after costs and of each benchmark."""
    below = _thin(_streams(result).drop(columns="gross").apply(drawdowns), "min")
    lines = _book_lines(below)
    lines[0].update(fill="tozeroy", fillcolor="rgba(0, 114, 178, 0.18)")
    return _figure(lines, "below the peak", ".1%")


def turnover(result: BacktestResult) -> go.Figure:
    """Mean of the bars' turnover, by calendar month."""
    return _figure([_monthly(result.turnover, "mean turnover")], "turnover a bar", ".1%")


def cost(result: BacktestResult) -> go.Figure:
    """Running sum of the costs, as a share of the book on each bar."""
    paid = _thin(result.cost.to_frame("cost").cumsum().ffill(), "last")
    return _figure([_line(paid["cost"], "cost", BLUE, width=2.4)], "running sum", ".2%")


def _streams(result: BacktestResult) -> pd.DataFrame:
    """Returns of net, gross and each benchmark on the book's bars, in this order."""
    return result.returns[["net", "gross"]].join(result.benchmarks)


def _book_lines(streams: pd.DataFrame) -> list[go.Scatter]:
    """Benchmarks dashed, gross dotted in the colour of net, and net thickest; net is the first."""
    lines = [_line(streams["net"], "net of costs", BLUE, width=2.4).update(zorder=1)]
    if "gross" in streams:
        lines.append(_line(streams["gross"], "gross", BLUE, dash="dot"))
    for i, name in enumerate(streams.columns.difference(["net", "gross"], sort=False)):
        colour = BENCHMARK_COLOURS[i % len(BENCHMARK_COLOURS)]
        lines.append(_line(streams[name], str(name), colour, dash="solid" if i == 0 else "dash"))
    return lines


def _line(values: pd.Series, name: str, colour: str, width: float = 1.6, dash: str = "solid") -> go.Scatter:
    stamps = _stamps(values.index)
    return go.Scatter(
        x=stamps,
        y=_small(values),
        name=html.escape(name, quote=False),  # plotly reads some HTML in names
        mode="lines",
        line={"color": colour, "width": width, "dash": dash},
        connectgaps=True,
        xhoverformat="%d %b %Y, %H:%M" if ":" in "".join(stamps[:1]) else "%d %b %Y",
    )


def _monthly(values: pd.Series, name: str) -> go.Bar:
    """Means by calendar month, as bars; months without a value are left out."""
    means = values.dropna().resample("MS").mean().dropna() if values.notna().any() else values.iloc[:0]
    return go.Bar(
        x=_stamps(means.index),
        y=_small(means),
        name=name,
        marker={"color": [BLUE if mean >= 0 else VERMILLION for mean in means], "line": {"width": 0}},
        xperiod="M1",
        xperiodalignment="middle",
        xhoverformat="%b %Y",
    )


def _figure(traces: Sequence[go.Scatter | go.Bar], unit: str, hover_format: str) -> go.Figure:
    """Traces under one look: the legend above the plot, one hover label for all lines."""
    faint = "rgba(128, 128, 128, 0.22)"
    axis = {"gridcolor": faint, "showline": False, "zerolinecolor": "rgba(128, 128, 128, 0.6)"}
    return go.Figure(
        data=list(traces),
        layout={
            "template": "none",
            "paper_bgcolor": "rgba(0, 0, 0, 0)",
            "plot_bgcolor": "rgba(0, 0, 0, 0)",
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": GREY},
            "margin": {"l": 8, "r": 8, "t": 42 if len(traces) > 1 else 30, "b": 8},
            "xaxis": {
                **axis, "type": "date", "automargin": True, "showgrid": False, "nticks": 9,
                "tickformatstops": DATE_FORMATS,
            },
            "yaxis": {
                **axis, "automargin": True, "nticks": 7,
                "title": {"text": unit, "standoff": 8, "font": {"size": 12}},
                "tickformat": "~%" if hover_format.endswith("%") else None, "hoverformat": hover_format,
            },
            "showlegend": len(traces) > 1,
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            "hovermode": "x unified",
            "hoverlabel": {"bgcolor": "#20262e", "bordercolor": "#20262e", "font": {"color": "#f2f4f6"}},
            "modebar": {"bgcolor": "rgba(0, 0, 0, 0)", "color": GREY, "activecolor": BLUE},
            "bargap": 0.25,
        },
    )  # fmt: skip


def _thin(frame: pd.DataFrame, keep: str) -> pd.DataFrame:
    """At most MAX_POINTS rows: the last or the min of each run of rows, dated by the run's last."""
    step = -(-len(frame) // MAX_POINTS)
    if step <= 1:
        return frame
    run = np.arange(len(frame)) // step
    dates = frame.index.to_series().groupby(run).last()
    return frame.groupby(run).agg(keep).set_axis(pd.DatetimeIndex(dates), axis=0)


def _stamps(index: pd.Index) -> list[str]:
    """ISO dates, with the time of day where bars have one."""
    dates = pd.DatetimeIndex(index)
    whole_days = bool((dates == dates.normalize()).all())
    return list(dates.strftime("%Y-%m-%d" if whole_days else "%Y-%m-%d %H:%M"))


def _small(values: pd.Series) -> np.ndarray:
    """float32, which plotly writes as a base64 block of 4 bytes a value."""
    return values.to_numpy(dtype=np.float32)
