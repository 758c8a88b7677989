"""Report: the figures of one run, written as metrics.json, CSVs and a self-contained report.html."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import pandas as pd

from kronos_strategies.report.page import render
from kronos_strategies.result import BacktestResult


@dataclass(frozen=True)
class Report:
    """Everything a report shows; computed elsewhere, once.

    Attributes:
        title: of the run.
        metrics: flat, by name, as written to metrics.json; NaN becomes null.
        coefficients: by datetime, columns ic and rank_ic; NaN where undefined.
        comparison: the score, then its naive baselines, by name; columns ic, rank_ic, rank_icir, rank_ic_t, dates.
        result: of the backtest.
        ledger: rows by reason, from the members' rows to those scored.
        provenance: what made the forecast, by label, ready to print.
        warnings: sentences that a reader must see.
    """

    title: str
    metrics: Mapping[str, float]
    coefficients: pd.DataFrame
    comparison: pd.DataFrame
    result: BacktestResult
    ledger: Mapping[str, int]
    provenance: Mapping[str, str]
    warnings: Sequence[str]

    def save(self, folder: Path) -> list[Path]:
        """Write report.html, metrics.json and the CSVs into `folder`; returns their paths, the page first.

        Equal reports write equal bytes. A file is replaced as a whole, so that a reader never meets half of one.
        """
        files = {
            "report.html": render(self),
            "metrics.json": _json(self.metrics),
            "coefficients.csv": _csv(self.coefficients, "datetime"),
            "returns.csv": _csv(_bars(self.result), "datetime"),
            "comparison.csv": _csv(self.comparison, "signal"),
        }
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / name, text) for name, text in files.items()]


def _json(metrics: Mapping[str, float]) -> str:
    """Strict JSON, which knows neither NaN nor infinity."""
    plain: dict[str, int | float | None] = {}
    for name, value in metrics.items():
        number = int(value) if isinstance(value, Integral) else float(value)
        plain[name] = number if math.isfinite(number) else None
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _bars(result: BacktestResult) -> pd.DataFrame:
    """Everything per bar: gross, net, the benchmarks, turnover, cost, positions."""
    return pd.concat(
        [
            result.returns[["gross", "net"]],
            result.benchmarks,
            result.turnover.rename("turnover"),
            result.cost.rename("cost"),
            result.positions.rename("positions"),
        ],
        axis=1,
    )


def _csv(frame: pd.DataFrame, index: str) -> str:
    return frame.to_csv(index_label=index, lineterminator="\n")


def _write(path: Path, text: str) -> Path:
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8", newline="\n")
    os.replace(draft, path)
    return path
