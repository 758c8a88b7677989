"""The sections on the portfolio and its trades."""

from __future__ import annotations

from math import nan

import pandas as pd

from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation
from kronos_strategies.evaluation.portfolio.trades import TradeEvaluation
from kronos_strategies.report.figures import portfolio as figures
from kronos_strategies.report.formatting import (
    count,
    decimals,
    decimals_2,
    general,
    interval,
    is_timed,
    percent,
    percent_2,
    span,
)  # fmt: skip
from kronos_strategies.report.layout import Charts, Part, Section, Tile, chart, collect_charts
from kronos_strategies.report.tables import Table, date, estimate, month_grid, number, table, text

NO_BAR = "The book has no bar."
STREAMS = {"net": "Net of costs", "gross": "Gross"}


def portfolio_section(study: PortfolioEvaluation) -> Section:
    """Of a `PortfolioEvaluation`."""
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


def _before(study: PortfolioEvaluation) -> str:
    """Why other tools count other bars."""
    if not study.bars_before:
        return ""
    bars = f"{count(study.bars_before)} bar{'' if study.bars_before == 1 else 's'}"
    return (
        f" Figures start with the bar of the first purchase: {bars} before it, when the book holds cash, are left "
        "out. Qlib's own figures and Backtrader's SharpeRatio count them."
    )


def tiles(study: PortfolioEvaluation) -> tuple[Tile, ...]:
    """The headline, net of costs."""
    net, sharpe = study.performance.to_dict("index")["net"], study.sharpe
    cost = float(study.result.cost.mean() * study.result.bars_per_year)
    trials = f"after {count(sharpe.trials)} trial{'' if sharpe.trials == 1 else 's'}"
    return (
        Tile("Return a year, net", percent(net["annual_return"]), f"volatility {percent(net['volatility'])}"),
        Tile("Sharpe, net", decimals_2(sharpe.sharpe), interval(sharpe.low, sharpe.high, decimals_2)),
        Tile("PSR: Sharpe above 0", percent(sharpe.psr), "probability"),
        Tile("DSR: above chance's best", percent(sharpe.dsr), trials),
        Tile("Max drawdown, net", percent(net["max_drawdown"]), f"Calmar {decimals_2(net['calmar'])}"),
        Tile("Costs a year", percent(cost), f"turnover {percent(study.result.turnover.mean())} a bar"),
    )


def books(study: PortfolioEvaluation) -> Table:
    """The book and its benchmarks."""
    columns = (
        text("book", "Book"),
        number("annual_return", "Return a year", percent),
        number("volatility", "Volatility a year", percent),
        number("sharpe", "Sharpe", decimals_2),
        number("sortino", "Sortino", decimals_2),
        number("calmar", "Calmar", decimals_2),
        number("max_drawdown", "Max drawdown", percent),
    )
    frame = study.performance.rename(index=STREAMS).rename_axis("book")
    return table("books", "Benchmarks pay no costs.", frame, columns, highlight=STREAMS["net"])


def active(study: PortfolioEvaluation) -> Table:
    """The book less each benchmark."""
    columns = (
        text("benchmark", "Against"),
        estimate("active_return", "low", "high", "Active return a year", percent),
        number("tracking_error", "Tracking error", percent),
        number("information_ratio", "Information ratio", decimals_2),
        number("beta", "Beta", decimals_2),
        number("alpha", "Alpha a year", percent),
        number("correlation", "Correlation", decimals_2),
    )
    caption = (
        "Net of costs less the benchmark, arithmetic: the mean difference of a bar times bars in a year."
    )
    return table("active", caption, study.active.rename_axis("benchmark"), columns)


def earned(study: PortfolioEvaluation) -> Charts:
    """Wealth and its falls."""
    result = study.result
    return collect_charts(
        chart("wealth", "Wealth", "Compounded from 1.", figures.wealth(result), NO_BAR, wide=True),
        chart(
            "underwater", "Drawdown", "Wealth below its highest so far.",
            figures.underwater(result), NO_BAR, wide=True,
        ),
    )  # fmt: skip


def drawdowns(study: PortfolioEvaluation) -> Table:
    """The deepest falls."""
    timed = is_timed(study.result.returns.index)
    columns = (
        date("start", "From", timed=timed),
        date("trough", "Trough", timed=timed),
        date("end", "Recovered", otherwise="not yet", timed=timed),
        number("depth", "Depth", percent),
        number("bars", "Bars", count),
    )
    return table("drawdowns", "The deepest falls of the book, net of costs.", study.drawdowns, columns)


