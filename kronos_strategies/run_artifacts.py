"""Saved inputs of a report, so that it can be rebuilt without forecasting or trading again.

Each adapter collects the artifacts of a run; `kronos_strategies.report.report` turns them into a report, and
`kronos compare` compares their scores with those of other runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kronos.config import SampleConfig
from kronos.forecast import Provenance
from kronos.utils import atomic_folder, explain_write_errors, recover_folder
from kronos_strategies.backtest_result import QLIB_BARS_PER_YEAR, BacktestResult
from kronos_strategies.evaluation.distribution.path_summary import PathSummary
from kronos_strategies.evaluation.panel import PricePanel, read_rows
from kronos_strategies.evaluation.signal.metrics import MIN_INSTRUMENTS
from kronos_strategies.evaluation.significance import label_overlap

ARTIFACTS = "artifacts"  # the folder next to a report.html
METADATA = "metadata.json"  # in it
FORMAT = 3  # other formats are refused
DECAY_HORIZONS = (1, 2, 3, 5, 10, 20)  # bars that labels span, in addition to a run's own
SCORING_HORIZONS = (1, 5, 10)  # bars at which paths are scored, within the horizon
OPTIONAL = ("outlooks", "trades")  # optional frames
BENCHMARK = "benchmark: "  # prefix of column names
ALL_BARS, QLIB_YEAR = "all_bars.parquet", "qlib_bars_per_year"


@dataclass(frozen=True)
class RunMetadata:
    """Description of a run.

    Attributes:
        title: title of the report.
        hold: bars that a position is held, which the label spans.
        bars_between: bars between successive dates of the scores.
        trials: number of settings tried so far, including this run.
        settings: settings of the run by label, ready to print.
        sample_counts: rows by reason, from the members' rows to those compared.
        warnings: sentences that a reader must see.
        bars_per_year: bars per year, used to annualize returns.
        min_instruments: minimum number of instruments for the IC of a date to be defined.
        score_is_return: whether the run's own score is a forecast return, so that its sign is a direction; not so
            for the rank that a return head forecasts.
        trials_deviation: standard deviation of the Sharpe ratios per bar of all trials; None if unknown.
    """

    title: str
    hold: int
    bars_between: int
    trials: int
    settings: Mapping[str, str]
    sample_counts: Mapping[str, int]
    warnings: tuple[str, ...]
    bars_per_year: int
    min_instruments: int = MIN_INSTRUMENTS
    score_is_return: bool = False
    trials_deviation: float | None = None


@dataclass(frozen=True)
class RunArtifacts:
    """Saved inputs of the report of one run.

    Attributes:
        metadata: description of the run.
        scores: indexed (datetime, instrument), known at the close of the date: the run's own score first, then
            baselines.
        labels: forward returns with the same index, columns = horizons in bars, including `metadata.hold`.
        exposures: exposures with the same index, known at the same close.
        market: bars on which paths are scored.
        paths: summary of the forecasts; None for a score without paths.
        provenance: provenance of the forecasts.
        result: result of the backtest; None without one.
        outlooks: bands and final closes by forecast, for few instruments, see `evaluate_time_series`.
        trades: see `TradeEvaluation.trades`; None if unknown.
    """

    metadata: RunMetadata
    scores: pd.DataFrame
    labels: pd.DataFrame
    exposures: pd.DataFrame
    market: PricePanel
    paths: PathSummary | None = None
    provenance: Provenance | None = None
    result: BacktestResult | None = None
    outlooks: pd.DataFrame | None = None
    trades: pd.DataFrame | None = None

    @property
    def overlap(self) -> int:
        """Successive dates that one label spans."""
        return label_overlap(self.metadata.hold, self.metadata.bars_between)

    def write(self, folder: Path) -> Path:
        """Write JSON and parquet files, some MB for years of hundreds of instruments, in the place of `folder`."""
        with explain_write_errors(folder, "Choose another folder."), atomic_folder(folder) as draft:
            self._write(draft)
        return folder

    def _write(self, folder: Path) -> None:
        for name in ("scores", "labels", "exposures", *OPTIONAL):
            frame = getattr(self, name)
            if frame is None:
                continue
            named = frame.set_axis(frame.columns.map(str), axis=1)
            named.to_parquet(folder / f"{name}.parquet", compression="zstd")
        self.market.write(folder / "market.parquet")
        if self.paths is not None:
            self.paths.write(folder)
        if self.result is not None:
            _write_result(self.result, folder)
        known = asdict(self.provenance) if self.provenance else None
        metadata = {"format": FORMAT, "metadata": asdict(self.metadata), "provenance": known}
        (folder / METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> RunArtifacts:
        """What `write` has kept.

        Raises:
            FileNotFoundError: there is none.
            ValueError: another version wrote it.
        """
        folder = folder.absolute()  # Arrow reads a relative path with a colon as a URL
        recover_folder(folder)
        metadata, provenance = _read_metadata(folder)
        labels = read_rows(folder / "labels.parquet").rename(columns=int)
        return cls(
            metadata=metadata,
            scores=read_rows(folder / "scores.parquet"),
            labels=labels,
            exposures=read_rows(folder / "exposures.parquet"),
            market=PricePanel.read(folder / "market.parquet"),
            paths=PathSummary.read(folder) if PathSummary.exists(folder) else None,
            provenance=provenance,
            **{name: _read_optional(folder / f"{name}.parquet") for name in OPTIONAL},
            result=_read_result(folder, metadata.bars_per_year)
            if (folder / "book.parquet").is_file()
            else None,
        )


def provenance_table(known: Provenance, sampled: bool = True) -> dict[str, str]:
    """What a forecast was made with, by label, ready to print.

    Args:
        known: provenance of the forecast.
        sampled: whether paths were sampled; a return head alone needs none.
    """
    s = known.sampling
    tokens = f", T={s.T:g}, top_p={s.top_p:g}, top_k={s.top_k}" if known.precision else ""
    found = {
        "model": known.model,
        "revision": known.revision or "-",
        "weights sha256": known.weights_sha256 or "-",
        "trained until": known.trained_until or "not stated",
        "sampling": f"{s.samples} paths{tokens}, seed={s.seed}",
        **({"context_overflow": known.context_overflow} if known.context_overflow else {}),
        **({"precision": known.precision} if known.precision else {}),
        "paths start at": known.anchor.replace("_", " "),
    }
    found |= {"calibration": known.calibration} if known.calibration else {}
    if not sampled:
        found = {
            name: value
            for name, value in found.items()
            if name not in ("sampling", "paths start at", "window")
        }
    return found | ({"data sha256": known.data_sha256} if known.data_sha256 else {})


def refuse_earlier(folder: Path) -> None:
    """Refuse a folder that holds the files of an earlier version, under their names then.

    Raises:
        ValueError: it does.
    """
    for place in (folder, folder / "evidence", folder / "kronos" / "evidence"):
        if (place / "about.json").is_file():
            raise ValueError(f"{place} has format 1, this version reads {FORMAT}. Run the experiment again.")


def _read_metadata(folder: Path) -> tuple[RunMetadata, Provenance | None]:
    path = folder / METADATA
    if not path.is_file():
        refuse_earlier(folder)
        raise FileNotFoundError(
            f"{folder} contains no run artifacts (no {METADATA}). Pass the folder of a report."
        )
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {content.get('format')}, this version reads {FORMAT}. Run the experiment again."
        )
    metadata = RunMetadata(**content["metadata"] | {"warnings": tuple(content["metadata"]["warnings"])})
    known = content["provenance"]
    if known is None:
        return metadata, None
    return metadata, Provenance(**known | {"sampling": SampleConfig(**known["sampling"])})


def _read_optional(file: Path) -> pd.DataFrame | None:
    return pd.read_parquet(file) if file.is_file() else None


def _write_result(result: BacktestResult, folder: Path) -> None:
    book = result.returns[["gross", "net"]].assign(turnover=result.turnover, cost=result.cost)
    book.join(result.benchmarks.add_prefix(BENCHMARK)).to_parquet(folder / "book.parquet")
    result.weights.rename("weight").to_frame().to_parquet(folder / "weights.parquet", compression="zstd")
    if result.whole is not None:
        year = {QLIB_YEAR: result.qlib_bars_per_year}
        result.whole.assign(**year).to_parquet(folder / ALL_BARS)


def _read_result(folder: Path, bars_per_year: int) -> BacktestResult:
    book = pd.read_parquet(folder / "book.parquet")
    benchmarks = [column for column in map(str, book) if column.startswith(BENCHMARK)]
    whole, year = None, float(QLIB_BARS_PER_YEAR)
    if (folder / ALL_BARS).is_file():
        whole = pd.read_parquet(folder / ALL_BARS)
        year = float(whole.pop(QLIB_YEAR).max())
    return BacktestResult(
        returns=book[["gross", "net"]],
        benchmarks=book[benchmarks].rename(columns=lambda column: column.removeprefix(BENCHMARK)),
        turnover=book["turnover"],
        cost=book["cost"],
        weights=pd.read_parquet(folder / "weights.parquet")["weight"],
        bars_per_year=bars_per_year,
        whole=whole,
        qlib_bars_per_year=year,
    )
