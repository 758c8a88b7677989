"""How fast a stage trains compared with the plain step: interleaved optimizer steps on the same windows and sizes.

Each way has a process of its own, because what one does to the C library's memory would serve the other too.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator

from kronos.bars import FEATURES
from kronos.config import ModelConfig, TokenizerConfig
from kronos.model import STAMP_SIZES, Kronos
from kronos.tokenizer import KronosTokenizer
from kronos.training.config import Stage, TrainingConfig
from kronos.training.dataset import Batch, Split, TrainingWindows
from kronos.training.initialization import PREDICTOR_SIZE, TOKENIZER_SIZE
from kronos.training.objectives import PredictorObjective, TokenizerObjective
from kronos.training.run_directory import RunDirectory
from kronos.training.trainer import Trainer, keep_freed_memory
from tests.benchmarks import plain_training
from tests.benchmarks.cases import MODELS, TOKENIZER
from tests.benchmarks.measure import Record, Save, timed

NANO = replace(PREDICTOR_SIZE, ffn_dropout_p=0.1, resid_dropout_p=0.1, token_dropout_p=0.1)
MINI = replace(MODELS["mini"], ffn_dropout_p=0.2, resid_dropout_p=0.2)


@dataclass(frozen=True)
class Lesson:
    """A stage and its networks' sizes."""

    stage: Stage
    size: str
    tokenizer: TokenizerConfig
    predictor: ModelConfig | None = None

    def networks(self) -> tuple[KronosTokenizer, Kronos | None]:
        """Networks with random weights, the same in every call."""
        torch.manual_seed(0)
        return KronosTokenizer(self.tokenizer), Kronos(self.predictor) if self.predictor else None


LESSONS = (
    Lesson("predictor", "nano", TOKENIZER_SIZE, replace(NANO, s1_bits=8, s2_bits=8)),
    Lesson("predictor", "mini", TOKENIZER, MINI),
    Lesson("tokenizer", "nano", TOKENIZER_SIZE),
    Lesson("tokenizer", "released", TOKENIZER),
)
BATCH = 50  # windows of 90 + 11 bars
BATCHES = 4  # different ones, interleaved
WARM = 1  # steps that are not counted
CONFIG = TrainingConfig(Path("unused"), batch_size=BATCH, max_steps=10**6, device="cpu")
WAYS: dict[str, dict[str, Any]] = {"float32": {}, "bfloat16": {"precision": "bf16"}}


def compare(lesson: Lesson, ways: Sequence[str], steps: int, save: Save) -> None:
    """All ways step by step; `save` gets the record when it is whole."""
    record: Record = {"stage": lesson.stage, "size": lesson.size, "tokens": BATCH * CONFIG.window_length}
    record["runs"] = {way: [] for way in ways}
    context = multiprocessing.get_context("spawn")
    workers, pipes = [], {}
    for way in ways:
        pipes[way], theirs = context.Pipe()
        workers.append(context.Process(target=_work, args=(theirs, lesson, way), daemon=True))
        workers[-1].start()
    for turn in range(WARM + steps):
        for way, pipe in pipes.items():
            pipe.send(turn)
            seconds = pipe.recv()
            if turn >= WARM:
                record["runs"][way].append(seconds)
    for worker, pipe in zip(workers, pipes.values(), strict=True):
        pipe.send(None)
        worker.join()
    save(record)


def _work(pipe: Connection, lesson: Lesson, way: str) -> None:
    """Take a step whenever asked to, and say how long it took."""
    torch.set_num_threads(1)
    batches = [random_batch(seed) for seed in range(BATCHES)]
    step = plain(lesson) if way == "plain" else ours(lesson, **WAYS[way])
    while (turn := pipe.recv()) is not None:
        pipe.send(timed(partial(step, batches[turn % BATCHES])))


def plain(lesson: Lesson) -> Callable[[Batch], Any]:
    """The plain step."""
    tokenizer, predictor = lesson.networks()
    if predictor is None:
        return plain_training.tokenizer_step(tokenizer)
    return plain_training.predictor_step(predictor, tokenizer.eval())


def ours(lesson: Lesson, precision: Literal["no", "bf16"] = "no") -> Callable[[Batch], Any]:
    """A step of the trainer, in a process that is set up as `run_stage` does it."""
    keep_freed_memory()
    tokenizer, predictor = lesson.networks()
    stage = TokenizerObjective(tokenizer) if predictor is None else PredictorObjective(predictor, tokenizer)
    windows = TrainingWindows((), (np.arange(10 * BATCH),), CONFIG.lookback, CONFIG.horizon)
    folder = RunDirectory(CONFIG.output, lesson.stage, {})  # never written to
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    trainer = Trainer(stage, Split(windows, windows), CONFIG, folder, accelerator)
    return lambda batch: trainer._step(iter([batch]))


def random_batch(seed: int, count: int = BATCH) -> Batch:
    """Random walks of unit spread."""
    random, shape = np.random.default_rng(seed), (count, CONFIG.window_length)
    bars = random.normal(0, 0.3, (*shape, len(FEATURES))).cumsum(axis=1).clip(-5, 5).astype(np.float32)
    fields = [random.integers(0, size - 1, shape) for size in STAMP_SIZES.values()]
    return Batch(torch.from_numpy(bars), torch.from_numpy(np.stack(fields, axis=-1)))
