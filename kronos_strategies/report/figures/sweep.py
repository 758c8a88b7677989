"""Figures of a sweep: a heat map of two parameters, all Sharpe ratios, and where the best of a half ends up."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.portfolio.overfitting import OverfittingEvaluation
from kronos_strategies.report.figures.base import (
    BLUE,
    Axis,
    as_float32,
    band,
    curve,
    figure,
    go,
    labels,
    reference_line,
)
from kronos_strategies.report.formatting import general

MANY, BINS = 12, 8  # a number with more values than MANY is shown in BINS groups of about equal size
RANK_BINS = 20
PALE, STRONG, TEXT = "#e3eef7", "#6db0de", "#20262e"  # opaque, so that text is legible on a dark page, too


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
