"""The two losses, each a module that a process group can wrap: its forward is one step's losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from kronos.engine.fused import Form, FusedTokenizer
from kronos.model import Kronos, ModelLoss
from kronos.quantizer import Tokens
from kronos.tokenizer import KronosTokenizer, TokenizerLoss

Losses = dict[str, Tensor]  # scalars by name; "loss" is the one to minimise


class TokenizerStage(nn.Module):
    """Rebuild the bars from coarse tokens, and from both, and use the whole codebook.

    Args:
        network: to train.
        pool: mean over all processes of a tensor that is a mean over one process's windows.
        scored: how many of the last bars validation scores, those that training has not seen; None: all.
    """

    losses: ClassVar[tuple[str, ...]] = TokenizerLoss._fields

    def __init__(
        self,
        network: KronosTokenizer,
        pool: Callable[[Tensor], Tensor] | None = None,
        scored: int | None = None,
    ) -> None:
        super().__init__()
        self.network, self.scored = network, scored
        self.pool = pool

    def forward(self, bars: Tensor, stamps: Tensor) -> Losses:
        """(B, T, 6) bars -> losses."""
        # In validation processes take turns at whole batches, which are scored alone.
        pool, scored = (self.pool, None) if self.training else (None, self.scored)
        return self.network.loss(bars, pool, scored)._asdict()


class PredictorStage(nn.Module):
    """Predict the next token of a frozen tokenizer.

    The cross-attention stays unrotated, the form in which tokens are decoded later; the coarse half that it is
    given is the true one.
    """

    losses: ClassVar[tuple[str, ...]] = ModelLoss._fields

    def __init__(self, network: Kronos, tokenizer: KronosTokenizer, scored: int | None = None) -> None:
        super().__init__()
        self.network, self.scored = network, scored
        # Not a submodule: neither trained nor synchronised nor saved with the network.
        self._encode = FusedTokenizer(tokenizer.eval().requires_grad_(False), Form()).encode

    def forward(self, bars: Tensor, stamps: Tensor) -> Losses:
        """(B, T, 6) bars and (B, T, 5) stamps -> losses."""
        with torch.autocast(bars.device.type, enabled=False):  # a flipped sign would be another token
            tokens = self._encode(bars)
        # Autograd may keep no tensor that was made in inference mode.
        tokens = Tokens(*(half.clone() for half in tokens))
        scored = None if self.training else self.scored
        return self.network.loss(tokens, stamps, scored=scored)._asdict()
