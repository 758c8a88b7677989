"""A report in a terminal: the few figures that everybody looks at first."""

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

WIDTH = 100  # that the tables want; a pipe or a file is as wide as they are


def show_report(report: Report, written: Sequence[Path | str]) -> None:
    """Print the signal beside naive ones, the book beside its benchmarks, each warning, and what was written."""
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


def _signal(title: str, study: SignalEvaluation) -> Table:
    table = Table(title=f"{title}: signal against {len(study.table) - 1} naive ones", title_justify="left")
    table.caption, table.caption_justify = f"interval and t: {study.rank_ic.method}", "left"
    for column in ("", "IC", "RankIC", "95 %", "RankICIR", "t", "dates"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in study.table.iterrows():
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


def _time_series(title: str, study: TimeSeriesEvaluation) -> Table:
    table = Table(title=f"{title}: {study.score} over time", title_justify="left")
    for column in ("", "correlation", "95 %", "t", "sign right", "in the band", "CRPS skill", "dates"):
        table.add_column(column, justify="left" if not column else "right")
    for each in study.instruments:
        r = each.correlation
        table.add_row(
            escape(each.name),
            signed(r.mean),
            interval(r.low, r.high, signed),
            decimals_2(r.t),
            percent(each.hits.mean) if each.hits else DASH,
            percent(each.coverage.mean) if each.coverage else DASH,
            percent(each.crps_skill),
            count(r.dates),
        )
    return table


def _portfolio(study: PortfolioEvaluation) -> Table:
    table = Table(title="Portfolio", title_justify="left")
    for column in ("", "annual return", "Sharpe", "max drawdown"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in study.performance.iterrows():
        label = {"net": "strategy, net of costs", "gross": "strategy, gross"}.get(str(name), str(name))
        figures = (percent_2(row.annual_return), decimals_2(row.sharpe), percent_2(row.max_drawdown))
        table.add_row(escape(label), *figures)
    sure = study.sharpe
    table.caption_justify = "left"
    table.caption = (
        f"Sharpe, net: 95 % {interval(sure.low, sure.high, decimals_2)}; PSR {percent(sure.psr, 0)}, "
        f"DSR {percent(sure.dsr, 0)} ({sure.trials} trial{'s' * (sure.trials != 1)})"
    )
    return table
