"""Report: everything that is known of a run, in one frozen object; page, metrics and CSVs are written from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kronos.atomic import explain_write_errors
from kronos_strategies.evaluation.distribution.study import DistributionStudy
from kronos_strategies.evaluation.portfolio.study import PortfolioStudy
from kronos_strategies.evaluation.portfolio.trades import TradeStudy
from kronos_strategies.evaluation.signal.study import SignalStudy
from kronos_strategies.evaluation.timeseries import TimeSeriesStudy
from kronos_strategies.evaluation.versions.comparison import Comparison
from kronos_strategies.report.files import csvs, strict_json, write
from kronos_strategies.report.page import render


@dataclass(frozen=True)
class Report:
    """Of one run, or of versions only; a part that is None has no section.

    Attributes:
        title: of the page.
        signal: of the score.
        distribution: of the sampled paths.
        portfolio: of the book.
        versions: of this run beside others.
        time_series: of the score over time, instrument by instrument; of few instruments only.
        trades: of the book.
        ledger: rows by reason, from the members' rows to those compared.
        provenance: what made the forecast, by label, ready to print.
        warnings: sentences that a reader must see.
    """

    title: str
    ledger: Mapping[str, int]
    provenance: Mapping[str, str]
    warnings: Sequence[str]
    signal: SignalStudy | None = None
    distribution: DistributionStudy | None = None
    portfolio: PortfolioStudy | None = None
    versions: Comparison | None = None
    time_series: TimeSeriesStudy | None = None
    trades: TradeStudy | None = None

    @property
    def ranks(self) -> bool:
        """Whether the score is judged across instruments, not over time."""
        return self.signal is not None and (
            self.time_series is None or bool(np.isfinite(self.signal.rank_ic.mean))
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Flat figures of all parts, by their names in metrics.json."""
        parts = (self.signal, self.time_series, self.distribution, self.portfolio, self.trades)
        return {name: value for part in parts if part is not None for name, value in part.metrics().items()}

    def save(self, folder: Path) -> list[Path]:
        """Write report.html, metrics.json and the CSVs into `folder`; returns their paths, the page first.

        Equal reports write equal bytes. A file is replaced as a whole, so that a reader never meets half of one.
        """
        files = {"report.html": render(self), "metrics.json": strict_json(self.metrics), **csvs(self)}
        with explain_write_errors(folder, "Choose another folder for the report."):
            folder.mkdir(parents=True, exist_ok=True)
            return [write(folder / name, text) for name, text in files.items()]
