"""A report as files and in a terminal: report.html, metrics.json, CSVs, and the headline metrics."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table as RichTable

from kronos.utils import MissingExtra, csv_text, explain_write_errors, write_atomic
from kronos_strategies.evaluation.comparison.comparison import Comparison
from kronos_strategies.evaluation.distribution.evaluation import DistributionEvaluation
from kronos_strategies.evaluation.distribution.scores import series_by_date
from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation
from kronos_strategies.evaluation.signal.evaluation import SignalEvaluation
from kronos_strategies.evaluation.time_series import TimeSeriesEvaluation
from kronos_strategies.report.figures.base import CONFIG, plotly_js
from kronos_strategies.report.formatting import (
    DASH,
    count,
    decimals,
    decimals_2,
    describe_metrics,
    interval,
    is_timed,
    percent,
    percent_2,
    signed,
    span,
)
from kronos_strategies.report.layout import TEMPLATES, Section, Table, template_environment
from kronos_strategies.report.report import Report
from kronos_strategies.report.sections.comparison import sample_table, versions_section
from kronos_strategies.report.sections.distribution import distribution_section
from kronos_strategies.report.sections.portfolio import portfolio_section, trades_section
from kronos_strategies.report.sections.signal import signal_section
from kronos_strategies.report.sections.time_series import time_series_section
from kronos_strategies.report.summary import report_warnings, summarize

try:
    from markupsafe import Markup, escape
except ImportError as error:
    raise MissingExtra("Reports need Jinja: pip install 'kronos-strategies[report]'") from error


def save_report(report: Report, folder: Path) -> list[Path]:
    """Write report.html, metrics.json and the CSV files into `folder`.

    Equal reports write equal bytes. Each file is replaced as a whole, so that a reader never sees half of one.

    Returns:
        The paths of the files, the page first.
    """
    files = {"report.html": render(report), "metrics.json": to_json(report.metrics), **to_csv_files(report)}
    with explain_write_errors(folder, "Choose another folder for the report."):
        folder.mkdir(parents=True, exist_ok=True)
        return [write_atomic(folder / name, text) for name, text in files.items()]


def render(report: Report) -> str:
    """The page as HTML text, a single file without external resources. Equal reports give equal pages."""
    environment = template_environment()
    environment.filters["with_code"] = _with_code
    sections = list(_sections(report))
    return environment.get_template("page.html.j2").render(
        title=report.title,
        span=_span(report),
        verdict=summarize(report),
        warnings=report_warnings(report),
        sections=sections,
        has=[section.id for section in sections],
        sample_counts=_sample_counts(report),
        provenance=dict(report.provenance),
        metrics=describe_metrics(report.metrics),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup((TEMPLATES / name).read_text(encoding="utf-8")) for name in ("page.js", "sort.js")],
        plotly_js=Markup(plotly_js()),
        plotly_config=Markup(json.dumps(CONFIG, sort_keys=True)),
    )


def _with_code(text: str) -> Markup:
    """Sentences that terminals show as well, with what they quote by backticks set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _sections(report: Report) -> Iterator[Section]:
    """Sections of the evaluations that the report has, in the order of the page."""
    if report.signal is not None and report.is_cross_sectional:
        yield signal_section(report.signal)
    if report.time_series is not None:
        yield time_series_section(report.time_series)
    if report.distribution is not None:
        yield distribution_section(report.distribution)
    if report.portfolio is not None:
        yield portfolio_section(report.portfolio)
    if report.trades is not None and len(report.trades.trades):
        yield trades_section(report.trades)
    if report.versions is not None:
        yield versions_section(report.versions)


def _sample_counts(report: Report) -> Table | None:
    """Sample counts of the report; those of a comparison are in its own section and not repeated."""
    own = report.versions.sample_counts if report.versions is not None else None
    return (
        sample_table("sample-counts", report.sample_counts)
        if report.sample_counts and report.sample_counts != own
        else None
    )


