"""The common look of all figures, and the traces they are made of."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kronos.utils import MissingExtra

try:
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise MissingExtra("Figures need plotly: pip install 'kronos-strategies[report]'") from error


# Okabe & Ito's colors with enough contrast on white and on black, and a gray for text.
BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#808080"
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, GREY)
DASHES = ("solid", "dash", "dot", "dashdot")  # for series that share a color
FAINT, RULE = "rgba(128, 128, 128, 0.22)", "rgba(128, 128, 128, 0.6)"
MAX_POINTS = 1500  # of a line, about the pixels of a wide screen
WEEKLY_FROM = 260  # dates; longer noisy series are shown as weekly means
LONGEST_LABEL = 26  # characters of a category, half of a phone screen
CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtons": [["toImage", "resetScale2d"]]}
DATE_FORMATS = [  # by tick distance; the part after the line break is shown only where it changes
    {"dtickrange": [None, 86_399_999], "value": "%H:%M\n%d %b %Y"},
    {"dtickrange": [86_400_000, 2_419_200_000], "value": "%d %b\n%Y"},
    {"dtickrange": [2_419_200_001, "M6"], "value": "%b\n%Y"},
    {"dtickrange": ["M12", None], "value": "%Y"},
]


class Axis(NamedTuple):
    """Axis of a figure.

    Attributes:
        title: title with unit; empty where the ticks are self-explanatory (dates, categories).
        form: d3 format of values in hover labels; ".3%" also formats the ticks as percent.
        kind: plotly's axis type: "linear", "date" or "category".
    """

    title: str
    form: str = ""
    kind: str = "linear"


DATES, CATEGORIES = Axis("", kind="date"), Axis("", kind="category")


def plotly_js() -> str:
    """The plotly library, to be inlined once in a page that draws figures from JSON."""
    return str(get_plotlyjs())


def figure(
    traces: Iterable[go.Scatter | go.Bar | go.Heatmap], y: Axis, x: Axis = DATES, hover: str = "x unified"
) -> go.Figure:
    """Traces with the common look: legend above the plot, one hover label for all traces at one position."""
    data = list(traces)
    named = [trace for trace in data if trace.showlegend is not False]
    return go.Figure(
        data=data,
        layout={
            "template": "none",
            "paper_bgcolor": "rgba(0, 0, 0, 0)",
            "plot_bgcolor": "rgba(0, 0, 0, 0)",
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": GREY},
            "margin": {"l": 8, "r": 8, "t": 42 if len(named) > 1 else 30, "b": 8},
            "xaxis": _axis(x, 9) | {"showgrid": x.kind == "linear"},
            "yaxis": _axis(y, 7) | ({"autorange": "reversed"} if y.kind == "category" else {}),
            "showlegend": len(named) > 1,
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            "hovermode": hover,
            "hoverlabel": {"bgcolor": "#20262e", "bordercolor": "#20262e", "font": {"color": "#f2f4f6"}},
            "modebar": {"bgcolor": "rgba(0, 0, 0, 0)", "color": GREY, "activecolor": BLUE},
            "bargap": 0.3,
        },
    )


def _axis(axis: Axis, ticks: int) -> dict[str, object]:
    return {
        "type": axis.kind,
        "automargin": True,
        "nticks": None if axis.kind == "category" else ticks,
        "title": {"text": axis.title, "standoff": 8, "font": {"size": 12}} if axis.title else None,
        "tickformat": "~%" if axis.form.endswith("%") else None,
        "tickformatstops": DATE_FORMATS if axis.kind == "date" else None,
        "hoverformat": axis.form or None,
        "gridcolor": FAINT,
        "showline": False,
        "zerolinecolor": RULE,
    }


def is_empty(drawn: go.Figure) -> bool:
    """Whether no trace has a visible value."""
    return not any(np.isfinite(_values(trace)).any() for trace in drawn.data if trace.hoverinfo != "skip")


def _values(trace: go.Scatter | go.Bar | go.Heatmap) -> np.ndarray:
    if isinstance(trace, go.Heatmap):
        return np.asarray([] if trace.z is None else trace.z, float)
    along = trace.x if trace.orientation == "h" else trace.y
    return np.asarray([] if along is None else along, float)


def reference_line(drawn: go.Figure, at: float, axis: str = "y") -> go.Figure:
    """With a dotted line across the plot at the nominal or neutral value."""
    other = "x" if axis == "y" else "y"
    return drawn.add_shape(
        type="line",
        layer="below",
        line={"color": GREY, "width": 1.2, "dash": "dot"},
        **{f"{axis}0": at, f"{axis}1": at, f"{axis}ref": axis, f"{other}0": 0, f"{other}1": 1},
        **{f"{other}ref": f"{other} domain"},
    )


def style(place: int) -> tuple[str, str]:
    """Color and dash of the n-th of many series."""
    return COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)]


def translucent(color: str, opacity: float) -> str:
    """A "#rrggbb" color with opacity."""
    return f"rgba({', '.join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))}, {opacity:g})"


def downsample(frame: pd.DataFrame, keep: str) -> pd.DataFrame:
    """At most MAX_POINTS rows: the last, min or mean of each run of rows, dated by the last row of the run."""
    step = -(-len(frame) // MAX_POINTS)
    if step <= 1:
        return frame
    run = np.arange(len(frame)) // step
    dates = frame.index.to_series().groupby(run).last()
    return frame.groupby(run).agg(keep).set_axis(pd.DatetimeIndex(dates), axis=0)


def weekly_mean(values: pd.Series) -> pd.Series:
    """Short series unchanged, longer ones as weekly means dated by the last day of the week, or downsampled."""
    if len(values) < WEEKLY_FROM:
        return values
    days = pd.DatetimeIndex(values.index).normalize()
    if days.nunique() < WEEKLY_FROM and len(values) > MAX_POINTS:
        return downsample(values.to_frame(), "mean").iloc[:, 0]
    if days.nunique() < WEEKLY_FROM:
        return values
    weekly = values.resample("W-FRI").mean().dropna()
    return weekly if len(weekly) >= 2 else downsample(values.to_frame(), "last").iloc[:, 0]


def iso_dates(index: pd.Index) -> list[str]:
    """ISO dates, with the time of day where bars have one."""
    dates = pd.DatetimeIndex(index)
    local = dates.tz_localize(None).to_numpy()
    whole_days = bool((local == local.astype("datetime64[D]")).all())
    return list(dates.strftime("%Y-%m-%d" if whole_days else "%Y-%m-%d %H:%M"))


def as_float32(values: ArrayLike) -> np.ndarray:
    """float32, which plotly writes as base64 with 4 bytes per value."""
    return np.asarray(values, dtype=np.float32)


def text(name: object) -> str:
    """A name as escaped text, since plotly interprets some HTML in names, titles and categories."""
    return html.escape(str(name), quote=False)


def labels(names: Iterable[object]) -> list[str]:
    """Categories: each name as text, truncated where too long for an axis, and still unique."""
    found: list[str] = []
    for name in map(str, names):
        cut = name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"
        while (label := text(cut)) in found:
            cut += "ʹ"
        found.append(label)
    return found


_Trace = TypeVar("_Trace", go.Scatter, go.Bar)


def line(
    values: pd.Series, name: str, color: str = BLUE, width: float = 1.6, dash: str = "solid"
) -> go.Scatter:
    """A line of a series by date, connected across gaps."""
    at = iso_dates(values.index)
    return go.Scatter(
        x=at,
        y=as_float32(values),
        name=text(name),
        mode="lines",
        line={"color": color, "width": width, "dash": dash},
        connectgaps=True,
        xhoverformat="%d %b %Y, %H:%M" if ":" in "".join(at[:1]) else "%d %b %Y",
    )


def curve(
    x: Sequence[object], y: ArrayLike, name: str, color: str = BLUE, form: str = "", dash: str = "solid",
    low: ArrayLike | None = None, high: ArrayLike | None = None,
) -> go.Scatter:  # fmt: skip
    """Markers connected by a line; with `low` and `high` the hover label includes the interval."""
    trace = go.Scatter(
        x=list(x),
        y=as_float32(y),
        name=text(name),
        mode="lines+markers",
        line={"color": color, "width": 1.8, "dash": dash},
        marker={"size": 6, "color": color},
    )
    return trace if low is None or high is None else _with_interval(trace, "y", low, high, form)


def band(x: Sequence[object], low: ArrayLike, high: ArrayLike, color: str, opacity: float) -> go.Scatter:
    """The area between two lines, where both are defined; without a hover label."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    both = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    there = [x[int(i)] for i in both]
    return go.Scatter(
        x=there + there[::-1],
        y=as_float32(np.concatenate([high[both], low[both][::-1]])),
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=translucent(color, opacity),
        hoverinfo="skip",
        showlegend=False,
    )


