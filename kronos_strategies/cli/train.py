"""`kronos train`: both stages of training, one after the other."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from kronos_strategies.cli.head import head

train = App(
    name="train",
    help_flags=[],  # --help goes on to the stages, whose flags these are
    version_flags=[],
    usage="Usage: kronos train [OPTIONS]",
    help="Train the tokenizer, then the predictor, from one file of settings.\n\n"
    "For example: `kronos train --config configs/finetune_csi300.yaml --data ~/csi300 --output out/csi300`",
)


train.command(head, help_flags=["--help", "-h"])


@train.default
def both(*tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]) -> None:
    """Run both stages, or the one that the first token names, with the flags of `python -m kronos.training`.

    Args:
        tokens: flags of both stages; or `tokenizer`, `predictor` or `evaluate` with its flags.
    """
    from kronos.training.__main__ import app as stages
    from kronos.training.__main__ import train as run_training
    from kronos_strategies.data.training import QlibBars

    if {"--help", "-h"} & set(tokens):
        train.help_print([])
        stages.help_print(["predictor"])
        return
    run_training(tokens, QlibBars)
