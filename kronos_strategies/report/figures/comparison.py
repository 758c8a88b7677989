"""Figures of versions: differences from the reference, by year and over time, and decay."""

from __future__ import annotations

import pandas as pd

from kronos_strategies.evaluation.comparison.comparison import Comparison
from kronos_strategies.evaluation.comparison.metrics import HIGHER_IS_BETTER
from kronos_strategies.report.figures.base import (
    CATEGORIES,
    Axis,
    band,
    bars,
    curve,
    downsample,
    figure,
    go,
    labels,
    line,
    points,
    reference_line,
    style,
    text,
)

LABELS = {
    "rank_ic": "RankIC",
    "ic": "IC",
    "spread": "Top minus bottom quantile",
    "net_return": "Net return per year, not compounded",
    "sharpe": "Sharpe ratio per year, net",
    "turnover": "Turnover per year, times equity",
    "volatility_variation": "Variation of realized volatility around its mean",
    "volatility_deviation": "Deviation of realized volatility from the target",
}
SHARES = (
    "spread",
    "net_return",
    "volatility_variation",
    "volatility_deviation",
)  # metrics that are shown as percent
PERCENT, NUMBER = ".4%", ".6f"
BANDED = 2  # decay curves at most that are drawn with their bands


def differences(comparison: Comparison, metric: str) -> go.Figure:
    """Mean difference of each version from the reference, with its interval."""
    rows = comparison.table[comparison.table["metric"] == metric]
    rows = rows[rows["version"] != comparison.reference]
    at, form = labels(rows["version"]), form_of(metric)
    traced = points(
        at, rows["difference"], rows["difference_low"], rows["difference_high"], metric, form, flat=True
    )
    axis = Axis(f"{text(LABELS.get(metric, metric))}, minus {labels([comparison.reference])[0]}", form)
    return reference_line(figure([traced], CATEGORIES, axis, hover="closest"), 0.0, axis="x")


def yearly(comparison: Comparison, metric: str) -> go.Figure:
    """Mean difference from the reference by calendar year, one bar per version."""
    rows = comparison.by_year[comparison.by_year["metric"] == metric]
    traces = []
    for place, name in enumerate(_others(comparison)):
        own = rows[rows["version"] == name]
        years = [str(year) for year in own["year"]]
        none = pd.Series(float("nan"), index=own.index)
        drawn = bars(years, own["difference"], none, none, name, form_of(metric), style(place + 1)[0])
        drawn.update(hovertemplate=f"%{{y:{form_of(metric)}}}", customdata=None)
        traces.append(drawn)
    return figure(traces, Axis("difference", form_of(metric)), CATEGORIES)


def cumulative(comparison: Comparison, metric: str) -> go.Figure:
    """Cumulative difference of each version from the reference; dates without both add nothing."""
    frame = comparison.by_date[metric]
    gaps = frame.sub(frame[comparison.reference], axis=0).drop(columns=comparison.reference)
    if metric == "net_return" and comparison.bars_per_year:
        gaps = gaps / comparison.bars_per_year  # returns of the bars, so that their sum is what was gained
    sums = downsample(gaps.cumsum().ffill(), "last")
    traces = []
    for place, name in enumerate(_others(comparison)):
        color, dash = style(place + 1)
        traces.append(line(sums[name], name, color, width=1.8, dash=dash))
    return figure(traces, Axis("cumulative difference", form_of(metric)))


def decay(comparison: Comparison) -> go.Figure:
    """RankIC of each version by horizon of the label."""
    traces = []
    for place, (name, rows) in enumerate(comparison.decay.groupby("version", sort=False)):
        color, dash = style(place)
        x = [float(each) for each in rows["horizon"]]
        if len(comparison.versions) <= BANDED:
            traces.append(band(x, rows["low"], rows["high"], color, 0.1))
        traces.append(curve(x, rows["rank_ic"], str(name), color, ".5f", dash, rows["low"], rows["high"]))
    horizons = sorted({float(each) for each in comparison.decay["horizon"]})
    drawn = figure(traces, Axis("RankIC", ".5f"), Axis("label horizon, bars", "d"))
    return drawn.update_xaxes(tickvals=horizons)


def label_of(metric: str) -> str:
    """Label of a metric, with its direction for losses."""
    name = LABELS.get(metric, metric)
    return name if metric in HIGHER_IS_BETTER else f"{name}, lower is better"


def form_of(metric: str) -> str:
    """Format: percent for returns, numbers for coefficients and losses."""
    return PERCENT if metric in SHARES else NUMBER


def _others(comparison: Comparison) -> list[str]:
    return [name for name in comparison.versions if name != comparison.reference]
