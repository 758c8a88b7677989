"""Bars and networks to test with: small, random, reproducible, and of awkward sizes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kronos.bars import FEATURES
from kronos.config import ModelConfig, TokenizerConfig
from kronos.head import HeadInfo, ReturnHead
from kronos.inference.fused import ExecutionConfig, FusedKronos, FusedTokenizer
from kronos.model import Kronos
from kronos.sampling import SobolSampler, sobol_uniforms
from kronos.tokenizer import KronosTokenizer, Tokens


def make_bars(count: int, seed: int = 0, start: str = "2024-01-02", freq: str = "B") -> pd.DataFrame:
    """A random walk as consistent bars, indexed by time."""
    random = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(random.normal(0, 0.02, count)))
    open_ = np.r_[50.0, close[:-1]]
    high = np.maximum(open_, close) * (1 + random.uniform(0, 0.01, count))
    low = np.minimum(open_, close) * (1 - random.uniform(0, 0.01, count))
    volume = random.lognormal(10, 1, count)
    columns = [open_, high, low, close, volume, volume * (open_ + high + low + close) / 4]
    index = pd.date_range(start, periods=count, freq=freq, name="datetime")
    return pd.DataFrame(dict(zip(FEATURES, columns, strict=True)), index=index)


def make_panel(count: int, *names: str) -> dict[str, pd.DataFrame]:
    """Instruments of the same dates and different bars."""
    return {name: make_bars(count, seed) for seed, name in enumerate(names)}


def make_model(seed: int = 0, dropout: float = 0.0, **sizes: int | bool) -> Kronos:
    """A random model in eval mode whose logits are spread over several nats."""
    sizes = {"s1_bits": 5, "s2_bits": 3, "n_layers": 2, "d_model": 16, "n_heads": 2, "ff_dim": 24} | sizes
    model = Kronos(
        ModelConfig(
            ffn_dropout_p=dropout,
            resid_dropout_p=dropout,
            attn_dropout_p=dropout,
            token_dropout_p=dropout,
            **sizes,
        )
    )
    return _spread(model, seed).eval()


def make_tokenizer(seed: int = 0, dropout: float = 0.0, **sizes: int) -> KronosTokenizer:
    """A random tokenizer in eval mode that fits `make_model`."""
    sizes = {
        "s1_bits": 5,
        "s2_bits": 3,
        "d_model": 16,
        "n_heads": 2,
        "ff_dim": 24,
        "n_enc_layers": 3,
        "n_dec_layers": 3,
        "group_size": 4,
    } | sizes
    tokenizer = KronosTokenizer(
        TokenizerConfig(ffn_dropout_p=dropout, resid_dropout_p=dropout, attn_dropout_p=dropout, **sizes)
    )
    return _spread(tokenizer, seed).eval()


def fuse(network: Kronos | KronosTokenizer) -> FusedKronos | FusedTokenizer:
    """The network in the form that the engine uses."""
    kind = FusedKronos if isinstance(network, Kronos) else FusedTokenizer
    return kind(network, ExecutionConfig())


def make_tokens(model: Kronos, *shape: int, seed: int = 0) -> Tokens:
    """Random ids that the model knows."""
    generator = torch.Generator().manual_seed(seed)
    return Tokens(
        torch.randint(2**model.config.s1_bits, shape, generator=generator),
        torch.randint(2**model.config.s2_bits, shape, generator=generator),
    )


def shared_draws(
    dates: pd.DatetimeIndex, samples: int, horizon: int, seed: int = 0, sizes: tuple[int, int] = (32, 8)
) -> SobolSampler:
    """Draws of windows of these dates, along ids in their own order; `sizes` of the vocabularies."""
    uniforms = torch.from_numpy(sobol_uniforms(seed, dates, samples, horizon))
    return SobolSampler(uniforms, Tokens(*map(torch.arange, sizes)))


def make_stamps(*shape: int, seed: int = 0) -> Tensor:
    """Random calendar fields, (*shape, 5)."""
    generator = torch.Generator().manual_seed(seed)
    fields = [torch.randint(size, shape, generator=generator) for size in (60, 24, 7, 31, 12)]
    return torch.stack(fields, dim=-1)


def make_head(d_model: int, lookback: int = 20, seed: int = 0, **info: object) -> ReturnHead:
    """A random linear head of 1, 5 and 10 bars, as joint training leaves one."""
    random = np.random.default_rng(seed)
    known = HeadInfo(d_model, (1, 5, 10), "rank", lookback, **info)
    weight = random.normal(0, d_model**-0.5, (3, d_model)).astype(np.float32)
    return ReturnHead(known, weight, random.normal(0, 0.1, 3).astype(np.float32), name=f"head {seed}")


def headed_pair(
    pair: Path, folder: Path, d_model: int, lookback: int = 20, seed: int = 0, **info: object
) -> Path:
    """A copy of a pair's folder, with a random return head next to its predictor."""
    shutil.copytree(pair, folder)
    make_head(d_model, lookback, seed, **info).save(folder / "predictor")
    return folder


def compiler() -> str | None:
    """The C++ compiler that torch.compile would call, if there is one."""
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


def _spread(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights of unit gain, and louder heads: no near-ties, and every input matters to every output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if not weight.requires_grad:
                continue
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                weight.copy_(noise * 0.1 + ("norm" in name))
            else:
                gain = 2.0 if "head" in name else 1.0
                weight.copy_(noise * gain * weight.shape[-1] ** -0.5)
    return network
