"""Bars, windows and settings of trainings that take about a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from kronos.bars import FEATURES, stamps
from kronos.config import ModelConfig, TokenizerConfig
from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer
from kronos.training.bar_array import MappedBars
from kronos.training.config import TrainingConfig
from kronos.training.dataset import Split, TrainingWindows
from kronos.training.model_card import DatasetInfo
from kronos.training.objectives import PredictorObjective, TokenizerObjective
from kronos.training.run_directory import RunDirectory, TrainerState
from kronos.training.trainer import Trainer
from tests.kronos.builders import make_bars

LOOKBACK, HORIZON = 16, 4
LENGTH = LOOKBACK + HORIZON
TOKENIZER = TokenizerConfig(
    d_model=16, n_heads=2, ff_dim=24, n_enc_layers=2, n_dec_layers=2, s1_bits=4, s2_bits=4
)
PREDICTOR = ModelConfig(d_model=16, n_heads=2, ff_dim=24, n_layers=1, s1_bits=4, s2_bits=4)


def make_waves(count: int, phase: float = 0.0) -> pd.DataFrame:
    """Bars that rise and fall with a period of eight, which a few dozen steps can learn."""
    turn = np.arange(count) * (2 * np.pi / 8) + phase
    opens, close = 20 + np.sin(turn - 0.8), 20 + np.sin(turn)
    volume = 100 * (2 + np.cos(turn))
    columns = [
        opens,
        np.maximum(opens, close) + 0.1,
        np.minimum(opens, close) - 0.1,
        close,
        volume,
        volume * 20,
    ]
    index = pd.bdate_range("2020-01-01", periods=count, name="datetime")
    return pd.DataFrame(dict(zip(FEATURES, columns, strict=True)), index=index)


def tidy(*series: pd.DataFrame) -> pd.DataFrame:
    """Long form: one row per instrument and time."""
    named = [bars.reset_index().assign(instrument=f"I{i}") for i, bars in enumerate(series)]
    return pd.concat(named, ignore_index=True)


def write_bars(file: Path, *series: pd.DataFrame) -> Path:
    """A file of tidy bars, CSV or parquet by its suffix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    frame = tidy(*series)
    if file.suffix == ".parquet":
        frame.to_parquet(file)
    else:
        frame.to_csv(file, index=False)
    return file


def make_mapped_bars(*series: pd.DataFrame, name: str = "bars") -> MappedBars:
    """A mapped in memory, a segment a series."""
    index = pd.DatetimeIndex(np.concatenate([bars.index.to_numpy("datetime64[ns]") for bars in series]))
    sizes = [len(bars) for bars in series]
    count = sum(sizes)
    first, last = f"{index.min():%Y-%m-%d}", f"{index.max():%Y-%m-%d}"
    return MappedBars(
        values=np.concatenate([bars.to_numpy(np.float32) for bars in series]),
        stamps=stamps(index).astype(np.int8),
        dates=index.to_numpy("datetime64[ns]"),
        bounds=np.cumsum([0, *sizes]),
        info=DatasetInfo(name, len(series), len(series), count, count, first, last, "0" * 64),
    )


def make_windows(*mapped_bars: MappedBars, weights: tuple[float, ...] | None = None) -> TrainingWindows:
    """All windows of some mapped_bars."""
    starts = tuple(mapped.window_starts(LENGTH, None, None) for mapped in mapped_bars)
    return TrainingWindows(mapped_bars, starts, LOOKBACK, HORIZON, weights)


def waves(count: int, phase: float = 0.0) -> TrainingWindows:
    """Windows of what is easy to learn."""
    return make_windows(make_mapped_bars(make_waves(count, phase)))


def noise(count: int, seed: int) -> TrainingWindows:
    """Windows of which nothing can be learned but by heart."""
    return make_windows(make_mapped_bars(make_bars(count, seed)))


def make_config(output: Path, **changes: Any) -> TrainingConfig:
    """Settings of a short run on the CPU, from random weights of a tiny network."""
    settings: dict[str, Any] = {
        "lookback": LOOKBACK,
        "horizon": HORIZON,
        "pretrained": "none",
        "tokenizer_size": TOKENIZER,
        "predictor_size": PREDICTOR,
        "max_steps": 6,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "validate_every": 3,
        "validation_windows": 40,
        "device": "cpu",
    }
    return TrainingConfig(output=output, **settings | changes)


def make_run(folder: Path, **changes: Any) -> TrainingConfig:
    """Settings of a short run on a file of two instruments' bars, which is written if it is not there."""
    file = folder / "bars.parquet"
    if not file.is_file():
        write_bars(file, make_bars(120, 0), make_bars(100, 1))
    spans = {"train_until": "2024-04-19", "validate_until": "2024-06-10"}
    return make_config(**{"output": folder / "out", "data": file} | spans | changes)


def train(
    network: Kronos | KronosTokenizer,
    split: Split,
    config: TrainingConfig,
    tokenizer: KronosTokenizer | None = None,
) -> TrainerState:
    """Train a network in this process, on windows in memory."""
    stage = TokenizerObjective(network) if tokenizer is None else PredictorObjective(network, tokenizer)
    return make_trainer(stage, split, config).run()


def make_trainer(
    stage: TokenizerObjective | PredictorObjective, split: Split, config: TrainingConfig
) -> Trainer:
    """A trainer with a folder of its own."""
    folder = RunDirectory(
        config.output, "tokenizer" if isinstance(stage, TokenizerObjective) else "predictor", {}
    )
    folder.record = {"origin": "a test", "sha256": "0" * 64, "trained_until": None}
    folder.prepare(config.resume, config.overwrite)
    return Trainer(stage, split, config, folder, Accelerator(cpu=True))


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights that a folder holds."""
    return load_file(folder / "model.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two networks are bit for bit the same."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def make_market(names: int, bars: int, name: str = "market") -> MappedBars:
    """A mapped of random walks on the same dates."""
    return make_mapped_bars(*(make_bars(bars, seed) for seed in range(names)), name=name)


def planted_market(names: int, bars: int, strength: float, seed: int = 0) -> list[pd.DataFrame]:
    """Instruments whose volume predicts the return that the label of one bar ranks."""
    random = np.random.default_rng(seed)
    series = []
    for i in range(names):
        effect = random.normal(size=bars)
        steps = 0.01 * random.normal(size=bars)
        steps[2:] += 0.01 * strength * effect[:-2]
        own = make_bars(bars, seed * names + i)
        close = 50 * np.exp(np.cumsum(steps))
        opens = np.r_[50.0, close[:-1]]
        own = own.assign(open=opens, close=close, high=np.maximum(opens, close), low=np.minimum(opens, close))
        own["volume"] = 1e4 * np.exp(effect)
        own["amount"] = own["volume"] * own[["open", "high", "low", "close"]].mean(axis=1)
        series.append(own)
    return series
