"""The section on the book: what it earned after costs, beside what, and with what exposure."""

from __future__ import annotations

from math import nan

import pandas as pd

from kronos_strategies.evaluation.portfolio.study import PortfolioStudy
from kronos_strategies.report.charts import Charts, chart, gather
from kronos_strategies.report.figures import portfolio as figures
from kronos_strategies.report.formats import (
    count,
    general,
    interval,
    is_timed,
    percent,
    span,
    two,
)  # fmt: skip
from kronos_strategies.report.tables import Table, day, estimate, month_grid, number, table, word
from kronos_strategies.report.view import Part, Section, Tile

NO_BAR = "The book has no bar."
STREAMS = {"net": "Net of costs", "gross": "Gross"}


def portfolio_section(study: PortfolioStudy) -> Section:
    """Of a `PortfolioStudy`."""
    bars = study.result.returns.index
    when = f"{span(pd.DatetimeIndex(bars))}, {count(len(bars))} bars" if len(bars) else "no bars"
    months = month_grid("book-months", "Net return by month and year, compounded.", study.months, percent)
    return Section(
        "portfolio",
        "Portfolio",
        f"The book over {when}. Returns are compounded, a year is {study.result.bars_per_year} bars, "
        f"the rate is zero.{_before(study)}",
        tiles(study),
        (
            Part("Beside its benchmarks", (books(study), active(study)), charts=earned(study)),
            Part("Falls and months", (drawdowns(study),), (months,) if months else ()),
            Part("Costs and trading", (costs(study),), charts=traded(study)),
            Part("Exposure", charts=exposure(study)),
            Part("Beside other Qlib runs only", (parity(study),)),
        ),
    )


def _before(study: PortfolioStudy) -> str:
    """Why other tools count other bars."""
    if not study.bars_before:
        return ""
    bars = f"{count(study.bars_before)} bar{'' if study.bars_before == 1 else 's'}"
    return (
        f" Figures start with the bar of the first purchase: {bars} before it, when the book holds cash, are left "
        "out. Qlib's own figures and Backtrader's SharpeRatio count them."
    )


def tiles(study: PortfolioStudy) -> tuple[Tile, ...]:
    """The headline, net of costs."""
    net, sharpe = study.books.to_dict("index")["net"], study.sharpe
    cost = float(study.result.cost.mean() * study.result.bars_per_year)
    trials = f"after {count(sharpe.trials)} trial{'' if sharpe.trials == 1 else 's'}"
    return (
        Tile("Return a year, net", percent(net["annual_return"]), f"volatility {percent(net['volatility'])}"),
        Tile("Sharpe, net", two(sharpe.sharpe), interval(sharpe.low, sharpe.high, two)),
        Tile("PSR: Sharpe above 0", percent(sharpe.psr), "probability"),
        Tile("DSR: above chance's best", percent(sharpe.dsr), trials),
        Tile("Max drawdown, net", percent(net["max_drawdown"]), f"Calmar {two(net['calmar'])}"),
        Tile("Costs a year", percent(cost), f"turnover {percent(study.result.turnover.mean())} a bar"),
    )


def books(study: PortfolioStudy) -> Table:
    """The book and its benchmarks."""
    columns = (
        word("book", "Book"),
        number("annual_return", "Return a year", percent),
        number("volatility", "Volatility a year", percent),
        number("sharpe", "Sharpe", two),
        number("sortino", "Sortino", two),
        number("calmar", "Calmar", two),
        number("max_drawdown", "Max drawdown", percent),
    )
    frame = study.books.rename(index=STREAMS).rename_axis("book")
    return table("books", "Benchmarks pay no costs.", frame, columns, own=STREAMS["net"])


