"""The common look of all figures, and the traces they are made of."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kronos.extras import MissingExtra

try:
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise MissingExtra("Reports draw with plotly: pip install 'kronos-strategies[report]'") from error


# Okabe & Ito's colours that are neither too light for white nor too dark for black, and a grey for text.
BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#808080"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, GREY)
DASHES = ("solid", "dash", "dot", "dashdot")  # tell apart what shares a colour
FAINT, RULE = "rgba(128, 128, 128, 0.22)", "rgba(128, 128, 128, 0.6)"
MAX_POINTS = 1500  # of a line; a wide screen has no more pixels
WEEKLY_FROM = 260  # dates; a noisy series of more is shown by its weekly means
LONGEST_LABEL = 26  # of a category, characters: half of a phone
CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtons": [["toImage", "resetScale2d"]]}
DATE_FORMATS = [  # by the distance of ticks; what stands after the line break is shown only where it changes
    {"dtickrange": [None, 86_399_999], "value": "%H:%M\n%d %b %Y"},
    {"dtickrange": [86_400_000, 2_419_200_000], "value": "%d %b\n%Y"},
    {"dtickrange": [2_419_200_001, "M6"], "value": "%b\n%Y"},
    {"dtickrange": ["M12", None], "value": "%Y"},
]


class Axis(NamedTuple):
    """Of a figure.

    Attributes:
        title: with its unit; empty where the ticks speak for themselves (dates, names).
        form: d3 format of a value in a hover label; ".3%" writes percents, on the ticks too.
        kind: of plotly: "linear", "date" or "category".
    """

    title: str
    form: str = ""
    kind: str = "linear"


DATES, NAMES = Axis("", kind="date"), Axis("", kind="category")


def plotly_js() -> str:
    """The library, to be inlined once in a page that draws figures given as JSON."""
    return str(get_plotlyjs())


def figure(
    traces: Iterable[go.Scatter | go.Bar], y: Axis, x: Axis = DATES, hover: str = "x unified"
) -> go.Figure:
    """Traces under one look: the legend above the plot, one hover label for all that stands at one place."""
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
    """Whether no trace has a value that can be seen."""
    return not any(np.isfinite(_values(trace)).any() for trace in drawn.data if trace.hoverinfo != "skip")


def _values(trace: go.Scatter | go.Bar) -> np.ndarray:
    along = trace.x if trace.orientation == "h" else trace.y
    return np.asarray([] if along is None else along, float)


def reference_line(drawn: go.Figure, at: float, axis: str = "y") -> go.Figure:
    """With a dotted rule across at what is nominal, or neutral."""
    other = "x" if axis == "y" else "y"
    return drawn.add_shape(
        type="line",
        layer="below",
        line={"color": GREY, "width": 1.2, "dash": "dot"},
        **{f"{axis}0": at, f"{axis}1": at, f"{axis}ref": axis, f"{other}0": 0, f"{other}1": 1},
        **{f"{other}ref": f"{other} domain"},
    )


def style(place: int) -> tuple[str, str]:
    """Colour and dash of the n-th of many series."""
    return COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]


def translucent(colour: str, opacity: float) -> str:
    """A "#rrggbb" colour that lets the paper through."""
    return f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, {opacity:g})"


def downsample(frame: pd.DataFrame, keep: str) -> pd.DataFrame:
    """At most MAX_POINTS rows: the last or the min of each run of rows, dated by the run's last."""
    step = -(-len(frame) // MAX_POINTS)
    if step <= 1:
        return frame
    run = np.arange(len(frame)) // step
    dates = frame.index.to_series().groupby(run).last()
    return frame.groupby(run).agg(keep).set_axis(pd.DatetimeIndex(dates), axis=0)


def weekly_mean(values: pd.Series) -> pd.Series:
    """As it is if short, else its weekly means, dated by the week's last day, or means of days if of few days."""
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
    whole_days = bool((dates == dates.normalize()).all())
    return list(dates.strftime("%Y-%m-%d" if whole_days else "%Y-%m-%d %H:%M"))


def as_float32(values: ArrayLike) -> np.ndarray:
    """float32, which plotly writes as a base64 block of 4 bytes a value."""
    return np.asarray(values, dtype=np.float32)


def text(name: object) -> str:
    """A name as text: plotly reads some HTML in names, titles and categories."""
    return html.escape(str(name), quote=False)


def labels(names: Iterable[object]) -> list[str]:
    """Categories: each name as text, cut where it is too long for an axis, and still unlike the others."""
    found: list[str] = []
    for name in map(str, names):
        cut = name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"
        while (label := text(cut)) in found:
            cut += "ʹ"
        found.append(label)
    return found


_Trace = TypeVar("_Trace", go.Scatter, go.Bar)


def line(
    values: pd.Series, name: str, colour: str = BLUE, width: float = 1.6, dash: str = "solid"
) -> go.Scatter:
    """Of a series by date, which gaps do not interrupt."""
    at = iso_dates(values.index)
    return go.Scatter(
        x=at,
        y=as_float32(values),
        name=text(name),
        mode="lines",
        line={"color": colour, "width": width, "dash": dash},
        connectgaps=True,
        xhoverformat="%d %b %Y, %H:%M" if ":" in "".join(at[:1]) else "%d %b %Y",
    )


def curve(
    x: Sequence[object], y: ArrayLike, name: str, colour: str = BLUE, form: str = "", dash: str = "solid",
    low: ArrayLike | None = None, high: ArrayLike | None = None,
) -> go.Scatter:  # fmt: skip
    """Marked points joined by a line; with `low` and `high` the hover label gives the interval too."""
    trace = go.Scatter(
        x=list(x),
        y=as_float32(y),
        name=text(name),
        mode="lines+markers",
        line={"color": colour, "width": 1.8, "dash": dash},
        marker={"size": 6, "color": colour},
    )
    return trace if low is None or high is None else _with_interval(trace, "y", low, high, form)


def band(x: Sequence[object], low: ArrayLike, high: ArrayLike, colour: str, opacity: float) -> go.Scatter:
    """The area between two lines, over the points where both are defined; it has no hover label."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    both = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    there = [x[int(i)] for i in both]
    return go.Scatter(
        x=there + there[::-1],
        y=as_float32(np.concatenate([high[both], low[both][::-1]])),
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=translucent(colour, opacity),
        hoverinfo="skip",
        showlegend=False,
    )


def bars(
    at: Sequence[object], values: ArrayLike, low: ArrayLike, high: ArrayLike, name: str, form: str,
    colour: str = BLUE, flat: bool = False,
) -> go.Bar:  # fmt: skip
    """Bars, pale so that whiskers over their intervals stand out; lying on their side if `flat`."""
    values, low, high = (np.asarray(each, float) for each in (values, low, high))
    along = "x" if flat else "y"
    trace = go.Bar(
        {along: as_float32(values), "y" if flat else "x": list(at)},
        orientation="h" if flat else "v",
        name=text(name),
        marker={"color": translucent(colour, 0.4), "line": {"width": 1, "color": colour}},
        **{f"error_{along}": _whiskers(values, low, high, colour)},
    )
    return _with_interval(trace, along, low, high, form)


def points(
    at: Sequence[object], values: ArrayLike, low: ArrayLike, high: ArrayLike, name: str, form: str,
    colour: str = BLUE, symbol: str = "circle", flat: bool = False,
) -> go.Scatter:  # fmt: skip
    """Marks with whiskers over their intervals, one a category; along the x axis if `flat`."""
    values, low, high = (np.asarray(each, float) for each in (values, low, high))
    along = "x" if flat else "y"
    trace = go.Scatter(
        {along: as_float32(values), "y" if flat else "x": list(at)},
        name=text(name),
        orientation="h" if flat else "v",
        mode="markers",
        marker={"size": 9, "color": colour, "symbol": symbol, "line": {"width": 1.5, "color": colour}},
        **{f"error_{along}": _whiskers(values, low, high, colour)},
    )
    return _with_interval(trace, along, low, high, form)


def monthly(values: pd.Series, name: str, by_day: bool = False) -> go.Bar:
    """Means by calendar month, or by day, below zero in another colour; those without a value are left out."""
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


def _whiskers(values: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": as_float32(high - values),
        "arrayminus": as_float32(values - low),
        "color": colour,
        "thickness": 1.5,
        "width": 4,
    }


def _with_interval(trace: _Trace, along: str, low: ArrayLike, high: ArrayLike, form: str) -> _Trace:
    """With both ends of the interval in the hover label, which plotly's own whiskers give only as lengths."""
    ends = np.column_stack([np.asarray(low, np.float32), np.asarray(high, np.float32)])
    shown = [f"%{{{of}:{form}}}" for of in (along, "customdata[0]", "customdata[1]")]
    return trace.update(customdata=ends, hovertemplate=f"{shown[0]} (95%: {shown[1]} to {shown[2]})")
