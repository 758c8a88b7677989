"""One stage of training in one process: AdamW, warm-up and cosine, clipping, held-out losses, checkpoints."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer
from kronos.training.dataset import TrainingWindows

logger = logging.getLogger(__name__)

Losses = dict[str, Tensor]  # scalars by name; "loss" is the one to minimise
Step = Callable[[Tensor, Tensor], Losses]  # (B, T, 6) bars, (B, T, 5) stamps -> losses


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to learn.

    Attributes:
        steps: optimiser steps.
        batch_size: windows a step.
        learning_rate: at its peak, after `warmup` of the steps; then a cosine to zero.
        warmup: share of the steps.
        weight_decay: of AdamW, on matrices only.
        clip_norm: of the gradient.
        validate_every: steps between held-out losses.
        validation_windows: how many held-out windows to score, evenly spaced.
        seed: of shuffling and initial weights.
    """

    steps: int = 10_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    clip_norm: float = 3.0
    validate_every: int = 500
    validation_windows: int = 1024
    seed: int = 0


def train(
    network: Kronos | KronosTokenizer,
    step: Step,
    windows: TrainingWindows,
    validation: TrainingWindows,
    config: LoopConfig,
    output: Path,
) -> list[dict[str, float]]:
    """Train `network` in place; keep the weights of the best held-out loss in `output`.

    Returns:
        One row a validation: step, seconds, learning rate, mean training loss since the last row and the
        held-out losses; also written to `output/history.json`.

    Raises:
        ValueError: there is no validation window, so "best" would mean nothing.
    """
    if len(validation) == 0:
        raise ValueError("There is no validation window. Move the split so that it holds some.")
    optimiser = torch.optim.AdamW(
        _groups(network, config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.95)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=config.steps, pct_start=config.warmup
    )
    history: list[dict[str, float]] = []
    running: list[Tensor] = []
    started = time.perf_counter()
    batches = windows.batches(config.batch_size, config.steps, config.seed)
    console = Console(stderr=True)
    shown = track(batches, "training", config.steps, console=console, disable=not console.is_terminal)
    for i, (x, stamps) in enumerate(shown, start=1):
        network.train()
        losses = step(torch.from_numpy(x), torch.from_numpy(stamps))
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        optimiser.step()
        schedule.step()
        running.append(losses["loss"].detach())
        if i % config.validate_every == 0 or i == config.steps:
            held_out = evaluate(network, step, validation, config.validation_windows)
            row: dict[str, float] = {
                "step": i,
                "seconds": round(time.perf_counter() - started, 1),
                "lr": float(schedule.get_last_lr()[0]),
                "train_loss": torch.stack(running).mean().item(),
                **{f"val_{name}": value for name, value in held_out.items()},
            }
            running.clear()
            history.append(row)
            logger.info("%s", "  ".join(f"{k} {v:.5g}" for k, v in row.items()))
            if not math.isfinite(row["val_loss"]):
                raise FloatingPointError(
                    f"The held-out loss is {row['val_loss']} at step {i}. Lower the learning rate."
                )
            if row["val_loss"] <= min(r["val_loss"] for r in history):
                network.save_pretrained(output)
            (output / "history.json").write_text(json.dumps(history, indent=1) + "\n")
    return history


@torch.no_grad()
def evaluate(
    network: nn.Module, step: Step, windows: TrainingWindows, count: int, batch: int = 256
) -> dict[str, float]:
    """Mean losses over up to `count` evenly spaced windows, weighted by windows, in eval mode."""
    network.eval()
    chosen = np.unique(np.linspace(0, len(windows) - 1, min(count, len(windows))).astype(int))
    totals: dict[str, float] = {}
    for rows in _chunks(chosen, batch):
        x, stamps = windows.batch(rows)
        for name, value in step(torch.from_numpy(x), torch.from_numpy(stamps)).items():
            totals[name] = totals.get(name, 0.0) + value.item() * len(rows)
    return {name: value / len(chosen) for name, value in totals.items()}


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for i in range(0, len(rows), size):
        yield rows[i : i + size]


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    matrices = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
