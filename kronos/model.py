"""Kronos: a decoder-only transformer over pairs of sub-tokens, coarse first, then fine given coarse."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kronos.checkpoint import PretrainedModule
from kronos.config import DEPENDENCY_HEADS, ModelConfig
from kronos.layers import Attention, Block, Dropout, RMSNorm, Rope, rope_table
from kronos.tokenizer import Tokens

STAMP_SIZES = {"minute": 60, "hour": 24, "weekday": 7, "day": 32, "month": 13}  # in the order of STAMPS


class Logits(NamedTuple):
    """Logits of the next token's halves: (B, T, 2**s1_bits) and (B, T, 2**s2_bits)."""

    s1: Tensor
    s2: Tensor


class ModelLoss(NamedTuple):
    """Mean cross-entropies in nats per token; `loss` is the mean of the two."""

    loss: Tensor
    s1: Tensor
    s2: Tensor


class TokenEmbedding(nn.Module):
    """Embedding of both halves of a token, joined by a linear map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.emb_s1 = nn.Embedding(2**config.s1_bits, config.d_model)
        self.emb_s2 = nn.Embedding(2**config.s2_bits, config.d_model)
        self.fusion_proj = nn.Linear(2 * config.d_model, config.d_model)
        self.scale = math.sqrt(config.d_model)

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens (B, T) -> (B, T, d_model)."""
        halves = torch.cat([self.emb_s1(tokens.s1), self.emb_s2(tokens.s2)], dim=-1)
        return self.fusion_proj(halves * self.scale)


class SinusoidTable(nn.Module):
    """A fixed table of sines and cosines (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        steps = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2) / width)
        angles = torch.arange(size)[:, None] * steps  # (size, width / 2)
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        self.emb = nn.Embedding.from_pretrained(table, freeze=True)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) int64 -> (B, T, width)."""
        return self.emb(ids)


class TimeEmbedding(nn.Module):
    """Sum of the embeddings of a bar's minute, hour, weekday, day and month."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        table = nn.Embedding if config.learn_te else SinusoidTable
        for name, size in STAMP_SIZES.items():
            self.add_module(f"{name}_embed", table(size, config.d_model))

    def weights(self) -> list[Tensor]:
        """The five tables, each (size, d_model)."""
        return list(self.state_dict(keep_vars=True).values())

    def forward(self, stamps: Tensor) -> Tensor:
        """(B, T, 5) int64 -> (B, T, d_model)."""
        tables = list(self.children())
        parts = [table(column) for table, column in zip(tables, stamps.unbind(dim=-1), strict=True)]
        return torch.stack(parts).sum(dim=0)


class DependencyLayer(nn.Module):
    """Conditions the fine half on the coarse half: cross-attention over the trunk's output."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.cross_attn = Attention(
            config.d_model, DEPENDENCY_HEADS, config.attn_dropout_p, config.resid_dropout_p
        )
        self.norm = RMSNorm(config.d_model)

    def forward(self, hidden: Tensor, sibling: Tensor, rope: Rope | None) -> Tensor:
        """(B, T, d_model) hidden states and coarse embeddings -> (B, T, d_model)."""
        return self.norm(hidden + self.cross_attn(sibling, hidden, rope))