def bars(
    at: Sequence[object], values: ArrayLike, low: ArrayLike, high: ArrayLike, name: str, form: str,
    color: str = BLUE, flat: bool = False,
) -> go.Bar:  # fmt: skip
    """Pale bars with whiskers over their intervals; horizontal if `flat`."""
    values, low, high = (np.asarray(each, float) for each in (values, low, high))
    along = "x" if flat else "y"
    trace = go.Bar(
        {along: as_float32(values), "y" if flat else "x": list(at)},
        orientation="h" if flat else "v",
        name=text(name),
        marker={"color": translucent(color, 0.4), "line": {"width": 1, "color": color}},
        **{f"error_{along}": _whiskers(values, low, high, color)},
    )
    return _with_interval(trace, along, low, high, form)


def points(
    at: Sequence[object], values: ArrayLike, low: ArrayLike, high: ArrayLike, name: str, form: str,
    color: str = BLUE, symbol: str = "circle", flat: bool = False,
) -> go.Scatter:  # fmt: skip
    """Markers with whiskers over their intervals, one per category; along the x axis if `flat`."""
    values, low, high = (np.asarray(each, float) for each in (values, low, high))
    along = "x" if flat else "y"
    trace = go.Scatter(
        {along: as_float32(values), "y" if flat else "x": list(at)},
        name=text(name),
        orientation="h" if flat else "v",
        mode="markers",
        marker={"size": 9, "color": color, "symbol": symbol, "line": {"width": 1.5, "color": color}},
        **{f"error_{along}": _whiskers(values, low, high, color)},
    )
    return _with_interval(trace, along, low, high, form)


