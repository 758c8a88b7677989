"""KronosTokenizer: normalised bars -> pairs of discrete tokens, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kronos.checkpoint import Network
from kronos.config import TokenizerConfig
from kronos.layers import Block, rope_table
from kronos.quantizer import BinaryQuantizer, Tokens, unit


class TokenizerLoss(NamedTuple):
    """Scalars of one training step."""

    loss: Tensor  # (recon_s1 + recon + bsq) / 2
    recon_s1: Tensor  # mean squared error of the bars rebuilt from s1 alone
    recon: Tensor  # ... from both sub-tokens
    bsq: Tensor  # commitment and entropy


class KronosTokenizer(Network):
    """A causal transformer autoencoder around a binary quantiser (Kronos, section 3.1)."""

    config_type = TokenizerConfig
    part = "tokenizer"

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        bits = config.s1_bits + config.s2_bits
        self.embed = nn.Linear(config.d_in, config.d_model)
        self.encoder = self._blocks(config.n_enc_layers - 1)
        self.quant_embed = nn.Linear(config.d_model, bits)
        self.quantizer = BinaryQuantizer(config)
        self.post_quant_embed_pre = nn.Linear(config.s1_bits, config.d_model)
        self.post_quant_embed = nn.Linear(bits, config.d_model)
        self.decoder = self._blocks(config.n_dec_layers - 1)
        self.head = nn.Linear(config.d_model, config.d_in)

    def encode(self, x: Tensor) -> Tokens:
        """(B, T, 6) normalised bars -> their tokens; position t sees bars 0..t only."""
        return self.quantizer.tokens(self.quantizer(self._latents(x)))

    def decode(self, tokens: Tokens) -> Tensor:
        """Tokens -> (B, T, 6) normalised bars; position t sees tokens 0..t only."""
        return self.rebuild(self.post_quant_embed(self.quantizer.corners(tokens)))

    def loss(
        self,
        x: Tensor,
        pool: Callable[[Tensor], Tensor] | None = None,
        scored: int | None = None,
        columns: Tensor | None = None,
    ) -> TokenizerLoss:
        """Training loss of (B, T, 6) normalised bars (Kronos, eq. 4); `pool` as in `BinaryQuantizer.loss`.

        With `scored`, of the last so many bars only; the others are context. `columns` are the weights (6,) of the
        squared errors of the features, which should have mean 1.
        """
        z = self._latents(x)
        corners = self.quantizer(z)
        coarse = self.rebuild(self.post_quant_embed_pre(corners[..., : self.config.s1_bits]))
        full = self.rebuild(self.post_quant_embed(corners))
        last = slice(None if scored is None else -scored, None)
        recon_s1, recon = (_squares(rebuilt[:, last], x[:, last], columns) for rebuilt in (coarse, full))
        bsq = self.quantizer.loss(z[:, last], pool)
        return TokenizerLoss((recon_s1 + recon + bsq) / 2, recon_s1, recon, bsq)

    def upstream_constants(self) -> dict[str, Tensor]:
        """See `Network`: the quantiser's bit weights come on top."""
        bits = {"basis": self.config.s1_bits + self.config.s2_bits, "group_basis": self.config.group_size}
        weights = {f"tokenizer.bsq.{name}": 2 ** torch.arange(n - 1, -1, -1) for name, n in bits.items()}
        return {**super().upstream_constants(), **weights}

    def _latents(self, x: Tensor) -> Tensor:
        # float32 under autocast, too: bfloat16 cannot tell how far the mean of thousands of bits is from one half.
        return unit(self.quant_embed(self._run(self.encoder, self.embed(x))).float())  # (B, T, bits)

    def rebuild(self, x: Tensor) -> Tensor:
        """The decoder: embedded corners (B, T, d_model) -> (B, T, 6) normalised bars."""
        return self.head(self._run(self.decoder, x))

    def _run(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device)
        rope = rope_table(positions, self.config.d_model // self.config.n_heads)
        for block in blocks:
            x = block(x, rope)
        return x

    def _blocks(self, count: int) -> nn.ModuleList:
        c = self.config
        return nn.ModuleList(
            Block(c.d_model, c.n_heads, c.ff_dim, c.ffn_dropout_p, c.attn_dropout_p, c.resid_dropout_p)
            for _ in range(count)
        )


def _squares(rebuilt: Tensor, x: Tensor, columns: Tensor | None) -> Tensor:
    if columns is None:
        return F.mse_loss(rebuilt, x)
    return ((rebuilt.float() - x).square() * columns).mean()
