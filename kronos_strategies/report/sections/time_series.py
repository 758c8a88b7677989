"""The section on few instruments: how well the score foretells each of them over time."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.significance import MeanTest
from kronos_strategies.evaluation.time_series import TimeSeriesEvaluation
from kronos_strategies.report.figures import time_series as figures
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
    Tile,
    chart_with_dropdown,
    collect_charts,
)
from kronos_strategies.report.tables import Table, estimate, number, table, text

NO_PAIR = "No score has an outcome."
NO_BAND = "No forecast with a band has an outcome."


def time_series_section(study: TimeSeriesEvaluation) -> Section:
    """Of a `TimeSeriesEvaluation`."""
    overlap = f" {study.overlap} successive outcomes overlap." if study.overlap > 1 else ""
    method = study.instruments[0].correlation.method
    parts = [Part("Forecast and outcome", (correlations(study),), charts=over_time(study))]
    if any(each.coverage is not None for each in study.instruments):
        parts.append(Part("Bands and paths", (distributions(study),), charts=banded(study)))
    return Section(
        "time-series",
        "Over time",
        f"Each score is compared with the return over {bars(study.hold)} from one bar after it, with "
        f"{bars(study.bars_between)} from score to score.{overlap} Intervals are at 95% and allow for overlap, "
        f"by {method}.",
        tiles(study),
        tuple(parts),
    )


def tiles(study: TimeSeriesEvaluation) -> tuple[Tile, ...]:
    """The headline of a single instrument; of several the table stands alone."""
    if len(study.instruments) != 1:
        return ()
    (highlight,) = study.instruments
    r, rank = highlight.correlation, highlight.rank_correlation
    found = [
        Tile("Correlation over time", decimals(r.mean), interval(r.low, r.high, decimals)),
        Tile("Rank correlation over time", decimals(rank.mean), interval(rank.low, rank.high, decimals)),
    ]
    if highlight.hits is not None:
        always = f"always one way: {percent(max(highlight.rises, 1 - highlight.rises))}"
        found.append(Tile("Sign was right", percent(highlight.hits.mean), always))
    if highlight.coverage is not None:
        within = interval(highlight.coverage.low, highlight.coverage.high, percent)
        found.append(
            Tile(f"Outcomes in the {highlight.level:.0%} band", percent(highlight.coverage.mean), within)
        )
    if highlight.crps_lead is not None:
        p = f"p of the difference {probability(highlight.crps_lead.p)}"
        found.append(Tile("CRPS skill", percent(highlight.crps_skill), p))
    found.append(Tile("Dates", count(r.dates), f"t of the correlation {decimals_2(r.t)}"))
    return tuple(found)


def correlations(study: TimeSeriesEvaluation) -> Table:
    """A row an instrument."""
    rows = [
        {"instrument": each.name}
        | _test("r", each.correlation)
        | _test("rank", each.rank_correlation)
        | _test("hits", each.hits)
        | _test("rank_ic_difference", each.hit_lead)
        | {"rises": each.rises}
        for each in study.instruments
    ]
    columns = (
        text("instrument", "Instrument"),
        estimate("r", "r_low", "r_high", "Correlation", decimals),
        number("r_t", "t", decimals_2),
        number("r_p", "p", probability),
        estimate("rank", "rank_low", "rank_high", "Rank correlation", decimals),
        estimate("hits", "hits_low", "hits_high", "Sign was right", percent),
        estimate(
            "rank_ic_difference",
            "rank_ic_difference_low",
            "rank_ic_difference_high",
            "Less always one way",
            signed_percent,
        ),
        number("rises", "Outcomes above 0", percent),
        number("r_dates", "Dates", count),
    )
    caption = (
        "Of score and outcome over time. Less always one way: the share of right signs less that of betting on the "
        "more frequent direction on every date."
    )
    return table("over-time", caption, pd.DataFrame(rows), columns)


def distributions(study: TimeSeriesEvaluation) -> Table:
    """Bands and CRPS, a row an instrument."""
    rows = [
        {
            "instrument": each.name,
            "horizon": each.horizon,
            "level": each.level,
            "crps": each.crps,
            "walk": each.crps_walk,
            "skill": each.crps_skill,
            "ensemble": 1 - each.crps_ensemble / each.crps_walk if each.crps_walk > 0 else np.nan,
        }
        | _test("inside", each.coverage)
        | _test("rank_ic_difference", each.crps_lead)
        for each in study.instruments
    ]
    columns = (
        text("instrument", "Instrument"),
        number("horizon", "Bars ahead", count),
        number("level", "Band", percent),
        estimate("inside", "inside_low", "inside_high", "Outcomes inside", percent),
        number("crps", "CRPS", general),
        number("walk", "CRPS of the walk", general),
        number("skill", "Skill, fair", percent),
        number("ensemble", "Skill, ensemble", percent),
        number("rank_ic_difference_p", "p of the difference", probability),
        number("inside_dates", "Dates", count),
    )
    caption = (
        "Of the close at the end of the horizon. The walk: Gaussian, without drift, with the deviation of the last "
        "20 bars."
    )
    return table("bands-over-time", caption, pd.DataFrame(rows), columns)


def over_time(study: TimeSeriesEvaluation) -> Charts:
    """Scatter and running correlation."""
    picks = (
        [Dropdown("Instrument", tuple(each.name for each in study.instruments))]
        if len(study.instruments) > 1
        else []
    )
    return collect_charts(
        chart_with_dropdown(
            "score-outcome", "Outcome by score", "A dot a date; means of fifths of the score with 95% intervals.",
            [figures.scatter(each, study.score) for each in study.instruments], picks, NO_PAIR,
        ),
        chart_with_dropdown(
            "added", "Where the correlation comes from", "Its running sum: a steady slope is steady skill.",
            [figures.added(each) for each in study.instruments], picks, NO_PAIR,
        ),
    )  # fmt: skip


def banded(study: TimeSeriesEvaluation) -> Charts:
    """Bands and outcomes."""
    picks = (
        [Dropdown("Instrument", tuple(each.name for each in study.instruments))]
        if len(study.instruments) > 1
        else []
    )
    return collect_charts(
        chart_with_dropdown(
            "bands", f"Bands and outcomes, the latest {figures.LATEST} forecasts",
            "Returns from the bar of the forecast to the end of its horizon.",
            [figures.bands(each) for each in study.instruments], picks, NO_BAND, wide=True,
        ),
    )  # fmt: skip


def _picks(study: TimeSeriesEvaluation) -> list[Dropdown]:
    names = tuple(each.name for each in study.instruments)
    return [Dropdown("Instrument", names)] if len(names) > 1 else []


def _test(name: str, test: MeanTest | None) -> dict[str, float]:
    fields = ("low", "high", "t", "p", "dates")
    values = {name: np.nan if test is None else test.mean}
    return values | {f"{name}_{field}": np.nan if test is None else getattr(test, field) for field in fields}
