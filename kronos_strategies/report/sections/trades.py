"""The section on trades: how many, how they ended, and the list of them."""

from __future__ import annotations

from kronos_strategies.evaluation.portfolio.trades import TradeStudy
from kronos_strategies.report.charts import Charts, chart, gather
from kronos_strategies.report.figures import timeseries as figures
from kronos_strategies.report.formats import count, decimals, general, is_timed, percent, percent_two, two
from kronos_strategies.report.tables import Table, day, number, table, word
from kronos_strategies.report.view import Part, Section, Tile

LISTED = 200  # trades on the page; all are in trades.csv
NO_TRADE = "No trade was closed."


def trades_section(study: TradeStudy) -> Section:
    """Of a `TradeStudy`."""
    were = "one was" if study.open == 1 else f"{count(study.open)} were"
    open_ = f" Not counted: {were} still open at the end." if study.open else ""
    return Section(
        "trades",
        "Trades",
        "A trade lasts from the order that opens a position to the one that closes it or turns it round, net of "
        f"commissions.{open_}",
        tiles(study),
        (
            Part("How they ended", (figures_of(study),), charts=ended(study)),
            Part("List", (listed(study),)),
        ),
    )


def tiles(study: TradeStudy) -> tuple[Tile, ...]:
    """The headline."""
    row = study.table.to_dict("index")["all"]
    return (
        Tile("Trades", count(row["trades"]), f"{count(study.open)} still open"),
        Tile("With a profit", percent(row["hit_rate"])),
        Tile("Profit factor", two(row["profit_factor"]), "profits / losses"),
        Tile("Mean return", percent_two(row["mean_return"]), "net, of the value at entry"),
        Tile("Bars held, mean", decimals(row["bars"], 1), f"median {general(row['median_bars'])}"),
    )


def figures_of(study: TradeStudy) -> Table:
    """All, long and short."""
    columns = (
        word("side", "Side"),
        number("trades", "Trades", count),
        number("hit_rate", "With a profit", percent),
        number("profit_factor", "Profit factor", two),
        number("profit", "Profit", general),
        number("bars", "Bars held", lambda value: decimals(value, 1)),
        number("mean_return", "Mean return", percent_two),
        number("mean_win", "Mean of profits", percent_two),
        number("mean_loss", "Mean of losses", percent_two),
        number("best", "Best", percent_two),
        number("worst", "Worst", percent_two),
    )
    frame = study.table[study.table["trades"] > 0].rename_axis("side")
    return table("trade-figures", "Closed trades; profit in money.", frame, columns)


def ended(study: TradeStudy) -> Charts:
    """Returns and lengths."""
    return gather(
        chart("trade-returns", "Returns of trades", "Net, at the bar that closed them.",
              figures.trades(study.trades), NO_TRADE),
        chart("trade-bars", "Bars held", "Of closed trades.", figures.lengths(study.trades), NO_TRADE),
    )  # fmt: skip


def listed(study: TradeStudy) -> Table:
    """The latest trades."""
    timed = is_timed(study.trades["opened"]) or is_timed(study.trades["closed"])
    columns = (
        day("opened", "Opened", timed=timed),
        word("instrument", "Instrument"),
        word("side", "Side"),
        day("closed", "Closed", otherwise="open", timed=timed),
        number("bars", "Bars held", count),
        number("size", "Size", general),
        number("entry", "Entry", general),
        number("exit", "Exit", general),
        number("profit", "Profit", two),
        number("cost", "Costs", two),
        number("return", "Return", percent_two),
    )
    latest = study.trades.tail(LISTED)
    left = len(study.trades) - len(latest)
    caption = (
        f"The latest {LISTED} of {count(len(study.trades))}; all are in trades.csv."
        if left
        else "All of them."
    )
    return table("trade-list", caption, latest, columns)
