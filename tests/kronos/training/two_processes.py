"""Both stages, and the first one without pooling, in each of the processes that torchrun starts.

`torchrun --nproc_per_node=2 tests/kronos/training/two_processes.py FOLDER` writes into FOLDER what each process
saw. The test that starts it calls `observed` in its own process, too, and compares them. With one more argument
only the first stage is trained, into that folder within FOLDER.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from kronos.inference.settings import find_device
from kronos.training import run
from kronos.training.config import Source, Stage
from kronos.training.run_directory import TrainerState
from tests.kronos.training.builders import make_run, planted_market, write_bars

STEPS = 4
MARKET = "market.parquet"


@dataclass
class Observed:
    """One stage in one process: gradients of each step before they are clipped, losses, next random numbers."""

    gradients: list[list[Tensor]] = field(default_factory=list)
    progress: TrainerState = field(default_factory=TrainerState)
    drawn: Tensor = field(default_factory=lambda: torch.empty(0))


def observed(stage: Stage, folder: Path, output: str, **settings: Any) -> Observed:
    """Train a stage and note the gradients that its optimizer is given."""
    seen = Observed()
    clip = Accelerator.clip_grad_norm_

    def noted(self: Accelerator, parameters: Any, norm: float) -> Any:
        parameters = list(parameters)
        seen.gradients.append([weight.grad.clone() for weight in parameters])
        return clip(self, parameters, norm)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Accelerator, "clip_grad_norm_", noted)
        # Where there is no accelerator, processes must find one another on the default device, too.
        settings["device"] = "auto" if find_device(None).type == "cpu" else "cpu"
        config = make_run(folder, output=folder / output, max_steps=STEPS, validate_every=2, **settings)
        seen.progress = run.run_stage(stage, config)
    seen.drawn = torch.rand(4)
    return seen


def write_inputs(folder: Path) -> None:
    """Write all bars that the stages read; called before the processes start, which would write over each other."""
    make_run(folder)
    write_bars(folder / MARKET, *planted_market(24, 100, 0.0))


def headed(folder: Path, output: str) -> Observed:
    """The second stage with a head on a market of 24 names, and its tokens those of the shared first stage."""
    sources = (Source(folder / MARKET, head=True),)
    return observed(
        "predictor", folder, output, data=None, sources=sources, tokenizer=str(folder / "together")
    )


def main(folder: Path) -> None:
    """Write what this process sees, under its rank."""
    torch.set_num_threads(1)
    found = {stage: observed(stage, folder, "together") for stage in ("tokenizer", "predictor")}
    shared = str(folder / "together")
    found["accumulated"] = observed("predictor", folder, "accumulated", accumulate=2, tokenizer=shared)
    found["headed"] = headed(folder, "headed")
    run.all_reduce_mean = lambda accelerator: None
    found["unpooled"] = observed("tokenizer", folder, "unpooled")
    plain = {
        name: vars(seen) for name, seen in found.items()
    }  # classes of a script cannot be loaded elsewhere
    torch.save(plain, folder / f"rank{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    where, *outputs = sys.argv[1:]
    if outputs:
        torch.set_num_threads(1)
        observed("tokenizer", Path(where), outputs[0])
    else:
        main(Path(where))