def costs(study: PortfolioEvaluation) -> Table:
    """Had trading cost so much."""
    columns = (
        number("basis_points", "Basis points", general),
        number("annual_return", "Return a year", percent),
        number("sharpe", "Sharpe", decimals_2),
        number("max_drawdown", "Max drawdown", percent),
    )
    even = study.break_even_bps
    said = f" At {decimals_2(even)} the mean return would be nothing." if even > 0 else ""
    caption = f"Had what is traded cost so many basis points, in place of what the backtest charged.{said}"
    return table("costs", caption, study.costs.rename_axis("basis_points"), columns)


def traded(study: PortfolioEvaluation) -> Charts:
    """What trading cost, and would have cost."""
    short = figures.is_short(study.result)
    return collect_charts(
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


def exposure(study: PortfolioEvaluation) -> Charts:
    """What is held."""
    return collect_charts(
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


def parity(study: PortfolioEvaluation) -> Table:
    """Qlib's own figures."""
    rows = [
        (name, float(v), study.qlib_metrics_invested.get(name, nan)) for name, v in study.qlib_metrics.items()
    ]
    frame = pd.DataFrame(rows, columns=["figure", "value", "invested"])
    columns = (
        text("figure", "Qlib's figure"),
        number("value", "As Qlib has it, all bars", general),
        number("invested", "From the first purchase", general),
    )
    caption = (
        "By Qlib's conventions: returns are summed, not compounded, a year is 238 days, a first-bar fall does "
        "not count as a drawdown, and bars before the first purchase count. To compare with other Qlib runs, and "
        "with nothing above, which starts with the first purchase."
    )
    return table("parity", caption, frame, columns, ordered=True)


LISTED = 200  # trades on the page; all are in trades.csv
NO_TRADE = "No trade was closed."


def trades_section(study: TradeEvaluation) -> Section:
    """Of a `TradeEvaluation`."""
    were = "one was" if study.open == 1 else f"{count(study.open)} were"
    open_ = f" Not counted: {were} still open at the end." if study.open else ""
    return Section(
        "trades",
        "Trades",
        "A trade lasts from the order that opens a position to the one that closes it or turns it round, net of "
        f"commissions.{open_}",
        trade_tiles(study),
        (
            Part("How they ended", (figures_of(study),), charts=ended(study)),
            Part("List", (listed(study),)),
        ),
    )


def trade_tiles(study: TradeEvaluation) -> tuple[Tile, ...]:
    """The headline."""
    row = study.table.to_dict("index")["all"]
    return (
        Tile("Trades", count(row["trades"]), f"{count(study.open)} still open"),
        Tile("With a profit", percent(row["hit_rate"])),
        Tile("Profit factor", decimals_2(row["profit_factor"]), "profits / losses"),
        Tile("Mean return", percent_2(row["mean_return"]), "net, of the value at entry"),
        Tile("Bars held, mean", decimals(row["bars"], 1), f"median {general(row['median_bars'])}"),
    )


def figures_of(study: TradeEvaluation) -> Table:
    """All, long and short."""
    columns = (
        text("side", "Side"),
        number("trades", "Trades", count),
        number("hit_rate", "With a profit", percent),
        number("profit_factor", "Profit factor", decimals_2),
        number("profit", "Profit", general),
        number("bars", "Bars held", lambda value: decimals(value, 1)),
        number("mean_return", "Mean return", percent_2),
        number("mean_win", "Mean of profits", percent_2),
        number("mean_loss", "Mean of losses", percent_2),
        number("best", "Best", percent_2),
        number("worst", "Worst", percent_2),
    )
    frame = study.table[study.table["trades"] > 0].rename_axis("side")
    return table("trade-figures", "Closed trades; profit in money.", frame, columns)


def ended(study: TradeEvaluation) -> Charts:
    """Returns and lengths."""
    return collect_charts(
        chart("trade-returns", "Returns of trades", "Net, at the bar that closed them.",
              figures.trades(study.trades), NO_TRADE),
        chart("trade-bars", "Bars held", "Of closed trades.", figures.lengths(study.trades), NO_TRADE),
    )  # fmt: skip


def listed(study: TradeEvaluation) -> Table:
    """The latest trades."""
    timed = is_timed(study.trades["opened"]) or is_timed(study.trades["closed"])
    columns = (
        date("opened", "Opened", timed=timed),
        text("instrument", "Instrument"),
        text("side", "Side"),
        date("closed", "Closed", otherwise="open", timed=timed),
        number("bars", "Bars held", count),
        number("size", "Size", general),
        number("entry", "Entry", general),
        number("exit", "Exit", general),
        number("profit", "Profit", decimals_2),
        number("cost", "Costs", decimals_2),
        number("return", "Return", percent_2),
    )
    latest = study.trades.tail(LISTED)
    left = len(study.trades) - len(latest)
    caption = (
        f"The latest {LISTED} of {count(len(study.trades))}; all are in trades.csv."
        if left
        else "All of them."
    )
    return table("trade-list", caption, latest, columns)
