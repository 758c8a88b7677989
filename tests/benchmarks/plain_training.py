"""One optimizer step as upstream takes it, written plainly over our networks' weights.

Every product, rotation and norm stands alone, as a plain reading of the algorithm has it. Our modules are only
asked for their weights, so that what makes them faster leaves this step as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kronos.layers import Attention, FeedForward, RMSNorm, rope_frequencies
from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer, Tokens
from kronos.training.dataset import Batch

Angles = tuple[Tensor, Tensor]  # cosines and sines, (T, head width) each
Choose = Callable[[Tensor, Tensor], Tensor]  # logits (B, T, V), true ids (B, T) -> the ids that s2 is given


class PlainStep:
    """A step of one stage: loss, gradients, clipping, AdamW as it comes.

    Args:
        network: to train, in place.
        loss: of a batch.
        clip: largest norm of the gradient.
    """

    def __init__(self, network: nn.Module, loss: Callable[[Batch], Tensor], clip: float) -> None:
        self.network, self.loss, self.clip = network, loss, clip
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=2e-4, betas=(0.9, 0.95), weight_decay=0.1)

    def __call__(self, batch: Batch) -> None:
        """Take it."""
        self.network.train()
        loss = self.loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.optimizer.step()


def predictor_step(network: Kronos, tokenizer: KronosTokenizer) -> PlainStep:
    """Bars become tokens at every step; s2 is given s1 as the network itself draws it, at all positions."""

    def loss(batch: Batch) -> Tensor:
        return predictor_loss(network, plain_encode(tokenizer, batch.bars), batch.stamps, draw, rotated=True)

    return PlainStep(network, loss, clip=3.0)


def tokenizer_step(network: KronosTokenizer) -> PlainStep:
    """Bars are rebuilt twice."""
    return PlainStep(network, lambda batch: tokenizer_loss(network, batch.bars), clip=2.0)


def draw(logits: Tensor, true: Tensor) -> Tensor:
    """Ids by their probabilities: upstream's rule in training."""
    return logits.detach().softmax(dim=-1).flatten(0, 1).multinomial(1).view_as(true)


def predictor_loss(model: Kronos, tokens: Tokens, stamps: Tensor, choose: Choose, rotated: bool) -> Tensor:
    """Mean of both halves' cross-entropies; `rotated`: the cross-attention too, as upstream has it in training."""
    past = Tokens(*(half[:, :-1] for half in tokens))
    next_s1, next_s2 = (half[:, 1:] for half in tokens)
    hidden = _trunk(model, past, stamps[:, :-1])
    s1_logits = model.head.proj_s1(hidden)
    sibling = model.embedding.emb_s1(choose(s1_logits, next_s1))
    cross = model.dep_layer.cross_attn
    angles = _angles(hidden, cross) if rotated else None
    met = _norm(model.dep_layer.norm, hidden + _attend(cross, sibling, hidden, angles))
    s2_logits = model.head.proj_s2(met)
    s1 = F.cross_entropy(s1_logits.flatten(0, 1), next_s1.flatten())
    s2 = F.cross_entropy(s2_logits.flatten(0, 1), next_s2.flatten())
    return (s1 + s2) / 2


def tokenizer_loss(tokenizer: KronosTokenizer, bars: Tensor) -> Tensor:
    """Errors of both reconstructions and the quantizer's own loss, halved."""
    z = _latents(tokenizer, bars)
    codes = _corners(z)
    coarse = _rebuild(tokenizer, tokenizer.post_quant_embed_pre(codes[..., : tokenizer.config.s1_bits]))
    full = _rebuild(tokenizer, tokenizer.post_quant_embed(codes))
    return (F.mse_loss(coarse, bars) + F.mse_loss(full, bars) + _quantizer_loss(tokenizer, z, codes)) / 2


@torch.no_grad()
def plain_encode(tokenizer: KronosTokenizer, bars: Tensor) -> Tokens:
    """(B, T, 6) bars -> (B, T) tokens."""
    bits = (_corners(_latents(tokenizer, bars)) >= 0).long()
    halves = bits.split([tokenizer.config.s1_bits, tokenizer.config.s2_bits], dim=-1)
    return Tokens(*((half * 2 ** torch.arange(half.shape[-1])).sum(dim=-1) for half in halves))


