"""Figures of sampled paths: fan charts, calibration, CRPS and volatility."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.baselines import MODEL
from kronos_strategies.evaluation.distribution.evaluation import DistributionEvaluation
from kronos_strategies.evaluation.distribution.scores import (
    RANDOM_WALK,
    DistributionScore,
    VolatilityScore,
)
from kronos_strategies.evaluation.significance import MeanTest
from kronos_strategies.report.figures.base import (
    BLUE,
    CATEGORIES,
    GREY,
    VERMILLION,
    Axis,
    as_float32,
    band,
    bars,
    curve,
    figure,
    go,
    iso_dates,
    line,
    points,
    reference_line,
    style,
    text,
)  # fmt: skip
from kronos_strategies.report.formatting import bars as in_bars

SYMBOLS = ("circle", "diamond", "square", "triangle-up")  # of coverage levels
VOLATILITY = ".3%"


def fan(steps: pd.DataFrame) -> go.Figure:
    """Fan chart of one forecast: historical closes, 50% and 90% bands, median, and realized closes."""
    steps = steps.sort_values("step").set_index("timestamp")
    history = steps[steps["step"] <= 0]
    quantiles = ["q05", "q25", "q50", "q75", "q95"]
    ahead = steps[steps["step"] >= 0]
    ahead = ahead.assign(
        **{name: ahead[name].fillna(ahead["close"]) for name in quantiles}
    )  # the bands start at one point
    realized, at = ahead["close"].dropna(), iso_dates(ahead.index)
    traces = [
        band(at, ahead["q05"], ahead["q95"], BLUE, 0.16),
        band(at, ahead["q25"], ahead["q75"], BLUE, 0.3),
        line(history["close"], "historical", GREY, width=1.8),
        line(ahead["q50"], "median path", BLUE, width=1.8, dash="dash"),
        line(realized, "realized", VERMILLION, width=2.2),
    ]
    for trace, name in zip(traces, ("90% band", "50% band"), strict=False):
        trace.update(name=name, showlegend=True)
    ends = ahead[["q05", "q25", "q75", "q95"]].to_numpy(np.float32)
    shown = [f"%{{customdata[{i}]:.6~g}}" for i in range(4)]
    traces[3].update(
        customdata=ends,
        hovertemplate=f"%{{y:.6~g}} (50%: {shown[1]} to {shown[2]}; 90%: {shown[0]} to {shown[3]})",
    )
    return figure(traces, Axis("close, quote currency", ".6~g"))


def pit(evaluation: DistributionEvaluation) -> go.Figure:
    """Share of outcomes in each tenth of the probability integral transform; flat if calibrated."""
    traces = []
    for place, (horizon, rows) in enumerate(evaluation.pit.groupby("horizon", sort=True)):
        rows = rows.sort_values("bin")
        middles = [(float(each) + 0.5) / 10 for each in rows["bin"]]
        traces.append(
            go.Bar(
                x=middles,
                y=as_float32(rows["share"]),
                name=in_bars(horizon),
                marker={"color": style(place)[0]},
            )
        )
    drawn = figure(traces, Axis("share of outcomes", ".3%"), Axis("share of paths below", ".0%"))
    return reference_line(drawn.update_xaxes(range=[0, 1], showgrid=False), 0.1)


def coverage(evaluation: DistributionEvaluation) -> go.Figure:
    """Coverage of each central band, of the model and of the random walk; dotted lines are nominal."""
    scores = evaluation.distributions
    levels = sorted({each for score in scores for each in score.coverage})
    traces = []
    for name, color in zip(_names(scores), (BLUE, VERMILLION), strict=False):
        for nominal, symbol in zip(levels, SYMBOLS, strict=False):
            tests = [
                (score.horizon, test)
                for score in scores
                if score.name == name and (test := score.coverage.get(nominal)) is not None
            ]
            label = f"{'random walk' if name == RANDOM_WALK else name}, {nominal:.0%}"
            traces.append(_points(tests, label, ".3%", color, symbol).update(offsetgroup=name))
    drawn = figure(traces, Axis("coverage", ".3%"), CATEGORIES)
    drawn.update_layout(scattermode="group", scattergap=0.7)
    ends = [
        end for score in scores for test in score.coverage.values() if test for end in (test.low, test.high)
    ]
    seen = [end for end in (*ends, *levels) if np.isfinite(end)]
    drawn.update_yaxes(range=[min(seen, default=0) - 0.02, max(seen, default=1) + 0.02])
    for nominal in levels:
        reference_line(drawn, nominal)
    return drawn


def crps_skill(evaluation: DistributionEvaluation) -> go.Figure:
    """CRPS skill by horizon, by the fair and by the ensemble estimate."""
    own = [score for score in evaluation.distributions if score.name == MODEL]
    at = [in_bars(score.horizon) for score in own]
    pairs = {
        "fair": (BLUE, [score.skill for score in own]),
        "ensemble": (VERMILLION, [score.skill_ensemble for score in own]),
    }
    traces = [
        go.Bar(x=at, y=as_float32(values), name=name, marker={"color": color})
        for name, (color, values) in pairs.items()
    ]
    return figure(traces, Axis("CRPS skill", ".3%"), CATEGORIES)


def qlike(evaluation: DistributionEvaluation) -> go.Figure:
    """QLIKE by horizon and measure, of the model and of historical volatility."""
    scores = evaluation.volatilities
    traces = []
    for name, color in zip(_names(scores), (BLUE, VERMILLION), strict=False):
        own = [score for score in scores if score.name == name]
        at = [f"{in_bars(score.horizon)},<br>{text(score.measure).replace('-', '-<br>', 1)}" for score in own]
        means, lows, highs = _ends([score.qlike for score in own])
        traces.append(bars(at, means, lows, highs, name, ".5f", color))
    return figure(traces, Axis("QLIKE, lower is better", ".5f"), CATEGORIES)


def volatility(evaluation: DistributionEvaluation) -> go.Figure:
    """Realized against predicted volatility in 20 groups by forecast, by horizon; equal on the dotted line."""
    traces = []
    for place, (horizon, rows) in enumerate(evaluation.volatility_bins.groupby("horizon", sort=True)):
        rows, (color, dash) = rows.sort_values("bin"), style(place)
        x = [float(np.float32(each)) for each in rows["forecast"]]
        traces.append(curve(x, rows["realized"], in_bars(horizon), color, dash=dash))
    values = evaluation.volatility_bins[["forecast", "realized"]].to_numpy(float)
    drawn = figure(
        traces,
        Axis("realized volatility", VOLATILITY),
        Axis("predicted volatility, log return", VOLATILITY),
        "closest",
    )
    if not np.isfinite(values).any():
        return drawn
    ends = [float(np.nanmin(values)), float(np.nanmax(values))]
    equal = {"color": GREY, "width": 1.2, "dash": "dot"}
    return drawn.add_shape(
        type="line", x0=ends[0], x1=ends[1], y0=ends[0], y1=ends[1], line=equal, layer="below"
    )


def rank_ic_by_num_paths(evaluation: DistributionEvaluation) -> go.Figure:
    """RankIC of the score from the first k paths."""
    frame = evaluation.rank_ic_by_num_paths
    x = [float(each) for each in frame.index]
    traces = [
        band(x, frame["low"], frame["high"], BLUE, 0.18),
        curve(x, frame["rank_ic"], "RankIC", BLUE, ".5f", low=frame["low"], high=frame["high"]),
    ]
    drawn = figure(traces, Axis("RankIC", ".5f"), Axis("number of paths", "d"))
    return drawn.update_xaxes(type="log", tickvals=x, ticktext=[f"{each:g}" for each in x])


def _names(scores: Sequence[DistributionScore] | Sequence[VolatilityScore]) -> list[str]:
    return list(dict.fromkeys(score.name for score in scores))


def _points(
    tests: Sequence[tuple[int, MeanTest]], name: str, form: str, color: str, symbol: str
) -> go.Scatter:
    at = [in_bars(horizon) for horizon, _ in tests]
    return points(at, *_ends([test for _, test in tests]), name, form, color, symbol)


def _ends(tests: Sequence[MeanTest]) -> tuple[list[float], list[float], list[float]]:
    return [test.mean for test in tests], [test.low for test in tests], [test.high for test in tests]
