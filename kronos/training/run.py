"""One stage from its settings to its folder: bars, windows, network, loop, model card."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from kronos.checkpoint import CONFIG, WEIGHTS, fingerprint, resolve, resolve_tokenizer, trained_until
from kronos.config import ModelConfig, TokenizerConfig
from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer
from kronos.training.card import RECORD, git_commit, latest, package_version
from kronos.training.config import SCRATCH, Stage, TrainingConfig
from kronos.training.dataset import Split, split_windows
from kronos.training.folder import Progress, RunFolder
from kronos.training.loop import Trainer
from kronos.training.stages import PredictorStage, TokenizerStage

logger = logging.getLogger(__name__)

_Network = TypeVar("_Network", Kronos, KronosTokenizer)

# The sizes of kronos-nano, for weights that start from random ones.
TOKENIZER_SIZE = TokenizerConfig(
    d_model=64, ff_dim=128, n_enc_layers=3, n_dec_layers=3, s1_bits=8, s2_bits=8
)
PREDICTOR_SIZE = ModelConfig(d_model=96, n_layers=4, n_heads=4, ff_dim=256, s1_bits=8, s2_bits=8)
FREE = ("output", "store", "sources", "workers", "tracker", "resume", "overwrite")  # may change when resumed


def run_stage(stage: Stage, config: TrainingConfig) -> Progress:
    """Train one stage as `config` says, into `config.output`; in each of several processes, together.

    Returns:
        How it went; the same in every process.

    Raises:
        FileNotFoundError: no bars, or no weights to start from.
        FileExistsError: results of an earlier run are in the way.
        ValueError: settings, bars and weights do not fit.
    """
    accelerator = Accelerator(
        mixed_precision="bf16" if config.precision == "bfloat16" else "no",
        cpu=config.device == "cpu",
        log_with=None if config.tracker == "none" else config.tracker,
        project_dir=str(config.output / "run" / stage),
    )
    set_seed(config.seed)
    split = split_windows(config)
    frozen = find_tokenizer(config) if stage == "predictor" else None
    network = make_network(stage, config, frozen)
    folder = _folder(stage, config, split, network, accelerator.num_processes)
    if accelerator.is_main_process:
        folder.claim(config.resume, config.overwrite)
        if frozen is not None:
            _place_tokenizer(frozen, config.output)
    accelerator.wait_for_everyone()
    module: TokenizerStage | PredictorStage
    if isinstance(network, Kronos):
        assert frozen is not None
        tokenizer = KronosTokenizer.from_pretrained(frozen)
        module = PredictorStage(network, tokenizer.to(accelerator.device))
    else:
        module = TokenizerStage(network, pool_over(accelerator))
    _start_tracker(accelerator, config, stage)
    if accelerator.is_main_process:
        sizes = f"{len(split.training):,} training windows, {len(split.validation):,} to validate on"
        logger.info("%s: %s parameters, %s", stage, f"{folder.record['parameters']:,}", sizes)
    progress = Trainer(module, split, config, folder, accelerator).run()
    accelerator.end_training()
    return progress


def find_tokenizer(config: TrainingConfig) -> Path:
    """The folder of the tokenizer whose tokens the second stage learns.

    Raises:
        FileNotFoundError: there is none, or not where `config.tokenizer` says.
    """
    if config.tokenizer is not None:
        best = Path(config.tokenizer).expanduser() / "best"  # of a first stage's output
        return resolve(best if (best / "tokenizer").is_dir() else config.tokenizer, "tokenizer")
    own = config.output / "best"
    if (own / "tokenizer").is_dir():
        return resolve(own, "tokenizer")
    if config.pretrained == SCRATCH:
        raise FileNotFoundError(
            f"{own} holds no tokenizer. Train the first stage with the same --output, or name one by --tokenizer."
        )
    return resolve(resolve_tokenizer(config.pretrained), "tokenizer")


def make_network(stage: Stage, config: TrainingConfig, tokenizer: Path | None) -> Kronos | KronosTokenizer:
    """The network to train, with the weights and the dropout to start from.

    Raises:
        ValueError: a predictor of other tokens than the tokenizer's.
    """
    if stage == "tokenizer":
        return _start(KronosTokenizer, config, config.tokenizer_size or TOKENIZER_SIZE)
    assert tokenizer is not None
    bits = KronosTokenizer.from_pretrained(tokenizer).quantizer.split
    size = config.predictor_size or replace(PREDICTOR_SIZE, s1_bits=bits[0], s2_bits=bits[1])
    network = _start(Kronos, config, size)
    if (own := (network.config.s1_bits, network.config.s2_bits)) != bits:
        raise ValueError(
            f"The predictor has tokens of {own[0]} + {own[1]} bits, the tokenizer in {tokenizer} of {bits[0]} + "
            f"{bits[1]}. Choose ones that fit."
        )
    return network


def pool_over(accelerator: Accelerator) -> Callable[[Tensor], Tensor] | None:
    """The mean of a tensor over all processes, whose gradient is that of each process's own part.

    The gradient is averaged over processes later, together with all others, so here it passes as it is.
    """
    if accelerator.num_processes == 1:
        return None

    def pool(own: Tensor) -> Tensor:
        return accelerator.reduce(own.detach().clone(), "mean") + own - own.detach()

    return pool


def _start(
    kind: type[_Network], config: TrainingConfig, size: TokenizerConfig | ModelConfig
) -> _Network:
    if config.pretrained == SCRATCH:
        return kind(_with_dropout(size, config.dropout))
    network = kind.from_pretrained(config.pretrained)
    fresh = kind(_with_dropout(network.config, config.dropout))
    fresh.load_state_dict(network.state_dict())
    return fresh


def _with_dropout(
    size: TokenizerConfig | ModelConfig, dropout: float | None
) -> TokenizerConfig | ModelConfig:
    """The size with another dropout of feed-forward, residual and token; attention keeps its own."""
    if dropout is None:
        return size
    names = {f.name for f in fields(size)} & {"ffn_dropout_p", "resid_dropout_p", "token_dropout_p"}
    return replace(size, **dict.fromkeys(names, dropout))


def _folder(
    stage: Stage, config: TrainingConfig, split: Split, network: Kronos | KronosTokenizer, processes: int
) -> RunFolder:
    data = _data(split)
    settings = {name: value for name, value in asdict(config).items() if name not in FREE}
    settings |= {"data": [entry["sha256"] for entry in data], "processes": processes}
    started = None if config.pretrained == SCRATCH else config.pretrained
    seen = [entry["validate_until"] or entry["train_until"] for entry in data]
    if started is not None:
        seen.append(trained_until(started, stage))
    folder = RunFolder(config.output, stage, settings)
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


def _data(split: Split) -> list[dict[str, Any]]:
    """What each source is and how far its windows reach."""
    ends = zip(split.training.last_dates(), split.validation.last_dates(), strict=True)
    return [
        {**asdict(tape.ledger), "train_until": train, "validate_until": validate}
        for tape, (train, validate) in zip(split.training.tapes, ends, strict=True)
    ]


def _place_tokenizer(tokenizer: Path, output: Path) -> None:
    """Put the tokenizer beside what learns its tokens, so that best and last are pairs.

    Raises:
        FileExistsError: another one is there.
    """
    own = output / "best" / "tokenizer"
    if own.is_dir() and fingerprint(own) != fingerprint(tokenizer):
        raise FileExistsError(f"{own} is another tokenizer than {tokenizer}. Give another --output.")
    for which in ("best", "last"):
        target = output / which / "tokenizer"
        if target.resolve() == tokenizer.resolve():
            continue
        target.mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, WEIGHTS):
            shutil.copy2(tokenizer / name, target / name)
        record = tokenizer / RECORD
        if record.is_file():
            shutil.copy2(record, target / RECORD)
            continue
        told = {"origin": str(tokenizer), "sha256": fingerprint(tokenizer)}
        told["trained_until"] = trained_until(tokenizer, "tokenizer")
        (target / RECORD).write_text(json.dumps(told, indent=1) + "\n")


def _start_tracker(accelerator: Accelerator, config: TrainingConfig, stage: Stage) -> None:
    if config.tracker == "none":
        return
    folder = config.output / "run" / stage
    if config.tracker == "mlflow":
        # mlflow no longer writes into plain folders; a database of its own beside the run, unless a server is named.
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{(folder / 'mlflow.db').resolve()}")
    plain = {k: v for k, v in asdict(config).items() if isinstance(v, str | int | float)}
    accelerator.init_trackers(f"kronos {stage}", config=plain)
