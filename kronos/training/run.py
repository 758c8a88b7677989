"""Run one stage from its settings to its output directory: bars, windows, network, trainer, model card."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor
from torch.distributed import is_initialized

from kronos.checkpoint import (
    hash_weights,
    trained_until,
)
from kronos.inference.settings import find_device
from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer
from kronos.training.config import Stage, TrainingConfig
from kronos.training.dataset import Split, split_windows
from kronos.training.evaluation import head_frequency, split_for_head
from kronos.training.initialization import (
    check_output_tokenizer,
    check_start,
    copy_sampling_config,
    copy_tokenizer,
    find_tokenizer,
    start_head,
    start_predictor,
    start_tokenizer,
    weights_to_start_from,
)
from kronos.training.model_card import cleaning_table, latest
from kronos.training.objectives import PredictorObjective, TokenizerObjective
from kronos.training.run_directory import RunDirectory, TrainerState
from kronos.training.sources import QlibReader
from kronos.training.trainer import Trainer, keep_freed_memory
from kronos.utils import MissingExtra, git_commit, package_version

logger = logging.getLogger(__name__)

MLFLOW_URI = "MLFLOW_TRACKING_URI"


# Settings that may change on resuming and are not recorded: their effect on bars is in the hashes of the bars.
NOT_RECORDED = (
    *("output", "data", "sources", "frequency", "workers", "tracker", "resume", "overwrite"),
    *("data_on_device", "stop_after"),
)


def run_stage(stage: Stage, config: TrainingConfig, read_qlib: QlibReader | None = None) -> TrainerState:
    """Train one stage with output in `config.output`; to be called in each of several processes.

    Args:
        stage: the stage.
        config: its settings.
        read_qlib: see `open_reader`.

    Returns:
        The final state, the same in every process.

    Raises:
        FileNotFoundError: no bars, or no initial weights.
        FileExistsError: there is an earlier result.
        ValueError: settings, bars and weights are inconsistent.
    """
    _check(config)
    check_start(stage, config)
    # An earlier stage in this process may have had another device or precision. Its process group is kept, because
    # torchrun's rendezvous serves only one group.
    AcceleratorState._reset_state(reset_partial_state=not is_initialized())
    # By default accelerate lets processes on a machine without an accelerator train independently.
    on_cpu = config.device == "cpu" or find_device(None).type == "cpu"
    accelerator = Accelerator(
        mixed_precision="bf16" if config.precision == "bfloat16" else "no",
        cpu=on_cpu,
        log_with=None if config.tracker == "none" else config.tracker,
        project_dir=str(config.output / "run" / stage),
    )
    set_seed(config.seed)
    split = split_windows(config, read_qlib)
    if accelerator.is_main_process:
        for text in _tables(split):
            logger.info("%s", text)
    if on_cpu:
        keep_freed_memory()  # only now, so that the memory for reading bars is released
    module: TokenizerObjective | PredictorObjective
    ranking = None
    if stage == "predictor":
        frozen = find_tokenizer(config)
        check_output_tokenizer(frozen, config.output)
        tokenizer = KronosTokenizer.from_pretrained(frozen.folder).to(accelerator.device)
        network = start_predictor(config, frozen.folder)
        tokenizer_sha256 = hash_weights(frozen.folder)
        folder = _folder(stage, config, split, network, accelerator.num_processes, tokenizer_sha256)
        head = start_head(config, network, folder.record["trained_until"], head_frequency(split, config))
        if head is not None:
            split, ranking = split_for_head(split, config)
        if ranking is None and config.select_by == "rank":
            raise ValueError(
                "select_by=rank needs a return head and validation dates. Set head: true for a source with bars "
                "after train_until, or select by loss."
            )
        if head is None and not config.token_weight:
            raise ValueError(
                "token_weight=0 leaves nothing to train without a return head. Set head: true for a source, or a "
                "positive token_weight."
            )
        module = PredictorObjective(
            network, tokenizer, config.horizon, config.lookback_weight, head, config.token_weight,
            config.head_weight,
        )  # fmt: skip
    else:
        fresh = start_tokenizer(config)
        folder = _folder(stage, config, split, fresh, accelerator.num_processes, None)
        module = TokenizerObjective(
            fresh, all_reduce_mean(accelerator), config.horizon, config.column_weights
        )
    trainer = Trainer(module, split, config, folder, accelerator, ranking)
    # All processes have loaded their inputs and all checks have passed: from here on the directory may change.
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        folder.prepare(config.resume, config.overwrite, config.last_step)
        if stage == "predictor":
            copy_tokenizer(frozen, config.output)
            copy_sampling_config(config)
        weights = f"{folder.record['parameters']:,} parameters"
        windows = f"{len(split.training):,} training windows, {len(split.validation):,} validation windows"
        logger.info("%s: %s, %s", stage, weights, windows)
    accelerator.wait_for_everyone()
    set_seed(
        config.seed, device_specific=True
    )  # equal initial weights, but different dropout in each process
    with _tracked(accelerator, config, stage):
        progress = trainer.run()
    atexit.register(accelerator.state.destroy_process_group)  # does nothing without a group
    return progress


def _check(config: TrainingConfig) -> None:
    """Refuse settings that would fail only after files were deleted, or without notice."""
    start = Path(config.pretrained).expanduser()  # bundled names and hub ids are not existing paths
    if config.overwrite and start.exists() and start.resolve().is_relative_to(config.output.resolve()):
        raise ValueError("--overwrite would delete the initial weights. Choose another --output.")
    if config.output.is_file():
        raise ValueError(f"output={config.output} is a file. Pass a folder.")
    if config.tracker != "none" and find_spec(config.tracker) is None:
        raise MissingExtra(
            f"--tracker {config.tracker} is not installed. Install it: pip install {config.tracker}"
        )


def _folder(
    stage: Stage,
    config: TrainingConfig,
    split: Split,
    network: Kronos | KronosTokenizer,
    processes: int,
    tokenizer: str | None,
) -> RunDirectory:
    data = _data(split)
    settings = {name: value for name, value in asdict(config).items() if name not in NOT_RECORDED}
    sources = [
        {k: v for k, v in asdict(s).items() if k not in ("path", "name", "frequency")} for s in config.sources
    ]
    settings |= {
        "sources": sources or None,  # paths may change, contents may not
        "data": [entry["sha256"] for entry in data],
        "processes": processes,
        "tokenizer_sha256": tokenizer,  # of the tokenizer of a predictor
    }
    started = weights_to_start_from(stage, config)
    seen = [entry["validate_until"] or entry["train_until"] for entry in data]
    if started is not None:
        seen.append(trained_until(started, stage))
    folder = RunDirectory(config.output, stage, settings)
    folder.record = {
        "origin": started,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "data": data,
        "trained_until": latest(seen),
        "settings": settings,
        "version": package_version(),
        "commit": git_commit(),
    }
    return folder


@contextmanager
def _tracked(accelerator: Accelerator, config: TrainingConfig, stage: Stage) -> Iterator[None]:
    """Run the tracker, if there is one, and finish it in any case."""
    folder = config.output / "run" / stage
    # MLflow no longer writes into plain folders: use a database in the run's folder, unless a server is set.
    # A server that this process has set, for example Qlib in it, is in the environment, too.
    local_database = config.tracker == "mlflow" and MLFLOW_URI not in os.environ
    if local_database:
        os.environ[MLFLOW_URI] = f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    try:
        if config.tracker != "none":
            plain = {k: v for k, v in asdict(config).items() if isinstance(v, str | int | float)}
            accelerator.init_trackers(f"kronos {stage}", config=plain)
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        if local_database:  # the next run has another one
            del os.environ[MLFLOW_URI]


def _data(split: Split) -> list[dict[str, Any]]:
    """Description of each source with its last dates and numbers of windows."""
    ends = zip(split.training.last_dates(), split.validation.last_dates(), strict=True)
    counts = zip(split.training.sizes, split.validation.sizes, strict=True)
    return [
        {
            **asdict(mapped.info),
            "train_until": train,
            "validate_until": validate,
            "training_windows": learned,
            "validation_windows": scored,
        }
        for mapped, (train, validate), (learned, scored) in zip(
            split.training.mapped_bars, ends, counts, strict=True
        )
    ]


def _tables(split: Split) -> list[str]:
    """Tables of what cleaning removed from each source, with numbers of windows."""
    length = split.training.lookback + split.training.horizon
    counts = zip(split.training.mapped_bars, split.training.sizes, split.validation.sizes, strict=True)
    return [cleaning_table(mapped.info, length, learned, scored) for mapped, learned, scored in counts]


def all_reduce_mean(accelerator: Accelerator) -> Callable[[Tensor], Tensor] | None:
    """A function for the mean of a tensor over all processes, with the gradient of each process's own part.

    Gradients are averaged over processes later, together with all others, so that here they pass unchanged.
    """
    if accelerator.num_processes == 1:
        return None

    def reduce(own: Tensor) -> Tensor:
        return accelerator.reduce(own.detach().clone(), "mean") + own - own.detach()

    return reduce
