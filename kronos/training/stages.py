"""The two losses, each as one step of the loop."""

from __future__ import annotations

import torch
from torch import Tensor

from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer
from kronos.training.loop import Losses, Step


def tokenizer_step(tokenizer: KronosTokenizer) -> Step:
    """Rebuild the bars from coarse tokens, and from both, and use the whole codebook."""

    def step(x: Tensor, stamps: Tensor) -> Losses:
        return tokenizer.loss(x)._asdict()

    return step


def predictor_step(model: Kronos, tokenizer: KronosTokenizer) -> Step:
    """Predict the next token under a frozen tokenizer.

    The cross-attention stays unrotated, the form in which tokens are decoded later.
    """
    tokenizer.eval().requires_grad_(False)

    def step(x: Tensor, stamps: Tensor) -> Losses:
        with torch.no_grad():
            tokens = tokenizer.encode(x)
        return model.loss(tokens, stamps)._asdict()

    return step
