"""The page: a report as one HTML file that needs nothing else, neither network nor neighbours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from kronos.extras import MissingExtra
from kronos_strategies.evaluation.portfolio.returns import annual_return, max_drawdown, sharpe
from kronos_strategies.report import figures
from kronos_strategies.report.formats import DASH, count, decimals, general, percent
from kronos_strategies.report.verdict import judge
from kronos_strategies.result import BacktestResult

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
except ImportError as error:
    raise MissingExtra("Reports are written with Jinja: pip install 'kronos-strategies[report]'") from error

if TYPE_CHECKING:
    from kronos_strategies.report.report import Report

Show = Callable[[float], str]


class Metric(NamedTuple):
    """How a reader sees one key of metrics.json."""

    label: str
    show: Show


class Chart(NamedTuple):
    """A figure on the page, its data as JSON that is safe inside a script element."""

    id: str
    heading: str
    note: str
    json: Markup
    wide: bool


class Cell(NamedTuple):
    """Of a sortable table: what is shown, and the number or text that it is sorted by."""

    text: str
    key: float | str


def _two(value: float) -> str:
    return decimals(value, 2)


METRICS = {
    "rank_ic": Metric("RankIC, mean", decimals),
    "rank_icir": Metric("RankICIR", decimals),
    "rank_ic_t": Metric("RankIC t", _two),
    "ic": Metric("IC, mean", decimals),
    "icir": Metric("ICIR", decimals),
    "ic_t": Metric("IC t", _two),
    "dates": Metric("Dates with a coefficient", count),
    "undefined_dates": Metric("Dates without", count),
    "annual_return": Metric("Return a year, net", percent),
    "sharpe": Metric("Sharpe, net", _two),
    "max_drawdown": Metric("Max drawdown, net", percent),
    "gross_annual_return": Metric("Return a year, gross", percent),
    "annual_cost": Metric("Costs a year", percent),
    "turnover": Metric("Turnover a bar", percent),
    "benchmark_annual_return": Metric("Return a year, benchmark", percent),
    "benchmark_sharpe": Metric("Sharpe, benchmark", _two),
    "benchmark_max_drawdown": Metric("Max drawdown, benchmark", percent),
    "equal_weight_annual_return": Metric("Return a year, equal weight", percent),
    "equal_weight_sharpe": Metric("Sharpe, equal weight", _two),
    "equal_weight_max_drawdown": Metric("Max drawdown, equal weight", percent),
}
TILES = {
    "Signal": ("rank_ic", "rank_icir", "rank_ic_t", "ic", "icir", "ic_t"),
    "Portfolio": (
        "annual_return",
        "sharpe",
        "max_drawdown",
        "gross_annual_return",
        "annual_cost",
        "turnover",
    ),
}
COLUMNS = {
    "ic": Metric("IC", decimals),
    "rank_ic": Metric("RankIC", decimals),
    "rank_icir": Metric("RankICIR", decimals),
    "rank_ic_t": Metric("t", _two),
    "dates": Metric("Dates", count),
}


def render(report: Report) -> str:
    """The whole page as text. Equal reports give equal pages."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("template.html.j2").render(
        title=report.title,
        span=_span(report),
        verdict=judge(report.metrics, report.comparison),
        warnings=list(report.warnings),
        tiles={group: list(_known(report.metrics, keys)) for group, keys in TILES.items()},
        columns=[_column(name).label for name in report.comparison.columns],
        comparison=_comparison(report.comparison),
        signal_charts=_signal_charts(report.coefficients),
        books=_books(report.result),
        bars_per_year=report.result.bars_per_year,
        portfolio_charts=_portfolio_charts(report.result),
        ledger=_ledger(report.ledger),
        provenance=dict(report.provenance),
        metrics=list(_all(report.metrics)),
        plotly_js=Markup(figures.plotly_js()),
        plotly_config=Markup(json.dumps(figures.CONFIG, sort_keys=True)),
    )


def _span(report: Report) -> str:
    """From when to when, and how many bars."""
    bars = report.result.returns.index.union(report.coefficients.index)
    if bars.empty:
        return "no bars"
    return f"{bars[0]:%Y-%m-%d} to {bars[-1]:%Y-%m-%d}, {count(len(bars))} bars"


def _known(metrics: Mapping[str, float], keys: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Label and value of those keys that there are."""
    for key in keys:
        if key in metrics:
            yield METRICS[key].label, METRICS[key].show(metrics[key])


def _all(metrics: Mapping[str, float]) -> Iterator[tuple[str, str, str]]:
    """Key, label and value of every metric; one that we do not know has its key for a label."""
    for key, value in metrics.items():
        label, show = METRICS.get(key, Metric("", general))
        yield key, label, show(value)


def _column(name: object) -> Metric:
    return COLUMNS.get(str(name), Metric(str(name), general))


def _comparison(comparison: pd.DataFrame) -> list[list[Cell]]:
    """A row for each signal, its name first."""
    shows = [_column(name).show for name in comparison.columns]
    rows = []
    for name, values in zip(comparison.index, comparison.to_numpy(dtype=float), strict=True):
        cells = [Cell(show(value), value) for show, value in zip(shows, values, strict=True)]
        rows.append([Cell(str(name), str(name)), *cells])
    return rows


def _books(result: BacktestResult) -> list[tuple[str, str, str, str]]:
    """Name, annual return, Sharpe and max drawdown of the book, net and gross, and of each benchmark."""
    streams = {"Net of costs": result.returns["net"], "Gross": result.returns["gross"]}
    streams |= {str(name): returns for name, returns in result.benchmarks.items()}
    year = result.bars_per_year
    return [
        (name, percent(annual_return(r, year)), decimals(sharpe(r, year), 2), percent(max_drawdown(r)))
        for name, r in streams.items()
    ]


def _ledger(ledger: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Reason, rows, and their share of the first reason's."""
    first = next(iter(ledger.values()), 0)
    return [
        (reason, count(rows), percent(rows / first) if first else DASH) for reason, rows in ledger.items()
    ]


def _signal_charts(coefficients: pd.DataFrame) -> list[Chart]:
    cumulative, monthly = figures.cumulative_ic(coefficients), figures.monthly_rank_ic(coefficients)
    return [
        _chart("Cumulative RankIC and IC", "A steady slope is a steady signal.", cumulative),
        _chart("RankIC by month", "Mean over the dates of each month.", monthly),
    ]


def _portfolio_charts(result: BacktestResult) -> list[Chart]:
    turnover, cost = figures.turnover(result), figures.cost(result)
    return [
        _chart("Wealth", "Compounded from 1.", figures.wealth(result), wide=True),
        _chart("Drawdown", "Wealth below its highest so far.", figures.drawdown(result), wide=True),
        _chart("Turnover", "Bought and sold, a bar; mean over the bars of each month.", turnover),
        _chart("Costs", "As a share of the book, summed over bars.", cost),
    ]


def _chart(heading: str, note: str, figure: figures.go.Figure, wide: bool = False) -> Chart:
    # plotly writes "<" as "\u003c", so that no name can end the script element around it.
    return Chart(heading.lower().replace(" ", "-"), heading, note, Markup(figure.to_json()), wide)