def _span(report: Report) -> str:
    """First and last date, and the number of dates."""
    indices: list[pd.Index] = []
    if report.signal is not None:
        indices.append(report.signal.by_date[report.signal.name].index)
    if report.portfolio is not None:
        indices.append(report.portfolio.result.returns.index)
    if report.versions is not None:
        indices += [frame.index for frame in report.versions.by_date.values()]
    if report.distribution is not None and not indices:
        indices.append(report.distribution.dates)
    dates = pd.DatetimeIndex(sorted({date for index in indices for date in index}))
    if dates.empty:
        return "no dates"
    return f"{span(dates)}, {count(len(dates))} {'bars' if is_timed(dates) else 'dates'}"


def to_csv_files(report: Report) -> dict[str, str]:
    """File name -> text, for every evaluation that the report has."""
    found: dict[str, str] = {}
    if report.signal is not None:
        found |= signal_csv_files(report.signal)
    if report.distribution is not None:
        found |= distribution_csv_files(report.distribution)
    if report.portfolio is not None:
        found |= portfolio_csv_files(report.portfolio)
    if report.time_series is not None:
        found |= time_series_csv_files(report.time_series)
    if report.trades is not None:
        found["trades.csv"] = csv_text(report.trades.trades)
    if report.versions is not None:
        found |= versions_csv_files(report.versions)
    return found


def signal_csv_files(evaluation: SignalEvaluation) -> dict[str, str]:
    """Coefficients by date and score, and every table."""
    coefficients = pd.concat(evaluation.by_date, names=["score", "datetime"])
    quantiles = evaluation.quantiles
    turnover = pd.DataFrame(
        {"top_turnover": evaluation.turnover, "rank_autocorrelation": evaluation.autocorrelation}
    )
    return {
        "coefficients.csv": csv_text(coefficients, "score", "datetime"),
        "baselines.csv": csv_text(evaluation.table, "score"),
        "rank_ic_decay.csv": csv_text(evaluation.decay),
        "rank_ic_by_lag.csv": csv_text(evaluation.lags, "lag"),
        "rank_ic_by_year.csv": csv_text(evaluation.by_year, "year"),
        "rank_ic_by_group.csv": csv_text(evaluation.by_group),
        "neutralized_rank_ic.csv": csv_text(evaluation.neutral, "exposure"),
        "quantiles.csv": csv_text(quantiles.means, "quantile"),
        "quantiles_by_date.csv": csv_text(
            quantiles.by_date.assign(top_minus_bottom=quantiles.top_minus_bottom_by_date), "datetime"
        ),
        "turnover.csv": csv_text(turnover, "datetime"),
    }


def distribution_csv_files(evaluation: DistributionEvaluation) -> dict[str, str]:
    """Scores by date, and every table."""
    return {
        "distribution_by_date.csv": csv_text(
            series_by_date((*evaluation.distributions, *evaluation.volatilities))
        ),
        "pit.csv": csv_text(evaluation.pit),
        "volatility_bins.csv": csv_text(evaluation.volatility_bins),
        "rank_ic_by_num_paths.csv": csv_text(evaluation.rank_ic_by_num_paths, "samples"),
        "fan_charts.csv": csv_text(evaluation.fan_charts),
    }


def portfolio_csv_files(evaluation: PortfolioEvaluation) -> dict[str, str]:
    """Returns, turnover and costs by bar, weights, and every table."""
    result = evaluation.result
    bars = pd.concat(
        [
            result.returns[["gross", "net"]],
            result.benchmarks.reindex(result.returns.index),
            result.turnover.rename("turnover"),
            result.cost.rename("cost"),
        ],
        axis=1,
    )
    qlib = pd.DataFrame(
        {"value": evaluation.qlib_metrics, "from_first_purchase": evaluation.qlib_metrics_invested},
        dtype=float,
    )
    return {
        "returns.csv": csv_text(bars, "datetime"),
        "weights.csv": csv_text(result.weights.rename("weight").reset_index()),
        "performance.csv": csv_text(evaluation.performance, "series"),
        "active.csv": csv_text(evaluation.active, "benchmark"),
        "drawdowns.csv": csv_text(evaluation.drawdowns),
        "months.csv": csv_text(evaluation.months, "year"),
        "costs.csv": csv_text(evaluation.costs, "basis_points"),
        "exposure.csv": csv_text(evaluation.exposure, "datetime"),
        "tilts.csv": csv_text(evaluation.tilts, "datetime"),
        "qlib_metrics.csv": csv_text(qlib, "metric"),
    }


