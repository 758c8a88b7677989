"""Loss curves of a run as a table and a picture."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import Accelerator
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kronos.training.config import STAGES, Stage
from kronos.training.model_card import RECORD, write_card
from kronos.training.objectives import Saveable


def write_curves(history: Sequence[dict[str, float]], folder: Path) -> None:
    """Write losses.csv and losses.png into `folder`; nothing before the first validation.

    Args:
        history: a row a validation: step, seconds, lr, train_loss, val_loss and the parts of it; the first may be
            that of the weights that training started from, step 0 without a train_loss.
        folder: where to.
    """
    if not history:
        return
    names = list(history[-1])  # the weights that training started from have no training loss
    table = pd.DataFrame(list(history), columns=names)
    table.to_csv(folder / "losses.csv", index=False)
    # Figure without pyplot: no window system, no global state.
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if "train_loss" in names:
        axes.plot(table["step"], table["train_loss"], color="0.55", label="training", marker=".")
    for name in names:
        if name.startswith("val_loss"):
            own = name == "val_loss"
            label = "held out" if own else f"held out, {name.partition('/')[2]}"
            axes.plot(table["step"], table[name], linewidth=2 if own else 1, label=label, marker=".")
    best = min(history, key=lambda row: row["val_loss"])
    axes.axvline(
        best["step"], color="0.8", zorder=0, label=f"best: {best['val_loss']:.4g} at step {best['step']:.0f}"
    )
    # The first steps of a network are far above all that follows.
    losses = table[[c for c in names if c == "train_loss" or c.startswith("val_loss")]]
    later = losses.iloc[len(losses) // 10 :].to_numpy()
    low, high = np.nanmin(later), np.nanmax(later)
    margin = 0.05 * (high - low or 1.0)
    axes.set_ylim(low - margin, high + margin)
    axes.set(xlabel="step", ylabel="loss")
    figure.legend(loc="outside right upper", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "losses.png", dpi=120)


logger = logging.getLogger(__name__)

# How long a run lasts and how often it saves: no step that has been made would have been another one.
MAY_CHANGE = ("max_steps", "patience", "save_every", "device")


@dataclass
class TrainerState:
    """How far a run has come.

    Attributes:
        step: optimizer steps done.
        history: a row a validation.
        best: lowest score of a validation: its held-out loss, unless something else chooses.
        best_step: where it was.
        stale: validations since then.
        schedules: first step and `max_steps` of each schedule of the learning rate; a run that was resumed with
            another `max_steps` has several.
        running: sum of the training losses since the last validation.
        seconds: spent so far, over all its parts.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: float = float("inf")
    best_step: int = 0
    stale: int = 0
    schedules: list[list[int]] = field(default_factory=list)
    running: float = 0.0
    seconds: float = 0.0

    def add(self, row: dict[str, float], score: float | None = None) -> bool:
        """Note a validation; whether it is the best so far, by its held-out loss or by another score."""
        self.history.append(row)
        score = row["val_loss"] if score is None else score
        better = score < self.best
        if better:
            self.best, self.best_step, self.stale = score, self.step, 0
        else:
            self.stale += 1
        return better

    @property
    def start(self) -> dict[str, float] | None:
        """The row of the weights that training started from; None where they were random."""
        return self.history[0] if self.history and self.history[0]["step"] == 0 else None

    def out_of_patience(self, patience: int) -> bool:
        """Whether as many validations without a better one have passed; a patience of 0 never ends."""
        return 0 < patience <= self.stale

    def follow(self, max_steps: int) -> None:
        """Note that the next steps follow the schedule of `max_steps`."""
        if not self.schedules or self.schedules[-1][1] != max_steps:
            self.schedules.append([self.step, max_steps])

    def outcome(self) -> str:
        """How the run ended, in one sentence."""
        losses = {row["step"]: row["val_loss"] for row in self.history}
        best = losses.get(self.best_step, self.best)
        if self.start is None:
            return f"the best held-out loss is {best:.5g}, at step {self.best_step}"
        start = losses.pop(0)
        if self.best_step:
            return (
                f"the best held-out loss is {best:.5g}, at step {self.best_step} (at the start {start:.5g})"
            )
        return (
            f"no step was better than the weights that training started from (held-out loss {start:.5g}, later at "
            f"least {min(losses.values(), default=float('nan')):.5g}), so the best weights are those"
        )


