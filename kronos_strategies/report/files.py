"""What a report leaves beside its page: strict JSON and CSVs, each replaced as a whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kronos.atomic import write_atomic
from kronos_strategies.evaluation.distribution.study import DistributionStudy
from kronos_strategies.evaluation.portfolio.study import PortfolioStudy
from kronos_strategies.evaluation.scorecard.card import series_by_date
from kronos_strategies.evaluation.signal.study import SignalStudy
from kronos_strategies.evaluation.timeseries import TimeSeriesStudy
from kronos_strategies.evaluation.versions.comparison import Comparison

if TYPE_CHECKING:
    from kronos_strategies.report.report import Report


def csvs(report: Report) -> dict[str, str]:
    """File name -> text, of every study that there is."""
    found: dict[str, str] = {}
    if report.signal is not None:
        found |= of_signal(report.signal)
    if report.distribution is not None:
        found |= of_distribution(report.distribution)
    if report.portfolio is not None:
        found |= of_portfolio(report.portfolio)
    if report.time_series is not None:
        found |= of_time_series(report.time_series)
    if report.trades is not None:
        found["trades.csv"] = _flat(report.trades.trades)
    if report.versions is not None:
        found |= of_versions(report.versions)
    return found


def of_signal(study: SignalStudy) -> dict[str, str]:
    """Coefficients by date and score, and every table."""
    coefficients = pd.concat(study.by_date, names=["score", "datetime"])
    quantiles = study.quantiles
    steady = pd.DataFrame({"top_turnover": study.turnover, "rank_autocorrelation": study.autocorrelation})
    return {
        "coefficients.csv": _indexed(coefficients, "score", "datetime"),
        "comparison.csv": _indexed(study.table, "score"),
        "decay.csv": _flat(study.decay),
        "lags.csv": _indexed(study.lags, "lag"),
        "by_year.csv": _indexed(study.by_year, "year"),
        "by_group.csv": _flat(study.by_group),
        "neutral.csv": _indexed(study.neutral, "exposure"),
        "quantiles.csv": _indexed(quantiles.means, "bucket"),
        "quantiles_by_date.csv": _indexed(
            quantiles.by_date.assign(spread=quantiles.spread_by_date), "datetime"
        ),
        "steadiness.csv": _indexed(steady, "datetime"),
    }


def of_distribution(study: DistributionStudy) -> dict[str, str]:
    """Scores by date, and every table."""
    return {
        "paths_by_date.csv": _flat(series_by_date((*study.distributions, *study.volatilities))),
        "pit.csv": _flat(study.pit),
        "volatility_bins.csv": _flat(study.volatility_bins),
        "samples.csv": _indexed(study.by_samples, "samples"),
        "fans.csv": _flat(study.fans),
    }


def of_portfolio(study: PortfolioStudy) -> dict[str, str]:
    """Everything per bar, what is held, and every table."""
    result = study.result
    bars = pd.concat(
        [
            result.returns[["gross", "net"]],
            result.benchmarks.reindex(result.returns.index),
            result.turnover.rename("turnover"),
            result.cost.rename("cost"),
        ],
        axis=1,
    )
    parity = pd.DataFrame({"value": study.parity, "from_first_purchase": study.parity_invested}, dtype=float)
    return {
        "returns.csv": _indexed(bars, "datetime"),
        "weights.csv": _flat(result.weights.rename("weight").reset_index()),
        "books.csv": _indexed(study.books, "book"),
        "active.csv": _indexed(study.active, "benchmark"),
        "drawdowns.csv": _flat(study.drawdowns),
        "months.csv": _indexed(study.months, "year"),
        "costs.csv": _indexed(study.costs, "basis_points"),
        "exposure.csv": _indexed(study.exposure, "datetime"),
        "tilts.csv": _indexed(study.tilts, "datetime"),
        "qlib_parity.csv": _indexed(parity, "figure"),
    }


def of_time_series(study: TimeSeriesStudy) -> dict[str, str]:
    """Scores and outcomes, and bands and outcomes, of each instrument."""
    pairs = pd.concat({each.name: each.pairs for each in study.instruments}, names=["instrument", "datetime"])
    bands = pd.concat({each.name: each.bands for each in study.instruments}, names=["instrument", "datetime"])
    return {
        "scores_over_time.csv": _indexed(pairs, "instrument", "datetime"),
        "bands_over_time.csv": _indexed(bands, "instrument", "datetime"),
    }


def of_versions(comparison: Comparison) -> dict[str, str]:
    """Figures by date, and every table."""
    by_date = pd.concat(comparison.by_date, names=["metric", "datetime"])
    return {
        "versions.csv": _flat(comparison.table),
        "versions_by_date.csv": _indexed(by_date, "metric", "datetime"),
        "versions_by_year.csv": _flat(comparison.by_year),
        "versions_decay.csv": _flat(comparison.decay),
        "versions_references.csv": _flat(comparison.references),
    }


def strict_json(metrics: Mapping[str, float]) -> str:
    """JSON as the standard has it, which knows neither NaN nor infinity."""
    plain: dict[str, int | float | None] = {}
    for name, value in metrics.items():
        number = int(value) if isinstance(value, Integral) else float(value)
        plain[name] = number if math.isfinite(number) else None
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write(path: Path, text: str) -> Path:
    """Replace the file as a whole, so that a reader never meets half of one."""
    return write_atomic(path, text)


def _indexed(frame: pd.DataFrame, *index: str) -> str:
    return frame.to_csv(index_label=list(index), lineterminator="\n")


def _flat(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")
