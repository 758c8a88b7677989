"""What all figures share: colours, axes, lines, bands and bars with whiskers.

Backgrounds are transparent and colours hold a contrast of 3:1 on white and on near-black, so that a figure sits on
either. Long samples are thinned to what a screen can show; the CSVs keep every date.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kronos.utils import MissingExtra

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


def level(drawn: go.Figure, at: float, axis: str = "y") -> go.Figure:
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


def thin(frame: pd.DataFrame, keep: str) -> pd.DataFrame:
    """At most MAX_POINTS rows: the last or the min of each run of rows, dated by the run's last."""
    step = -(-len(frame) // MAX_POINTS)
    if step <= 1:
        return frame
    run = np.arange(len(frame)) // step
    dates = frame.index.to_series().groupby(run).last()
    return frame.groupby(run).agg(keep).set_axis(pd.DatetimeIndex(dates), axis=0)


def calm(values: pd.Series) -> pd.Series:
    """As it is if short, else its weekly means, dated by the week's last day, or means of days if of few days."""
    if len(values) < WEEKLY_FROM:
        return values
    days = pd.DatetimeIndex(values.index).normalize()
    if days.nunique() < WEEKLY_FROM and len(values) > MAX_POINTS:
        return thin(values.to_frame(), "mean").iloc[:, 0]
    if days.nunique() < WEEKLY_FROM:
        return values
    weekly = values.resample("W-FRI").mean().dropna()
    return weekly if len(weekly) >= 2 else thin(values.to_frame(), "last").iloc[:, 0]


def stamps(index: pd.Index) -> list[str]:
    """ISO dates, with the time of day where bars have one."""
    dates = pd.DatetimeIndex(index)
    whole_days = bool((dates == dates.normalize()).all())
    return list(dates.strftime("%Y-%m-%d" if whole_days else "%Y-%m-%d %H:%M"))


def small(values: ArrayLike) -> np.ndarray:
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