class RunDirectory:
    """One stage's part of an output folder.

    Args:
        output: the folder.
        part: the stage.
        settings: all that determines the result, ready for JSON; a run is resumed with the same ones only, but for
            MAY_CHANGE.
    """

    def __init__(self, output: Path, part: Stage, settings: Mapping[str, Any]) -> None:
        self.output, self.part, self.settings = output, part, settings
        self.run = output / "run" / part
        self.record: dict[str, Any] = {}  # of the model card, for both kinds of weights

    def prepare(self, resume: bool, overwrite: bool, last_step: int | None = None) -> None:
        """Take the folder for this run, in one process of several.

        Args:
            resume: continue the run that is there.
            overwrite: replace it.
            last_step: how far the run is to go.

        Raises:
            FileExistsError: an earlier run's results are there, and nothing says what to do with them.
            ValueError: a run is to be resumed with other settings than it began with, or to fewer steps than it has
                made; or a tokenizer is to be trained further whose tokens a predictor has learned.
        """
        held = self.run / "settings.json"
        if not resume:
            self._clear(overwrite)
        elif held.is_file():
            _check_same(json.loads(held.read_text()), self.settings, held)
            self._check_steps(last_step)
        self.run.mkdir(parents=True, exist_ok=True)
        _replace(held, json.dumps(self.settings, indent=1) + "\n")

    def keep_best(self, network: Saveable, progress: TrainerState) -> None:
        """Save the weights as the best."""
        self._keep("best", network, progress)

    def save_state(self, accelerator: Accelerator, network: Saveable, progress: TrainerState) -> None:
        """Save all that the next step depends on; a process killed meanwhile leaves the state before.

        Every process must call this.
        """
        aside = self.run / "state.unfinished"
        if accelerator.is_main_process:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(aside))
        accelerator.wait_for_everyone()
        if not accelerator.is_main_process:
            return
        # The state comes last: killed before, a run goes on with the one before and writes these anew.
        self._keep("last", network, progress)
        write_curves(progress.history, self.run)
        (aside / "progress.json").write_text(json.dumps(asdict(progress)))
        earlier = self._states()
        state = self.run / f"state-{progress.step:08d}"
        shutil.rmtree(state, ignore_errors=True)
        aside.rename(state)
        for old in earlier:
            if old != state:
                shutil.rmtree(old)

    def load_state(self, accelerator: Accelerator) -> TrainerState:
        """Bring networks, optimizer, schedule and random streams back to the last saved state, if there is one."""
        states = self._states()
        if not states:
            return TrainerState()
        accelerator.load_state(str(states[-1]))
        progress = TrainerState(**json.loads((states[-1] / "progress.json").read_text()))
        logger.info("Resuming %s after step %d.", self.run, progress.step)
        return progress

    def _check_steps(self, last_step: int | None) -> None:
        states = self._states()
        if not states or last_step is None:
            return
        progress = TrainerState(**json.loads((states[-1] / "progress.json").read_text()))
        if last_step < progress.step:
            raise ValueError(
                f"{self.run} has already made {progress.step} steps, more than {last_step}. Give --max-steps "
                f"{progress.step} or more, and no smaller --stop-after, to resume it."
            )
        predictor = self.output / "run" / "predictor"
        ended = progress.step == last_step or progress.out_of_patience(self.settings.get("patience", 0))
        if self.part == "tokenizer" and not ended and (predictor / "settings.json").is_file():
            raise ValueError(
                f"{predictor} has learned the tokens of this tokenizer, which more steps would change. Resume the "
                "predictor alone, by `python -m kronos.training predictor --resume`, or give another --output."
            )

    def _states(self) -> list[Path]:
        return sorted(folder for folder in self.run.glob("state-*") if (folder / "progress.json").is_file())

    def _keep(self, which: str, network: Saveable, progress: TrainerState) -> None:
        folder, aside = self.output / which / self.part, self.output / which / f".{self.part}.unfinished"
        network.save_pretrained(aside)
        step = progress.best_step if which == "best" else progress.step
        losses = next((row for row in reversed(progress.history) if row["step"] <= step), {})
        record = {**self.record, "step": step, "losses": losses}
        if progress.start:
            record["start"] = progress.start
        if len(progress.schedules) > 1:
            record["schedules"] = progress.schedules
        (aside / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        folder.mkdir(exist_ok=True)
        for file in aside.iterdir():  # each is replaced at once, so that a killed run leaves whole files
            os.replace(file, folder / file.name)
        aside.rmdir()
        write_card(self.output / which)

    def _clear(self, overwrite: bool) -> None:
        # A new tokenizer makes a predictor of the old one's tokens void.
        parts = STAGES if self.part == "tokenizer" else (self.part,)
        there = [
            folder
            for part in parts
            for where in ("best", "last", "run")
            if (folder := self.output / where / part).exists()
        ]
        if there and not overwrite:
            raise FileExistsError(
                f"{there[0]} holds an earlier result. Give --resume to go on with it, --overwrite to replace it, "
                "or another --output."
            )
        for folder in there:
            shutil.rmtree(folder)


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], where: Path) -> None:
    now = json.loads(json.dumps(now))
    names = (before.keys() | now.keys()) - set(MAY_CHANGE)
    changed = sorted(name for name in names if before.get(name) != now.get(name))
    if changed:
        name = changed[0]
        raise ValueError(
            f"{where} says {name}={before.get(name)}, now it is {now.get(name)}. Resume with the settings and bars "
            "that the run began with, or begin another --output."
        )


def _replace(file: Path, text: str) -> None:
    aside = file.with_suffix(".unfinished")
    aside.write_text(text)
    os.replace(aside, file)
