"""The two networks rewritten for inference: the same functions with fewer and larger matrix products.

Norm scales, the attention scale and the projection of the token embedding are folded into adjacent weights.
Queries, keys and values come from one product, sums of embeddings from one look-up. Rotary pairs are adjacent, so
that a rotation is one complex multiplication. Residual stream, norms, attention and logits are float32 for every
precision of the products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kronos.inference.kv_cache import PrefixCache, causal
from kronos.inference.packed_linear import PackedLinear, tiled
from kronos.layers import Attention, Block, rope_frequencies
from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer, Tokens

Precision = Literal["float32", "bfloat16"]  # of matrix products
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # (N, R, heads, w) each -> (N, R, d)


class ExecutionConfig(NamedTuple):
    """How the networks are executed.

    Attributes:
        precision: dtype of matrix products.
        compiled: use torch.compile, which does not support packed weights; pays off on accelerators.
    """

    precision: Precision = "float32"
    compiled: bool = False

    def linear(self, weight: Tensor, bias: Tensor | None) -> PackedLinear:
        """A linear layer with these weights."""
        return PackedLinear(weight, bias, getattr(torch, self.precision), pack=not self.compiled)


class FusedBlock:
    """A transformer block."""

    def __init__(self, block: nn.Module, form: ExecutionConfig) -> None:
        assert isinstance(block, Block)
        attention, ffn = block.self_attn, block.ffn
        self.heads, self.eps = attention.n_heads, block.norm1.eps
        weights, biases = zip(*_projections(attention), strict=True)
        self.qkv = form.linear(torch.cat(weights) * block.norm1.weight, torch.cat(biases))
        self.out = form.linear(attention.out_proj.weight, attention.out_proj.bias)
        self.gate = form.linear(ffn.w1.weight * block.norm2.weight, None)
        self.up = form.linear(ffn.w3.weight * block.norm2.weight, None)
        self.down = form.linear(ffn.w2.weight, None)
        # Tiling several products together is faster than tiling each, and pads once.
        by_tiles = tiled if self.qkv.packed else _identity
        self.project, after = by_tiles(self._project), by_tiles(self._after)
        # The parts around attention are compiled, but not the caches.
        compiled = partial(torch.compile, dynamic=True) if form.compiled else _identity
        self.before, self.after = compiled(self._before), compiled(after)

    def __call__(self, x: Tensor, rope_rotations: Tensor, attend: Attend) -> Tensor:
        """(N, R, d) at the positions of `rope_rotations` -> (N, R, d)."""
        return self.after(x, attend(*self.before(x, rope_rotations)))

    def _before(self, x: Tensor, rope_rotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, R, d) -> queries, keys, values, (N, R, heads, w) each."""
        qkv = self.project(x).unflatten(-1, (3, self.heads, -1))
        _rotate(qkv[:, :, :2], rope_rotations)
        q, k, v = qkv.unbind(2)
        return q, k, v

    def _project(self, x: Tensor) -> Tensor:
        """(..., d) -> queries, keys and values, (..., 3 d) float32."""
        return self.qkv(_normed(x, self.eps)).float()

    def _after(self, x: Tensor, joined: Tensor) -> Tensor:
        """The block's input and the output of attention, (..., d) each -> (..., d)."""
        x = self.out.plus(joined, x)
        h = _normed(x, self.eps)
        return self.down.plus(self.up.times(h, self.gate.silu(h)), x)


class KVProjection:
    """Keys and values of a block: all that the last block computes for a prefix."""

    def __init__(self, block: nn.Module, form: ExecutionConfig) -> None:
        assert isinstance(block, Block)
        self.heads, self.eps = block.self_attn.n_heads, block.norm1.eps
        weights, biases = zip(*_projections(block.self_attn)[1:], strict=True)
        self.kv = form.linear(torch.cat(weights) * block.norm1.weight, torch.cat(biases))

    def __call__(self, x: Tensor, rope_rotations: Tensor) -> tuple[Tensor, Tensor]:
        """(N, R, d) -> keys and values, (N, R, heads, w) each."""
        kv = self.kv(_normed(x, self.eps)).float().unflatten(-1, (2, self.heads, -1))
        _rotate(kv[:, :, :1], rope_rotations)
        return kv[:, :, 0], kv[:, :, 1]


