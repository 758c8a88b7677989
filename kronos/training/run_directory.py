"""The directory of a run: best and last weights, losses so far, and the state to resume from.

    best/tokenizer/, best/predictor/   weights with the best validation; training.json: how they were trained
    best/predictor/head.*              the return head, if one was trained last/tokenizer/, last/predictor/
    weights of the last step; next to a predictor, the tokenizer it was trained with best/README.md,
    last/README.md     a model card run/<part>/                        settings.json, losses.csv, losses.png,
    state-<step>/, files of a tracker

`from_pretrained` loads `best` and `last`: the tokenizer after the first stage, a pair after the second.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import Accelerator
from accelerate.utils.other import load
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kronos.training.config import STAGES, Stage
from kronos.training.model_card import RECORD, write_card
from kronos.training.objectives import Saveable
from kronos.utils import csv_text, explain_write_errors, replace_folder, write_atomic


def write_curves(history: Sequence[dict[str, float]], folder: Path) -> None:
    """Write losses.csv and losses.png into `folder`; nothing before the first validation.

    Args:
        history: one row per validation: step, seconds, lr, train_loss, val_loss and its parts; the first may be
            that of the initial weights, step 0 without a train_loss.
        folder: existing folder.
    """
    if not history:
        return
    names = list(history[-1])  # the initial weights have no training loss
    table = pd.DataFrame(list(history), columns=names)
    write_atomic(folder / "losses.csv", csv_text(table))
    # A Figure without pyplot needs no display and no global state.
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if "train_loss" in names:
        axes.plot(table["step"], table["train_loss"], color="0.55", label="training", marker=".")
    for name in names:
        if name.startswith("val_loss"):
            own = name == "val_loss"
            label = "validation" if own else f"validation, {name.partition('/')[2]}"
            axes.plot(table["step"], table[name], linewidth=2 if own else 1, label=label, marker=".")
    best = min(history, key=lambda row: row["val_loss"])
    axes.axvline(
        best["step"], color="0.8", zorder=0, label=f"best: {best['val_loss']:.4g} at step {best['step']:.0f}"
    )
    # Losses of the first steps are far above all others.
    losses = table[[c for c in names if c == "train_loss" or c.startswith("val_loss")]]
    later = losses.iloc[len(losses) // 10 :].to_numpy()
    low, high = np.nanmin(later), np.nanmax(later)
    margin = 0.05 * (high - low or 1.0)
    axes.set_ylim(low - margin, high + margin)
    axes.set(xlabel="step", ylabel="loss")
    figure.legend(loc="outside right upper", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomic(folder / "losses.png", picture.getvalue())


logger = logging.getLogger(__name__)

INSTEAD = "Pass another --output, or resume this one afterwards with --resume."
# Settings that do not affect the steps that were already made.
MAY_CHANGE = ("max_steps", "patience", "save_every", "device")


@dataclass
class TrainerState:
    """Progress of a run.

    Attributes:
        step: number of optimizer steps so far.
        history: one row per validation.
        best: lowest selection score of a validation; by default its loss.
        best_step: step of the best validation.
        stale: number of validations since then.
        schedules: first step and `max_steps` of each learning-rate schedule; several if the run was resumed with
            another `max_steps`.
        running: sum of training losses since the last validation.
        seconds: time so far, over all sessions.
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
        """Add a validation; returns whether it is the best so far, by its loss or by `score`."""
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
        """The row of the initial weights; None if they were random."""
        return self.history[0] if self.history and self.history[0]["step"] == 0 else None

    def out_of_patience(self, patience: int) -> bool:
        """Whether `patience` validations passed without improvement; a patience of 0 never ends."""
        return 0 < patience <= self.stale

    def follow(self, max_steps: int) -> None:
        """Record that the next steps follow the schedule of `max_steps`."""
        if not self.schedules or self.schedules[-1][1] != max_steps:
            self.schedules.append([self.step, max_steps])

    def outcome(self) -> str:
        """The result of the run, as a clause."""
        losses = {row["step"]: row["val_loss"] for row in self.history}
        best = losses.get(self.best_step, self.best)
        if self.start is None:
            return f"the best validation loss is {best:.5g}, at step {self.best_step}"
        start = losses.pop(0)
        if self.best_step:
            return f"the best validation loss is {best:.5g}, at step {self.best_step} (initially {start:.5g})"
        return (
            f"no step was better than the initial weights (validation loss {start:.5g}, later at least "
            f"{min(losses.values(), default=float('nan')):.5g}), which are therefore the best weights"
        )