def monthly(values: pd.Series, name: str, by_day: bool = False) -> go.Bar:
    """Means by calendar month or by day, negative ones in another color; missing ones are left out."""
    rule = "D" if by_day else "MS"
    means = values.dropna().resample(rule).mean().dropna() if values.notna().any() else values.iloc[:0]
    return go.Bar(
        x=iso_dates(means.index),
        y=as_float32(means),
        name=name,
        marker={"color": [BLUE if mean >= 0 else VERMILLION for mean in means], "line": {"width": 0}},
        xperiod=None if by_day else "M1",
        xperiodalignment=None if by_day else "middle",
        xhoverformat="%d %b %Y" if by_day else "%b %Y",
    )


def _whiskers(values: np.ndarray, low: np.ndarray, high: np.ndarray, color: str) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": as_float32(high - values),
        "arrayminus": as_float32(values - low),
        "color": color,
        "thickness": 1.5,
        "width": 4,
    }


def _with_interval(trace: _Trace, along: str, low: ArrayLike, high: ArrayLike, form: str) -> _Trace:
    """With both ends of the interval in the hover label; plotly's whiskers show their lengths only."""
    ends = np.column_stack([np.asarray(low, np.float32), np.asarray(high, np.float32)])
    shown = [f"%{{{of}:{form}}}" for of in (along, "customdata[0]", "customdata[1]")]
    return trace.update(customdata=ends, hovertemplate=f"{shown[0]} (95%: {shown[1]} to {shown[2]})")
