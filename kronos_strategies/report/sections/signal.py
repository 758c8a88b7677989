"""The section on the score: RankIC, decay, quantile returns, turnover, neutralization and groups."""

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
    percent_2,
    probability,
    signed,
    signed_percent,
)
from kronos_strategies.report.layout import (
    Chart,
    Charts,
    MonthGrid,
    OmittedChart,
    Part,
    Record,
    Section,
    Table,
    Tile,
    chart,
    collect_charts,
    estimate,
    month_grid,
    number,
    number_with_note,
    table,
    text,
)

NO_DATE = "RankIC is undefined on every date."
NO_EXPOSURE = "No exposure was given."


def signal_section(signal: SignalEvaluation) -> Section:
    """The section of a `SignalEvaluation`."""
    label = f"Scores are compared with the return over {bars(signal.hold)}, starting one bar after their date"
    overlap = f", so that labels of {signal.overlap} successive dates overlap" if signal.overlap > 1 else ""
    grid = months(signal)
    return Section(
        "signal",
        "Signal",
        f"{label}{overlap}. Means are over dates, with 95% intervals by {signal.rank_ic.method}.",
        tiles(signal),
        (
            Part("Baselines", (scores(signal),)),
            Part("RankIC over time", grids=(grid,) if grid else (), charts=over_time(signal)),
            Part("Decay and lag", charts=decay_and_lag(signal)),
            Part("Returns by quantile", charts=quantile_returns(signal)),
            Part("Turnover", charts=turnover(signal)),
            Part("Neutralized RankIC and groups", charts=neutralization(signal)),
        ),
    )


def tiles(signal: SignalEvaluation) -> tuple[Tile, ...]:
    """The headline."""
    rank, ic, spread = signal.rank_ic, signal.ic, signal.quantiles.top_minus_bottom
    return (
        Tile("RankIC, mean", decimals(rank.mean), interval(rank.low, rank.high, decimals)),
        Tile("t of RankIC", decimals_2(rank.t), f"Newey-West {decimals_2(signal.rank_ic_newey_west.t)}"),
        Tile("RankICIR", decimals(float(signal.table["rank_icir"].iloc[0])), "not annualized"),
        Tile("IC, mean", decimals(ic.mean), interval(ic.low, ic.high, decimals)),
        Tile(
            f"Top minus bottom quantile, {bars(signal.hold)}",
            percent_2(spread.mean),
            interval(spread.low, spread.high, signed_percent),
        ),
        Tile("Turnover of the top quantile", percent(signal.turnover.mean()), "per date"),
    )


def scores(signal: SignalEvaluation) -> Table:
    """The score and the baselines."""
    columns = (
        text("score", "Score"),
        estimate("rank_ic", "rank_ic_low", "rank_ic_high", "RankIC", signed),
        number("rank_ic_t", "t", decimals_2),
        number("rank_ic_p", "p", probability),
        number("rank_icir", "RankICIR", decimals),
        number("ic", "IC", signed),
        number("positive", "> 0", percent),
        estimate(
            "rank_ic_difference", "rank_ic_difference_low", "rank_ic_difference_high", "Difference", signed
        ),
        number("rank_ic_difference_p", "p (diff.)", probability),
        number_with_note("dates", "Dates", count, _undefined),
    )
    caption = (
        f"Difference: RankIC of {signal.name} minus that of the row, paired by date over the instruments that have "
        "both. It is significant where its interval excludes 0."
    )
    return table("scores", caption, signal.table.rename_axis("score"), columns, highlight=signal.name)


def _undefined(row: Record) -> str:
    return f"{count(row['undefined'])} undefined" if row["undefined"] else ""


