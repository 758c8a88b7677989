"""Fine-tune a checkpoint on the segments train and valid of a Qlib dataset."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from filelock import FileLock
from qlib.data import D
from qlib.log import get_module_logger
from qlib.workflow.recorder import MLflowRecorder

from kronos.calibration import CALIBRATION, Calibration
from kronos.checkpoint import resolve, resolve_tokenizer
from kronos.forecast import Provenance
from kronos.head import ReturnHead, find_head
from kronos.predictor import KronosPredictor
from kronos.training.config import Source, TrainingConfig
from kronos.training.model_card import RECORD
from kronos.utils import MissingExtra, explain_write_errors
from kronos_strategies.data.training import QlibBars
from kronos_strategies.qlib.data_access import StoreBars, member_rows, store_folder
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.experiment import active_recorder, local_path
from kronos_strategies.qlib.fit import market_name
from kronos_strategies.store.settings import label_of

logger = get_module_logger(__name__)

# Fields of TrainingConfig that dataset and model determine, or that concern the output directory.
DETERMINED = {
    *("sources", "data", "market", "frequency", "train_until", "validate_from", "validate_until", "lookback"),
    *("pretrained", "tokenizer", "tokenizer_size", "predictor_size"),
    *("output", "resume", "overwrite", "stop_after", "tracker"),
}
ARTIFACT = "checkpoint"  # folder of the checkpoint among the artifacts of a run
INSTEAD = "Set XDG_CACHE_HOME to another folder for the cache."


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned checkpoint among the artifacts of a run, where a pickled model finds its weights again.

    Attributes:
        folder: local folder with tokenizer/ and predictor/; None where the artifacts are on another machine.
        tracking: address of the MLflow store of the run.
        run_id: id of the run.
        artifact: path of the checkpoint among its artifacts.
    """

    folder: Path | None
    tracking: str
    run_id: str
    artifact: str

    def path(self) -> Path:
        """The folder; downloaded where the artifacts are on another machine.

        Raises:
            FileNotFoundError: the checkpoint was deleted or moved.
        """
        if self.folder is not None and (self.folder / "predictor").is_dir():
            return self.folder
        try:
            found = mlflow.artifacts.download_artifacts(
                run_id=self.run_id, artifact_path=self.artifact, tracking_uri=self.tracking
            )
        except (mlflow.MlflowException, OSError):
            raise FileNotFoundError(
                f"Run {self.run_id} no longer has its fine-tuned checkpoint {self.folder or self.artifact}. "
                "Restore it, or call fit again."
            ) from None
        return Path(found)

    @property
    def record(self) -> dict[str, Any]:
        """How the predictor was trained: data, dates, settings, losses; see `kronos.training.run_directory`."""
        return dict(json.loads((self.path() / "predictor" / RECORD).read_text(encoding="utf-8")))

    def add(self, head: ReturnHead | None, calibration: Calibration | None) -> None:
        """Save a head and a calibration next to the predictor, where every use of the checkpoint finds them."""
        with TemporaryDirectory() as name:
            extra = Path(name)
            if head is not None:
                head.save(extra)
            if calibration is not None:
                calibration.write(extra / CALIBRATION)
            client = mlflow.MlflowClient(self.tracking)
            client.log_artifacts(self.run_id, name, f"{self.artifact}/predictor")


