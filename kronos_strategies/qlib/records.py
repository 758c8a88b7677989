"""KronosRecord: what `qrun` prints and keeps of a run: one table, metrics.json and report.html."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pandas as pd
from qlib.backtest.position import Position
from qlib.workflow.record_temp import ACRecordTemp, PortAnaRecord
from rich.console import Console
from rich.table import Table

from kronos_strategies.evaluation.metrics import coefficients, compare, portfolio_metrics, signal_metrics
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.market import backtest_result, equal_weight, naive_scores
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.report.report import Report

FREQ = "1day"
MIN_COVERAGE = 0.9  # of the scored rows, for a naive signal to be compared


class KronosRecord(ACRecordTemp):
    """Joins signal and backtest in one report; comes after PortAnaRecord.

    Args:
        recorder: of the run.
        model: whose provenance to show.
        dataset: whose market, label and dates to evaluate on.
    """

    artifact_path = "kronos"
    depend_cls = PortAnaRecord

    def __init__(self, recorder: object, model: KronosModel, dataset: KronosDataset) -> None:
        super().__init__(recorder=recorder)
        self.model = model
        self.dataset = dataset

    def check(self, include_self: bool = False, parents: bool = True) -> None:
        """Demand the backtest's report; PortAnaRecord's own check would need its configuration."""
        names = [f"{PortAnaRecord.artifact_path}/report_normal_{FREQ}.pkl", "pred.pkl", "label.pkl"]
        if include_self:
            names += [self.get_path(name) for name in self.list()]
        for name in names:
            folder = name.rpartition("/")[0] or None
            if name not in self.recorder.list_artifacts(folder):
                raise FileNotFoundError(f"The run has no {name}. List its record before KronosRecord.")

    def list(self) -> list[str]:
        """Artefacts of this record."""
        return ["report.html", "metrics.json", "signals.parquet"]

    def _generate(self) -> None:
        signals, label = self.load("pred.pkl"), self.load("label.pkl").iloc[:, 0]
        traded, held = self.load(f"report_normal_{FREQ}.pkl"), self.load(f"positions_normal_{FREQ}.pkl")
        report = self.report(signals, label, traded, held)
        with tempfile.TemporaryDirectory() as folder:
            report.save(Path(folder))
            signals.to_parquet(Path(folder) / "signals.parquet")
            for path in sorted(Path(folder).iterdir()):
                self.recorder.save_objects(local_path=str(path), artifact_path=self.artifact_path)
        self.recorder.log_metrics(**{k: v for k, v in report.metrics.items() if v == v})
        _print(report, self.folder)

    @property
    def folder(self) -> Path | str:
        """Where the artefacts are, as a path where they are local."""
        uri = f"{self.recorder.get_artifact_uri()}/{self.artifact_path}"
        parsed = urlparse(uri)
        return Path(url2pathname(parsed.path)) if parsed.scheme in ("", "file") else uri

    def report(
        self,
        signals: pd.DataFrame,
        label: pd.Series,
        traded: pd.DataFrame,
        held: Mapping[pd.Timestamp, Position],
    ) -> Report:
        """Evaluate a run.

        Args:
            signals: of KronosModel.
            label: of the members, by (datetime, instrument).
            traded: Qlib's report of the backtest, by datetime.
            held: Qlib's positions at each close.
        """
        hold = self.dataset.hold
        members = label.index
        # On rows that Kronos scored; a naive signal that lacks many of them is judged on other names and days.
        naive = naive_scores(signals.index)
        scarce = [name for name, score in naive.items() if score.notna().mean() < MIN_COVERAGE]
        scores = {"Kronos": signals["score"], **{k: v for k, v in naive.items() if k not in scarce}}
        by_name = {name: coefficients(score, label) for name, score in scores.items()}
        result = backtest_result(traded, held, equal_weight(self.dataset.market, traded.index))
        provenance = self.model.provenance
        return Report(
            title=f"Kronos on {self.dataset.market}",
            metrics={**signal_metrics(by_name["Kronos"], hold), **portfolio_metrics(result)},
            coefficients=by_name["Kronos"],
            comparison=compare(by_name, hold),
            result=result,
            ledger=_ledger(members, signals, label),
            provenance=_describe(self.model, self.dataset),
            warnings=[
                *self.dataset.notices,
                *_warnings(provenance.trained_until if provenance else None, members),
                *_crowded(result.positions, members),
                *(f"{name} is left out: it lacks bars for over a tenth of the rows." for name in scarce),
            ],
        )


def _ledger(members: pd.Index, signals: pd.DataFrame, label: pd.Series) -> dict[str, int]:
    scored = members.isin(signals.index)
    return {
        "member rows": len(members),
        "no forecast (no trade that day, or too few bars)": int((~scored).sum()),
        "forecast, but no return to compare with": int((scored & label.isna().to_numpy()).sum()),
        "compared": int((scored & label.notna().to_numpy()).sum()),
    }


def _describe(model: KronosModel, dataset: KronosDataset) -> Mapping[str, str]:
    known = model.provenance
    start, end = dataset.segments["test"]
    described = {
        "market": dataset.market,
        "test": f"{start:%Y-%m-%d} to {end:%Y-%m-%d}",
        "label": f"{dataset.deal_price}(t+{1 + dataset.hold}) / {dataset.deal_price}(t+1) - 1",
        "lookback": f"{dataset.spec.lookback} traded bars",
        "horizon": f"{dataset.spec.horizon} bars",
    }
    if known:
        s = known.sampling
        described |= {
            "model": known.model,
            "revision": known.revision or "-",
            "weights sha256": known.weights_sha256 or "-",
            "trained until": known.trained_until or "not stated",
            "sampling": f"{s.samples} paths, T={s.T}, top_p={s.top_p}, top_k={s.top_k}, seed={s.seed}",
            "data sha256": known.data_sha256,
        }
    if model.store is not None:
        described["forecast store"] = str(model.store.folder)
    return described


def _warnings(trained_until: str | None, members: pd.Index) -> list[str]:
    first = members.get_level_values("datetime").min()
    dates = members.get_level_values("datetime").nunique()
    found = []
    if trained_until is None:
        found.append(
            "The checkpoint does not say until when it was trained: it may have seen the test dates."
        )
    elif pd.Timestamp(trained_until) >= first:
        found.append(
            f"The checkpoint was trained until {trained_until}, so it knows of times after the first test dates. "
            "Its model card says which markets it saw until when."
        )
    if dates < 100:
        found.append(f"{dates} dates are few: intervals are wide.")
    return found


def _crowded(positions: pd.Series, members: pd.Index) -> list[str]:
    """A book of nearly everything has nothing to choose from."""
    most, names = int(positions.max()), members.get_level_values("datetime").value_counts().median()
    if most <= names / 2:
        return []
    return [f"The book holds up to {most} of {names:.0f} members: choose a smaller KRONOS_TOPK."]


def _print(report: Report, folder: Path | str) -> None:
    console = Console()
    signal = Table(
        title=f"{report.title}: signal against {len(report.comparison) - 1} naive ones", title_justify="left"
    )
    for column in ("", "IC", "RankIC", "RankICIR", "t", "dates"):
        signal.add_column(column, justify="left" if not column else "right")
    for name, row in report.comparison.iterrows():
        signal.add_row(
            str(name), f"{row.ic:+.4f}", f"{row.rank_ic:+.4f}", f"{row.rank_icir:+.3f}", f"{row.rank_ic_t:+.2f}",
            f"{row.dates:.0f}",
        )  # fmt: skip
    book = Table(title="Portfolio", title_justify="left")
    for column in ("", "annual return", "Sharpe", "max drawdown"):
        book.add_column(column, justify="left" if not column else "right")
    m = report.metrics
    rows = {"strategy, net of costs": "", "benchmark": "benchmark_", "equal weight": "equal_weight_"}
    for name, key in rows.items():
        book.add_row(
            name,
            f"{m[f'{key}annual_return']:+.2%}",
            f"{m[f'{key}sharpe']:+.2f}",
            f"{m[f'{key}max_drawdown']:.2%}",
        )
    console.print(signal, book)
    for warning in report.warnings:
        console.print(f"[yellow]Warning:[/] {warning}")
    for name in ("report.html", "metrics.json"):
        console.print(f"{folder}/{name}", soft_wrap=True, highlight=False)
