"""Walk-forward: versions of a KronosModel, each fitted on the past of the dates that it scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pandas as pd
from qlib.data import D
from qlib.log import get_module_logger
from qlib.model.base import Model
from qlib.utils import init_instance_by_config
from qlib.utils.exceptions import LoadObjectError
from qlib.workflow import R
from qlib.workflow.task.gen import RollingGen, task_generator

from kronos.config import as_integer
from kronos.forecast import Provenance
from kronos_strategies.qlib.data_access import DAY
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.experiment import KronosRecorder, nested_run
from kronos_strategies.qlib.finetune import training_sha256
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.qlib.scored import Scored
from kronos_strategies.qlib.tracking import PREFIX, SHORT, run_params
from kronos_strategies.store.settings import label_of

logger = get_module_logger(__name__)

Rolling = Literal["expanding", "sliding"]
FITTED_TO = (
    f"{PREFIX}fitted_to"  # tag of a version's run: the hash of bars, segments, checkpoint and settings
)
# Settings of KronosModel that do not change what is fitted.
WITHOUT_EFFECT = (
    "store",
    "store_dtype",
    "workers",
    "ray",
    "gpus_per_worker",
    "device",
    "prediction",
    "levels",
)


@dataclass(frozen=True)
class Version:
    """A fitted model, and the dates that it scores.

    Attributes:
        first: first date; it scores up to the first date of the next version.
        model: the fitted model.
        run_id: MLflow run that it is recorded in.
    """

    first: pd.Timestamp
    model: KronosModel
    run_id: str


class RollingModel(Model):
    """Fits a new version of a KronosModel every `step` trading days, and scores each date by the latest version.

    The segments of the dataset are those of the first version. Every later version shifts valid and test by `step`
    days, and the end of train or all of train, as Qlib's RollingGen does. A version uses no bar after its segment
    valid, which ends before the dates that it scores. Each is recorded as a run of its own, with its dates,
    parameters and checkpoint; a recorded version of the same bars and settings is not fitted again.

    Args:
        model: Qlib's configuration of the KronosModel, with finetune, fit_head or fit_calibration.
        step: trading days from one version to the next, about 21 a month.
        rtype: "expanding" keeps the start of the segment train, "sliding" its length.
        experiment: experiment of the versions' runs.

    Attributes:
        versions: the fitted versions, by ascending first date.

    Raises:
        ValueError: there is nothing to fit, or a setting is invalid.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        step: int = 63,
        rtype: Rolling = "expanding",
        experiment: str = "kronos_versions",
    ) -> None:
        self.step, self.rtype, self.experiment = as_integer("step", step), rtype, experiment
        if self.step < 1:
            raise ValueError(f"step={step} is too small. Pass at least 1 trading day.")
        if rtype not in get_args(Rolling):
            raise ValueError(f"rtype='{rtype}' is unknown. Choose one of {list(get_args(Rolling))}.")
        self.model = dict(model)
        try:
            frozen = init_instance_by_config(self.model, accept_types=KronosModel)
        except (AttributeError, KeyError, TypeError) as error:  # Qlib's: another class, unknown arguments
            raise ValueError(
                f"model={self.model} of RollingModel does not give a KronosModel ({error}). Write "
                "class: KronosModel, module_path: kronos_strategies.qlib.model, and kwargs that it has."
            ) from error
        if frozen.finetune is None and frozen.fit_head is None and frozen.fit_calibration is None:
            raise ValueError(
                "The rolling model has nothing to fit. Set finetune, fit_head or fit_calibration of its "
                "KronosModel, or use KronosModel itself."
            )
        self.options, self.store, self.prediction = frozen.options, frozen.store, frozen.prediction
        self.name = f"{label_of(frozen.checkpoint)}, rolling"
        self.versions: list[Version] = []
        self._scored: Scored | None = None

    def fit(self, dataset: KronosDataset, reweighter: object = None) -> None:
        """Fit the versions for the segment test, except for those that are recorded already.

        Raises:
            TypeError: another kind of dataset.
            ValueError: a segment is missing, is too short or overlaps with another.
        """
        tasks = self.tasks(dataset)
        self.versions, self._scored = [], None
        for number, task in enumerate(tasks, start=1):
            version = self._version(task, f"{number} of {len(tasks)}")
            version.model.release()
            self.versions.append(version)

    def tasks(self, dataset: KronosDataset) -> list[dict[str, Any]]:
        """Qlib's tasks of all versions: model, and dataset with the version's segments.

        Raises:
            TypeError: another kind of dataset.
            ValueError: a segment is missing, bars are not daily, or valid does not end before test.
        """
        if not isinstance(dataset, KronosDataset):
            raise TypeError(f"RollingModel reads a KronosDataset, not a {type(dataset).__name__}.")
        if dataset.freq != DAY:
            raise ValueError(
                f"RollingModel counts trading days, but the dataset has bars of freq='{dataset.freq}'. Use daily "
                "bars."
            )
        valid, test = dataset.spans_to_fit()[1], dataset.span("test")
        if valid[1] >= test[0]:
            raise ValueError(
                f"Segment 'valid' ends on {valid[1]:%Y-%m-%d} and 'test' begins on {test[0]:%Y-%m-%d}: a version "
                "would score dates that it has seen. End valid before test."
            )
        generator = RollingGen(step=self.step, rtype=self.rtype)
        # Qlib compares with None where a segment begins right after its calendar.
        generator.ta.cals = [
            *generator.ta.cals,
            *pd.bdate_range(generator.ta.cals[-1], periods=self.step + 2)[1:],
        ]
        found = task_generator({"model": self.model, "dataset": dataset.configuration()}, generator)
        for task in found:
            segments = task["dataset"]["kwargs"]["segments"]
            segments["test"] = (segments["test"][0], min(segments["test"][1], test[1]))
        return found

    def predict(self, dataset: KronosDataset, segment: str | slice = "test") -> pd.Series | pd.DataFrame:
        """Score the segment: the score, or all signals with prediction="signals", see `KronosModel.predict`."""
        found = self.scored(dataset, segment).signals
        return found if self.prediction == "signals" else found["score"]

    def scored(self, dataset: KronosDataset, segment: str | slice = "test") -> Scored:
        """Signals and forecasts of the segment, each date by its version; the last call's if it was the same.

        Raises:
            ValueError: `fit` has not been called, or the segment begins before the first version.
        """
        span, last = dataset.span(segment), getattr(self, "_scored", None)
        if last is not None and last.dataset is dataset and last.span == span:
            return last
        parts = []
        for version, start, end in self._shares(*span):
            parts.append(version.model.scored(dataset, slice(start, end)))
            version.model.release()
        self._scored = Scored.joined(parts, span, self.name)
        return self._scored

    def _shares(
        self, start: pd.Timestamp, end: pd.Timestamp
    ) -> Iterator[tuple[Version, pd.Timestamp, pd.Timestamp]]:
        """The versions that score a span, each with its first and last day."""
        if not self.versions:
            raise ValueError("RollingModel has no versions yet. Call fit first.")
        days = pd.DatetimeIndex(D.calendar(start, end))
        if len(days) and days[0] < self.versions[0].first:
            raise ValueError(
                f"The first version scores from {self.versions[0].first:%Y-%m-%d}, and {days[0]:%Y-%m-%d} is "
                "earlier. Ask for later dates, or begin the segment test earlier and call fit."
            )
        ends = [later.first for later in self.versions[1:]]
        for version, next_first in zip(self.versions, [*ends, pd.Timestamp.max], strict=True):
            own = days[(days >= version.first) & (days < next_first)]
            if len(own):
                yield version, own[0], own[-1]

    def _version(self, task: dict[str, Any], number: str) -> Version:
        dataset = init_instance_by_config(task["dataset"], accept_types=KronosDataset)
        model = init_instance_by_config(task["model"], accept_types=KronosModel)
        frozen = model.current_provenance()
        settings = {k: v for k, v in (self.model.get("kwargs") or {}).items() if k not in WITHOUT_EFFECT}
        digest = training_sha256(dataset, frozen, [settings, dataset.hold, dataset.deal_price])
        spans = {name: "{:%Y-%m-%d} to {:%Y-%m-%d}".format(*dataset.span(name)) for name in dataset.segments}
        run_id = self._restore(model, digest)
        if run_id is not None:
            logger.info("Version %s, scores %s: found in run %s", number, spans["test"], run_id[:SHORT])
            return Version(dataset.span("test")[0], model, run_id)
        logger.info(
            "Version %s, scores %s: fits on %s, selects on %s",
            number,
            spans["test"],
            spans["train"],
            spans["valid"],
        )
        with nested_run(self.experiment, f"scores from {dataset.span('test')[0]:%Y-%m-%d}") as recorder:
            recorder.save_objects(task=task)
            recorder.set_tags(**{FITTED_TO: digest})
            model.fit(dataset)
            recorder.log_params(**_params(model, dataset, frozen, spans))
            recorder.log_metrics(**_metrics(model))
            dataset.config(dump_all=False, recursive=True)
            recorder.save_objects(**{"params.pkl": model, "dataset": dataset})
        return Version(dataset.span("test")[0], model, recorder.id)

    def _restore(self, model: KronosModel, digest: str) -> str | None:
        """What a finished run has fitted to the same bars with the same settings; its id, or None without one."""
        manager = R.exp_manager
        experiment = manager.get_exp(experiment_name=self.experiment)
        wanted = f"tags.`{FITTED_TO}` = '{digest}' and attributes.status = 'FINISHED'"
        for run in manager.client.search_runs([experiment.id], wanted):
            try:
                model.restore(
                    KronosRecorder(experiment.id, manager.uri, mlflow_run=run).load_object("params.pkl")
                )
            except (LoadObjectError, FileNotFoundError) as error:
                logger.warning("The version in run %s is fitted again: %s", run.info.run_id[:SHORT], error)
                continue
            return str(run.info.run_id)
        return None


def _params(
    model: KronosModel, dataset: KronosDataset, frozen: Provenance, spans: Mapping[str, str]
) -> dict[str, str]:
    """Parameters of a version's run: those of every run, the dates of its segments, and what it started from."""
    head, calibration = model.fitted, model.calibrated
    more = {
        **spans,
        "parent": frozen.model,
        "parent_sha256": frozen.weights_sha256 or "-",
        "head_sha256": "-" if head is None else head.sha256,
        "calibration": "-" if calibration is None else calibration.id,
    }
    return run_params(model.current_provenance(), dataset.spec, more)


def _metrics(model: KronosModel) -> dict[str, float]:
    """Validation of the fine-tuned weights at their best step and at the start, and of the head."""
    found: dict[str, Any] = {}
    if model.tuned is not None:
        record = model.tuned.record
        found |= {f"start_{name}": value for name, value in record.get("start", {}).items()} | record[
            "losses"
        ]
    if model.fitted is not None:
        found |= {f"head_{name}": value for name, value in (model.fitted.info.figures or {}).items()}
    return {name: float(value) for name, value in found.items() if "val" in name and math.isfinite(value)}
