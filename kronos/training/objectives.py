"""The return head: a linear map of the trunk's last hidden state to expected cross-sectional ranks.

It is trained together with the tokens' language and lies beside the predictor's weights, as head.safetensors and
head.json.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kronos.bars import FEATURES
from kronos.head import HEAD_WEIGHTS, HeadInfo, ReturnHead
from kronos.inference.fused import ExecutionConfig, FusedTokenizer
from kronos.model import Kronos, ModelLoss
from kronos.tokenizer import KronosTokenizer, TokenizerLoss, Tokens


class RankHead(nn.Module):
    """Hidden states to one expected rank for each horizon; it starts from zero, which ranks nothing."""

    def __init__(self, info: HeadInfo) -> None:
        super().__init__()
        self.info = info
        self.rank = nn.Linear(info.d_model, len(info.horizons))
        nn.init.zeros_(self.rank.weight)
        nn.init.zeros_(self.rank.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., d_model) -> (..., horizons)."""
        ranks: Tensor = self.rank(hidden)
        return ranks

    def loss(self, hidden: Tensor, labels: Tensor, count: Tensor | None = None) -> Tensor:
        """Mean squared error of (B, H, d_model) hidden states over the labels (B, H, horizons) that are not NaN.

        Args:
            hidden: of the positions that have labels.
            labels: NaN where there is none.
            count: of the labels to divide by, where these are a part of a batch; their own number when omitted.
        """
        known = labels.isfinite()
        errors = (self(hidden).float() - labels.nan_to_num()).square() * known
        return errors.sum() / (known.sum() if count is None else count).clamp(min=1)

    def load(self, folder: Path) -> None:
        """Take the weights that lie beside a predictor, if they are of this width and these horizons."""
        file = folder / HEAD_WEIGHTS
        if not file.is_file():
            return
        weights = load_file(file)
        if {name: weight.shape for name, weight in weights.items()} == _shapes(self):
            self.load_state_dict(weights)


class KronosWithHead(nn.Module):
    """A predictor and its head, which are averaged and saved together."""

    def __init__(self, network: Kronos, head: RankHead) -> None:
        super().__init__()
        self.network, self.head = network, head

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the predictor's files, head.safetensors and head.json."""
        folder = self.network.save_pretrained(folder)
        weight, bias = (x.detach().cpu().numpy() for x in (self.head.rank.weight, self.head.rank.bias))
        return ReturnHead(self.head.info, weight, bias).save(folder)


def _shapes(head: nn.Module) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in head.state_dict().items()}


Losses = dict[str, Tensor]  # scalars by name; "objective", else "loss", is the one to minimize


class Saveable(Protocol):
    """Weights that are averaged and saved."""

    def state_dict(self) -> dict[str, Tensor]:
        """By name."""
        ...

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write them as a checkpoint."""
        ...


class TokenizerObjective(nn.Module):
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
    def weights(self) -> Saveable:
        """What to average and save."""
        return self.network

    def forward(self, bars: Tensor, stamps: Tensor) -> Losses:
        """(B, T, 6) bars -> losses."""
        # In validation processes take turns at whole batches, which are scored alone.
        pool, scored = (self.pool, None) if self.training else (None, self.scored)
        return self.network.loss(bars, pool, scored, self.columns)._asdict()


class PredictorObjective(nn.Module):
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
        # Not a submodule: neither trained nor synchronized nor saved with the network.
        self._encode = FusedTokenizer(tokenizer.eval().requires_grad_(False), ExecutionConfig()).encode

    @property
    def weights(self) -> Saveable:
        """What to average and save."""
        return self.network if self.head is None else KronosWithHead(self.network, self.head)

    def forward(
        self, bars: Tensor, stamps: Tensor, labels: Tensor | None = None, count: Tensor | None = None
    ) -> Losses:
        """Losses of a batch, or of a part of it.

        Args:
            bars: (B, T, 6) normalized.
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


class WeightAverage:
    """Averages that follow the weights step by step, the same in every process.

    The decay of step s, from 0, is min(decay, (1 + s) / (10 + s)), so that the first weights are soon forgotten.

    Args:
        stage: whose weights to follow.
        decay: of the average; with 0 it is the weights themselves.
    """

    def __init__(self, stage: TokenizerObjective | PredictorObjective, decay: float) -> None:
        self.decay = decay
        live = stage.weights
        self.weights: Saveable = copy.deepcopy(live) if decay else live  # what to save
        self._live = _floats(live)
        self._averages = _floats(self.weights)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the weights after optimizer step `step`, which count from 0."""
        if self.decay:
            share = 1 - min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self._averages, self._live, share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages in the place of the stage's weights, and these back afterwards."""
        if not self.decay:
            yield
            return
        kept = [weight.clone() for weight in self._live]
        _copy(self._averages, self._live)
        try:
            yield
        finally:
            _copy(kept, self._live)

    def state_dict(self) -> dict[str, Any]:
        """The averages, for a state to resume from."""
        return {"averages": self._averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the averages of a saved state."""
        _copy(state["averages"], self._averages)


def _floats(network: Saveable) -> list[Tensor]:
    return [weight for weight in network.state_dict().values() if weight.is_floating_point()]


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