class RunDirectory:
    """The part of an output directory for one stage.

    Args:
        output: output directory.
        part: the stage.
        settings: everything that determines the result, as JSON values; a run can only be resumed with the same
            ones, except for MAY_CHANGE.
    """

    def __init__(self, output: Path, part: Stage, settings: Mapping[str, Any]) -> None:
        self.output, self.part, self.settings = output, part, settings
        self.run = output / "run" / part
        self.record: dict[str, Any] = {}  # for the model cards of best and last

    def prepare(self, resume: bool, overwrite: bool, last_step: int | None = None) -> None:
        """Prepare the directory for this run, in one process of several.

        Args:
            resume: continue the existing run.
            overwrite: replace it.
            last_step: last step of the run.

        Raises:
            FileExistsError: there is an earlier result, but neither option is set.
            ValueError: the settings or the number of steps do not allow resuming, or a predictor was already
                trained with this tokenizer.
        """
        held = self.run / "settings.json"
        if not resume:
            self._clear(overwrite)
        elif held.is_file():
            _check_same(json.loads(held.read_text()), self.settings, held)
            self._check_steps(last_step)
        with explain_write_errors(self.output, INSTEAD):
            self.run.mkdir(parents=True, exist_ok=True)
            write_atomic(held, json.dumps(self.settings, indent=1) + "\n")

    def keep_best(self, network: Saveable, progress: TrainerState) -> None:
        """Save the weights as the best."""
        with explain_write_errors(self.output, INSTEAD):
            self._keep("best", network, progress)

    def save_state(self, accelerator: Accelerator, network: Saveable, progress: TrainerState) -> None:
        """Save everything that the next step depends on; if the process is killed, the previous state remains.

        Every process must call this.

        Raises:
            OSError: the disk is full, or the directory cannot be written; the previous state remains.
        """
        aside = self.run / "state.unfinished"
        try:
            with explain_write_errors(self.output, INSTEAD):
                self._save_state(accelerator, network, progress, aside)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)
            raise

    def _save_state(
        self, accelerator: Accelerator, network: Saveable, progress: TrainerState, aside: Path
    ) -> None:
        if accelerator.is_main_process:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(aside))
        accelerator.wait_for_everyone()
        if not accelerator.is_main_process:
            return
        # The state is written last: a run that is killed before resumes from the previous one and writes these
        # again.
        self._keep("last", network, progress)
        write_curves(progress.history, self.run)
        (aside / "progress.json").write_text(json.dumps(asdict(progress)))
        earlier = self._states()
        state = self.run / f"state-{progress.step:08d}"
        replace_folder(aside, state)
        for old in earlier:
            if old != state:
                shutil.rmtree(old)

    def load_state(self, accelerator: Accelerator) -> TrainerState:
        """Restore networks, optimizer, schedule and random generators from the last saved state, if any."""
        states = self._states()
        if not states:
            return TrainerState()
        _check_pickles(states[-1])
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
                f"{self.run} is already at step {progress.step}, after {last_step}. Pass --max-steps "
                f"{progress.step} or more, and no smaller --stop-after, to resume it."
            )
        predictor = self.output / "run" / "predictor"
        ended = progress.step == last_step or progress.out_of_patience(self.settings.get("patience", 0))
        if self.part == "tokenizer" and not ended and (predictor / "settings.json").is_file():
            raise ValueError(
                f"{predictor} was trained on the tokens of this tokenizer, which more steps would change. "
                "Resume only the predictor with `kronos train predictor --resume`, or choose another "
                "--output."
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
        for file in aside.iterdir():  # each is replaced atomically
            os.replace(file, folder / file.name)
        aside.rmdir()
        write_card(self.output / which)

    def _clear(self, overwrite: bool) -> None:
        # Retraining the tokenizer invalidates a predictor trained on its tokens.
        parts = STAGES if self.part == "tokenizer" else (self.part,)
        there = [
            folder
            for part in parts
            for where in ("best", "last", "run")
            if (folder := self.output / where / part).exists()
        ]
        if there and not overwrite:
            raise FileExistsError(
                f"{there[0]} contains an earlier result. Pass --resume to continue it, --overwrite to replace it, "
                "or another --output."
            )
        for folder in there:
            shutil.rmtree(folder)


def _check_pickles(state: Path) -> None:
    """Refuse a state that is damaged, or comes from elsewhere and would run code.

    Accelerate unpickles schedules without a check, and skips random generators that it cannot read.

    Raises:
        ValueError: a file has more than tensors and plain values, or cannot be read.
    """
    for file in sorted([*state.glob("custom_checkpoint_*.pkl"), *state.glob("random_states_*.pkl")]):
        try:
            load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"{file} is not a training state ({reason}). Train again with --overwrite, or delete {state}."
            ) from None


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], where: Path) -> None:
    now = json.loads(json.dumps(now))
    names = (before.keys() | now.keys()) - set(MAY_CHANGE)
    changed = sorted(name for name in names if before.get(name) != now.get(name))
    if changed:
        name = changed[0]
        raise ValueError(
            f"{where} has {name}={before.get(name)}, but now it is {now.get(name)}. Resume with the original "
            "settings and bars, or choose another --output."
        )
