"""Figures of forecasts over time."""

from __future__ import annotations

import numpy as np

from kronos_strategies.evaluation.time_series import InstrumentEvaluation
from kronos_strategies.report.figures.base import (
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    Axis,
    as_float32,
    figure,
    go,
    iso_dates,
    line,
    points,
    reference_line,
    translucent,
)  # fmt: skip

LATEST = 250  # forecasts that a band chart shows
MAX_DOTS = 4000


def contribution(evaluation: InstrumentEvaluation) -> go.Figure:
    """Cumulative contribution of the dates to the correlation, whose last value is the correlation."""
    defined = evaluation.pairs["contribution"].dropna()
    running = (defined.cumsum() / max(len(defined), 1)).rename("contribution")
    return reference_line(
        figure([line(running, "cumulative contribution", BLUE, width=2.2)], Axis("", ".3f")), 0.0
    )


def scatter(evaluation: InstrumentEvaluation, score: str) -> go.Figure:
    """Outcomes by score: one dot per date, and the means of fifths with their intervals."""
    both = evaluation.pairs.dropna(subset=["score", "outcome"])
    both = both.iloc[:: -(-len(both) // MAX_DOTS)] if len(both) > MAX_DOTS else both
    dots = go.Scatter(
        x=as_float32(both["score"]),
        y=as_float32(both["outcome"]),
        text=iso_dates(both.index),
        name="date",
        mode="markers",
        marker={"size": 5, "color": GREY, "opacity": 0.45},
        hovertemplate="%{text}: %{x:.3%} → %{y:.2%}<extra></extra>",
    )
    bins = evaluation.bins
    means = points(
        as_float32(bins["score"]).tolist(),
        bins["outcome"],
        bins["low"],
        bins["high"],
        "mean of a fifth",
        ".2%",
        VERMILLION,
    )
    drawn = figure([dots, means], Axis("outcome", ".2%"), Axis(score, ".3%"), hover="closest")
    return reference_line(drawn, 0.0)


def bands(evaluation: InstrumentEvaluation) -> go.Figure:
    """Bands of the latest forecasts with outcomes inside and outside, one category per forecast."""
    frame = evaluation.bands.dropna().tail(LATEST)
    at = np.array(iso_dates(frame.index), dtype=object)
    inside = ((frame["lower"] <= frame["outcome"]) & (frame["outcome"] <= frame["upper"])).to_numpy()
    ends = frame[["lower", "upper"]].assign(gap=np.nan).to_numpy().ravel()
    band = go.Scatter(
        x=np.repeat(at, 3).tolist(),
        y=as_float32(ends),
        name=f"{evaluation.level:.0%} band",
        mode="lines",
        line={"width": 3, "color": translucent(BLUE, 0.4)},
        hoverinfo="skip",
    )
    traces = [band]
    for chosen, name, color in ((inside, "outcome inside", GREEN), (~inside, "outcome outside", VERMILLION)):
        traces.append(
            go.Scatter(
                x=at[chosen].tolist(),
                y=as_float32(frame["outcome"][chosen]),
                name=name,
                mode="markers",
                marker={"size": 6, "color": color, "symbol": "circle" if color == GREEN else "x"},
            )
        )
    forecasts = Axis("", kind="category")
    drawn = figure(traces, Axis("return over the horizon", ".2%"), forecasts, hover="closest")
    drawn.update_xaxes(nticks=8, tickangle=0, categoryorder="array", categoryarray=at.tolist())
    return reference_line(drawn, 0.0)
