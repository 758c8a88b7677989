"""Trainer: AdamW, warm-up and cosine schedule, gradient clipping, validation, early stopping, resumable states.

Accelerate handles devices, processes and mixed precision. No step synchronizes with the device to read a loss.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from kronos.training.batch_sampler import BatchSampler, DeviceWindows, MicroBatches, fits_on_device
from kronos.training.config import RANDOM_WEIGHTS, TrainingConfig
from kronos.training.dataset import Split, TrainingWindows
from kronos.training.evaluation import HeadValidation
from kronos.training.objectives import PredictorObjective, TokenizerObjective, WeightAverage
from kronos.training.run_directory import RunDirectory, TrainerState

logger = logging.getLogger(__name__)

VALIDATION_BATCH = 256
WARM_FROM = 0.1  # initial share of the peak learning rate (Kronos, appendix on training)


class Trainer:
    """Trains one stage in one process, or in one of several that share each batch.

    Args:
        stage: objective whose network is trained in place.
        split: training and validation windows.
        config: settings.
        folder: directory for weights, losses and states.
        accelerator: device, processes and precision.
        ranking: validation dates for the RankIC of the head, if there is one.

    Raises:
        ValueError: a batch does not split over the processes, or there are too few windows for one.
    """

    def __init__(
        self,
        stage: TokenizerObjective | PredictorObjective,
        split: Split,
        config: TrainingConfig,
        folder: RunDirectory,
        accelerator: Accelerator,
        ranking: HeadValidation | None = None,
    ) -> None:
        parts = config.accumulate * accelerator.num_processes
        if config.batch_size % parts:
            raise ValueError(
                f"batch_size={config.batch_size} does not split into {accelerator.num_processes} processes times "
                f"accumulate={config.accumulate} equal parts. Choose a multiple of {parts}."
            )
        windows = split.training
        order = BatchSampler(
            windows.sizes, windows.weights, config.batch_size, config.volume_dropout, config.seed
        )
        self.config, self.folder, self.accelerator = config, folder, accelerator
        self.validation, self.ranking = split.validation, ranking
        held = (
            DeviceWindows(windows, accelerator.device)
            if fits_on_device(windows, accelerator.device, config)
            else None
        )
        self.device_windows = held
        self.batches = MicroBatches(
            windows, order, parts, accelerator.process_index, accelerator.num_processes, held
        )
        optimizer = torch.optim.AdamW(
            _groups(stage, config.weight_decay), config.learning_rate, betas=(0.9, 0.95), fused=True
        )
        self.scheduler = _schedule(optimizer, config)
        accelerator.register_for_checkpointing(self.scheduler)  # if prepared, it would step once per process
        if config.compile:
            stage.compile()
        self.stage, self.optimizer = accelerator.prepare(stage, optimizer)
        self.average = WeightAverage(stage, config.ema)  # of the weights on the device
        if config.ema:
            accelerator.register_for_checkpointing(self.average)
        self.progress = TrainerState()

    def run(self) -> TrainerState:
        """Train to the last step or until early stopping; resumes from the last saved state, if there is one.

        Returns:
            The final state; its history has one row per validation, with the mean training loss since the previous
            one and validation losses.

        Raises:
            FloatingPointError: a validation loss is not finite.
        """
        self.progress = self.folder.load_state(self.accelerator)
        progress, config = self.progress, self.config
        started = time.perf_counter() - progress.seconds
        running = torch.tensor(progress.running, device=self.accelerator.device)
        first = config.last_step if self._out_of_patience() else progress.step
        if first < config.last_step:
            self._follow_schedule()
        elif self.accelerator.is_main_process:
            logger.info("%s", self._ended())
        if not progress.step and config.pretrained != RANDOM_WEIGHTS:
            self._validate(running)  # training may not improve on them
        batches = self._load(range(first, config.last_step))
        for step in self._shown(range(first, config.last_step)):
            running += self._step(batches)
            self.average.update(step)
            progress.step = step + 1
            progress.seconds = time.perf_counter() - started
            last = progress.step == config.last_step
            if last or progress.step % config.validate_every == 0:
                self._validate(running)
                running.zero_()
            last |= self._out_of_patience()
            if last or progress.step % (config.save_every or config.validate_every) == 0:
                progress.running = self._mean(running)
                self.folder.save_state(self.accelerator, self.average.weights, progress)
            if last:
                break
        return progress

    def _ended(self) -> str:
        """Why a resumed run has nothing to train."""
        run, progress = self.folder.run, self.progress
        if self._out_of_patience():
            return (
                f"{run} stopped early at step {progress.step}, after {progress.stale} validations without "
                f"improvement, so nothing is trained. A --patience of 0 or more than {progress.stale} continues it."
            )
        if progress.step < self.config.max_steps:
            return f"{run} is complete with {progress.step} steps. A larger --stop-after, or 0, continues it."
        return f"{run} is complete with all of its {progress.step} steps. A larger --max-steps continues it."

    def _step(self, batches: Iterator[tuple[Tensor, ...]]) -> Tensor:
        """One optimizer step; returns the mean loss of this process, on its device."""
        self.stage.train()
        total, own = torch.zeros((), device=self.accelerator.device), self.batches.per_process
        for part in range(own):
            alone = part < own - 1  # gradients are reduced over processes with the last part only
            with self.accelerator.no_sync(self.stage) if alone else contextlib.nullcontext():
                losses = self.stage(*self._moved(next(batches)))
                self.accelerator.backward(losses.get("objective", losses["loss"]) / own)
            total += losses["loss"].detach() / own
        self.accelerator.clip_grad_norm_(self.stage.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _validate(self, running: Tensor) -> None:
        """Score the validation windows, add a row to the history, save the weights if they are the best so far."""
        progress = self.progress
        since = progress.history[-1]["step"] if progress.history else 0
        training = {"train_loss": self._mean(running) / (progress.step - since)} if progress.step else {}
        with self.average.applied():
            held_out = evaluate(self.stage, self.validation, self.config.validation_windows, self.accelerator)
            if self.ranking is not None:
                stage = self.accelerator.unwrap_model(self.stage)
                held_out |= self.ranking.score(stage, self.accelerator)
        row = {
            "step": progress.step,
            "seconds": round(progress.seconds, 1),
            "lr": float(self.scheduler.get_last_lr()[0]),
            **training,
            **{f"val_{name}": value for name, value in held_out.items()},
        }
        better = progress.add(row, selection_score(row, self.config.select_by))
        self.accelerator.log(row, step=progress.step)
        if self.accelerator.is_main_process:
            # Values by source are in losses.csv.
            logger.info("%s", "  ".join(f"{k} {v:.5g}" for k, v in row.items() if "/" not in k))
            if better:
                self.folder.keep_best(self.average.weights, progress)
        if not math.isfinite(row["val_loss"]) and not progress.step:
            raise FloatingPointError(
                f"The initial weights have a validation loss of {row['val_loss']}. Choose other weights."
            )
        if not math.isfinite(row["val_loss"]):
            raise FloatingPointError(
                f"The validation loss is {row['val_loss']} at step {progress.step}. Lower the learning rate."
            )

    def _follow_schedule(self) -> None:
        """Use the learning-rate schedule of `max_steps`, which a resumed run may change."""
        self.progress.follow(self.config.max_steps)
        scheduler, step = self.scheduler, self.progress.step
        rates = [b * f(step) for b, f in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        scheduler._last_lr = rates

    def _out_of_patience(self) -> bool:
        return self.progress.out_of_patience(self.config.patience)

    def _mean(self, value: Tensor) -> float:
        return self.accelerator.reduce(value.detach().clone(), "mean").item()

    def _moved(self, item: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        moved = tuple(part.to(self.accelerator.device, non_blocking=True) for part in item)
        if self.device_windows is None:
            return moved
        rows, drop_volume, *count = moved
        return *self.device_windows.gather(rows, drop_volume), *count

    def _load(self, steps: range) -> Iterator[tuple[Tensor, ...]]:
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=self.batches.numbers(steps),
            num_workers=self.config.workers
            if self.device_windows is None
            else 0,  # the device extracts the windows
            pin_memory=self.accelerator.device.type == "cuda",
            # A loader draws a seed for its workers: from the global generator it would change dropout on resuming.
            generator=torch.Generator(),
        )
        return iter(loader)

    def _shown(self, steps: range) -> Iterable[int]:
        """Steps with a progress bar on a terminal."""
        console = Console(stderr=True)
        shown = self.accelerator.is_main_process and console.is_terminal
        return track(
            steps,
            f"training the {self.folder.part}",
            self.config.last_step,
            steps.start,
            console=console,
            transient=True,
            disable=not shown,
        )


@torch.no_grad()
def evaluate(
    stage: nn.Module, windows: TrainingWindows, count: int, accelerator: Accelerator
) -> dict[str, float]:
    """Mean losses in eval mode over up to `count` windows with equal weights, and the losses of each source.

    Batches are distributed over processes, and are the same for any number of processes.
    """
    network = accelerator.unwrap_model(stage).eval()
    chosen = windows.sample(count)
    means: dict[str, float] = {}
    for mapped, indices in zip(windows.mapped_bars, chosen, strict=True):
        if not len(indices):
            continue
        own = _score(network, windows, indices, accelerator)
        share = len(indices) / sum(map(len, chosen))
        for name, value in own.items():
            means[name] = means.get(name, 0.0) + share * value
        if len(chosen) > 1:
            means |= {f"{name}/{mapped.info.name}": value for name, value in own.items()}
    return means


def selection_score(row: Mapping[str, float], by: Literal["loss", "rank", "both"]) -> float:
    """Criterion that selects the best validation, lower is better; the loss without a RankIC.

    `both` is the loss in nats per token minus the RankIC: late in training both change by thousandths.
    """
    if "val_rank" not in row or by == "loss":
        return row["val_loss"]
    return -row["val_rank"] + (row["val_loss"] if by == "both" else 0.0)


def _score(
    network: TokenizerObjective | PredictorObjective,
    windows: TrainingWindows,
    indices: np.ndarray,
    accelerator: Accelerator,
) -> dict[str, float]:
    totals: dict[str, float | Tensor] = dict.fromkeys(network.losses, 0.0)
    starts = range(0, len(indices), VALIDATION_BATCH)
    for start in starts[accelerator.process_index :: accelerator.num_processes]:
        rows = indices[start : start + VALIDATION_BATCH]
        batch = windows.batch(rows)
        # Not compiled: each size of a batch would be compiled again, which takes longer than a validation.
        losses = network.forward(*(part.to(accelerator.device) for part in batch))
        for name, value in losses.items():
            totals[name] += value * len(rows)
    # A process without a batch contributes zeros.
    own = torch.stack([torch.as_tensor(value, device=accelerator.device) for value in totals.values()])
    summed = accelerator.reduce(own, "sum")
    return dict(zip(totals, (summed / len(indices)).tolist(), strict=True))


def _schedule(optimizer: torch.optim.Optimizer, config: TrainingConfig) -> LambdaLR:
    """Rate from WARM_FROM of the peak up by a cosine (onecycle) or linearly (cosine), then down by a cosine."""
    warm = min(round(config.warmup * config.max_steps), config.max_steps - 1)

    def share(step: int) -> float:
        if step >= warm:
            return (1 + math.cos(math.pi * (step - warm) / (config.max_steps - warm))) / 2
        risen = step / warm
        if config.schedule == "onecycle":
            risen = (1 - math.cos(math.pi * risen)) / 2
        return WARM_FROM + (1 - WARM_FROM) * risen

    return LambdaLR(optimizer, share)


def _groups(stage: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    trained = [p for p in stage.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # from glibc's malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Stop glibc from returning a step's memory to the system, which would hand it out again page by page.

    On a CPU that takes up to a tenth of a small network's step. The process keeps its peak memory until it ends.
    Does nothing without glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _LARGEST)
        mallopt(_MMAP_MAX, 0)
