"""Binary spherical quantisation: a latent becomes a corner of the hypercube, a corner a pair of token ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kronos.config import TokenizerConfig


class Tokens(NamedTuple):
    """Bars as pairs of sub-token ids, each (B, T) int64 (the engine also keeps (N, S, H))."""

    s1: Tensor  # coarse, in [0, 2**s1_bits)
    s2: Tensor  # fine, in [0, 2**s2_bits)


class BinaryQuantizer(nn.Module):
    """Snap latents to corners of the hypercube on the unit sphere (BSQ, Zhao et al. 2024).

    A corner is sign(z) / sqrt(bits); its id is the signs read in binary, lowest bit first,
    so ids and corners convert both ways and no codebook is stored.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.split = (config.s1_bits, config.s2_bits)
        self.scale = sum(self.split) ** -0.5

    def forward(self, z: Tensor) -> Tensor:
        """(B, T, bits) unit latents -> (B, T, bits) corners; the gradient passes straight through."""
        signs = torch.where(z > 0, 1.0, -1.0).type_as(z)
        return (z + (signs - z).detach()) * self.scale

    def tokens(self, corners: Tensor) -> Tokens:
        """(B, T, bits) corners -> their ids."""
        s1, s2 = (corners > 0).split(self.split, dim=-1)
        return Tokens(_to_ids(s1), _to_ids(s2))

    def corners(self, tokens: Tokens) -> Tensor:
        """Ids -> (..., bits) corners, the inverse of `tokens`."""
        bits = [_to_bits(ids, width) for ids, width in zip(tokens, self.split, strict=True)]
        return (torch.cat(bits, dim=-1).float() * 2 - 1) * self.scale

    def loss(self, z: Tensor, pool: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Commitment plus entropy of (B, T, bits) unit latents (BSQ, eqs. 7 and 8): a scalar.

        Small per-sample entropy makes the signs sure, large codebook entropy makes every code used. A bit is
        positive with logit 4 z / sqrt(bits). The codebook's entropy is the sum of its bits' entropies, as in
        upstream, whose estimate by groups of bits is overwritten before it is used. It is no mean over windows, so
        several processes that share a batch must `pool` their bits' means before it is taken.
        """
        config = self.config
        commit = (self(z).detach() - z).square().sum(dim=-1).mean()
        plus = torch.sigmoid(4 * self.scale * z)
        per_sample = _bit_entropy(plus).sum(dim=-1).mean()
        mean = plus.mean(dim=(0, 1))
        codebook = _bit_entropy(mean if pool is None else pool(mean)).sum()
        entropy = config.gamma0 * per_sample - config.gamma * codebook
        return config.beta * commit + config.zeta * entropy


def unit(z: Tensor) -> Tensor:
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