def check_finetune(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of fine-tuning, checked before anything is computed.

    Raises:
        ValueError: an unknown setting, one that the dataset or the model determines, or a wrong value.
    """
    known = sorted({field.name for field in fields(TrainingConfig)} - DETERMINED)
    if determined := sorted(set(settings) & DETERMINED):
        raise ValueError(f"finetune.{determined[0]} follows from the dataset and the model. Remove it.")
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"finetune has unknown settings {unknown}. Choose from {known}.")
    made = TrainingConfig(output=Path(), **settings)
    return {name: getattr(made, name) for name in settings}


def finetune_on(
    dataset: KronosDataset,
    predictor: KronosPredictor,
    settings: Mapping[str, Any],
    tokenizer: str | None = None,
    revision: str | None = None,
    head: bool = True,
) -> FineTuned:
    """Fine-tune the predictor of a checkpoint; its tokenizer stays as it is.

    Windows lie within the segment train with all of their bars; the targets of validation windows, which select the
    best weights, within the segment valid. No bar after it is read. Training happens in the user's cache, and
    continues there if it was interrupted; the result is an artifact of the Qlib run in progress.

    Args:
        dataset: dataset with segments train and valid.
        predictor: predictor of the initial checkpoint.
        settings: see `check_finetune`.
        tokenizer, revision: those of the initial checkpoint, see `KronosModel`.
        head: train the return head of the checkpoint too, if it has one.

    Raises:
        ValueError: a segment is missing or has too few bars, or no run is in progress.
        MissingExtra: a package for training is not installed.
    """
    recorder = active_recorder()
    if recorder is None:
        raise ValueError(
            "Fine-tuning saves its checkpoint in the Qlib run in progress, and there is none. Call fit within "
            "`with R.start(experiment_name=...):`."
        )
    try:
        from kronos.training.run import run_stage
    except ModuleNotFoundError as error:
        if error.name not in ("accelerate", "matplotlib"):
            raise
        raise MissingExtra(
            f"Fine-tuning needs {error.name}: pip install 'kronos-strategies[train]'."
        ) from error
    config = _training_config(dataset, predictor, settings, tokenizer, revision, head)
    frozen = predictor.provenance(predictor.sampling, "")
    digest = training_sha256(dataset, frozen, asdict(replace(config, output=Path())))
    name = f"{label_of(frozen.model)}-{config.validate_until}"
    folder = _cache() / digest[:16]
    with explain_write_errors(folder, INSTEAD):
        folder.mkdir(parents=True, exist_ok=True)
        lock = Path(f"{folder}.lock")
        lock.open("a").close()  # without permission, a lock would wait forever
    with FileLock(lock):
        state = run_stage("predictor", replace(config, output=folder / name, resume=True), QlibBars)
        logger.info("Fine-tuned '%s': %s", frozen.model, state.outcome())
        found = _keep(folder / name / "best", name, recorder)
        shutil.rmtree(folder, ignore_errors=True)
    return found


def training_sha256(dataset: KronosDataset, frozen: Provenance, settings: object) -> str:
    """sha256 of all that fitting on the segments train and valid depends on.

    Bars after the segment valid do not matter, nor those of instruments that became members later.

    Args:
        dataset: dataset with segments train and valid.
        frozen: provenance with the initial checkpoint.
        settings: settings as values of JSON.

    Raises:
        ValueError: a segment is missing.
    """
    (start, until), (first, end) = dataset.spans_to_fit()
    members = member_rows(dataset.instruments, None, end, dataset.freq)
    bars = StoreBars.read(list(members.get_level_values("instrument").unique()), end, dataset.freq).frame
    digest = hashlib.sha256()
    for rows in (members.to_frame(index=False), bars):
        digest.update(pd.util.hash_pandas_object(rows).to_numpy().tobytes())
    dates = [str(date) for date in (start, until, first, end)]
    parts = [frozen.weights_sha256, dataset.market, asdict(dataset.spec), dates, settings]
    digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _training_config(
    dataset: KronosDataset,
    predictor: KronosPredictor,
    settings: Mapping[str, Any],
    tokenizer: str | None,
    revision: str | None,
    head: bool,
) -> TrainingConfig:
    (start, until), (first, end) = dataset.spans_to_fit()
    after_training = _last_day(until) + pd.Timedelta(days=1)
    known = predictor.checkpoint_info
    if known is None:
        raise ValueError(
            "Fine-tuning needs a checkpoint that was loaded from files. Save it and load it again."
        )
    pretrained = str(resolve(known.name, "predictor", revision)) if revision else known.name
    market, names = _market(dataset, start, end)
    made = TrainingConfig(
        output=Path("unset"),
        pretrained=pretrained,
        tokenizer=tokenizer or str(resolve_tokenizer(known.name)),
        lookback=dataset.spec.lookback,
        validate_from=f"{max(_first_day(first), after_training):%Y-%m-%d}",
        **{"device": "cpu" if predictor.device.type == "cpu" else "auto"} | dict(settings),
    )
    source = Source(
        path=store_folder(dataset.freq),
        name=market_name(dataset),
        market=market,
        instruments=names,
        start=f"{_first_day(start):%Y-%m-%d}",
        end=f"{_last_day(end):%Y-%m-%d}",
        train_until=f"{_last_day(until):%Y-%m-%d}",
        validate_until=f"{_last_day(end):%Y-%m-%d}",
        head=head and bool(made.head_weight) and find_head(pretrained) is not None,
    )
    return replace(
        made, sources=(source,), train_until=source.train_until, validate_until=source.validate_until
    )


def _market(dataset: KronosDataset, start: pd.Timestamp, end: pd.Timestamp) -> tuple[str, tuple[str, ...]]:
    """Name of a market and instruments of it; all members of a market by name."""
    config = dataset.instruments
    if isinstance(config, dict) and "market" in config and not config.get("filter_pipe"):
        return str(config["market"]), ()
    names = (
        D.list_instruments(config, start, end, freq=dataset.freq, as_list=True)
        if isinstance(config, dict)
        else config
    )
    return "all", tuple(sorted(names))


def _first_day(time: pd.Timestamp) -> pd.Timestamp:
    """The first whole day from a time on."""
    return time.normalize() + pd.Timedelta(days=int(time != time.normalize()))


def _last_day(time: pd.Timestamp) -> pd.Timestamp:
    """The last day that is over at a time: its own if it is a date, or the end of one."""
    next_day = (time + pd.Timedelta(microseconds=1)).normalize()
    return time if time == time.normalize() else next_day - pd.Timedelta(days=1)


def _keep(best: Path, name: str, recorder: MLflowRecorder) -> FineTuned:
    """Save a checkpoint among the artifacts of a run."""
    artifact = f"{ARTIFACT}/{name}"
    recorder.save_objects(local_path=str(best), artifact_path=artifact)
    local = local_path(recorder.get_artifact_uri())
    folder = None if local is None else local.resolve() / artifact
    return FineTuned(folder, recorder.uri, recorder.id, artifact)


def _cache() -> Path:
    """Unfinished training, in $XDG_CACHE_HOME or ~/.cache."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base / "kronos-strategies" / "finetune"
