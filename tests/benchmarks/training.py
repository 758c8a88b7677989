"""How fast a stage trains beside the plain step: whole optimiser steps in turns, the same windows, equal networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from kronos.bars import FEATURES
from kronos.config import ModelConfig, TokenizerConfig
from kronos.model import STAMP_SIZES, Kronos
from kronos.tokenizer import KronosTokenizer
from kronos.training.config import Stage, TrainingConfig
from kronos.training.dataset import Batch, Split, TrainingWindows
from kronos.training.folder import RunFolder
from kronos.training.loop import Trainer
from kronos.training.stages import PredictorStage, TokenizerStage
from kronos.training.start import PREDICTOR_SIZE, TOKENIZER_SIZE
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
        """With random weights, the same ones each time."""
        torch.manual_seed(0)
        return KronosTokenizer(self.tokenizer), Kronos(self.predictor) if self.predictor else None


LESSONS = (
    Lesson("predictor", "nano", TOKENIZER_SIZE, replace(NANO, s1_bits=8, s2_bits=8)),
    Lesson("predictor", "mini", TOKENIZER, MINI),
    Lesson("tokenizer", "nano", TOKENIZER_SIZE),
    Lesson("tokenizer", "released", TOKENIZER),
)
BATCH = 50  # windows of 90 + 11 bars
BATCHES = 4  # different ones, in turns


def compare(lesson: Lesson, steps: int, save: Save) -> None:
    """Plain and ours step by step; `save` gets the record of both when it is whole."""
    config = TrainingConfig(Path("unused"), batch_size=BATCH, max_steps=10**6, device="cpu")
    batches = [_random_batch(config.window, seed) for seed in range(BATCHES)]
    slow, fast = plain(lesson), ours(lesson, config)
    record: Record = {"stage": lesson.stage, "size": lesson.size, "threads": torch.get_num_threads()}
    record |= {"tokens": BATCH * config.window, "plain": [], "ours": []}
    for batch in batches[:2]:
        slow(batch)
        fast(batch)
    for batch in itertools.islice(itertools.cycle(batches), steps):
        record["plain"].append(timed(partial(slow, batch)))
        record["ours"].append(timed(partial(fast, batch)))
    save(record)


def plain(lesson: Lesson) -> Callable[[Batch], Any]:
    """The baseline's step."""
    tokenizer, predictor = lesson.networks()
    if predictor is None:
        return plain_training.tokenizer_step(tokenizer)
    return plain_training.predictor_step(predictor, tokenizer.eval())


def ours(lesson: Lesson, config: TrainingConfig) -> Callable[[Batch], Any]:
    """A step of the trainer."""
    tokenizer, predictor = lesson.networks()
    stage = TokenizerStage(tokenizer) if predictor is None else PredictorStage(predictor, tokenizer)
    windows = TrainingWindows((), (np.arange(10 * BATCH),), config.lookback, config.horizon)
    folder = RunFolder(config.output, lesson.stage, {})  # never written to
    trainer = Trainer(stage, Split(windows, windows), config, folder, Accelerator(cpu=True))
    return lambda batch: trainer._step(iter([batch]))


def _random_batch(length: int, seed: int) -> Batch:
    """Random walks of unit spread."""
    random = np.random.default_rng(seed)
    bars = random.normal(0, 0.3, (BATCH, length, len(FEATURES))).cumsum(axis=1).clip(-5, 5).astype(np.float32)
    fields = [random.integers(0, size - 1, (BATCH, length)) for size in STAMP_SIZES.values()]
    return Batch(torch.from_numpy(bars), torch.from_numpy(np.stack(fields, axis=-1)))