class FusedKronos:
    """`Kronos` rewritten for inference."""

    @torch.no_grad()
    def __init__(self, model: Kronos, form: ExecutionConfig) -> None:
        self.blocks = [FusedBlock(block, form) for block in model.transformer]
        self.last_kv = KVProjection(model.transformer[-1], form) if len(model.transformer) else None
        self.norm = model.norm
        self.width = model.config.d_model // model.config.n_heads
        self.embedding = SummedEmbedding([*_token_tables(model), *model.time_emb.weights()])
        cross = model.dep_layer.cross_attn
        self.cross_heads = cross.n_heads
        # Queries depend on the coarse half only, so that they are precomputed as a table.
        queries = F.linear(model.embedding.emb_s1.weight, cross.q_proj.weight, cross.q_proj.bias)
        self.queries = queries.detach() * cross.head_width**-0.5  # (2**s1_bits, d)
        weights = torch.cat([cross.k_proj.weight, cross.v_proj.weight])
        self.cross_kv = form.linear(weights, torch.cat([cross.k_proj.bias, cross.v_proj.bias]))
        self.cross_out = form.linear(cross.out_proj.weight, cross.out_proj.bias)
        head, norm = model.head, model.dep_layer.norm
        self.cross_eps = norm.eps
        self.head_s1 = form.linear(head.proj_s1.weight, head.proj_s1.bias)
        self.head_s2 = form.linear(head.proj_s2.weight * norm.weight, head.proj_s2.bias)

    def rope_rotations(self, positions: Tensor) -> Tensor:
        """Rotary rotations of positions (..., R)."""
        return _rope_rotations(positions, self.width)

    def hidden(
        self, tokens: Tokens, stamps: Tensor, rope_rotations: Tensor, attends: Sequence[Attend]
    ) -> Tensor:
        """The trunk: tokens (N, R), stamps (N, R, 5) -> (N, R, d); `attends`: one per block."""
        x = self.embedding(torch.cat([torch.stack(tokens, dim=-1), stamps], dim=-1))
        for block, attend in zip(self.blocks, attends, strict=True):
            x = block(x, rope_rotations, attend)
        return self.norm(x)

    def last_hidden(
        self, tokens: Tokens, stamps: Tensor, lengths: Tensor, rope_rotations: Tensor, cache: PrefixCache
    ) -> Tensor:
        """The trunk's output at each row's last bar only: tokens (N, L), stamps (N, L, 5) -> (N, d).

        The last block computes this position only, since its other outputs are not used.
        """
        x = self.embedding(torch.cat([torch.stack(tokens, dim=-1), stamps], dim=-1))
        for block in self.blocks[:-1]:
            x = block(x, rope_rotations, causal)
        if self.last_kv is not None:
            cache.store(*self.last_kv(x, rope_rotations))
        x = x[torch.arange(len(x), device=x.device), lengths - 1][:, None]
        if self.last_kv is not None:
            x = self.blocks[-1](x, rope_rotations[lengths - 1][:, None], lambda q, k, v: cache.read_prefix(q))
        return self.norm(x)[:, 0]

    def s1_logits(self, hidden: Tensor) -> Tensor:
        """(N, R, d) -> (N, R, 2**s1_bits) float32."""
        return self.head_s1(hidden).float()

    def s2_logits(self, hidden: Tensor, s1: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """(N, R or 1, d) hidden states, (N, R) coarse halves -> (N, R, 2**s2_bits) float32.

        `attend` reads the cache of all hidden states so far, including the last.
        """
        q = self.queries[s1].unflatten(-1, (self.cross_heads, -1))
        x = self.cross_out.plus(attend(q), hidden.expand(*s1.shape, -1))
        return self.head_s2(_normed(x, self.cross_eps)).float()

    def cross_keys_values(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(N, R, d) -> keys and values of the dependency layer, (N, R, heads, w) each."""
        kv = self.cross_kv(hidden).float().unflatten(-1, (2, self.cross_heads, -1))
        return kv[:, :, 0], kv[:, :, 1]


class FusedTokenizer:
    """`KronosTokenizer` rewritten for inference."""

    @torch.no_grad()
    def __init__(self, tokenizer: KronosTokenizer, form: ExecutionConfig) -> None:
        config = tokenizer.config
        self.quantizer = tokenizer.quantizer
        self.width = config.d_model // config.n_heads
        self.embed, self.quant_embed, self.head = tokenizer.embed, tokenizer.quant_embed, tokenizer.head
        exact = form._replace(precision="float32")
        # The encoder's products stay in float32: a flipped sign is another token.
        self.encoder = [FusedBlock(block, exact) for block in tokenizer.encoder]
        self.decoder = [FusedBlock(block, form) for block in tokenizer.decoder]
        self.last_kv = KVProjection(tokenizer.decoder[-1], form) if len(tokenizer.decoder) else None
        self.embedding = SummedEmbedding(_corner_tables(tokenizer))

    def rope_rotations(self, positions: Tensor) -> Tensor:
        """Rotary rotations of positions (..., R)."""
        return _rope_rotations(positions, self.width)

    @torch.inference_mode()
    def encode(self, bars: Tensor) -> Tokens:
        """(N, L, 6) normalized bars -> their tokens; position t sees bars 0..t only."""
        x = self.embed(bars)
        rope_rotations = self.rope_rotations(torch.arange(bars.shape[1], device=bars.device))
        for block in self.encoder:
            x = block(x, rope_rotations, causal)
        return self.quantizer.tokens(self.quant_embed(x))

    def read(
        self, tokens: Tokens, lengths: Tensor, rope_rotations: Tensor, caches: Sequence[PrefixCache]
    ) -> Tensor:
        """Fill the caches with (N, L) tokens as the prefix for `decode`.

        Returns:
            (N, 6) normalized: each row's last bar, at position `lengths` - 1, as the decoder reconstructs it.
        """
        x = self.embedding(torch.stack(tokens, dim=-1))
        for block, cache in zip(self.decoder[:-1], caches, strict=False):
            x = block(x, rope_rotations, cache.prefill)
        if self.last_kv is not None:
            caches[-1].store(*self.last_kv(x, rope_rotations))
        # The last block computes one position of the prefix only, since no other is decoded.
        rows = torch.arange(len(x), device=x.device)
        x = x[rows, lengths - 1][:, None]
        if self.last_kv is not None:
            x = self.decoder[-1](
                x, rope_rotations[lengths - 1][:, None], lambda q, k, v: caches[-1].read_prefix(q)
            )
        return _at_least_two_rows(self.head, x)[:, 0]

    def decode(self, tokens: Tokens, rope_rotations: Tensor, caches: Sequence[PrefixCache]) -> Tensor:
        """(N, S * T) tokens after the prefix -> (N, S * T, 6) normalized bars."""
        x = self.embedding(torch.stack(tokens, dim=-1))
        for block, cache in zip(self.decoder, caches, strict=True):
            x = block(x, rope_rotations, cache.extend)
        return _at_least_two_rows(self.head, x)


class SummedEmbedding:
    """A sum of embeddings as one look-up."""

    def __init__(self, tables: Sequence[Tensor]) -> None:
        self.table = torch.cat(list(tables)).detach()
        sizes = torch.tensor([0] + [len(table) for table in tables[:-1]], device=self.table.device)
        self.offsets = sizes.cumsum(0)

    def __call__(self, ids: Tensor) -> Tensor:
        """(..., K) ids, one per table -> (..., d)."""
        flat = (ids + self.offsets).flatten(0, -2)
        return F.embedding_bag(flat, self.table, mode="sum").unflatten(0, ids.shape[:-1])


def _at_least_two_rows(product: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(N, R, d) -> product(x); a single row is computed as two, since CPUs use another kernel for one row."""
    return product(x) if x.shape[0] * x.shape[1] > 1 else product(torch.cat([x, x]))[:1]


def _identity(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _normed(x: Tensor, eps: float) -> Tensor:
    """Divide x by rms(x); the norm's scale is folded into the next weights."""
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps)


def _rope_rotations(positions: Tensor, width: int) -> Tensor:
    """(..., R) -> (..., R, 1, 1, width / 2) complex numbers of modulus 1."""
    angles = positions[..., None].float() * rope_frequencies(width, device=positions.device)
    return torch.polar(torch.ones_like(angles), angles)[..., None, None, :]


def _rotate(x: Tensor, rope_rotations: Tensor) -> None:
    """Rotate (N, R, K, heads, w) in place; pairs are adjacent in w."""
    torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(rope_rotations)


def _projections(attention: Attention) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of queries, keys and values: adjacent pairs, scaled queries."""
    scale = attention.head_width**-0.5
    q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
    heads = attention.n_heads
    return [
        (_interleave_pairs(q.weight, heads) * scale, _interleave_pairs(q.bias, heads) * scale),
        (_interleave_pairs(k.weight, heads), _interleave_pairs(k.bias, heads)),
        (v.weight, v.bias),
    ]


def _interleave_pairs(x: Tensor, heads: int) -> Tensor:
    """Reorder rows of each head from (all left, all right halves of pairs) to (left, right, left, ...)."""
    return x.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(x.shape)


def _token_tables(model: Kronos) -> list[Tensor]:
    """The fused token embedding as a sum of two tables."""
    embedding = model.embedding
    coarse, fine = embedding.fusion_proj.weight.chunk(2, dim=1)
    return [
        F.linear(embedding.emb_s1.weight * embedding.scale, coarse, embedding.fusion_proj.bias),
        F.linear(embedding.emb_s2.weight * embedding.scale, fine),
    ]


def _corner_tables(tokenizer: KronosTokenizer) -> list[Tensor]:
    """The decoder's input, a linear map of codes, as a sum of two tables."""
    quantizer, project = tokenizer.quantizer, tokenizer.post_quant_embed
    bits = tokenizer.config.s1_bits, tokenizer.config.s2_bits
    ids = [torch.arange(2**width, device=project.weight.device) for width in bits]
    coarse = quantizer.codes(Tokens(ids[0], torch.zeros_like(ids[0])))[:, : bits[0]]
    fine = quantizer.codes(Tokens(torch.zeros_like(ids[1]), ids[1]))[:, bits[0] :]
    left, right = project.weight.split(bits, dim=1)
    return [F.linear(coarse, left, project.bias), F.linear(fine, right)]
