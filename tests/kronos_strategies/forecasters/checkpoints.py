"""Tiny checkpoints of other foundation models with random weights, made by their own packages."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

LEVELS = [round(0.1 * i, 1) for i in range(1, 10)]
CONTEXT, PATCH, HORIZON = 64, 4, 16  # bars that they read, and forecast
_SIZES = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}


def chronos_2(folder: Path, seed: int = 0) -> Path:
    from chronos.chronos2 import Chronos2Model
    from chronos.chronos2.config import Chronos2CoreConfig

    settings = {
        "context_length": CONTEXT, "output_patch_size": PATCH, "input_patch_size": PATCH,
        "input_patch_stride": PATCH, "quantiles": [0.01, 0.05, *LEVELS, 0.95, 0.99],
        "use_reg_token": True, "use_arcsinh": True,
        "max_output_patches": HORIZON // PATCH, "time_encoding_scale": CONTEXT,
    }  # fmt: skip
    names = {"chronos_pipeline_class": "Chronos2Pipeline", "architectures": ["Chronos2Model"]}
    model = Chronos2Model(Chronos2CoreConfig(**_SIZES, chronos_config=settings, **names))
    _randomize(model, seed).save_pretrained(folder)
    return folder


def chronos_bolt(folder: Path, seed: int = 0) -> Path:
    from chronos.chronos_bolt import ChronosBoltModelForForecasting
    from transformers import T5Config

    settings = {
        "context_length": CONTEXT, "prediction_length": HORIZON, "input_patch_size": PATCH,
        "input_patch_stride": PATCH, "quantiles": LEVELS, "use_reg_token": True,
    }  # fmt: skip
    names = {
        "chronos_pipeline_class": "ChronosBoltPipeline",
        "architectures": ["ChronosBoltModelForForecasting"],
    }
    config = T5Config(
        **_SIZES, num_decoder_layers=1, vocab_size=2, pad_token_id=0, decoder_start_token_id=0,
        feed_forward_proj="relu", chronos_config=settings, **names,
    )  # fmt: skip
    _randomize(ChronosBoltModelForForecasting(config), seed).save_pretrained(folder)
    return folder


def tirex(folder: Path, seed: int = 0) -> Path:
    from tirex import TiRexZero

    blocks = {"num_blocks": 1, "embedding_dim": 16, "num_heads": 2, "ffn_proj_factor": 2.0}
    settings = {
        "input_patch_size": PATCH, "output_patch_size": PATCH, "quantiles": LEVELS, "block_kwargs": blocks,
        "input_ff_dim": 16,
    }  # fmt: skip
    hyper = {"model_config": settings, "train_ctx_len": CONTEXT}
    model = _randomize(TiRexZero(backend="torch", **hyper), seed)
    folder.mkdir(exist_ok=True)
    torch.save({"hyper_parameters": hyper, "state_dict": model.state_dict()}, folder / "model.ckpt")
    return folder


def _randomize(model: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2, generator=generator)
    return model