def active(study: PortfolioStudy) -> Table:
    """The book less each benchmark."""
    columns = (
        word("benchmark", "Against"),
        estimate("active_return", "low", "high", "Active return a year", percent),
        number("tracking_error", "Tracking error", percent),
        number("information_ratio", "Information ratio", two),
        number("beta", "Beta", two),
        number("alpha", "Alpha a year", percent),
        number("correlation", "Correlation", two),
    )
    caption = (
        "Net of costs less the benchmark, arithmetic: the mean difference of a bar times bars in a year."
    )
    return table("active", caption, study.active.rename_axis("benchmark"), columns)


def earned(study: PortfolioStudy) -> Charts:
    """Wealth and its falls."""
    result = study.result
    return gather(
        chart("wealth", "Wealth", "Compounded from 1.", figures.wealth(result), NO_BAR, wide=True),
        chart(
            "underwater", "Drawdown", "Wealth below its highest so far.",
            figures.underwater(result), NO_BAR, wide=True,
        ),
    )  # fmt: skip


def drawdowns(study: PortfolioStudy) -> Table:
    """The deepest falls."""
    timed = is_timed(study.result.returns.index)
    columns = (
        day("start", "From", timed=timed),
        day("trough", "Trough", timed=timed),
        day("end", "Recovered", otherwise="not yet", timed=timed),
        number("depth", "Depth", percent),
        number("bars", "Bars", count),
    )
    return table("drawdowns", "The deepest falls of the book, net of costs.", study.drawdowns, columns)


def costs(study: PortfolioStudy) -> Table:
    """Had trading cost so much."""
    columns = (
        number("basis_points", "Basis points", general),
        number("annual_return", "Return a year", percent),
        number("sharpe", "Sharpe", two),
        number("max_drawdown", "Max drawdown", percent),
    )
    even = study.break_even_bps
    said = f" At {two(even)} the mean return would be nothing." if even > 0 else ""
    caption = f"Had what is traded cost so many basis points, in place of what the backtest charged.{said}"
    return table("costs", caption, study.costs.rename_axis("basis_points"), columns)


def traded(study: PortfolioStudy) -> Charts:
    """What trading cost, and would have cost."""
    short = figures.is_short(study.result)
    return gather(
        chart("by-costs", "Return by costs", "Gross less turnover times costs.", figures.costs(study), NO_BAR),
        chart(
            "cost-paid", "Costs that were charged", "As a share of the book, summed over bars.",
            figures.cost_paid(study.result), NO_BAR,
        ),
        chart(
            "turnover", "Turnover",
            f"Bought and sold, a bar; mean over the bars of each {'day' if short else 'month'}.",
            figures.turnover(study.result), NO_BAR, wide=True,
        ),
    )  # fmt: skip


def exposure(study: PortfolioStudy) -> Charts:
    """What is held."""
    return gather(
        chart(
            "exposure", "Gross and net exposure", "Sums of |weight| and of weight at each close.",
            figures.exposure(study), NO_BAR,
        ),
        chart("positions", "Positions", "Names held at each close.", figures.positions(study), NO_BAR),
        chart(
            "tilts", "Tilts", "Weighted mean percentile of the held names among all; 50% is neutral.",
            figures.tilts(study), "No exposure was given.", wide=True,
        ),
    )  # fmt: skip


def parity(study: PortfolioStudy) -> Table:
    """Qlib's own figures."""
    rows = [(name, float(v), study.parity_invested.get(name, nan)) for name, v in study.parity.items()]
    frame = pd.DataFrame(rows, columns=["figure", "value", "invested"])
    columns = (
        word("figure", "Qlib's figure"),
        number("value", "As Qlib has it, all bars", general),
        number("invested", "From the first purchase", general),
    )
    caption = (
        "By Qlib's conventions: returns are summed, not compounded, a year is 238 days, a first-bar fall does "
        "not count as a drawdown, and bars before the first purchase count. To compare with other Qlib runs, and "
        "with nothing above, which starts with the first purchase."
    )
    return table("parity", caption, frame, columns, ordered=True)
