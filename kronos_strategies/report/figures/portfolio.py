"""Figures of a book: wealth, falls, costs, exposures and trading."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation
from kronos_strategies.evaluation.portfolio.returns import drawdowns
from kronos_strategies.report.figures.base import (
    BLUE,
    COLOURS,
    GREEN,
    VERMILLION,
    Axis,
    as_float32,
    curve,
    downsample,
    figure,
    go,
    line,
    monthly,
    reference_line,
    style,
    translucent,
    weekly_mean,
)  # fmt: skip
from kronos_strategies.report.formatting import is_timed
from kronos_strategies.result import BacktestResult

FEW_DAYS = 62  # that a book spans, so that means by day say more than by month


def wealth(result: BacktestResult) -> go.Figure:
    """One unit of wealth in the book, before and after costs, and in each benchmark, compounded."""
    return figure(_books(downsample((1 + _streams(result)).cumprod(), "last")), Axis("wealth, from 1", ".5f"))


def underwater(result: BacktestResult) -> go.Figure:
    """Wealth below its running maximum, of the book after costs and of each benchmark."""
    lines = _books(downsample(_streams(result).drop(columns="gross").apply(drawdowns), "min"))
    lines[0].update(fill="tozeroy", fillcolor=translucent(BLUE, 0.18))
    return figure(lines, Axis("below the peak", ".3%"))


def costs(study: PortfolioEvaluation) -> go.Figure:
    """Annual return, had each unit that was traded cost so much."""
    frame = study.costs
    x = [float(each) for each in frame.index]
    traced = curve(x, frame["annual_return"], "return a year", BLUE)
    traced.update(
        customdata=frame[["sharpe", "max_drawdown"]].to_numpy("float32"),
        hovertemplate="%{y:.3%} (Sharpe %{customdata[0]:.3f}, max drawdown %{customdata[1]:.2%})",
    )
    return figure(
        [traced], Axis("return a year", ".3%"), Axis("costs, basis points of what is traded", ".0f")
    )


def cost_paid(result: BacktestResult) -> go.Figure:
    """Running sum of the costs that the backtest charged, as a share of the book on each bar."""
    paid = downsample(result.cost.to_frame("cost").cumsum().ffill(), "last")
    return figure([line(paid["cost"], "costs", BLUE, width=2.2)], Axis("running sum", ".3%"))


def turnover(result: BacktestResult) -> go.Figure:
    """Mean of the bars' turnover, by calendar month; by day where the book is short."""
    return figure(
        [monthly(result.turnover, "mean turnover", is_short(result))], Axis("turnover a bar", ".2%")
    )


def is_short(result: BacktestResult) -> bool:
    """Whether a book spans so few days that months would tell nothing."""
    dates = pd.DatetimeIndex(result.turnover.index)
    return len(dates) > 0 and (dates[-1] - dates[0]).days <= FEW_DAYS


def exposure(study: PortfolioEvaluation) -> go.Figure:
    """Sum of absolute weights, and of weights, at each close."""
    frame = study.exposure
    traces = [
        line(weekly_mean(frame["gross"]), "gross", BLUE, width=2),
        line(weekly_mean(frame["net"]), "net", VERMILLION, dash="dash"),
    ]
    return figure(traces, Axis("of equity", ".2%"))


def positions(study: PortfolioEvaluation) -> go.Figure:
    """Names held at each close."""
    held = line(weekly_mean(study.exposure["positions"]), "names", GREEN)
    return figure([held], Axis("names held", ".1f")).update_yaxes(rangemode="tozero")


def tilts(study: PortfolioEvaluation) -> go.Figure:
    """Weighted mean percentile of the held names by exposure; the rule is neutral."""
    traces = []
    for place, name in enumerate(study.tilts.columns):
        colour, dash = style(place)
        traces.append(line(weekly_mean(study.tilts[name]), str(name), colour, dash=dash))
    return reference_line(figure(traces, Axis("mean percentile", ".3%")), 0.5)


def trades(frame: pd.DataFrame) -> go.Figure:
    """Net return of each closed trade, at its end."""
    closed = frame[frame["closed"].notna()].sort_values("closed")
    traces = []
    timed = is_timed(closed["closed"])
    for chosen, name, color in (
        (closed["return"] > 0, "profit", BLUE),
        (closed["return"] <= 0, "loss", VERMILLION),
    ):
        own = closed[chosen]
        traces.append(
            go.Scatter(
                x=list(own["closed"].dt.strftime("%Y-%m-%d %H:%M" if timed else "%Y-%m-%d")),
                y=as_float32(own["return"]),
                text=[f"{side} {name_}" for side, name_ in zip(own["side"], own["instrument"], strict=True)],
                name=name,
                mode="markers",
                marker={"size": 7, "color": color, "opacity": 0.75},
                hovertemplate="%{text}: %{y:.2%}, closed %{x}<extra></extra>",
            )
        )
    return reference_line(figure(traces, Axis("net return of a trade", ".2%"), hover="closest"), 0.0)


def lengths(frame: pd.DataFrame) -> go.Figure:
    """How many closed trades were held for how many bars."""
    bars = frame["bars"].dropna().astype(int)
    if not len(bars):
        return figure([go.Bar(x=[], y=[])], Axis("trades"))
    edges = np.unique(np.linspace(bars.min(), bars.max() + 1, 11).round().astype(int))
    counts, _ = np.histogram(bars, edges)
    names = [
        f"{first}" if after - first == 1 else f"{first} to {after - 1}" for first, after in pairwise(edges)
    ]
    shown = go.Bar(x=names, y=counts.tolist(), name="trades", marker={"color": BLUE, "line": {"width": 0}})
    return figure([shown], Axis("trades", ",d"), Axis("bars held", kind="category"))


def _streams(result: BacktestResult) -> pd.DataFrame:
    """Returns of net, gross and each benchmark on the book's bars, in this order."""
    return result.returns[["net", "gross"]].join(result.benchmarks)


def _books(streams: pd.DataFrame) -> list[go.Scatter]:
    """Benchmarks dashed, gross dotted in the colour of net, and net thickest; net is the first."""
    lines = [line(streams["net"], "net of costs", BLUE, width=2.4).update(zorder=1)]
    if "gross" in streams:
        lines.append(line(streams["gross"], "gross", BLUE, dash="dot"))
    for place, name in enumerate(streams.columns.difference(["net", "gross"], sort=False)):
        colour = COLOURS[1 + place % (len(COLOURS) - 1)]
        lines.append(line(streams[name], str(name), colour, dash="solid" if place == 0 else "dash"))
    return lines
