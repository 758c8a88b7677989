"""The sections on the portfolio and its trades."""

from __future__ import annotations

from math import nan

import pandas as pd

from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation
from kronos_strategies.evaluation.portfolio.returns import TradeEvaluation
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
from kronos_strategies.report.layout import (
    Charts,
    Part,
    Section,
    Table,
    Tile,
    chart,
    collect_charts,
    date,
    estimate,
    month_grid,
    number,
    table,
    text,
)

NO_BAR = "The backtest has no bars."
STREAMS = {"net": "Net of costs", "gross": "Gross"}


def portfolio_section(portfolio: PortfolioEvaluation) -> Section:
    """The section of a `PortfolioEvaluation`."""
    bars = portfolio.result.returns.index
    when = f"{span(pd.DatetimeIndex(bars))}, {count(len(bars))} bars" if len(bars) else "no bars"
    months = month_grid("months", "Net return by month and year, compounded.", portfolio.months, percent)
    return Section(
        "portfolio",
        "Portfolio",
        f"Backtest over {when}. Returns are compounded, a year has {portfolio.result.bars_per_year} bars, the "
        f"risk-free rate is zero.{_before(portfolio)}",
        tiles(portfolio),
        (
            Part(
                "Performance and benchmarks",
                (performance(portfolio), active(portfolio)),
                charts=equity_curves(portfolio),
            ),
            Part("Drawdowns and monthly returns", (drawdowns(portfolio),), (months,) if months else ()),
            Part("Costs and turnover", (costs(portfolio),), charts=trading_costs(portfolio)),
            Part("Exposure", charts=exposure(portfolio)),
            Part("Qlib's own metrics", (qlib_metrics(portfolio),)),
        ),
    )


def _before(portfolio: PortfolioEvaluation) -> str:
    """Why other tools include other bars."""
    if not portfolio.bars_before:
        return ""
    bars = f"{count(portfolio.bars_before)} bar{'' if portfolio.bars_before == 1 else 's'}"
    return (
        f" Metrics start with the bar of the first purchase: {bars} before it, on which the portfolio holds cash, "
        "are excluded. Qlib's own metrics and Backtrader's SharpeRatio include them."
    )


def tiles(portfolio: PortfolioEvaluation) -> tuple[Tile, ...]:
    """The headline, net of costs."""
    net, sharpe = portfolio.performance.to_dict("index")["net"], portfolio.sharpe
    cost = float(portfolio.result.cost.mean() * portfolio.result.bars_per_year)
    trials = f"after {count(sharpe.trials)} trial{'' if sharpe.trials == 1 else 's'}"
    return (
        Tile("Annual return, net", percent(net["annual_return"]), f"volatility {percent(net['volatility'])}"),
        Tile("Sharpe, net", decimals_2(sharpe.sharpe), interval(sharpe.low, sharpe.high, decimals_2)),
        Tile("PSR: Sharpe above 0", percent(sharpe.psr), "probability"),
        Tile("DSR: Sharpe above that of trials", percent(sharpe.dsr), trials),
        Tile("Max drawdown, net", percent(net["max_drawdown"]), f"Calmar {decimals_2(net['calmar'])}"),
        Tile("Annual costs", percent(cost), f"turnover {percent(portfolio.result.turnover.mean())} per bar"),
    )


def performance(portfolio: PortfolioEvaluation) -> Table:
    """The portfolio and its benchmarks."""
    columns = (
        text("series", "Series"),
        number("annual_return", "Annual return", percent),
        number("volatility", "Annual volatility", percent),
        number("sharpe", "Sharpe", decimals_2),
        number("sortino", "Sortino", decimals_2),
        number("calmar", "Calmar", decimals_2),
        number("max_drawdown", "Max drawdown", percent),
    )
    frame = portfolio.performance.rename(index=STREAMS).rename_axis("series")
    return table("performance", "Benchmarks have no costs.", frame, columns, highlight=STREAMS["net"])


def active(portfolio: PortfolioEvaluation) -> Table:
    """The portfolio relative to each benchmark."""
    columns = (
        text("benchmark", "Benchmark"),
        estimate("active_return", "low", "high", "Annual active return", percent),
        number("tracking_error", "Tracking error", percent),
        number("information_ratio", "Information ratio", decimals_2),
        number("beta", "Beta", decimals_2),
        number("alpha", "Annual alpha", percent),
        number("correlation", "Correlation", decimals_2),
    )
    caption = "Net return minus the benchmark, arithmetic: the mean difference per bar times bars per year."
    return table("active", caption, portfolio.active.rename_axis("benchmark"), columns)


def equity_curves(portfolio: PortfolioEvaluation) -> Charts:
    """Equity and drawdowns."""
    result = portfolio.result
    return collect_charts(
        chart("equity", "Equity", "Compounded from 1.", figures.equity(result), NO_BAR, wide=True),
        chart(
            "underwater", "Drawdown", "Equity relative to its previous high.",
            figures.underwater(result), NO_BAR, wide=True,
        ),
    )  # fmt: skip


def drawdowns(portfolio: PortfolioEvaluation) -> Table:
    """The deepest drawdowns."""
    timed = is_timed(portfolio.result.returns.index)
    columns = (
        date("start", "From", timed=timed),
        date("trough", "Trough", timed=timed),
        date("end", "Recovered", otherwise="not yet", timed=timed),
        number("depth", "Depth", percent),
        number("bars", "Bars", count),
    )
    return table(
        "drawdowns", "The deepest drawdowns of the portfolio, net of costs.", portfolio.drawdowns, columns
    )


