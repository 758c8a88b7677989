"""The section on the score: how well, when, how far and beyond what it ranks."""

from __future__ import annotations

import pandas as pd

from kronos_strategies.evaluation.signal.evaluation import SignalEvaluation
from kronos_strategies.report.figures import signal as figures
from kronos_strategies.report.formatting import (
    bars,
    count,
    decimals,
    decimals_2,
    interval,
    percent,
    probability,
    signed,
    signed_percent,
)  # fmt: skip
from kronos_strategies.report.layout import (
    Chart,
    Charts,
    OmittedChart,
    Part,
    Section,
    Tile,
    chart,
    collect_charts,
)
from kronos_strategies.report.tables import (
    MonthGrid,
    Record,
    Table,
    estimate,
    month_grid,
    number,
    number_with_note,
    table,
    text,
)

NO_DATE = "RankIC is undefined on every date."
NO_EXPOSURE = "No exposure was given."


def signal_section(study: SignalEvaluation) -> Section:
    """Of a `SignalEvaluation`."""
    span_ = f"Scores are held against the return over {bars(study.hold)} from one bar after their date on"
    overlap = f", so that {study.overlap} successive dates share a label" if study.overlap > 1 else ""
    grid = months(study)
    return Section(
        "signal",
        "Signal",
        f"{span_}{overlap}. Means are over dates, intervals at 95%, by {study.rank_ic.method}.",
        tiles(study),
        (
            Part("Beside naive signals", (scores(study),)),
            Part("Over time", grids=(grid,) if grid else (), charts=over_time(study)),
            Part("Ahead and late", charts=ahead(study)),
            Part("By bucket", charts=buckets(study)),
            Part("Steadiness", charts=steadiness(study)),
            Part("Beyond known exposures, and by group", charts=beyond(study)),
        ),
    )


def tiles(study: SignalEvaluation) -> tuple[Tile, ...]:
    """The headline."""
    rank, ic, spread = study.rank_ic, study.ic, study.quantiles.top_minus_bottom
    return (
        Tile("RankIC, mean", decimals(rank.mean), interval(rank.low, rank.high, decimals)),
        Tile("t of RankIC", decimals_2(rank.t), f"Newey-West {decimals_2(study.rank_ic_newey_west.t)}"),
        Tile("RankICIR", decimals(float(study.table["rank_icir"].iloc[0])), "not annualised"),
        Tile("IC, mean", decimals(ic.mean), interval(ic.low, ic.high, decimals)),
        Tile(
            f"Top less bottom bucket, {bars(study.hold)}",
            percent(spread.mean, 2),
            interval(spread.low, spread.high, signed_percent),
        ),
        Tile("New in the top bucket, a date", percent(study.turnover.mean())),
    )


def scores(study: SignalEvaluation) -> Table:
    """The score above the naive ones."""
    columns = (
        text("score", "Score"),
        estimate("rank_ic", "rank_ic_low", "rank_ic_high", "RankIC", signed),
        number("rank_ic_t", "t", decimals_2),
        number("rank_ic_p", "p", probability),
        number("rank_icir", "RankICIR", decimals),
        number("ic", "IC", signed),
        number("positive", "Above 0", percent),
        estimate(
            "rank_ic_difference", "rank_ic_difference_low", "rank_ic_difference_high", "Lead over it", signed
        ),
        number("rank_ic_difference_p", "p of lead", probability),
        number_with_note("dates", "Dates", count, _undefined),
    )
    caption = (
        "Lead over it: RankIC of the studied score less that of the row, paired by date over the names that have "
        "both. Where its interval excludes 0 the two differ for sure."
    )
    return table("scores", caption, study.table.rename_axis("score"), columns, highlight=study.own)


def _undefined(row: Record) -> str:
    return f"{count(row['undefined'])} undefined" if row["undefined"] else ""