def over_time(signal: SignalEvaluation) -> Charts:
    """Cumulative, rolling and yearly RankIC."""
    return collect_charts(
        chart(
            "cumulative-ic", "Cumulative RankIC", "A steady slope is a steady signal.",
            figures.cumulative_ic(signal), NO_DATE, wide=True,
        ),
        chart(
            "rolling-ic", f"Rolling mean, {figures.ROLLING} dates", "Undefined dates are excluded.",
            figures.rolling_ic(signal), f"It needs {figures.ROLLING} dates.",
        ),
        chart(
            "ic-by-year", "RankIC by year", "Whiskers are 95% intervals.", figures.by_year(signal), NO_DATE
        ),
    )  # fmt: skip


def months(signal: SignalEvaluation) -> MonthGrid | None:
    """Mean RankIC by month, over the defined dates."""
    values = signal.by_date[signal.name]["rank_ic"].dropna()
    dates = pd.DatetimeIndex(values.index)
    grid = values.groupby([dates.year, dates.month]).mean().unstack().reindex(columns=range(1, 13))
    grid = grid.assign(year=values.groupby(dates.year).mean()).rename_axis(index=None, columns=None)
    return month_grid("ic-months", "Mean RankIC by month, tinted by sign and size.", grid, decimals)


def decay_and_lag(signal: SignalEvaluation) -> Charts:
    """RankIC by label horizon and by lag of the score."""
    return collect_charts(
        chart(
            "ic-decay", "Decay", f"RankIC by horizon of the label; the band is 95% for {signal.name}.",
            figures.decay(signal), "No horizon has a date with enough instruments.",
        ),
        chart(
            "ic-lags", "Lag", "RankIC of the score of earlier dates, with 95% bands.",
            figures.lags(signal), "No lag has a date with enough instruments.",
        ),
    )  # fmt: skip


def quantile_returns(signal: SignalEvaluation) -> Charts:
    """Returns by quantile, and the top minus the bottom quantile."""
    quantiles = signal.quantiles
    monotonicity, hits = decimals_2(quantiles.monotonicity), percent(quantiles.top_hit_rate)
    overlap = "; labels overlap" if signal.overlap > 1 else ""
    why = "On no date were there enough instruments with a score and a return."
    return collect_charts(
        chart(
            "quantiles", f"Return by quantile over {bars(signal.hold)}",
            f"Minus the mean of all instruments, with 95% intervals. Monotonicity {monotonicity}; {hits} of the "
            "top quantile have a return above the median.",
            figures.quantiles(quantiles), why,
        ),
        chart(
            "spread", "Top minus bottom quantile, cumulative",
            f"Sum of label returns over dates, before costs, 200% gross exposure{overlap}.",
            figures.cumulative_spread(quantiles), why,
        ),
    )  # fmt: skip


def turnover(signal: SignalEvaluation) -> Charts:
    """Turnover and rank autocorrelation of the score."""
    why = "It needs two dates."
    return collect_charts(
        chart(
            "top-turnover", "Turnover of the top quantile", "Share that was not in it on the previous date.",
            figures.top_turnover(signal), why,
        ),
        chart(
            "autocorrelation", "Rank autocorrelation", "Of the score with that of the previous date.",
            figures.autocorrelation(signal), why,
        ),
    )  # fmt: skip


def neutralization(signal: SignalEvaluation) -> Charts:
    """RankIC neutralized against exposures, and within groups."""
    named: list[Chart | OmittedChart] = [
        chart(
            f"group-{place}", f"RankIC by {name}", "Within each group; whiskers are 95% intervals.",
            figures.groups(signal, name), "No group has a date with enough instruments.", wide=True, rows=size,
        )
        for place, (name, size) in enumerate(figures.named_exposures(signal).items())
    ]  # fmt: skip
    return collect_charts(
        chart(
            "neutral", "RankIC before and after neutralization",
            "Neutralized: ranks of the score regressed on those of the exposure, date by date.",
            figures.neutral(signal), NO_EXPOSURE, rows=len(signal.neutral),
        ),
        chart(
            "terciles", "RankIC within terciles of an exposure", "Terciles by date; whiskers are 95% intervals.",
            figures.terciles(signal), NO_EXPOSURE,
        ),
        *named,
    )  # fmt: skip