class DualHead(nn.Module):
    """One linear map to each vocabulary."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj_s1 = nn.Linear(config.d_model, 2**config.s1_bits)
        self.proj_s2 = nn.Linear(config.d_model, 2**config.s2_bits)


class Kronos(PretrainedModule):
    """Distribution of the next token, p(s1 | past) p(s2 | past, s1) (Kronos, section 3.2)."""

    config_type = ModelConfig
    part = "predictor"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = c = config
        self.embedding = TokenEmbedding(c)
        self.time_emb = TimeEmbedding(c)
        self.token_drop = Dropout(c.token_dropout_p)
        self.transformer = nn.ModuleList(
            Block(c.d_model, c.n_heads, c.ff_dim, c.ffn_dropout_p, c.attn_dropout_p, c.resid_dropout_p)
            for _ in range(c.n_layers)
        )
        self.norm = RMSNorm(c.d_model)
        self.dep_layer = DependencyLayer(c)
        self.head = DualHead(c)
        self._initialize()

    def forward(self, tokens: Tokens, stamps: Tensor, next_s1: Tensor) -> Logits:
        """Teacher-forced logits of every next token, causal at every position.

        Args:
            tokens: (B, T) pairs.
            stamps: (B, T, 5) int64 calendar fields of the same bars.
            next_s1: (B, T) coarse half of token t + 1, which conditions the fine half.
        """
        return self._logits(self.hidden(tokens, stamps), next_s1)

    def loss(self, tokens: Tokens, stamps: Tensor, scored: int | None = None) -> ModelLoss:
        """Cross-entropy of tokens 1..T-1 given their predecessors; (B, T) tokens, (B, T, 5) stamps.

        With `scored`, only the last `scored` tokens count; the others are context.
        """
        past = Tokens(tokens.s1[:, :-1], tokens.s2[:, :-1])
        return self.token_loss(self.hidden(past, stamps[:, :-1]), tokens, scored)

    def token_loss(
        self,
        hidden: Tensor,
        tokens: Tokens,
        scored: int | None = None,
        context_weight: float = 0.0,
    ) -> ModelLoss:
        """`loss` from the hidden states of tokens 0..T-2, (B, T - 1, d_model).

        With `scored`, the last `scored` tokens have weight 1 and earlier ones `context_weight`; the losses are
        weighted means.
        """
        logits = self._logits(hidden, tokens.s1[:, 1:])
        s1, s2 = (
            _cross_entropy(half, true[:, 1:], scored, context_weight)
            for half, true in zip(logits, tokens, strict=True)
        )
        return ModelLoss((s1 + s2) / 2, s1, s2)

    def hidden(self, tokens: Tokens, stamps: Tensor) -> Tensor:
        """The trunk: tokens (B, T), stamps (B, T, 5) -> (B, T, d_model)."""
        positions = torch.arange(tokens.s1.shape[1], device=tokens.s1.device)
        rope = rope_table(positions, self.config.d_model // self.config.n_heads)
        x = self.token_drop(self.embedding(tokens) + self.time_emb(stamps))
        for block in self.transformer:
            x = block(x, rope)
        return self.norm(x)

    def s1_logits(self, hidden: Tensor) -> Tensor:
        """(..., d_model) -> (..., 2**s1_bits)."""
        return self.head.proj_s1(hidden)

    def s2_logits(self, hidden: Tensor, next_s1: Tensor, rope: Rope | None = None) -> Tensor:
        """(B, T, d_model) hidden states, (B, T) chosen coarse halves -> (B, T, 2**s2_bits).

        Unlike at the trunk's input, the coarse embedding is not scaled here; released weights require this.
        """
        sibling = self.embedding.emb_s1(next_s1)
        return self.head.proj_s2(self.dep_layer(hidden, sibling, rope))

    def _logits(self, hidden: Tensor, next_s1: Tensor) -> Logits:
        return Logits(self.s1_logits(hidden), self.s2_logits(hidden, next_s1))

    def _initialize(self) -> None:
        for table in (self.embedding.emb_s1, self.embedding.emb_s2):
            nn.init.normal_(table.weight, std=self.config.d_model**-0.5)
        if self.config.learn_te:
            for weight in self.time_emb.parameters():
                nn.init.normal_(weight, std=0.02)


def _cross_entropy(logits: Tensor, true: Tensor, scored: int | None, context_weight: float) -> Tensor:
    """Weighted mean over (B, T): weight 1 at the last `scored` positions, `context_weight` before them."""
    if scored is not None and context_weight == 0:
        logits, true = logits[:, -scored:], true[:, -scored:]
    logits = logits.float()  # also under autocast: in bfloat16 a loss of 4 nats has a resolution of 0.01
    if scored is None or context_weight in (0, 1):
        return F.cross_entropy(logits.flatten(0, 1), true.flatten())
    each = F.cross_entropy(logits.flatten(0, 1), true.flatten(), reduction="none").view(true.shape)
    weights = each.new_full((true.shape[1],), context_weight)
    weights[-scored:] = 1.0
    return (each.mean(dim=0) * weights).sum() / weights.sum()
