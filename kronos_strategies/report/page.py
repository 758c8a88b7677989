"""The page: a report as one HTML file that needs nothing else, neither network nor neighbours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kronos.utils import MissingExtra
from kronos_strategies.report.cautions import cautions
from kronos_strategies.report.figures.base import CONFIG, plotly_js
from kronos_strategies.report.formats import count, is_timed, span
from kronos_strategies.report.metrics import described
from kronos_strategies.report.sections.distribution import distribution_section
from kronos_strategies.report.sections.portfolio import portfolio_section
from kronos_strategies.report.sections.sample import ledger
from kronos_strategies.report.sections.signal import signal_section
from kronos_strategies.report.sections.timeseries import time_series_section
from kronos_strategies.report.sections.trades import trades_section
from kronos_strategies.report.sections.versions import versions_section
from kronos_strategies.report.tables import Table
from kronos_strategies.report.verdict import judge
from kronos_strategies.report.view import Section

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
except ImportError as error:
    raise MissingExtra("Reports are written with Jinja: pip install 'kronos-strategies[report]'") from error

if TYPE_CHECKING:
    from kronos_strategies.report.report import Report

TEMPLATES = Path(__file__).parent / "templates"


def render(report: Report) -> str:
    """The whole page as text. Equal reports give equal pages."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    sections = list(_sections(report))
    return environment.get_template("page.html.j2").render(
        title=report.title,
        span=_span(report),
        verdict=judge(report),
        warnings=cautions(report),
        sections=sections,
        has=[section.id for section in sections],
        ledger=_ledger(report),
        provenance=dict(report.provenance),
        metrics=described(report.metrics),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
        plotly_js=Markup(plotly_js()),
        plotly_config=Markup(json.dumps(CONFIG, sort_keys=True)),
    )


def _sections(report: Report) -> Iterator[Section]:
    """Of the studies that there are, in the order of the page."""
    if report.signal is not None and report.ranks:
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


def _ledger(report: Report) -> Table | None:
    """Of the whole report; a comparison shows its own, which is not repeated."""
    own = report.versions.ledger if report.versions is not None else None
    return ledger("ledger", report.ledger) if report.ledger and report.ledger != own else None


def _span(report: Report) -> str:
    """From when to when, and how many dates."""
    indices: list[pd.Index] = []
    if report.signal is not None:
        indices.append(report.signal.by_date[report.signal.own].index)
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