def _latents(tokenizer: KronosTokenizer, bars: Tensor) -> Tensor:
    x = _blocks(tokenizer.encoder, tokenizer.embed(bars))
    return F.normalize(tokenizer.quant_embed(x), dim=-1)


def _corners(z: Tensor) -> Tensor:
    """(B, T, bits) unit latents -> codes of the sphere; gradients pass straight through."""
    signs = torch.where(z > 0, torch.tensor(1.0), torch.tensor(-1.0))
    return (z + (signs - z).detach()) * z.shape[-1] ** -0.5


def _rebuild(tokenizer: KronosTokenizer, x: Tensor) -> Tensor:
    return tokenizer.head(_blocks(tokenizer.decoder, x))


def _quantizer_loss(tokenizer: KronosTokenizer, z: Tensor, codes: Tensor) -> Tensor:
    config, width = tokenizer.config, z.shape[-1]
    commit = ((codes.detach() - z) ** 2).sum(dim=-1).mean()
    _group_assignment(z, config.group_size)
    p = torch.sigmoid(-4 * z / width**0.5)
    both = torch.stack([p, 1 - p], dim=-1)  # (B, T, bits, 2)
    per_sample = _entropy(both).sum(dim=-1).mean()
    codebook = _entropy(both.mean(dim=(0, 1))).sum()
    return config.beta * commit + config.zeta * (config.gamma0 * per_sample - config.gamma * codebook)


def _group_assignment(z: Tensor, size: int) -> Tensor:
    """Soft assignment of groups of bits to their codes, (B, T, groups, 2**size): upstream makes it, unused."""
    bits = (torch.arange(2**size)[:, None] >> torch.arange(size)) & 1
    codes = (2.0 * bits - 1) * z.shape[-1] ** -0.5
    return (2 * z.unflatten(-1, (-1, size)) @ codes.T).softmax(dim=-1)


def _entropy(p: Tensor) -> Tensor:
    return -(p * torch.log(p + 1e-8)).sum(dim=-1)


def _trunk(model: Kronos, tokens: Tokens, stamps: Tensor) -> Tensor:
    embedding, tables = model.embedding, model.time_emb.children()
    halves = [table(ids) * embedding.scale for table, ids in zip(_token_tables(model), tokens, strict=True)]
    x = embedding.fusion_proj(torch.cat(halves, dim=-1))
    x = model.token_drop(x + sum(table(stamps[..., i]) for i, table in enumerate(tables)))
    return _norm(model.norm, _blocks(model.transformer, x))


def _token_tables(model: Kronos) -> tuple[nn.Module, nn.Module]:
    return model.embedding.emb_s1, model.embedding.emb_s2


def _blocks(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    for block in blocks:
        normed = _norm(block.norm1, x)
        x = x + _attend(block.self_attn, normed, normed, _angles(x, block.self_attn))
        x = x + _gate(block.ffn, _norm(block.norm2, x))
    return x


def _attend(attention: Attention, query: Tensor, context: Tensor, angles: Angles | None) -> Tensor:
    q, k, v = (
        project(x).unflatten(-1, (attention.n_heads, -1)).transpose(1, 2)
        for project, x in (
            (attention.q_proj, query),
            (attention.k_proj, context),
            (attention.v_proj, context),
        )
    )
    if angles is not None:
        q, k = _rotate(q, angles), _rotate(k, angles)
    dropout = attention.attn_dropout_p if attention.training else 0.0
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    return attention.resid_dropout(attention.out_proj(out.transpose(1, 2).flatten(2)))


def _angles(x: Tensor, attention: Attention) -> Angles:
    """Rotation angles of positions 0 to T - 1; their cost is negligible."""
    angles = torch.arange(x.shape[1])[:, None] * rope_frequencies(attention.head_width)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, angles: Angles) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * angles[0] + torch.cat([-right, left], dim=-1) * angles[1]


def _gate(ffn: FeedForward, x: Tensor) -> Tensor:
    return ffn.dropout(ffn.w2(F.silu(ffn.w1(x)) * ffn.w3(x)))


def _norm(norm: RMSNorm, x: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + norm.eps) * norm.weight
