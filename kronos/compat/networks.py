"""Both networks with upstream's constructors and methods."""

from __future__ import annotations

from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor

from kronos.config import DEPENDENCY_HEADS, ModelConfig, TokenizerConfig
from kronos.layers import rope_table
from kronos.model import DualHead as PlainHead
from kronos.model import Kronos as PlainKronos
from kronos.model import ModelLoss
from kronos.tokenizer import KronosTokenizer as PlainTokenizer
from kronos.tokenizer import Tokens


class KronosTokenizer(PlainTokenizer):
    """The tokenizer with upstream's constructor and methods.

    A composite id is s1 + 2**s1_bits * s2; with `half` ids are pairs [s1, s2] instead.
    """

    def __init__(
        self,
        d_in: int,
        d_model: int,
        n_heads: int,
        ff_dim: int,
        n_enc_layers: int,
        n_dec_layers: int,
        ffn_dropout_p: float,
        attn_dropout_p: float,
        resid_dropout_p: float,
        s1_bits: int,
        s2_bits: int,
        beta: float,
        gamma0: float,
        gamma: float,
        zeta: float,
        group_size: int,
    ) -> None:
        sizes = (d_in, d_model, n_heads, ff_dim, n_enc_layers, n_dec_layers)
        dropouts = (ffn_dropout_p, attn_dropout_p, resid_dropout_p)
        config = TokenizerConfig(*sizes, *dropouts, s1_bits, s2_bits, beta, gamma0, gamma, zeta, group_size)
        super().__init__(config)
        self.d_in, self.d_model, self.s1_bits, self.s2_bits = d_in, d_model, s1_bits, s2_bits
        self.codebook_dim = s1_bits + s2_bits

    @classmethod
    def from_config(cls, config: TokenizerConfig) -> KronosTokenizer:
        """See `PretrainedModule.from_config`."""
        return cls(**asdict(config))

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor, Tensor]:
        """(B, T, 6) normalized bars -> ((bars from s1, bars), BSQ loss, codes, composite ids)."""
        z = self._latents(x)
        codes = self.quantizer(z)
        coarse = self.run_decoder(self.post_quant_embed_pre(codes[..., : self.s1_bits]))
        full = self.run_decoder(self.post_quant_embed(codes))
        return (
            (coarse, full),
            self.quantizer.loss(z),
            codes,
            self._composite(self.quantizer.tokens(codes)),
        )

    def encode(self, x: Tensor, half: bool = False) -> Tensor | list[Tensor]:  # type: ignore[override]
        """(B, T, 6) normalized bars -> (B, T) composite ids, or with `half` the list [s1, s2]."""
        tokens = super().encode(x)
        return list(tokens) if half else self._composite(tokens)

    def decode(self, x: Tensor | list[Tensor] | Tokens, half: bool = False) -> Tensor:
        """Composite ids, or with `half` a pair (s1, s2) -> (B, T, 6) normalized bars."""
        return super().decode(self._pair(x, half))

    def indices_to_bits(self, x: Tensor | list[Tensor] | Tokens, half: bool = False) -> Tensor:
        """Ids as in `decode` -> (B, T, bits) codes of ±1 / sqrt(bits)."""
        return self.quantizer.codes(self._pair(x, half))

    def _composite(self, tokens: Tokens) -> Tensor:
        return tokens.s1 + (tokens.s2 << self.s1_bits)

    def _pair(self, x: Tensor | list[Tensor] | Tokens, half: bool) -> Tokens:
        if half or isinstance(x, Tokens):
            if isinstance(x, Tensor) or len(x) != 2:
                raise ValueError("half=True takes a pair (s1, s2) of ids. Pass composite ids without it.")
            return Tokens(*x)
        if not isinstance(x, Tensor):
            raise ValueError("A pair (s1, s2) of ids needs half=True; without it composite ids are expected.")
        return Tokens(x & (2**self.s1_bits - 1), x >> self.s1_bits)


class DualHead(PlainHead):
    """Both heads, with upstream's methods."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d_model) -> logits of s1."""
        return self.proj_s1(x)

    def cond_forward(self, x2: Tensor) -> Tensor:
        """(B, T, d_model) output of the dependency layer -> logits of s2."""
        return self.proj_s2(x2)

    def compute_loss(
        self,
        s1_logits: Tensor,
        s2_logits: Tensor,
        s1_targets: Tensor,
        s2_targets: Tensor,
        padding_mask: Tensor | None = None,
    ) -> ModelLoss:
        """Cross-entropies (mean of both, s1, s2) in nats per token; a mask selects positions where it is 0."""
        kept = torch.ones_like(s1_targets, dtype=torch.bool) if padding_mask is None else padding_mask == 0
        s1 = F.cross_entropy(s1_logits[kept], s1_targets[kept])
        s2 = F.cross_entropy(s2_logits[kept], s2_targets[kept])
        return ModelLoss((s1 + s2) / 2, s1, s2)


