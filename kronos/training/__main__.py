"""`python -m kronos.training tokenizer|predictor`: train one stage from tidy bar files."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import cyclopts
import numpy as np
import pandas as pd
import torch
from cyclopts import Parameter

from kronos.config import ModelConfig, TokenizerConfig
from kronos.console import run_command
from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer
from kronos.training.clean import RULES
from kronos.training.dataset import BarTape, TrainingWindows
from kronos.training.heldout import held_out
from kronos.training.loop import LoopConfig, train
from kronos.training.stages import predictor_step, tokenizer_step

app = cyclopts.App(name="python -m kronos.training", help=__doc__)


def parse_date(name: str, text: str) -> pd.Timestamp:
    """A date of the command line, or one sentence that names the flag."""
    try:
        return pd.Timestamp(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is no date. Write it like 2018-12-31.") from None


@Parameter(name="*")
@dataclass(frozen=True)
class DataConfig:
    """Which bars to learn from.

    Attributes:
        data: tidy parquet or CSV files: instrument, datetime, open, high, low, close, volume[, amount, factor].
        train_until: last date of training windows.
        validate_until: last date of validation windows, which start after `train_until`.
        lookback: bars that a window is scaled by.
        horizon: bars behind them.
        frequency: of the bars, for the cleaning rules.
    """

    data: list[Path]
    train_until: str
    validate_until: str
    lookback: int = 90
    horizon: int = 11
    frequency: str = "1day"

    def __post_init__(self) -> None:
        if self.frequency not in RULES:
            raise ValueError(
                f"frequency={self.frequency} has no cleaning rule. Choose one of {sorted(RULES)}."
            )
        until = parse_date("train_until", self.train_until), parse_date("validate_until", self.validate_until)
        if until[0] >= until[1]:
            raise ValueError(
                f"validate_until={self.validate_until} is not after train_until={self.train_until}. Leave some "
                "dates between them to validate on."
            )

    def windows(self) -> tuple[TrainingWindows, TrainingWindows]:
        """Training and validation windows; no window holds bars of both spans behind its lookback."""
        length = self.lookback + self.horizon
        tape = BarTape.from_files(self.data, self.frequency, min_bars=length)
        split = [
            tape.starts(length, None, self.train_until),
            tape.starts(length, self.train_until, self.validate_until),
        ]
        # Embargo: a validation window's horizon must lie behind the last training date altogether.
        first = tape.dates[split[1] + self.lookback]
        split[1] = split[1][first >= np.datetime64(self.train_until) + np.timedelta64(1, "D")]
        return tuple(TrainingWindows(tape, s, self.lookback, self.horizon) for s in split)  # type: ignore[return-value]


@Parameter(name="*")
@dataclass(frozen=True)
class TokenizerSize(TokenizerConfig):
    """The nano tokenizer's size; every field is a flag."""

    d_model: int = 64
    ff_dim: int = 128
    n_enc_layers: int = 3
    n_dec_layers: int = 3
    s1_bits: int = 8
    s2_bits: int = 8


@Parameter(name="*")
@dataclass(frozen=True)
class ModelSize(ModelConfig):
    """The nano model's size; every field is a flag."""

    n_layers: int = 4
    d_model: int = 96
    n_heads: int = 4
    ff_dim: int = 256
    s1_bits: int = 8
    s2_bits: int = 8


Loop = Annotated[LoopConfig, Parameter(name="*")]


@app.command
def tokenizer(
    data: DataConfig,
    *,
    output: Path,
    size: TokenizerSize = TokenizerSize(),
    loop: Loop = LoopConfig(),  # noqa: B008
) -> None:
    """First stage: learn to rebuild bars.

    Example: python -m kronos.training tokenizer --data bars.parquet --train-until 2018-12-31
    --validate-until 2019-12-31 --output out/tokenizer
    """
    torch.manual_seed(loop.seed)
    network = KronosTokenizer(size)
    train(network, tokenizer_step(network), *data.windows(), loop, output)


@app.command
def predictor(
    data: DataConfig,
    *,
    tokenizer: Path,
    output: Path,
    size: ModelSize = ModelSize(),
    loop: Loop = LoopConfig(),  # noqa: B008
) -> None:
    """Second stage: learn the order of a trained tokenizer's tokens.

    Example: python -m kronos.training predictor --data bars.parquet --train-until 2018-12-31
    --validate-until 2019-12-31 --tokenizer out/tokenizer --output out/predictor
    """
    torch.manual_seed(loop.seed)
    network = Kronos(size)
    train(
        network,
        predictor_step(network, KronosTokenizer.from_pretrained(tokenizer)),
        *data.windows(),
        loop,
        output,
    )


@app.command
def evaluate(
    checkpoint: Path, *, train: list[Path], train_until: str, data: list[Path], since: str, until: str
) -> None:
    """Losses of a trained pair on held-out dates, beside unigram, bigram and persistence.

    Example: python -m kronos.training evaluate out --train bars.parquet --train-until 2018-12-31
    --data bars.parquet --since 2020-01-01 --until 2021-12-31

    Args:
        checkpoint: folder with tokenizer/ and predictor/.
        train: files that the counting baselines learn from, until `train_until`.
        train_until: last date of training windows.
        data: held-out files.
        since: first date of a held-out window's last bar.
        until: last date of a held-out window's last bar.
    """
    parse_date("since", since)
    size = DataConfig(train, train_until, until)
    length = size.lookback + size.horizon
    tapes = [BarTape.from_files(files, size.frequency, min_bars=length) for files in (train, data)]
    spans = (None, train_until), (since, until)
    training, held = (
        TrainingWindows(tape, tape.starts(length, *span), size.lookback, size.horizon)
        for tape, span in zip(tapes, spans, strict=True)
    )
    result = held_out(
        Kronos.from_pretrained(checkpoint), KronosTokenizer.from_pretrained(checkpoint), training, held
    )
    print(json.dumps(asdict(result), indent=1))  # noqa: T201 (a command's result)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    run_command(app)
