"""Layers of the transformer, shared by tokenizer and model; parameter names are those of released checkpoints.

These modules are trained and saved; `kronos.inference.fused` rewrites them for inference.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Rope(NamedTuple):
    """Cosine and sine of rotary position angles, each (..., T, head width)."""

    cos: Tensor
    sin: Tensor


def rope_table(positions: Tensor, width: int, base: float = 10_000.0) -> Rope:
    """Rotary angles (Su et al. 2021) of integer positions (..., T); halves of a head are the pairs."""
    frequencies = rope_frequencies(width, base, positions.device)
    angles = positions[..., None].float() * frequencies  # (..., T, width / 2)
    angles = torch.cat([angles, angles], dim=-1)
    return Rope(angles.cos(), angles.sin())


def rope_frequencies(width: int, base: float = 10_000.0, device: torch.device | str | None = None) -> Tensor:
    """(width / 2,) angular frequencies of rotary positions."""
    return 1.0 / base ** (torch.arange(0, width, 2, device=device).float() / width)


class _Normed(torch.autograd.Function):
    """x / rms(x) times a scale, with half of the memory passes that autograd needs for the formula."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1]
        inverse = torch.rsqrt(mean_square + eps)
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,), (x, weight, inverse) = grads, ctx.saved_tensors
        normed = x * inverse
        by_weight = grad * normed
        along = by_weight @ weight[:, None] / -x.shape[-1]
        by_x = (grad * weight).addcmul_(normed, along).mul_(inverse)
        return by_x, by_weight.flatten(0, -2).sum(dim=0), None


class RMSNorm(nn.Module):
    """x / rms(x) in float32, then a learned scale (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        wide, weight = x.float(), self.weight.float()
        if torch.compiler.is_compiling():  # fused; and torch 2.11 loses the gradients of `_Normed`
            normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps) * weight
        else:
            normed = _Normed.apply(wide, weight, self.eps)
        return normed.type_as(x)


class Dropout(nn.Module):
    """In training, zeros with probability p; other elements are scaled by 1 / (1 - p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...)."""
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        # On a CPU, random numbers dominate the cost: 16 bits per element suffice, torch draws 64.
        bits = torch.randint(-(2**63), 2**63 - 1, (x.numel() // 4 + 1,)).view(torch.int16)[: x.numel()]
        dropped = round(self.p * 2**16)
        kept = torch.ge(bits.view(x.shape), dropped - 2**15, out=torch.empty_like(x))
        return x * kept.mul_(2**16 / (2**16 - dropped))


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
        self.resid_dropout = Dropout(resid_dropout_p)

    def forward(self, query: Tensor, context: Tensor, rope: Rope | None) -> Tensor:
        """(B, T, width) queries over (B, T, width) context, causal -> (B, T, width); unrotated without `rope`."""
        projections = self.q_proj, self.k_proj, self.v_proj
        if query is context:
            q, k, v = self._project(context, *projections)  # (B, heads, T, head width)
        else:
            (q,), (k, v) = self._project(query, *projections[:1]), self._project(context, *projections[1:])
        if rope is not None:
            cosines, sines = (table[..., : self.head_width // 2] for table in rope)
            q, k = _rotate_pairs((q, k), cosines, sines)
        dropout = self.attn_dropout_p if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        return self.resid_dropout(self.out_proj(out.transpose(1, 2).flatten(2)))

    def _project(self, x: Tensor, *projections: nn.Linear) -> list[Tensor]:
        """Several projections as one product; rotary pairs of queries and keys are adjacent in the result."""
        pairs = [projection is not self.v_proj for projection in projections]
        weights, biases = (
            torch.cat([self._paired(part) if pair else part for part, pair in zip(parts, pairs, strict=True)])
            for parts in ([one.weight for one in projections], [one.bias for one in projections])
        )
        joined = F.linear(x, weights, biases).unflatten(-1, (len(projections), self.n_heads, self.head_width))
        return [part.transpose(1, 2) for part in joined.unbind(2)]

    def _paired(self, rows: Tensor) -> Tensor:
        """Reorder rows of each head from (all left, all right halves of pairs) to (left, right, left, ...)."""
        return rows.unflatten(0, (self.n_heads, 2, -1)).transpose(1, 2).reshape(rows.shape)


def _rotate_pairs(tensors: tuple[Tensor, ...], cosines: Tensor, sines: Tensor) -> list[Tensor]:
    """Rotate adjacent pairs: by a complex product, or by real products, which alone the compiler can fuse."""
    pairs = [x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2)) for x in tensors]
    if torch.compiler.is_compiling():
        halves = [x.unbind(-1) for x in pairs]
        turned = [
            torch.stack((left * cosines - right * sines, left * sines + right * cosines), dim=-1)
            for left, right in halves
        ]
    else:
        rotations = torch.complex(cosines, sines)
        turned = [torch.view_as_real(torch.view_as_complex(x) * rotations) for x in pairs]
    return [x.flatten(-2) for x in turned]


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int, dropout_p: float) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)
        self.dropout = Dropout(dropout_p)

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