class Kronos(PlainKronos):
    """The model with upstream's constructor and methods.

    One difference from upstream: a full sequence is causal also in evaluation, where upstream lets s2 see the
    future.
    """

    def __init__(
        self,
        s1_bits: int,
        s2_bits: int,
        n_layers: int,
        d_model: int,
        n_heads: int,
        ff_dim: int,
        ffn_dropout_p: float,
        attn_dropout_p: float,
        resid_dropout_p: float,
        token_dropout_p: float,
        learn_te: bool,
    ) -> None:
        sizes = (s1_bits, s2_bits, n_layers, d_model, n_heads, ff_dim)
        config = ModelConfig(
            *sizes, ffn_dropout_p, attn_dropout_p, resid_dropout_p, token_dropout_p, learn_te
        )
        super().__init__(config)
        self.head = DualHead(config)
        self.s1_bits, self.s2_bits, self.d_model, self.n_layers = s1_bits, s2_bits, d_model, n_layers
        self.s1_vocab_size = 2**s1_bits

    @classmethod
    def from_config(cls, config: ModelConfig) -> Kronos:
        """See `PretrainedModule.from_config`."""
        return cls(**asdict(config))

    def forward(  # type: ignore[override]
        self,
        s1_ids: Tensor,
        s2_ids: Tensor,
        stamp: Tensor | None = None,
        padding_mask: Tensor | None = None,
        use_teacher_forcing: bool = False,
        s1_targets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(B, T) ids and (B, T, 5) stamps -> logits of s1 and, given the next s1, of s2.

        The next s1 is `s1_targets` with teacher forcing, else sampled from its logits, as in upstream's training.
        """
        s1_logits, hidden = self.decode_s1(s1_ids, s2_ids, stamp, padding_mask)
        if use_teacher_forcing:
            if s1_targets is None:
                raise ValueError("use_teacher_forcing=True needs s1_targets. Pass the s1 of each next token.")
            next_s1 = s1_targets
        else:
            rows = s1_logits.detach().softmax(dim=-1).flatten(0, 1)
            next_s1 = torch.multinomial(rows, 1).view(s1_ids.shape)
        return s1_logits, self._fine_logits(hidden, next_s1)

    def decode_s1(
        self, s1_ids: Tensor, s2_ids: Tensor, stamp: Tensor | None = None, padding_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, T) ids and (B, T, 5) stamps -> (B, T, 2**s1_bits) logits and the (B, T, d_model) context."""
        _refuse_mask(padding_mask)
        if stamp is None:
            raise ValueError(
                "stamp=None, but Kronos needs calendar fields. Pass calc_time_stamps() as (B, T, 5)."
            )
        hidden = self.hidden(Tokens(s1_ids, s2_ids), stamp.long())
        return self.s1_logits(hidden), hidden

    def decode_s2(self, context: Tensor, s1_ids: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """(B, T, d_model) context and the next s1, (B, 1) or (B, T) -> (B, T, 2**s2_bits) logits.

        With (B, 1), as in decoding, only the last position is meaningful: the single query sees the whole
        context, and its output is added to every position.
        """
        _refuse_mask(padding_mask)
        length = context.shape[1]
        if s1_ids.shape[1] not in (1, length):
            raise ValueError(
                f"s1_ids has {s1_ids.shape[1]} positions, the context {length}. Pass one s1, or one per position."
            )
        if s1_ids.shape[1] == length > 1:
            return self._fine_logits(context, s1_ids)
        # Not rotated, like a single query in upstream; the last of equal queries sees the whole context.
        sibling = self.embedding.emb_s1(s1_ids.expand(-1, length))
        found = self.dep_layer.cross_attn(sibling, context, None)[:, -1:]
        return self.head.proj_s2(self.dep_layer.norm(context + found))

    def _fine_logits(self, hidden: Tensor, next_s1: Tensor) -> Tensor:
        """Logits at every position, rotated as upstream does with as many queries as keys."""
        positions = torch.arange(hidden.shape[1], device=hidden.device)
        return self.s2_logits(hidden, next_s1, rope_table(positions, self.d_model // DEPENDENCY_HEADS))


def _refuse_mask(padding_mask: Tensor | None) -> None:
    if padding_mask is not None:
        raise ValueError(
            "padding_mask is not supported. Left-align the bars of each row and drop the logits of the "
            "padding: no bar sees a later one."
        )
