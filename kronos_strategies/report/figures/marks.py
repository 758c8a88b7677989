"""Lines, bands, bars and points with whiskers: the traces that figures are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kronos_strategies.report.figures.base import BLUE, VERMILLION, go, small, stamps, text, translucent

_Trace = TypeVar("_Trace", go.Scatter, go.Bar)


def line(
    values: pd.Series, name: str, colour: str = BLUE, width: float = 1.6, dash: str = "solid"
) -> go.Scatter:
    """Of a series by date, which gaps do not interrupt."""
    at = stamps(values.index)
    return go.Scatter(
        x=at,
        y=small(values),
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
        y=small(y),
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
        y=small(np.concatenate([high[both], low[both][::-1]])),
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
        {along: small(values), "y" if flat else "x": list(at)},
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
        {along: small(values), "y" if flat else "x": list(at)},
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
        x=stamps(means.index),
        y=small(means),
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
        "array": small(high - values),
        "arrayminus": small(values - low),
        "color": colour,
        "thickness": 1.5,
        "width": 4,
    }


def _with_interval(trace: _Trace, along: str, low: ArrayLike, high: ArrayLike, form: str) -> _Trace:
    """With both ends of the interval in the hover label, which plotly's own whiskers give only as lengths."""
    ends = np.column_stack([np.asarray(low, np.float32), np.asarray(high, np.float32)])
    shown = [f"%{{{of}:{form}}}" for of in (along, "customdata[0]", "customdata[1]")]
    return trace.update(customdata=ends, hovertemplate=f"{shown[0]} (95%: {shown[1]} to {shown[2]})")
