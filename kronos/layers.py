"""The transformer's parts, shared by tokenizer and model; parameter names are those of released checkpoints.

This is the form that is trained, saved and read; `fused` rewrites it for the engine.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Rope(NamedTuple):
    """Cosine and sine of rotary positions, each (..., T, head width)."""

    cos: Tensor
    sin: Tensor


def rope_table(positions: Tensor, width: int, base: float = 10_000.0) -> Rope:
    """Rotary angles (Su et al. 2021) of integer positions (..., T); halves of a head are the pairs."""
    frequencies = rope_frequencies(width, base, positions.device)
    angles = positions[..., None].float() * frequencies  # (..., T, width / 2)
    angles = torch.cat([angles, angles], dim=-1)
    return Rope(angles.cos(), angles.sin())


def rope_frequencies(width: int, base: float = 10_000.0, device: torch.device | str | None = None) -> Tensor:
    """(width / 2,) inverse wavelengths of rotary positions."""
    return 1.0 / base ** (torch.arange(0, width, 2, device=device).float() / width)


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """(B, heads, T, width) turned by each position's angles."""
    left, right = x.chunk(2, dim=-1)
    return x * rope.cos + torch.cat([-right, left], dim=-1) * rope.sin


class RMSNorm(nn.Module):
    """x / rms(x) in float32, then a learnt scale (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return normed.type_as(x) * self.weight


class Attention(nn.Module):
    """Multi-head attention with rotary positions."""

    def __init__(self, width: int, n_heads: int, attn_dropout_p: float, resid_dropout_p: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_width = width // n_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.attn_dropout_p = attn_dropout_p
        self.resid_dropout = nn.Dropout(resid_dropout_p)

    def forward(self, query: Tensor, context: Tensor, rope: Rope | None) -> Tensor:
        """(B, T, width) queries over (B, T, width) context, causal -> (B, T, width); unrotated without `rope`."""
        q = self._heads(self.q_proj(query))  # (B, heads, T, head width)
        k, v = self._heads(self.k_proj(context)), self._heads(self.v_proj(context))
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        dropout = self.attn_dropout_p if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        return self.resid_dropout(self.out_proj(out.transpose(1, 2).flatten(2)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, self.head_width)).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int, dropout_p: float) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout_p)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return self.dropout(self.w2(F.silu(self.w1(x)) * self.w3(x)))


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each on a residual."""

    def __init__(
        self,
        width: int,
        n_heads: int,
        ff_dim: int,
        ffn_dropout_p: float,
        attn_dropout_p: float,
        resid_dropout_p: float,
    ) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.self_attn = Attention(width, n_heads, attn_dropout_p, resid_dropout_p)
        self.norm2 = RMSNorm(width)
        self.ffn = FeedForward(width, ff_dim, ffn_dropout_p)

    def forward(self, x: Tensor, rope: Rope) -> Tensor:
        """(B, T, width) -> (B, T, width)."""
        normed = self.norm1(x)
        x = x + self.self_attn(normed, normed, rope)
        return x + self.ffn(self.norm2(x))
