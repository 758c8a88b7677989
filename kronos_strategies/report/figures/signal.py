"""Figures of a score: across instruments by date (RankIC, decay, quantiles, turnover, groups), and over time."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.signal.breakdown import TERCILES
from kronos_strategies.evaluation.signal.evaluation import SignalEvaluation
from kronos_strategies.evaluation.signal.metrics import QuantileEvaluation
from kronos_strategies.evaluation.time_series import InstrumentEvaluation
from kronos_strategies.report.figures.base import (
    BLUE,
    CATEGORIES,
    GREEN,
    GREY,
    VERMILLION,
    Axis,
    as_float32,
    band,
    bars,
    curve,
    downsample,
    figure,
    go,
    iso_dates,
    labels,
    line,
    points,
    reference_line,
    style,
    translucent,
    weekly_mean,
)  # fmt: skip

ROLLING = 60  # dates
RANK_IC = Axis("RankIC", ".5f")
RETURN = Axis("excess return", ".3%")


def cumulative_ic(evaluation: SignalEvaluation) -> go.Figure:
    """Cumulative RankIC of all scores, and IC of the evaluated score; undefined dates add nothing."""
    sums = pd.DataFrame({name: frame["rank_ic"] for name, frame in evaluation.by_date.items()})
    sums = downsample(sums.cumsum().ffill(), "last")
    ic = downsample(evaluation.by_date[evaluation.name][["ic"]].cumsum().ffill(), "last")["ic"]
    own, *baselines = sums.columns
    traces = [line(sums[own], f"{own}, RankIC", BLUE, width=2.4), line(ic, f"{own}, IC", BLUE, dash="dot")]
    for place, name in enumerate(baselines, start=1):
        color, dash = style(place)
        traces.append(line(sums[name], str(name), color, width=1.3, dash=dash))
    traces[0].update(zorder=1)
    return figure(traces, Axis("cumulative sum", ".4f"))


def rolling_ic(evaluation: SignalEvaluation) -> go.Figure:
    """Mean RankIC and IC over the last 60 dates, where at least half of them are defined."""
    own = evaluation.by_date[evaluation.name]
    means = own[["rank_ic", "ic"]].rolling(ROLLING, min_periods=ROLLING // 2).mean().iloc[ROLLING - 1 :]
    means = downsample(means, "last")
    traces = [
        line(means["rank_ic"], "RankIC", BLUE, width=2),
        line(means["ic"], "IC", VERMILLION, dash="dot"),
    ]
    return figure(traces, Axis("mean coefficient", ".5f"))


def decay(evaluation: SignalEvaluation) -> go.Figure:
    """RankIC by horizon of the label, with a band for the evaluated score."""
    traces = []
    for place, (name, rows) in enumerate(evaluation.decay.groupby("score", sort=False)):
        color, dash = style(place)
        x = [float(each) for each in rows["horizon"]]
        if name == evaluation.name:
            traces.append(band(x, rows["low"], rows["high"], color, 0.18))
        traces.append(
            curve(x, rows["rank_ic"], str(name), color, RANK_IC.form, dash, rows["low"], rows["high"])
        )
    horizons = sorted({float(each) for each in evaluation.decay["horizon"]})
    return figure(traces, RANK_IC, Axis("label horizon, bars", "d")).update_xaxes(tickvals=horizons)


def lags(evaluation: SignalEvaluation) -> go.Figure:
    """RankIC of the score of earlier dates."""
    frame = evaluation.lags
    x = [float(each) for each in frame.index]
    traces = [
        band(x, frame["low"], frame["high"], BLUE, 0.18),
        curve(x, frame["rank_ic"], "RankIC", BLUE, RANK_IC.form, low=frame["low"], high=frame["high"]),
    ]
    return figure(traces, RANK_IC, Axis("lag, dates", "d"))


def by_year(evaluation: SignalEvaluation) -> go.Figure:
    """RankIC of each calendar year, with its interval."""
    frame = evaluation.by_year
    years = [str(year) for year in frame.index]
    traces = [bars(years, frame["rank_ic"], frame["low"], frame["high"], "RankIC", RANK_IC.form)]
    return figure(traces, RANK_IC, CATEGORIES)


def quantiles(evaluation: QuantileEvaluation) -> go.Figure:
    """Excess return of each quantile over all instruments of the date, the lowest score first."""
    frame = evaluation.means
    names = [str(quantile) for quantile in frame.index]
    drawn = bars(
        names, frame["excess"], frame["excess_low"], frame["excess_high"], "excess return", RETURN.form
    )
    return figure([drawn], RETURN, Axis("quantile, 1 is the lowest score", kind="category"))


def cumulative_spread(quantiles: QuantileEvaluation) -> go.Figure:
    """Cumulative return of the top minus the bottom quantile, one label per date."""
    sums = downsample(quantiles.top_minus_bottom_by_date.to_frame("spread").cumsum().ffill(), "last")
    return figure([line(sums["spread"], "top minus bottom", BLUE, width=2.2)], Axis("cumulative sum", ".3%"))


def top_turnover(evaluation: SignalEvaluation) -> go.Figure:
    """Turnover of the top quantile; by week if the sample is long."""
    return figure([line(weekly_mean(evaluation.turnover), "turnover", BLUE)], Axis("turnover", ".2%"))


def autocorrelation(evaluation: SignalEvaluation) -> go.Figure:
    """Rank correlation of the score with that of the previous date; by week if the sample is long."""
    values = weekly_mean(evaluation.autocorrelation)
    return figure([line(values, "with the previous date", GREEN)], Axis("rank correlation", ".4f"))


def neutral(evaluation: SignalEvaluation) -> go.Figure:
    """RankIC before and after neutralization against each exposure."""
    frame = evaluation.neutral
    names = labels("not neutralized" if name == "none" else str(name) for name in frame.index)
    traces = [points(names, frame["rank_ic"], frame["low"], frame["high"], "RankIC", RANK_IC.form, flat=True)]
    return figure(traces, CATEGORIES, RANK_IC, hover="closest")


def terciles(evaluation: SignalEvaluation) -> go.Figure:
    """RankIC within the low, middle and high tercile of each numeric exposure."""
    rows = _groups(evaluation, numeric=True)
    traces = []
    for name, color in zip(TERCILES, (GREY, BLUE, VERMILLION), strict=True):
        part = rows[rows["group"] == name]
        at = labels(part["exposure"])
        traces.append(bars(at, part["rank_ic"], part["low"], part["high"], name, RANK_IC.form, color))
    return figure(traces, RANK_IC, CATEGORIES)


def groups(evaluation: SignalEvaluation, exposure: str) -> go.Figure:
    """RankIC within each group of one exposure, such as industries, best first."""
    rows = _groups(evaluation, numeric=False)
    rows = rows[rows["exposure"] == exposure].sort_values("rank_ic", ascending=False, kind="stable")
    at = labels(rows["group"])
    traces = [points(at, rows["rank_ic"], rows["low"], rows["high"], "RankIC", RANK_IC.form, flat=True)]
    return figure(traces, CATEGORIES, RANK_IC, hover="closest")


def named_exposures(evaluation: SignalEvaluation) -> dict[str, int]:
    """Exposures with groups, and the number of groups of each."""
    rows = _groups(evaluation, numeric=False)
    return {str(name): len(part) for name, part in rows.groupby("exposure", sort=False)}


def _groups(evaluation: SignalEvaluation, numeric: bool) -> pd.DataFrame:
    """Rows of the numeric exposures, which have terciles, or of the others."""
    rows = evaluation.by_group
    cut = rows.groupby("exposure")["group"].transform(lambda names: names.isin(TERCILES).all())
    return rows[cut.astype(bool) == numeric]


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
