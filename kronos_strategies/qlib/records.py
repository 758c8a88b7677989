"""KronosRecord: what `qrun` prints and keeps of a run: one table, metrics.json and report.html."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pandas as pd
from qlib.backtest.position import Position
from qlib.data import D
from qlib.workflow.record_temp import ACRecordTemp, PortAnaRecord
from rich.console import Console
from rich.table import Table

from kronos_strategies.evaluation.baselines import BASELINES
from kronos_strategies.evaluation.ic import information_coefficient, summarise
from kronos_strategies.evaluation.returns import annual_return, max_drawdown, sharpe
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.report.report import Report
from kronos_strategies.result import BacktestResult

FREQ = "1day"


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
        folder = Path(tempfile.mkdtemp())
        try:
            report.save(folder)
            signals.to_parquet(folder / "signals.parquet")
            for path in sorted(folder.iterdir()):
                self.recorder.save_objects(local_path=str(path), artifact_path=self.artifact_path)
        finally:
            shutil.rmtree(folder)
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
        # On the rows that Kronos scored and no others, so that all rank the same names.
        scores = {"Kronos": signals["score"], **naive_scores(signals.index)}
        coefficients = {
            name: pd.DataFrame(
                {
                    "ic": information_coefficient(score, label),
                    "rank_ic": information_coefficient(score, label, rank=True),
                }
            )
            for name, score in scores.items()
        }
        result = backtest_result(traded, held, equal_weight(self.dataset.market, traded.index))
        comparison = pd.DataFrame({name: _row(frame, hold) for name, frame in coefficients.items()}).T
        provenance = self.model.provenance
        return Report(
            title=f"Kronos on {self.dataset.market}",
            metrics={**signal_metrics(coefficients["Kronos"], hold), **portfolio_metrics(result)},
            coefficients=coefficients["Kronos"],
            comparison=comparison,
            result=result,
            ledger=_ledger(members, signals, label),
            provenance=_describe(self.model, self.dataset),
            warnings=_warnings(provenance.trained_until if provenance else None, members),
        )


def naive_scores(members: pd.Index) -> dict[str, pd.Series]:
    """Naive signals of the same (datetime, instrument) rows, from adjusted closes up to each date."""
    names = sorted(members.get_level_values("instrument").unique())
    closes = D.features(names, ["$close"], end_time=members.get_level_values("datetime").max())["$close"]
    # The last known close stands in on a suspended day: what was known then, nothing later.
    wide = closes.unstack("instrument").ffill()
    scores = {name: pd.Series(signal(wide).stack()) for name, signal in BASELINES.items()}
    return {name: score.reindex(members) for name, score in scores.items()}


def equal_weight(market: str, dates: pd.Index) -> pd.Series:
    """Daily return of all members at equal weights, rebalanced daily, without costs."""
    field = "$close/Ref($close,1)-1"
    returns = D.features(D.instruments(market), [field], start_time=dates[0], end_time=dates[-1])[field]
    return returns.groupby(level="datetime").mean().reindex(dates)


def backtest_result(
    traded: pd.DataFrame, held: Mapping[pd.Timestamp, Position], equal: pd.Series
) -> BacktestResult:
    """Qlib's portfolio report as ours; its `return` is gross, and its turnover counts both sides."""
    return BacktestResult(
        returns=pd.DataFrame({"gross": traded["return"], "net": traded["return"] - traded["cost"]}),
        benchmarks=pd.DataFrame({"benchmark": traded["bench"], "equal weight": equal}),
        turnover=traded["turnover"],
        cost=traded["cost"],
        positions=pd.Series({date: len(book.get_stock_list()) for date, book in held.items()}).reindex(
            traded.index
        ),
    )


def signal_metrics(coefficients: pd.DataFrame, horizon: int) -> dict[str, float]:
    """Flat figures of IC and RankIC."""
    ic, rank = (summarise(coefficients[name], horizon) for name in ("ic", "rank_ic"))
    return {
        "ic": ic.mean,
        "icir": ic.ir,
        "ic_t": ic.t,
        "rank_ic": rank.mean,
        "rank_icir": rank.ir,
        "rank_ic_t": rank.t,
        "dates": rank.dates,
        "undefined_dates": rank.undefined,
    }


def portfolio_metrics(result: BacktestResult) -> dict[str, float]:
    """Flat figures of the strategy, net of costs unless named gross, and of both benchmarks."""
    net, year = result.returns["net"], result.bars_per_year
    figures = {
        "annual_return": annual_return(net, year),
        "sharpe": sharpe(net, year),
        "max_drawdown": max_drawdown(net),
        "gross_annual_return": annual_return(result.returns["gross"], year),
        "annual_cost": float(result.cost.mean() * result.bars_per_year),
        "turnover": float(result.turnover.mean()),
    }
    for name, returns in result.benchmarks.items():
        key = str(name).replace(" ", "_")
        figures[f"{key}_annual_return"] = annual_return(returns, year)
        figures[f"{key}_sharpe"] = sharpe(returns, year)
        figures[f"{key}_max_drawdown"] = max_drawdown(returns)
    return figures


def _row(coefficients: pd.DataFrame, horizon: int) -> dict[str, float]:
    figures = signal_metrics(coefficients, horizon)
    return {name: figures[name] for name in ("ic", "rank_ic", "rank_icir", "rank_ic_t", "dates")}


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
        "lookback": f"{dataset.lookback} traded bars",
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
        found.append(f"The checkpoint was trained until {trained_until}, within the test dates.")
    if dates < 100:
        found.append(f"{dates} dates are few: intervals are wide.")
    return found


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
