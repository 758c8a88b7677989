"""KronosRecord: the summary table, report.html, metrics.json and artifacts of a `qrun` run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from qlib.data.dataset import Dataset
from qlib.model.base import Model
from qlib.utils.exceptions import LoadObjectError
from qlib.workflow.record_temp import ACRecordTemp, PortAnaRecord

from kronos_strategies.evaluation.signal.neutralization import read_industries
from kronos_strategies.evaluation.warnings import unsolved_warnings
from kronos_strategies.qlib.artifacts import collect_artifacts
from kronos_strategies.qlib.data_access import qlib_warnings
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.experiment import local_path
from kronos_strategies.qlib.features import KronosFeatures
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.qlib.qlib_runs import QlibRun, collect_qlib_run, qlib_run
from kronos_strategies.qlib.strategy import UNSOLVED
from kronos_strategies.qlib.tracking import count_trials, log_run, qlib_run_params, run_params
from kronos_strategies.report.export import save_report, show_report
from kronos_strategies.report.report import build_report
from kronos_strategies.run_artifacts import ARTIFACTS, RunArtifacts

SPAN = ("start_time", "end_time")


class KronosRecord(ACRecordTemp):
    """Report of signal, paths and backtest; must follow SignalRecord, and PortAnaRecord if there is one.

    For any other Qlib model the report covers its score and its backtest, without paths.

    Args:
        recorder: recorder of the run.
        model: model that computed the signals.
        dataset: dataset whose market, label and dates are evaluated.
        trials: number of settings tried so far, including this run, which deflates its Sharpe ratio; when
            omitted, the number of different settings that the experiment has recorded.
        industry: CSV or parquet file of instrument and industry, to report the score within industries and
            neutralized for them; empty or None if unknown. The classification is the same on all dates.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it lacks a column, or has an instrument twice.
    """

    artifact_path = "kronos"
    depend_cls = PortAnaRecord

    def __init__(
        self,
        recorder: object,
        model: Model,
        dataset: Dataset,
        trials: int | None = None,
        industry: str | None = None,
    ) -> None:
        super().__init__(recorder=recorder)
        self.model = model
        self.dataset = dataset
        self.trials = trials
        self.industries = read_industries(Path(industry)) if industry else None

    def check(self, include_self: bool = False, parents: bool = True) -> None:
        """Check that there is a prediction; PortAnaRecord's own check would need its configuration."""
        names = ["pred.pkl", "label.pkl"]
        if include_self:
            names += [self.get_path(name) for name in self.list()]
        for name in names:
            folder = name.rpartition("/")[0] or None
            if name not in self.recorder.list_artifacts(folder):
                raise FileNotFoundError(f"The run has no {name}. List its record before KronosRecord.")

    def list(self) -> list[str]:
        """Artifacts of this record."""
        return ["report.html", "metrics.json", "signals.parquet", ARTIFACTS]

    def _generate(self) -> None:
        prediction, label = self.load("pred.pkl"), self.load("label.pkl")
        traded, held = self._book("report_normal"), self._book("positions_normal")
        model, dataset = self.model, self.dataset
        ours = isinstance(model, KronosModel) and isinstance(dataset, KronosDataset)
        run = None if ours else qlib_run(prediction, label, self._task(), traded, held)
        params = self._params() if run is None else qlib_run_params(run, self._trading())
        trials = count_trials(self.recorder, params) if self.trials is None else self.trials
        if run is None:
            artifacts = collect_artifacts(
                model, dataset, prediction, label.iloc[:, 0], traded, held, trials, self.industries
            )
        else:
            artifacts = collect_qlib_run(
                run, trials, self.industries, [*qlib_warnings(), *_overlap_warnings(self.dataset, run)]
            )
        artifacts = self._with_unsolved(artifacts)
        log_run(self.recorder, params)
        report = build_report(artifacts)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_report(report, folder)
            signals = prediction if run is not None else model.scored(dataset).signals
            signals.to_parquet(folder / "signals.parquet")
            artifacts.write(folder / ARTIFACTS)
            self.recorder.save_objects(local_path=str(folder), artifact_path=self.artifact_path)
        self.recorder.log_metrics(**{k: v for k, v in report.metrics.items() if v == v})
        show_report(report, [f"{self.folder}/{name}" for name in ("report.html", "metrics.json")])

    @property
    def folder(self) -> Path | str:
        """Folder of the artifacts, if they are local."""
        uri = f"{self.recorder.get_artifact_uri()}/{self.artifact_path}"
        return local_path(uri) or uri

    def _book(self, kind: str) -> Any:
        """Results of PortAnaRecord at any frequency; None without a backtest."""
        kept = self.recorder.list_artifacts(PortAnaRecord.artifact_path)
        found = sorted(name for name in kept if name.rpartition("/")[2].startswith(kind))
        return self.recorder.load_object(found[0]) if found else None

    def _with_unsolved(self, artifacts: RunArtifacts) -> RunArtifacts:
        """With a warning about the rebalances of the strategy that had no result."""
        if UNSOLVED not in self.recorder.list_artifacts():
            return artifacts
        found = unsolved_warnings(self.recorder.load_object(UNSOLVED))
        known = artifacts.metadata
        return replace(artifacts, metadata=replace(known, warnings=(*found, *known.warnings)))

    def _task(self) -> dict[str, Any]:
        """The task as Qlib saves it; empty for a run that was started from code."""
        try:
            return dict(self.recorder.load_object("task"))
        except LoadObjectError:
            return {}

    def _params(self) -> dict[str, str]:
        known, dataset = self.model.provenance, self.dataset
        if known is None:  # a restored model, whose scores come from another process
            self.model.scored(dataset)
            known = self.model.provenance
        read = self.model.postprocessing
        choice = self.model.choice or self.model.choose(dataset)
        trade = {
            "hold": str(dataset.hold),
            "deal_price": dataset.deal_price,
            "score": choice.identity,
            "trading": self._trading(),
            "calibration": "none" if read.calibration is None else read.calibration.id,
            "limits": self.model.options.limits,
        }
        return run_params(known, dataset.spec, trade)

    def _trading(self) -> str:
        """Strategy, settings and costs of the backtest as in the task; its dates separately."""
        task, found = self._task(), []
        if not task:
            return "-"
        records = task.get("record") or []
        for record in (records,) if isinstance(records, Mapping) else records:
            config = (record.get("kwargs") or {}).get("config")
            if config:
                backtest = {k: v for k, v in config.get("backtest", {}).items() if k not in SPAN}
                found.append({**config, "backtest": backtest})
        return json.dumps(found, sort_keys=True, default=str)


def _overlap_warnings(dataset: Dataset, run: QlibRun) -> list[str]:
    """Warnings about the checkpoint whose features a model reads."""
    handler = getattr(dataset, "handler", None)
    if not isinstance(handler, KronosFeatures):
        return []
    return handler.training_overlap_warnings(run.score.index.get_level_values("datetime").min())
