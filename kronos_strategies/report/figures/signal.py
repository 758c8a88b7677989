"""Figures of a score: how it ranks over time, ahead, by bucket, by group and beyond known exposures."""

from __future__ import annotations

import pandas as pd

from kronos_strategies.evaluation.signal.breakdown import TERCILES
from kronos_strategies.evaluation.signal.evaluation import SignalEvaluation
from kronos_strategies.evaluation.signal.quantiles import QuantileEvaluation
from kronos_strategies.report.figures.base import (
    BLUE,
    GREEN,
    GREY,
    NAMES,
    VERMILLION,
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
    style,
    weekly_mean,
)  # fmt: skip

ROLLING = 60  # dates
RANK_IC = Axis("RankIC", ".5f")
RETURN = Axis("return beyond all names", ".3%")


def cumulative_ic(study: SignalEvaluation) -> go.Figure:
    """Running sums of RankIC, and of the own score's IC; an undefined date adds nothing."""
    sums = pd.DataFrame({name: frame["rank_ic"] for name, frame in study.by_date.items()})
    sums = downsample(sums.cumsum().ffill(), "last")
    ic = downsample(study.by_date[study.own][["ic"]].cumsum().ffill(), "last")["ic"]
    own, *naive = sums.columns
    traces = [line(sums[own], f"{own}, RankIC", BLUE, width=2.4), line(ic, f"{own}, IC", BLUE, dash="dot")]
    for place, name in enumerate(naive, start=1):
        colour, dash = style(place)
        traces.append(line(sums[name], str(name), colour, width=1.3, dash=dash))
    traces[0].update(zorder=1)
    return figure(traces, Axis("running sum", ".4f"))


def rolling_ic(study: SignalEvaluation) -> go.Figure:
    """Mean RankIC and IC over the last 60 dates, where half of them are defined."""
    own = study.by_date[study.own]
    means = own[["rank_ic", "ic"]].rolling(ROLLING, min_periods=ROLLING // 2).mean().iloc[ROLLING - 1 :]
    means = downsample(means, "last")
    traces = [
        line(means["rank_ic"], "RankIC", BLUE, width=2),
        line(means["ic"], "IC", VERMILLION, dash="dot"),
    ]
    return figure(traces, Axis("mean coefficient", ".5f"))


def decay(study: SignalEvaluation) -> go.Figure:
    """RankIC by the label's horizon, its band for the own score."""
    traces = []
    for place, (name, rows) in enumerate(study.decay.groupby("score", sort=False)):
        colour, dash = style(place)
        x = [float(each) for each in rows["horizon"]]
        if name == study.own:
            traces.append(band(x, rows["low"], rows["high"], colour, 0.18))
        traces.append(
            curve(x, rows["rank_ic"], str(name), colour, RANK_IC.form, dash, rows["low"], rows["high"])
        )
    horizons = sorted({float(each) for each in study.decay["horizon"]})
    return figure(traces, RANK_IC, Axis("label's horizon, bars", "d")).update_xaxes(tickvals=horizons)


def lags(study: SignalEvaluation) -> go.Figure:
    """RankIC of a score that arrives some dates late."""
    frame = study.lags
    x = [float(each) for each in frame.index]
    traces = [
        band(x, frame["low"], frame["high"], BLUE, 0.18),
        curve(x, frame["rank_ic"], "RankIC", BLUE, RANK_IC.form, low=frame["low"], high=frame["high"]),
    ]
    return figure(traces, RANK_IC, Axis("dates late", "d"))


def by_year(study: SignalEvaluation) -> go.Figure:
    """RankIC of each calendar year, with its interval."""
    frame = study.by_year
    years = [str(year) for year in frame.index]
    traces = [bars(years, frame["rank_ic"], frame["low"], frame["high"], "RankIC", RANK_IC.form)]
    return figure(traces, RANK_IC, NAMES)


def buckets(quantiles: QuantileEvaluation) -> go.Figure:
    """What names of each bucket earned beyond all names of the date, the lowest score first."""
    frame = quantiles.means
    names = [str(bucket) for bucket in frame.index]
    drawn = bars(
        names, frame["excess"], frame["excess_low"], frame["excess_high"], "beyond all names", RETURN.form
    )
    return figure([drawn], RETURN, Axis("bucket, 1 scored lowest", kind="category"))


def cumulative_spread(quantiles: QuantileEvaluation) -> go.Figure:
    """Running sum of top less bottom bucket, a label's return each date."""
    sums = downsample(quantiles.top_minus_bottom_by_date.to_frame("spread").cumsum().ffill(), "last")
    return figure([line(sums["spread"], "top less bottom", BLUE, width=2.2)], Axis("running sum", ".3%"))


def top_turnover(study: SignalEvaluation) -> go.Figure:
    """Share of the top bucket that is new; by week if the sample is long."""
    return figure(
        [line(weekly_mean(study.turnover), "new in the top bucket", BLUE)], Axis("new names", ".2%")
    )


def autocorrelation(study: SignalEvaluation) -> go.Figure:
    """Rank correlation of the score with itself a date before; by week if the sample is long."""
    values = weekly_mean(study.autocorrelation)
    return figure([line(values, "with the date before", GREEN)], Axis("rank correlation", ".4f"))


def neutral(study: SignalEvaluation) -> go.Figure:
    """RankIC as it is, and of what the score ranks beyond each exposure."""
    frame = study.neutral
    names = labels("as it is" if name == "none" else f"beyond {name}" for name in frame.index)
    traces = [points(names, frame["rank_ic"], frame["low"], frame["high"], "RankIC", RANK_IC.form, flat=True)]
    return figure(traces, NAMES, RANK_IC, hover="closest")


def terciles(study: SignalEvaluation) -> go.Figure:
    """RankIC within the low, middle and high third of each numeric exposure."""
    rows = _groups(study, numeric=True)
    traces = []
    for name, colour in zip(TERCILES, (GREY, BLUE, VERMILLION), strict=True):
        part = rows[rows["group"] == name]
        at = labels(part["exposure"])
        traces.append(bars(at, part["rank_ic"], part["low"], part["high"], name, RANK_IC.form, colour))
    return figure(traces, RANK_IC, NAMES)


def groups(study: SignalEvaluation, exposure: str) -> go.Figure:
    """RankIC within each group of one exposure of names, such as industries, best first."""
    rows = _groups(study, numeric=False)
    rows = rows[rows["exposure"] == exposure].sort_values("rank_ic", ascending=False, kind="stable")
    at = labels(rows["group"])
    traces = [points(at, rows["rank_ic"], rows["low"], rows["high"], "RankIC", RANK_IC.form, flat=True)]
    return figure(traces, NAMES, RANK_IC, hover="closest")


def named_exposures(study: SignalEvaluation) -> dict[str, int]:
    """Exposures of names, and how many groups each has."""
    rows = _groups(study, numeric=False)
    return {str(name): len(part) for name, part in rows.groupby("exposure", sort=False)}


def _groups(study: SignalEvaluation, numeric: bool) -> pd.DataFrame:
    """Rows of the exposures that were cut in terciles, or of the others."""
    rows = study.by_group
    cut = rows.groupby("exposure")["group"].transform(lambda names: names.isin(TERCILES).all())
    return rows[cut.astype(bool) == numeric]
