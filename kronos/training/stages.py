"""The two losses, each a module that a process group can wrap: its forward is one step's losses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from kronos.bars import FEATURES
from kronos.engine.fused import Form, FusedTokenizer
from kronos.model import Kronos, ModelLoss
from kronos.quantizer import Tokens
from kronos.tokenizer import KronosTokenizer, TokenizerLoss
from kronos.training.head import HeadedKronos, RankHead

Losses = dict[str, Tensor]  # scalars by name; "objective", else "loss", is the one to minimise


class Saved(Protocol):
    """Weights that are averaged and saved."""

    def state_dict(self) -> dict[str, Tensor]:
        """By name."""
        ...

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write them as a checkpoint."""
        ...


class TokenizerStage(nn.Module):
    """Rebuild the bars from coarse tokens, and from both, and use the whole codebook.

    Args:
        network: to train.
        pool: mean over all processes of a tensor that is a mean over one process's windows.
        scored: how many of the last bars validation scores, those that training has not seen; None: all.
        column_weights: of the squared errors by feature, scaled to mean 1 here; 1 for a feature that is left out.
    """

    losses: ClassVar[tuple[str, ...]] = TokenizerLoss._fields
    columns: Tensor

    def __init__(
        self,
        network: KronosTokenizer,
        pool: Callable[[Tensor], Tensor] | None = None,
        scored: int | None = None,
        column_weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.scored = network, scored
        self.pool = pool
        weights = torch.tensor([(column_weights or {}).get(name, 1.0) for name in FEATURES])
        self.register_buffer("columns", weights / weights.mean(), persistent=False)

    @property
    def weights(self) -> Saved:
        """What to average and save."""
        return self.network

    def forward(self, bars: Tensor, stamps: Tensor) -> Losses:
        """(B, T, 6) bars -> losses."""
        # In validation processes take turns at whole batches, which are scored alone.
        pool, scored = (self.pool, None) if self.training else (None, self.scored)
        return self.network.loss(bars, pool, scored, self.columns)._asdict()


class PredictorStage(nn.Module):
    """Predict the next token of a frozen tokenizer and, with a head, where the next return ranks.

    The cross-attention stays unrotated, the form in which tokens are decoded later; the coarse half that it is
    given is the true one.

    Args:
        network: to train.
        tokenizer: whose tokens to predict.
        scored: how many of the last bars validation scores, those behind the lookback; None: all.
        lookback_weight: in training, of the tokens before those.
        head: to train with it.
        head_weight: of its squared error in the objective.
    """

    losses: ClassVar[tuple[str, ...]] = ModelLoss._fields

    def __init__(
        self,
        network: Kronos,
        tokenizer: KronosTokenizer,
        scored: int | None = None,
        lookback_weight: float = 1.0,
        head: RankHead | None = None,
        head_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, self.scored, self.lookback_weight = network, scored, lookback_weight
        self.head, self.head_weight = head, head_weight
        # Not a submodule: neither trained nor synchronised nor saved with the network.
        self._encode = FusedTokenizer(tokenizer.eval().requires_grad_(False), Form()).encode

    @property
    def weights(self) -> Saved:
        """What to average and save."""
        return self.network if self.head is None else HeadedKronos(self.network, self.head)

    def forward(
        self, bars: Tensor, stamps: Tensor, labels: Tensor | None = None, count: Tensor | None = None
    ) -> Losses:
        """Losses of a batch, or of a part of it.

        Args:
            bars: (B, T, 6) normalised.
            stamps: (B, T, 5).
            labels: (B, scored, horizons) of the last positions that predict a bar; NaN where there is none.
            count: of labels, as in `RankHead.loss`.

        Returns:
            `loss`, of the tokens alone, and its parts; with labels also the `objective`, which adds the head's.
        """
        tokens = self.tokens(bars)
        past = Tokens(tokens.s1[:, :-1], tokens.s2[:, :-1])
        hidden = self.network.hidden(past, stamps[:, :-1])
        before = self.lookback_weight if self.training else 0.0
        losses = self.network.token_loss(hidden, tokens, scored=self.scored, context_weight=before)._asdict()
        if self.head is None or labels is None:
            return losses
        ranks = self.head.loss(hidden[:, -labels.shape[1] :], labels, count)
        return {**losses, "objective": losses["loss"] + self.head_weight * ranks}

    def rank(self, bars: Tensor, stamps: Tensor) -> Tensor:
        """(B, T, 6) bars and (B, T, 5) stamps -> (B, horizons) outputs of the head at the last bar."""
        assert self.head is not None
        ranks: Tensor = self.head(self.network.hidden(self.tokens(bars), stamps)[:, -1])
        return ranks

    @torch.compiler.disable  # complex rotations in place; and tokens must not depend on how they were compiled
    def tokens(self, bars: Tensor) -> Tokens:
        """(B, T, 6) bars -> their tokens, in float32."""
        with torch.autocast(bars.device.type, enabled=False):  # a flipped sign would be another token
            tokens = self._encode(bars)
        # Autograd may keep no tensor that was made in inference mode.
        return Tokens(*(half.clone() for half in tokens))
