"""Functions of the scripts on portfolio rules: read stored forecasts and prices, trade, compare, show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from kronos.postprocessing import PathOptions
from kronos.utils import write_atomic
from kronos_strategies.backtest.inputs import (
    BacktestInputs,
    BacktestSettings,
    StoredPaths,
    find_dates,
    find_postprocessing,
    find_scores,
    read_signals,
)
from kronos_strategies.backtest.prices import read_prices
from kronos_strategies.backtest_result import BacktestResult, bars_per_year
from kronos_strategies.evaluation.comparison.comparison import Comparison
from kronos_strategies.evaluation.comparison.portfolios import PortfolioVersion, summary_table
from kronos_strategies.portfolio import PortfolioRules, parse_fields, with_fields
from kronos_strategies.report.export import render
from kronos_strategies.report.report import Report
from kronos_strategies.store import ForecastSet


@dataclass(frozen=True)
class Forecasts:
    """Stored forecasts, ready to be traded by any rules.

    Attributes:
        inputs: signals, prices and sampled paths.
        settings: execution, costs and holding period, with the default rules.
        described: the forecasts in one line.
    """

    inputs: BacktestInputs
    settings: BacktestSettings
    described: str

    @property
    def signals(self) -> pd.DataFrame:
        """All signals, indexed (datetime, instrument)."""
        return self.inputs.signals

    @property
    def bars_per_year(self) -> int:
        """Bars per year of the prices."""
        return bars_per_year(self.inputs.prices.panel.calendar)

    def trade(self, rules: PortfolioRules, signals: pd.DataFrame | None = None) -> BacktestResult:
        """Backtest rules, on other signals of the same dates if given."""
        inputs = self.inputs if signals is None else replace(self.inputs, signals=signals)
        return inputs.run(replace(self.settings, rules=rules))


def read_forecasts(
    store: str,
    data: Path,
    hold: int,
    every: int,
    start: datetime | None = None,
    end: datetime | None = None,
    trading: str = "",
    calibration: str = "auto",
) -> Forecasts:
    """Read the signals of a store once, scored by a stored return head where it has one.

    Args:
        store: folder or URL of a store with one forecast set, or of one set.
        data: Qlib data directory, or a file or folder of bars.
        hold: bars that the score spans.
        every: bars between rebalances.
        start: first date; the first forecast when omitted.
        end: last date; the last forecast when omitted.
        trading: fields of TradingRules; those of the region otherwise.
        calibration: calibration of the paths.

    Raises:
        ValueError: fewer than two dates, or a setting does not fit.
    """
    forecast_set = ForecastSet.find(store)
    dates = find_dates(forecast_set, start, end)
    names = forecast_set.frame(dates[0], dates[-1]).index.get_level_values("instrument").unique()
    prices = read_prices(data, sorted(names))
    settings = BacktestSettings(
        PortfolioRules(), with_fields(prices.trading, parse_fields(trading)), hold, every
    )
    post = find_postprocessing(forecast_set, dates[0], PathOptions(calibration))
    head = find_scores(forecast_set, "auto", None, hold)
    signals = read_signals(forecast_set, dates, [settings.signals], post, {hold: head})[settings.signals]
    inputs = BacktestInputs.of(signals, prices, paths=StoredPaths(forecast_set, post))
    known = forecast_set.settings.provenance
    described = (
        f"{known.model} on {data.name}, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}: {len(dates):,} dates, "
        f"{len(signals):,} windows, {known.sampling.samples} paths; score: "
        f"{'sampled paths' if head is None else head.described}"
    )
    return Forecasts(inputs, settings, described)


def comparison_rows(
    comparison: Comparison, portfolios: Sequence[PortfolioVersion]
) -> dict[str, dict[str, str]]:
    """One row per portfolio, as text by column."""
    table = summary_table(comparison, portfolios)
    return {
        str(name): {
            "net a year": f"{own['annual_return']:.1%}",
            "net, difference": change(own, "net_return", "%"),
            "Sharpe": f"{own['sharpe']:.2f}",
            "Sharpe, difference": change(own, "sharpe", ""),
            "volatility": f"{own['volatility']:.1%}",
            "max drawdown": f"{own['max_drawdown']:.1%}",
            "traded a year": f"{own['turnover']:.1f}",
            "positions": f"{own['positions']:.0f}",
            "variation": f"{own['volatility_variation']:.1%}",
            "variation, difference": change(own, "volatility_variation", "%"),
        }
        | _deviation(own)
        for name, own in table.to_dict("index").items()
    }


def _deviation(row: Mapping[str, float]) -> dict[str, str]:
    """Columns of the deviation from the target, where there is one."""
    if "volatility_deviation" not in row:
        return {}
    return {
        "deviation": f"{row['volatility_deviation']:.1%}",
        "deviation, difference": change(row, "volatility_deviation", "%"),
    }


def change(row: Mapping[str, float], metric: str, unit: str) -> str:
    """Difference from the reference ± half of its 95 % interval; bold where it excludes zero."""
    mean, half = row[f"{metric}_difference"], row[f"{metric}_interval"]
    if mean != mean:
        return "reference"
    scale, places = (100, 1) if unit else (1, 2)
    text = f"{scale * mean:+.{places}f} ± {scale * half:.{places}f}{f' {unit}' if unit else ''}"
    return f"**{text}**" if abs(mean) > half else text


def show_table(rows: Mapping[str, Mapping[str, str]], title: str) -> None:
    """Print a table, whose first column is the name of the row."""
    columns = list(next(iter(rows.values())))
    console = Console(width=max(Console().width, 200))  # for a file or pipe, as wide as the tables
    view = Table(title, *columns, title_justify="left")
    for name, row in rows.items():
        view.add_row(name, *(row[column].replace("**", "") for column in columns))
    console.print(view)


def markdown(rows: Mapping[str, Mapping[str, str]], title: str) -> str:
    """A GitHub table, whose first column is the name of the row."""
    columns = list(next(iter(rows.values())))
    lines = [[title, *columns], ["---"] * (len(columns) + 1)]
    lines += [[name, *(row[column] for column in columns)] for name, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_results(
    comparison: Comparison, portfolios: Sequence[PortfolioVersion], title: str, folder: Path, name: str
) -> list[Path]:
    """Print the table of a comparison; write its page, its metrics as JSON, and the table in GitHub's format."""
    rows = comparison_rows(comparison, portfolios)
    show_table(rows, f"{title}; differences from {comparison.reference}")
    report = Report(title, comparison.sample_counts, {}, comparison.warnings, versions=comparison)
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_atomic(folder / f"{name}.html", render(report)),
        write_atomic(folder / f"{name}.json", json.dumps(comparison.as_dict(), indent=2) + "\n"),
        write_atomic(folder / f"{name}.md", markdown(rows, "") + "\n"),
    ]