def over_time(study: SignalEvaluation) -> Charts:
    """Cumulative, rolling and by year."""
    return collect_charts(
        chart(
            "cumulative-ic", "Cumulative RankIC", "A steady slope is a steady signal.",
            figures.cumulative_ic(study), NO_DATE, wide=True,
        ),
        chart(
            "rolling-ic", f"Rolling mean, {figures.ROLLING} dates", "An undefined date counts for nothing.",
            figures.rolling_ic(study), f"It takes {figures.ROLLING} dates.",
        ),
        chart(
            "ic-by-year", "RankIC by year", "Whiskers are 95% intervals.", figures.by_year(study), NO_DATE
        ),
    )  # fmt: skip


def months(study: SignalEvaluation) -> MonthGrid | None:
    """Mean RankIC of each month's defined dates."""
    values = study.by_date[study.own]["rank_ic"].dropna()
    dates = pd.DatetimeIndex(values.index)
    grid = values.groupby([dates.year, dates.month]).mean().unstack().reindex(columns=range(1, 13))
    grid = grid.assign(year=values.groupby(dates.year).mean()).rename_axis(index=None, columns=None)
    return month_grid("ic-months", "Mean RankIC by month; the tint is by sign and size.", grid, decimals)


def ahead(study: SignalEvaluation) -> Charts:
    """Decay and lags."""
    return collect_charts(
        chart(
            "ic-decay", "Decay", "The score stays, the label grows; bands are 95% of the studied score.",
            figures.decay(study), "No horizon has a date with enough names.",
        ),
        chart(
            "ic-lags", "If the score came late", "RankIC of the score of some dates ago, with 95% bands.",
            figures.lags(study), "No lag has a date with enough names.",
        ),
    )  # fmt: skip


def buckets(study: SignalEvaluation) -> Charts:
    """Bucket returns and their spread."""
    quantiles = study.quantiles
    monotone, hits = decimals(quantiles.monotonicity, 2), percent(quantiles.top_hit_rate)
    overlap = "; labels overlap" if study.overlap > 1 else ""
    why = "On no date were there enough names with a score and a return."
    return collect_charts(
        chart(
            "buckets", f"Return by bucket over {bars(study.hold)}",
            f"Less the mean of all names, with 95% intervals. Monotonicity {monotone}; {hits} of the top bucket "
            "earned more than the median name.",
            figures.buckets(quantiles), why,
        ),
        chart(
            "spread", "Top less bottom bucket, cumulated",
            f"A label's return each date, before costs, 200% gross{overlap}.",
            figures.cumulative_spread(quantiles), why,
        ),
    )  # fmt: skip


def steadiness(study: SignalEvaluation) -> Charts:
    """How fast the score turns over."""
    why = "It takes two dates."
    return collect_charts(
        chart(
            "top-turnover", "Turnover of the top bucket", "Names that were not in it on the date before.",
            figures.top_turnover(study), why,
        ),
        chart(
            "autocorrelation", "Rank autocorrelation", "Of the score with its value on the date before.",
            figures.autocorrelation(study), why,
        ),
    )  # fmt: skip


def beyond(study: SignalEvaluation) -> Charts:
    """Neutralised, and within groups."""
    named: list[Chart | OmittedChart] = [
        chart(
            f"group-{place}", f"RankIC by {name}", "Within each group of names; whiskers are 95% intervals.",
            figures.groups(study, name), "No group has a date with enough names.", wide=True, rows=size,
        )
        for place, (name, size) in enumerate(figures.named_exposures(study).items())
    ]  # fmt: skip
    return collect_charts(
        chart(
            "neutral", "RankIC before and after neutralising",
            "Beyond: of the residual of the score's ranks on those of the exposure, date by date.",
            figures.neutral(study), NO_EXPOSURE, rows=len(study.neutral),
        ),
        chart(
            "terciles", "RankIC within thirds of an exposure", "Thirds by date; whiskers are 95% intervals.",
            figures.terciles(study), NO_EXPOSURE,
        ),
        *named,
    )  # fmt: skip
