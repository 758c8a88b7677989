"""Figures of a backtest (equity, drawdowns, costs, turnover, exposure, trades), and of a sweep of many."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation
from kronos_strategies.evaluation.portfolio.overfitting import OverfittingEvaluation
from kronos_strategies.evaluation.portfolio.returns import drawdowns
from kronos_strategies.report.figures.base import (
    BLUE,
    COLORS,
    GREEN,
    VERMILLION,
    Axis,
    as_float32,
    band,
    curve,
    downsample,
    figure,
    go,
    labels,
    line,
    monthly,
    reference_line,
    style,
    translucent,
    weekly_mean,
)  # fmt: skip
from kronos_strategies.report.formatting import general, is_timed

FEW_DAYS = 62  # of a backtest that is shown by day instead of by month
MANY, BINS = 12, 8  # a number with more values than MANY is shown in BINS groups of about equal size
RANK_BINS = 20
PALE, STRONG, TEXT = "#e3eef7", "#6db0de", "#20262e"  # opaque, so that text is legible on a dark page, too


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


def heat_map(table: pd.DataFrame, x: str, y: str, metric: str, form: str) -> go.Figure:
    """Mean of a metric by two parameters, over the settings of all others.

    Args:
        table: one row per setting.
        x: parameter along the x axis.
        y: the other parameter.
        metric: column to average.
        form: d3 format of its values.
    """
    columns, rows = _groups(table[x]), _groups(table[y])
    cells = table[metric].groupby([rows, columns], observed=True)
    mean, count = (wide.unstack() for wide in (cells.mean(), cells.count()))
    trace = go.Heatmap(
        z=as_float32(mean),
        x=labels(mean.columns),
        y=labels(mean.index),
        customdata=count.fillna(0).to_numpy("float32"),
        colorscale=[[0, PALE], [1, STRONG]],
        showscale=False,
        showlegend=False,
        xgap=2,
        ygap=2,
        texttemplate=f"%{{z:{form}}}",
        textfont={"color": TEXT},
        hovertemplate=f"{x} %{{x}}, {y} %{{y}}: %{{z:{form}}}, %{{customdata:d}} settings<extra></extra>",
    )
    drawn = figure([trace], Axis(y, kind="category"), Axis(x, kind="category"), hover="closest")
    return drawn.update_yaxes(showgrid=False)


def _groups(values: pd.Series) -> pd.Series:
    """Labels of values in their order: each value, or groups of neighboring numbers."""
    distinct = values.nunique()
    if pd.api.types.is_numeric_dtype(values) and distinct > MANY:
        cut = pd.qcut(values, BINS, duplicates="drop")
        names = [f"{general(each.left)} to {general(each.right)}" for each in cut.cat.categories]
        return pd.Series(cut.cat.rename_categories(_unique(names)))
    ordered = sorted(values.unique()) if pd.api.types.is_numeric_dtype(values) else list(values.unique())
    texts = {value: general(value) if isinstance(value, int | float) else str(value) for value in ordered}
    kind = pd.CategoricalDtype(_unique(list(texts.values())), ordered=True)
    return values.map(dict(zip(ordered, kind.categories, strict=True))).astype(kind)


def _unique(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, 1)]


def sharpe_by_rank(table: pd.DataFrame) -> go.Figure:
    """Sharpe ratio of each setting with its interval, best first."""
    shown = table[table["sharpe"].notna()]
    at = list(range(1, len(shown) + 1))
    traces = [
        band(at, shown["sharpe_low"], shown["sharpe_high"], BLUE, 0.18),
        curve(at, shown["sharpe"], "Sharpe", BLUE, ".2f", low=shown["sharpe_low"], high=shown["sharpe_high"]),
    ]
    drawn = figure(traces, Axis("Sharpe, net", ".2f"), Axis("setting, best first", "d"))
    return reference_line(drawn, 0.0)


def relative_ranks(overfitting: OverfittingEvaluation) -> go.Figure:
    """Share of splits by the rank, on the other half, of the setting that is best on one half."""
    counts, edges = np.histogram(overfitting.relative_rank, RANK_BINS, (0.0, 1.0))
    share = counts / max(counts.sum(), 1)
    middles = (edges[:-1] + edges[1:]) / 2 if counts.any() else []
    trace = go.Bar(
        x=as_float32(middles),
        y=as_float32(share if counts.any() else []),
        name="splits",
        marker={"color": BLUE, "line": {"width": 0}},
        hovertemplate="%{y:.1%} of splits<extra></extra>",
    )
    drawn = figure([trace], Axis("share of splits", ".1%"), Axis("relative rank, 1 is the best", ".2f"))
    return reference_line(drawn.update_layout(bargap=0.05), 0.5, axis="x")
