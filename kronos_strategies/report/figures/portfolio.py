"""Figures of a backtest: equity, drawdowns, costs, turnover, exposure and trades."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation
from kronos_strategies.evaluation.portfolio.returns import drawdowns
from kronos_strategies.report.figures.base import (
    BLUE,
    COLORS,
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

FEW_DAYS = 62  # of a backtest that is shown by day instead of by month


def equity(result: BacktestResult) -> go.Figure:
    """Compounded equity of the portfolio, before and after costs, and of each benchmark."""
    return figure(_lines(downsample((1 + _streams(result)).cumprod(), "last")), Axis("equity, from 1", ".5f"))


def underwater(result: BacktestResult) -> go.Figure:
    """Drawdown of the portfolio after costs and of each benchmark."""
    lines = _lines(downsample(_streams(result).drop(columns="gross").apply(drawdowns), "min"))
    lines[0].update(fill="tozeroy", fillcolor=translucent(BLUE, 0.18))
    return figure(lines, Axis("drawdown", ".3%"))


def costs(evaluation: PortfolioEvaluation) -> go.Figure:
    """Annual return by cost per unit traded."""
    frame = evaluation.costs
    x = [float(each) for each in frame.index]
    traced = curve(x, frame["annual_return"], "annual return", BLUE)
    traced.update(
        customdata=frame[["sharpe", "max_drawdown"]].to_numpy("float32"),
        hovertemplate="%{y:.3%} (Sharpe %{customdata[0]:.3f}, max drawdown %{customdata[1]:.2%})",
    )
    return figure([traced], Axis("annual return", ".3%"), Axis("cost, basis points per unit traded", ".0f"))


def cost_paid(result: BacktestResult) -> go.Figure:
    """Cumulative costs of the backtest, as a share of equity on each bar."""
    paid = downsample(result.cost.to_frame("cost").cumsum().ffill(), "last")
    return figure([line(paid["cost"], "costs", BLUE, width=2.2)], Axis("cumulative sum", ".3%"))


def turnover(result: BacktestResult) -> go.Figure:
    """Mean turnover per bar, by calendar month; by day for a short backtest."""
    return figure(
        [monthly(result.turnover, "mean turnover", is_short(result))], Axis("turnover per bar", ".2%")
    )


def is_short(result: BacktestResult) -> bool:
    """Whether a backtest spans too few days to show months."""
    dates = pd.DatetimeIndex(result.turnover.index)
    return len(dates) > 0 and (dates[-1] - dates[0]).days <= FEW_DAYS


def exposure(evaluation: PortfolioEvaluation) -> go.Figure:
    """Sum of absolute weights, and of weights, at each close."""
    frame = evaluation.exposure
    traces = [
        line(weekly_mean(frame["gross"]), "gross", BLUE, width=2),
        line(weekly_mean(frame["net"]), "net", VERMILLION, dash="dash"),
    ]
    return figure(traces, Axis("share of equity", ".2%"))


def positions(evaluation: PortfolioEvaluation) -> go.Figure:
    """Number of instruments held at each close."""
    held = line(weekly_mean(evaluation.exposure["positions"]), "instruments", GREEN)
    return figure([held], Axis("instruments held", ".1f")).update_yaxes(rangemode="tozero")


def tilts(evaluation: PortfolioEvaluation) -> go.Figure:
    """Weighted mean percentile of the held instruments by exposure; the dotted line is neutral."""
    traces = []
    for place, name in enumerate(evaluation.tilts.columns):
        color, dash = style(place)
        traces.append(line(weekly_mean(evaluation.tilts[name]), str(name), color, dash=dash))
    return reference_line(figure(traces, Axis("mean percentile", ".3%")), 0.5)


def trades(frame: pd.DataFrame) -> go.Figure:
    """Net return of each closed trade, by date of exit."""
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
    """Histogram of the bars for which closed trades were held."""
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
    """Returns of net, gross and each benchmark on the bars of the portfolio, in this order."""
    return result.returns[["net", "gross"]].join(result.benchmarks)


def _lines(streams: pd.DataFrame) -> list[go.Scatter]:
    """Lines: net first and thickest, gross dotted in the color of net, further benchmarks dashed."""
    lines = [line(streams["net"], "net of costs", BLUE, width=2.4).update(zorder=1)]
    if "gross" in streams:
        lines.append(line(streams["gross"], "gross", BLUE, dash="dot"))
    for place, name in enumerate(streams.columns.difference(["net", "gross"], sort=False)):
        color = COLORS[1 + place % (len(COLORS) - 1)]
        lines.append(line(streams[name], str(name), color, dash="solid" if place == 0 else "dash"))
    return lines
