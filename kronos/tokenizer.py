"""KronosTokenizer: normalized bars -> pairs of discrete tokens, and back, by binary spherical quantization."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kronos.checkpoint import PretrainedModule
from kronos.config import TokenizerConfig
from kronos.layers import Block, rope_table


class Tokens(NamedTuple):
    """Bars as pairs of sub-token ids, each (B, T) int64 (inference also uses (N, S, H))."""

    s1: Tensor  # coarse, in [0, 2**s1_bits)
    s2: Tensor  # fine, in [0, 2**s2_bits)


class BinaryQuantizer(nn.Module):
    """Quantize latents to vertices of a hypercube on the unit sphere, the codes (BSQ, Zhao et al. 2024).

    A code is sign(z) / sqrt(bits); its id is the signs read as a binary number, lowest bit first, so that ids and
    codes convert both ways and no codebook is stored.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.split = (config.s1_bits, config.s2_bits)
        self.scale = sum(self.split) ** -0.5

    def forward(self, z: Tensor) -> Tensor:
        """(B, T, bits) unit latents -> (B, T, bits) codes; the gradient is passed straight through."""
        signs = torch.where(z > 0, 1.0, -1.0).type_as(z)
        return (z + (signs - z).detach()) * self.scale

    def tokens(self, codes: Tensor) -> Tokens:
        """(B, T, bits) codes -> their ids."""
        s1, s2 = (codes > 0).split(self.split, dim=-1)
        return Tokens(_to_ids(s1), _to_ids(s2))

    def codes(self, tokens: Tokens) -> Tensor:
        """Ids -> (..., bits) codes, the inverse of `tokens`."""
        bits = [_to_bits(ids, width) for ids, width in zip(tokens, self.split, strict=True)]
        return (torch.cat(bits, dim=-1).float() * 2 - 1) * self.scale

    def loss(self, z: Tensor, all_reduce_mean: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Commitment plus entropy of (B, T, bits) unit latents (BSQ, eqs. 7 and 8): a scalar.

        Small per-sample entropy makes the signs certain, large codebook entropy makes all codes used. A bit is
        positive with logit 4 z / sqrt(bits). The codebook entropy is the sum of its bits' entropies, as in
        upstream, whose estimate by groups of bits is overwritten before use. It is not a mean over windows, so
        that several processes that share a batch must average their bits' means with `all_reduce_mean` first.
        """
        config = self.config
        commit = (self(z).detach() - z).square().sum(dim=-1).mean()
        plus = torch.sigmoid(4 * self.scale * z)
        per_sample = _bit_entropy(plus).sum(dim=-1).mean()
        mean = plus.mean(dim=(0, 1))
        codebook = _bit_entropy(mean if all_reduce_mean is None else all_reduce_mean(mean)).sum()
        entropy = config.gamma0 * per_sample - config.gamma * codebook
        return config.beta * commit + config.zeta * entropy


def l2_normalize(z: Tensor) -> Tensor:
    """Project (..., bits) latents to the unit sphere."""
    return F.normalize(z, dim=-1)


def _to_ids(bits: Tensor) -> Tensor:
    weights = 2 ** torch.arange(bits.shape[-1], device=bits.device)
    return (bits.long() * weights).sum(dim=-1)


def _to_bits(ids: Tensor, width: int) -> Tensor:
    return (ids[..., None] >> torch.arange(width, device=ids.device)) & 1


def _bit_entropy(p: Tensor) -> Tensor:
    """Entropy in nats of a bit that is 1 with probability p; the small constant is upstream's."""
    return -(p * (p + 1e-8).log() + (1 - p) * (1 - p + 1e-8).log())


class TokenizerLoss(NamedTuple):
    """Scalars of one training step."""

    loss: Tensor  # (recon_s1 + recon + bsq) / 2
    recon_s1: Tensor  # mean squared error of the bars reconstructed from s1 only
    recon: Tensor  # ... from both sub-tokens
    bsq: Tensor  # commitment and entropy


class KronosTokenizer(PretrainedModule):
    """A causal transformer autoencoder around a binary quantizer (Kronos, section 3.1)."""

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
        """(B, T, 6) normalized bars -> their tokens; position t sees bars 0..t only."""
        return self.quantizer.tokens(self.quantizer(self._latents(x)))

    def decode(self, tokens: Tokens) -> Tensor:
        """Tokens -> (B, T, 6) normalized bars; position t sees tokens 0..t only."""
        return self.run_decoder(self.post_quant_embed(self.quantizer.codes(tokens)))

    def loss(
        self,
        x: Tensor,
        all_reduce_mean: Callable[[Tensor], Tensor] | None = None,
        scored: int | None = None,
        columns: Tensor | None = None,
    ) -> TokenizerLoss:
        """Training loss of (B, T, 6) normalized bars (Kronos, eq. 4).

        Args:
            x: (B, T, 6).
            all_reduce_mean: see `BinaryQuantizer.loss`.
            scored: number of last bars in the loss, the others are context; None: all.
            columns: (6,) weights of the features' squared errors, with mean 1.
        """
        z = self._latents(x)
        codes = self.quantizer(z)
        coarse = self.run_decoder(self.post_quant_embed_pre(codes[..., : self.config.s1_bits]))
        full = self.run_decoder(self.post_quant_embed(codes))
        last = slice(None if scored is None else -scored, None)
        recon_s1, recon = (_squared_error(bars[:, last], x[:, last], columns) for bars in (coarse, full))
        bsq = self.quantizer.loss(z[:, last], all_reduce_mean)
        return TokenizerLoss((recon_s1 + recon + bsq) / 2, recon_s1, recon, bsq)

    def upstream_buffers(self) -> dict[str, Tensor]:
        """See `PretrainedModule`; adds the quantizer's bit weights."""
        bits = {"basis": self.config.s1_bits + self.config.s2_bits, "group_basis": self.config.group_size}
        weights = {f"tokenizer.bsq.{name}": 2 ** torch.arange(n - 1, -1, -1) for name, n in bits.items()}
        return {**super().upstream_buffers(), **weights}

    def _latents(self, x: Tensor) -> Tensor:
        # float32 also under autocast: bfloat16 does not resolve how far the mean of thousands of bits is from 0.5.
        return l2_normalize(self.quant_embed(self._run(self.encoder, self.embed(x))).float())  # (B, T, bits)

    def run_decoder(self, x: Tensor) -> Tensor:
        """Run the decoder: embedded codes (B, T, d_model) -> (B, T, 6) normalized bars."""
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


def _squared_error(decoded: Tensor, x: Tensor, columns: Tensor | None) -> Tensor:
    if columns is None:
        return F.mse_loss(decoded, x)
    return ((decoded.float() - x).square() * columns).mean()