def costs(portfolio: PortfolioEvaluation) -> Table:
    """Performance at other trading costs."""
    columns = (
        number("basis_points", "Cost, bps", general),
        number("annual_return", "Annual return", percent),
        number("sharpe", "Sharpe", decimals_2),
        number("max_drawdown", "Max drawdown", percent),
    )
    even = portfolio.break_even_bps
    break_even = f" Break-even: {decimals_2(even)} bps." if even > 0 else ""
    caption = f"Performance at other trading costs (basis points per unit traded).{break_even}"
    return table("costs", caption, portfolio.costs.rename_axis("basis_points"), columns)


def trading_costs(portfolio: PortfolioEvaluation) -> Charts:
    """Costs and turnover."""
    short = figures.is_short(portfolio.result)
    return collect_charts(
        chart(
            "by-costs", "Annual return by trading costs", "Gross return minus turnover times costs.",
            figures.costs(portfolio), NO_BAR,
        ),
        chart(
            "cost-paid", "Costs of the backtest", "As a share of equity, cumulative.",
            figures.cost_paid(portfolio.result), NO_BAR,
        ),
        chart(
            "turnover", "Turnover",
            f"Purchases plus sales per bar; mean over the bars of each {'day' if short else 'month'}.",
            figures.turnover(portfolio.result), NO_BAR, wide=True,
        ),
    )  # fmt: skip


def exposure(portfolio: PortfolioEvaluation) -> Charts:
    """Exposure, positions and tilts."""
    return collect_charts(
        chart(
            "exposure", "Gross and net exposure", "Sums of |weight| and of weight at each close.",
            figures.exposure(portfolio), NO_BAR,
        ),
        chart("positions", "Positions", "Instruments held at each close.", figures.positions(portfolio), NO_BAR),
        chart(
            "tilts", "Tilts", "Weighted mean percentile of the held instruments among all; 50% is neutral.",
            figures.tilts(portfolio), "No exposure was given.", wide=True,
        ),
    )  # fmt: skip


def qlib_metrics(portfolio: PortfolioEvaluation) -> Table:
    """Qlib's own metrics."""
    rows = [
        (name, float(v), portfolio.qlib_metrics_invested.get(name, nan))
        for name, v in portfolio.qlib_metrics.items()
    ]
    frame = pd.DataFrame(rows, columns=["metric", "value", "invested"])
    columns = (
        text("metric", "Metric"),
        number("value", "All bars, as in Qlib", general),
        number("invested", "From the first purchase", general),
    )
    caption = (
        "By Qlib's conventions: returns are summed instead of compounded, a year has 238 days, a drawdown from "
        "the first bar does not count, and bars before the first purchase are included. Comparable with other Qlib "
        "runs only, not with the metrics above, which start with the first purchase."
    )
    return table("qlib-metrics", caption, frame, columns, ordered=True)


LISTED = 200  # trades on the page; trades.csv has all of them
NO_TRADE = "No trade was closed."


def trades_section(trades: TradeEvaluation) -> Section:
    """The section of a `TradeEvaluation`."""
    were = "one was" if trades.open == 1 else f"{count(trades.open)} were"
    open_ = f" Excluded: {were} still open at the end." if trades.open else ""
    return Section(
        "trades",
        "Trades",
        "A trade starts with the order that opens a position and ends with the one that closes or reverses it. "
        f"Profits are net of commissions.{open_}",
        trade_tiles(trades),
        (
            Part("Profits", (trade_table(trades),), charts=trade_charts(trades)),
            Part("List of trades", (trade_list(trades),)),
        ),
    )


def trade_tiles(trades: TradeEvaluation) -> tuple[Tile, ...]:
    """The headline."""
    row = trades.table.to_dict("index")["all"]
    return (
        Tile("Trades", count(row["trades"]), f"{count(trades.open)} still open"),
        Tile("Hit rate", percent(row["hit_rate"])),
        Tile("Profit factor", decimals_2(row["profit_factor"]), "profits / losses"),
        Tile("Mean return", percent_2(row["mean_return"]), "net, relative to the value at entry"),
        Tile("Bars held, mean", decimals(row["bars"], 1), f"median {general(row['median_bars'])}"),
    )


def trade_table(trades: TradeEvaluation) -> Table:
    """All, long and short."""
    columns = (
        text("side", "Side"),
        number("trades", "Trades", count),
        number("hit_rate", "Hit rate", percent),
        number("profit_factor", "Profit factor", decimals_2),
        number("profit", "Profit", general),
        number("bars", "Bars held", lambda value: decimals(value, 1)),
        number("mean_return", "Mean return", percent_2),
        number("mean_win", "Mean win", percent_2),
        number("mean_loss", "Mean loss", percent_2),
        number("best", "Best", percent_2),
        number("worst", "Worst", percent_2),
    )
    frame = trades.table[trades.table["trades"] > 0].rename_axis("side")
    return table("trade-figures", "Closed trades; profit in quote currency.", frame, columns)


def trade_charts(trades: TradeEvaluation) -> Charts:
    """Returns and lengths."""
    return collect_charts(
        chart("trade-returns", "Returns of trades", "Net, by date of exit.",
              figures.trades(trades.trades), NO_TRADE),
        chart("trade-bars", "Bars held", "Closed trades.", figures.lengths(trades.trades), NO_TRADE),
    )  # fmt: skip


def trade_list(trades: TradeEvaluation) -> Table:
    """The latest trades."""
    timed = is_timed(trades.trades["opened"]) or is_timed(trades.trades["closed"])
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
    latest = trades.trades.tail(LISTED)
    left = len(trades.trades) - len(latest)
    caption = (
        f"The latest {LISTED} of {count(len(trades.trades))}; trades.csv has all of them."
        if left
        else "All trades."
    )
    return table("trade-list", caption, latest, columns)
