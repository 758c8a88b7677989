"""The commands of training: settings from a YAML file, flags over them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection, Parameter
from cyclopts.config import Dict

from kronos.training.config import STAGES, Stage, TrainingConfig, read_yaml

app = App(
    name="python -m kronos.training",
    help="Train Kronos in two stages: the tokenizer learns to rebuild bars, then the predictor learns its tokens' "
    "order.\n\nFor example: `torchrun --standalone --nproc_per_node=2 -m kronos.training tokenizer --config "
    "configs/finetune_csi300.yaml`",
    default_parameter=Parameter(negative=()),
)


@app.command
def tokenizer(*, config: Path | None = None, settings: TrainingConfig) -> None:
    """First stage: learn to rebuild bars.

    For example: `python -m kronos.training tokenizer --config configs/finetune_csi300.yaml --output out/csi300`

    Args:
        config: YAML file of settings; a flag wins over it.
        settings: of the run.
    """
    _run("tokenizer", settings)


@app.command
def predictor(*, config: Path | None = None, settings: TrainingConfig) -> None:
    """Second stage: learn the order of a tokenizer's tokens.

    For example: `python -m kronos.training predictor --config configs/finetune_csi300.yaml --output out/csi300`

    Args:
        config: YAML file of settings; a flag wins over it.
        settings: of the run.
    """
    _run("predictor", settings)


def train_both(tokens: Sequence[str]) -> None:
    """Both stages one after the other, with the same flags; both are checked before the first begins."""
    parsed = [app.parse_args([stage, *tokens], exit_on_error=False, print_error=False) for stage in STAGES]
    for command, bound, _ in parsed:
        command(*bound.args, **bound.kwargs)


def show_log() -> None:
    """Say on stderr what happens; of several processes the first one does."""
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


def _run(stage: Stage, settings: TrainingConfig) -> None:
    try:
        from kronos.training.run import run_stage  # torch and accelerate: --help answers without them
    except ModuleNotFoundError as error:
        if error.name not in ("accelerate", "matplotlib"):
            raise
        raise ImportError(
            f"Training needs {error.name}: pip install 'kronos-strategies[train]'."
        ) from error
    progress = run_stage(stage, settings)
    logging.getLogger(__name__).info(
        "%s: best held-out loss %.5g at step %d, in %s", stage, progress.best, progress.best_step, settings.output / "best"
    )


def _from_yaml(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill in what no flag has given, from the file that --config names."""
    named = [token.value for argument in arguments.filter_by(show=None) if argument.name == "--config" for token in argument.tokens]
    if named:
        file = Path(named[0])
        Dict(read_yaml(file, commands[-1]), source=str(file), use_commands_as_keys=False)(app, commands, arguments)


app.config = (_from_yaml,)
