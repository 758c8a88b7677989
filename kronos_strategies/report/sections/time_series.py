"""The section on scores over time, for few instruments."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.significance import MeanTest
from kronos_strategies.evaluation.time_series import TimeSeriesEvaluation
from kronos_strategies.report.figures import signal as figures
from kronos_strategies.report.formatting import (
    bars,
    count,
    decimals,
    decimals_2,
    general,
    interval,
    percent,
    probability,
    signed_percent,
)  # fmt: skip
from kronos_strategies.report.layout import (
    Charts,
    Dropdown,
    Part,
    Section,
    Table,
    Tile,
    chart_with_dropdown,
    collect_charts,
    estimate,
    number,
    table,
    text,
)

NO_PAIR = "No score has an outcome."
NO_BAND = "No forecast with a band has an outcome."


def time_series_section(evaluation: TimeSeriesEvaluation) -> Section:
    """The section of a `TimeSeriesEvaluation`."""
    overlap = f" {evaluation.overlap} successive outcomes overlap." if evaluation.overlap > 1 else ""
    method = evaluation.instruments[0].correlation.method
    parts = [Part("Forecast and outcome", (correlations(evaluation),), charts=over_time(evaluation))]
    if any(each.coverage is not None for each in evaluation.instruments):
        parts.append(Part("Bands and paths", (distributions(evaluation),), charts=banded(evaluation)))
    return Section(
        "time-series",
        "Over time",
        f"Each score is compared with the return over {bars(evaluation.hold)}, starting one bar later, with "
        f"{bars(evaluation.bars_between)} between scores.{overlap} Intervals are at 95% and allow for overlap, "
        f"by {method}.",
        tiles(evaluation),
        tuple(parts),
    )


def tiles(evaluation: TimeSeriesEvaluation) -> tuple[Tile, ...]:
    """The headline of a single instrument; several instruments have the table only."""
    if len(evaluation.instruments) != 1:
        return ()
    (only,) = evaluation.instruments
    r, rank = only.correlation, only.rank_correlation
    found = [
        Tile("Correlation over time", decimals(r.mean), interval(r.low, r.high, decimals)),
        Tile("Rank correlation over time", decimals(rank.mean), interval(rank.low, rank.high, decimals)),
    ]
    if only.hit_rate is not None:
        always = f"one direction: {percent(max(only.share_up, 1 - only.share_up))}"
        found.append(Tile("Hit rate of the sign", percent(only.hit_rate.mean), always))
    if only.coverage is not None:
        within = interval(only.coverage.low, only.coverage.high, percent)
        found.append(Tile(f"Coverage of the {only.level:.0%} band", percent(only.coverage.mean), within))
    if only.crps_reduction is not None:
        p = f"p of the difference {probability(only.crps_reduction.p)}"
        found.append(Tile("CRPS skill", percent(only.crps_skill), p))
    found.append(Tile("Dates", count(r.dates), f"t of the correlation {decimals_2(r.t)}"))
    return tuple(found)


def correlations(evaluation: TimeSeriesEvaluation) -> Table:
    """Correlations and hit rates, one row per instrument."""
    rows = [
        {"instrument": each.name}
        | _test("r", each.correlation)
        | _test("rank", each.rank_correlation)
        | _test("hits", each.hit_rate)
        | _test("difference", each.hit_rate_difference)
        | {"rises": each.share_up}
        for each in evaluation.instruments
    ]
    columns = (
        text("instrument", "Instrument"),
        estimate("r", "r_low", "r_high", "Correlation", decimals),
        number("r_t", "t", decimals_2),
        number("r_p", "p", probability),
        estimate("rank", "rank_low", "rank_high", "Rank correlation", decimals),
        estimate("hits", "hits_low", "hits_high", "Hit rate of the sign", percent),
        estimate(
            "difference",
            "difference_low",
            "difference_high",
            "Minus one direction",
            signed_percent,
        ),
        number("rises", "Positive outcomes", percent),
        number("r_dates", "Dates", count),
    )
    caption = (
        "Score and outcome over time. Minus one direction: the hit rate minus that of always betting on the more "
        "frequent direction."
    )
    return table("over-time", caption, pd.DataFrame(rows), columns)


def distributions(evaluation: TimeSeriesEvaluation) -> Table:
    """Bands and CRPS, one row per instrument."""
    rows = [
        {
            "instrument": each.name,
            "horizon": each.horizon,
            "level": each.level,
            "crps": each.crps,
            "walk": each.crps_walk,
            "skill": each.crps_skill,
            "ensemble": each.crps_skill_ensemble,
        }
        | _test("inside", each.coverage)
        | _test("difference", each.crps_reduction)
        for each in evaluation.instruments
    ]
    columns = (
        text("instrument", "Instrument"),
        number("horizon", "Bars ahead", count),
        number("level", "Nominal", percent),
        estimate("inside", "inside_low", "inside_high", "Coverage", percent),
        number("crps", "CRPS", general),
        number("walk", "CRPS of the random walk", general),
        number("skill", "Skill, fair", percent),
        number("ensemble", "Skill, ensemble", percent),
        number("difference_p", "p of the difference", probability),
        number("inside_dates", "Dates", count),
    )
    caption = (
        "For the close at the end of the horizon. The random walk is Gaussian, without drift, with the standard "
        "deviation of the last 20 bars."
    )
    return table("bands-over-time", caption, pd.DataFrame(rows), columns)


def over_time(evaluation: TimeSeriesEvaluation) -> Charts:
    """Scatter plot and cumulative correlation."""
    picks = (
        [Dropdown("Instrument", tuple(each.name for each in evaluation.instruments))]
        if len(evaluation.instruments) > 1
        else []
    )
    return collect_charts(
        chart_with_dropdown(
            "score-outcome", "Outcome by score",
            "One dot per date; means of fifths of the score with 95% intervals.",
            [figures.scatter(each, evaluation.score) for each in evaluation.instruments], picks, NO_PAIR,
        ),
        chart_with_dropdown(
            "contribution", "Cumulative correlation",
            "Sum of the contributions of the dates: a steady slope is steady skill.",
            [figures.contribution(each) for each in evaluation.instruments], picks, NO_PAIR,
        ),
    )  # fmt: skip


def banded(evaluation: TimeSeriesEvaluation) -> Charts:
    """Bands and outcomes."""
    picks = (
        [Dropdown("Instrument", tuple(each.name for each in evaluation.instruments))]
        if len(evaluation.instruments) > 1
        else []
    )
    return collect_charts(
        chart_with_dropdown(
            "bands", f"Bands and outcomes, the latest {figures.LATEST} forecasts",
            "Returns from the bar of the forecast to the end of its horizon.",
            [figures.bands(each) for each in evaluation.instruments], picks, NO_BAND, wide=True,
        ),
    )  # fmt: skip


def _test(name: str, test: MeanTest | None) -> dict[str, float]:
    fields = ("low", "high", "t", "p", "dates")
    values = {name: np.nan if test is None else test.mean}
    return values | {f"{name}_{field}": np.nan if test is None else getattr(test, field) for field in fields}
