"""The headline metrics of a report in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation
from kronos_strategies.evaluation.signal.evaluation import SignalEvaluation
from kronos_strategies.evaluation.time_series import TimeSeriesEvaluation
from kronos_strategies.report.formatting import (
    DASH,
    count,
    decimals,
    decimals_2,
    interval,
    percent,
    percent_2,
    signed,
)
from kronos_strategies.report.report import Report
from kronos_strategies.report.summary import report_warnings

WIDTH = 100  # at least, so that tables are complete in a pipe or a file


def show_report(report: Report, written: Sequence[Path | str]) -> None:
    """Print the score with its baselines, the portfolio with its benchmarks, warnings, and the written files."""
    console = Console(width=max(WIDTH, Console().width))
    if report.signal is not None and report.is_cross_sectional:
        console.print(_signal(report.title, report.signal))
    if report.time_series is not None:
        console.print(_time_series(report.title, report.time_series))
    if report.portfolio is not None:
        console.print(_portfolio(report.portfolio))
    for warning in report_warnings(report):
        console.print(f"[yellow]Warning:[/] {escape(warning)}", soft_wrap=True)
    for path in written:
        console.print(escape(str(path)), soft_wrap=True, highlight=False)


def _signal(title: str, evaluation: SignalEvaluation) -> Table:
    table = Table(title=f"{title}: signal and {len(evaluation.table) - 1} baselines", title_justify="left")
    table.caption, table.caption_justify = f"interval and t by {evaluation.rank_ic.method}", "left"
    for column in ("", "IC", "RankIC", "95 %", "RankICIR", "t", "dates"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in evaluation.table.iterrows():
        table.add_row(
            escape(str(name)),
            signed(row.ic),
            signed(row.rank_ic),
            interval(row.rank_ic_low, row.rank_ic_high, signed),
            decimals(row.rank_icir),
            decimals_2(row.rank_ic_t),
            count(row.dates),
        )
    return table


def _time_series(title: str, evaluation: TimeSeriesEvaluation) -> Table:
    table = Table(title=f"{title}: {evaluation.score} over time", title_justify="left")
    for column in ("", "correlation", "95 %", "t", "hit rate", "coverage", "CRPS skill", "dates"):
        table.add_column(column, justify="left" if not column else "right")
    for each in evaluation.instruments:
        r = each.correlation
        table.add_row(
            escape(each.name),
            signed(r.mean),
            interval(r.low, r.high, signed),
            decimals_2(r.t),
            percent(each.hit_rate.mean) if each.hit_rate else DASH,
            percent(each.coverage.mean) if each.coverage else DASH,
            percent(each.crps_skill),
            count(r.dates),
        )
    return table


def _portfolio(evaluation: PortfolioEvaluation) -> Table:
    table = Table(title="Portfolio", title_justify="left")
    for column in ("", "annual return", "Sharpe", "max drawdown"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in evaluation.performance.iterrows():
        label = {"net": "strategy, net of costs", "gross": "strategy, gross"}.get(str(name), str(name))
        figures = (percent_2(row.annual_return), decimals_2(row.sharpe), percent_2(row.max_drawdown))
        table.add_row(escape(label), *figures)
    sharpe = evaluation.sharpe
    table.caption_justify = "left"
    table.caption = (
        f"Sharpe, net: 95 % {interval(sharpe.low, sharpe.high, decimals_2)}; PSR {percent(sharpe.psr, 0)}, "
        f"DSR {percent(sharpe.dsr, 0)} ({sharpe.trials} trial{'s' * (sharpe.trials != 1)})"
    )
    return table