def time_series_csv_files(evaluation: TimeSeriesEvaluation) -> dict[str, str]:
    """Scores and outcomes, and bands and outcomes, of each instrument."""
    pairs = pd.concat(
        {each.name: each.pairs for each in evaluation.instruments}, names=["instrument", "datetime"]
    )
    bands = pd.concat(
        {each.name: each.bands for each in evaluation.instruments}, names=["instrument", "datetime"]
    )
    return {
        "scores_over_time.csv": csv_text(pairs, "instrument", "datetime"),
        "bands_over_time.csv": csv_text(bands, "instrument", "datetime"),
    }


def versions_csv_files(comparison: Comparison) -> dict[str, str]:
    """Metrics by date, and every table."""
    by_date = pd.concat(comparison.by_date, names=["metric", "datetime"])
    return {
        "versions.csv": csv_text(comparison.table),
        "versions_by_date.csv": csv_text(by_date, "metric", "datetime"),
        "versions_by_year.csv": csv_text(comparison.by_year),
        "versions_decay.csv": csv_text(comparison.decay),
        "versions_baselines.csv": csv_text(comparison.baselines),
    }


def to_json(metrics: Mapping[str, float]) -> str:
    """Standard JSON, in which NaN and infinity are null."""
    plain: dict[str, int | float | None] = {}
    for name, value in metrics.items():
        number = int(value) if isinstance(value, Integral) else float(value)
        plain[name] = number if math.isfinite(number) else None
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


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
        console.print(f"[yellow]Warning:[/] {escape_markup(warning)}", soft_wrap=True)
    for path in written:
        console.print(escape_markup(str(path)), soft_wrap=True, highlight=False)


def _signal(title: str, evaluation: SignalEvaluation) -> RichTable:
    table = RichTable(
        title=f"{title}: signal and {len(evaluation.table) - 1} baselines", title_justify="left"
    )
    table.caption, table.caption_justify = f"interval and t by {evaluation.rank_ic.method}", "left"
    for column in ("", "IC", "RankIC", "95 %", "RankICIR", "t", "dates"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in evaluation.table.iterrows():
        table.add_row(
            escape_markup(str(name)),
            signed(row.ic),
            signed(row.rank_ic),
            interval(row.rank_ic_low, row.rank_ic_high, signed),
            decimals(row.rank_icir),
            decimals_2(row.rank_ic_t),
            count(row.dates),
        )
    return table


def _time_series(title: str, evaluation: TimeSeriesEvaluation) -> RichTable:
    table = RichTable(title=f"{title}: {evaluation.score} over time", title_justify="left")
    for column in ("", "correlation", "95 %", "t", "hit rate", "coverage", "CRPS skill", "dates"):
        table.add_column(column, justify="left" if not column else "right")
    for each in evaluation.instruments:
        r = each.correlation
        table.add_row(
            escape_markup(each.name),
            signed(r.mean),
            interval(r.low, r.high, signed),
            decimals_2(r.t),
            percent(each.hit_rate.mean) if each.hit_rate else DASH,
            percent(each.coverage.mean) if each.coverage else DASH,
            percent(each.crps_skill),
            count(r.dates),
        )
    return table


def _portfolio(evaluation: PortfolioEvaluation) -> RichTable:
    table = RichTable(title="Portfolio", title_justify="left")
    for column in ("", "annual return", "Sharpe", "max drawdown"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in evaluation.performance.iterrows():
        label = {"net": "strategy, net of costs", "gross": "strategy, gross"}.get(str(name), str(name))
        figures = (percent_2(row.annual_return), decimals_2(row.sharpe), percent_2(row.max_drawdown))
        table.add_row(escape_markup(label), *figures)
    sharpe = evaluation.sharpe
    table.caption_justify = "left"
    table.caption = (
        f"Sharpe, net: 95 % {interval(sharpe.low, sharpe.high, decimals_2)}; PSR {percent(sharpe.psr, 0)}, "
        f"DSR {percent(sharpe.dsr, 0)} ({sharpe.trials} trial{'s' * (sharpe.trials != 1)})"
    )
    return table
