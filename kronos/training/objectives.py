"""Training objectives of both stages, the return head, and the moving average of weights.

Each objective is a module whose forward pass returns the losses of one step, so that a process group can wrap it.
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
    """Linear map from hidden states to one expected rank per horizon, initialized with zeros.

    It is trained together with the token loss and saved with the predictor, as head.safetensors and head.json.
    """

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
        """Mean squared error over all labels that are not NaN.

        Args:
            hidden: (B, H, d_model) hidden states at the labeled positions.
            labels: (B, H, horizons), NaN without a label.
            count: number of labels to divide by if these are a part of a batch; their own number when omitted.
        """
        known = labels.isfinite()
        errors = (self(hidden).float() - labels.nan_to_num()).square() * known
        return errors.sum() / (known.sum() if count is None else count).clamp(min=1)

    def load(self, folder: Path) -> None:
        """Load the weights in a predictor's folder, if they have the same width and horizons."""
        file = folder / HEAD_WEIGHTS
        if not file.is_file():
            return
        weights = load_file(file)
        if {name: weight.shape for name, weight in weights.items()} == _shapes(self):
            self.load_state_dict(weights)


class KronosWithHead(nn.Module):
    """A predictor and its head, averaged and saved together."""

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


Losses = dict[str, Tensor]  # scalars by name; "objective", else "loss", is minimized


class Saveable(Protocol):
    """Weights that can be averaged and saved."""

    def state_dict(self) -> dict[str, Tensor]:
        """Weights by name."""
        ...

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write a checkpoint."""
        ...


class TokenizerObjective(nn.Module):
    """Reconstruct bars from coarse tokens and from both, and use the whole codebook.

    Args:
        network: tokenizer to train.
        all_reduce_mean: mean over all processes of a tensor that is a mean over one process's windows.
        scored: number of last bars in the validation loss, those after the training span; None: all.
        column_weights: weights of squared errors by feature, 1 if omitted; scaled to mean 1 here.
    """

    losses: ClassVar[tuple[str, ...]] = TokenizerLoss._fields
    columns: Tensor

    def __init__(
        self,
        network: KronosTokenizer,
        all_reduce_mean: Callable[[Tensor], Tensor] | None = None,
        scored: int | None = None,
        column_weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.scored = network, scored
        self.all_reduce_mean = all_reduce_mean
        weights = torch.tensor([(column_weights or {}).get(name, 1.0) for name in FEATURES])
        self.register_buffer("columns", weights / weights.mean(), persistent=False)

    @property
    def weights(self) -> Saveable:
        """Weights to average and save."""
        return self.network

    def forward(self, bars: Tensor, stamps: Tensor) -> Losses:
        """(B, T, 6) bars -> losses."""
        # In validation each process scores whole batches on its own.
        reduce, scored = (self.all_reduce_mean, None) if self.training else (None, self.scored)
        return self.network.loss(bars, reduce, scored, self.columns)._asdict()


class PredictorObjective(nn.Module):
    """Predict the next token of a frozen tokenizer and, with a head, the rank of the next return.

    The cross-attention is not rotated, as in decoding, and is conditioned on the true coarse half.

    Args:
        network: predictor to train.
        tokenizer: tokenizer whose tokens to predict.
        scored: number of last bars in the validation loss, those after the lookback; None: all.
        lookback_weight: weight of earlier tokens in training.
        head: return head to train jointly.
        token_weight: weight of the token loss in the objective with a head.
        head_weight: weight of the head's squared error in the objective.
    """

    losses: ClassVar[tuple[str, ...]] = ModelLoss._fields

    def __init__(
        self,
        network: Kronos,
        tokenizer: KronosTokenizer,
        scored: int | None = None,
        lookback_weight: float = 1.0,
        head: RankHead | None = None,
        token_weight: float = 1.0,
        head_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.network, self.scored, self.lookback_weight = network, scored, lookback_weight
        self.head, self.token_weight, self.head_weight = head, token_weight, head_weight
        # Not a submodule: it is not trained, synchronized or saved with the network.
        self._encode = FusedTokenizer(tokenizer.eval().requires_grad_(False), ExecutionConfig()).encode

    @property
    def weights(self) -> Saveable:
        """Weights to average and save."""
        return self.network if self.head is None else KronosWithHead(self.network, self.head)

    def forward(
        self, bars: Tensor, stamps: Tensor, labels: Tensor | None = None, count: Tensor | None = None
    ) -> Losses:
        """Losses of a batch, or of a part of it.

        Args:
            bars: (B, T, 6) normalized.
            stamps: (B, T, 5).
            labels: (B, scored, horizons) at the last positions that predict a bar; NaN without a label.
            count: number of labels, as in `RankHead.loss`.

        Returns:
            `loss` of the tokens and its parts; with labels also the `objective`, the weighted sum with
            the loss of the head.
        """
        tokens = self.tokens(bars)
        past = Tokens(tokens.s1[:, :-1], tokens.s2[:, :-1])
        hidden = self.network.hidden(past, stamps[:, :-1])
        before = self.lookback_weight if self.training else 0.0
        losses = self.network.token_loss(hidden, tokens, scored=self.scored, context_weight=before)._asdict()
        if self.head is None or labels is None:
            return losses
        ranks = self.head.loss(hidden[:, -labels.shape[1] :], labels, count)
        return {**losses, "objective": self.token_weight * losses["loss"] + self.head_weight * ranks}

    def rank(self, bars: Tensor, stamps: Tensor) -> Tensor:
        """(B, T, 6) bars and (B, T, 5) stamps -> (B, horizons) outputs of the head at the last bar."""
        assert self.head is not None
        ranks: Tensor = self.head(self.network.hidden(self.tokens(bars), stamps)[:, -1])
        return ranks

    @torch.compiler.disable  # in-place complex rotations; and tokens must not depend on compilation
    def tokens(self, bars: Tensor) -> Tokens:
        """(B, T, 6) bars -> their tokens, in float32."""
        with torch.autocast(bars.device.type, enabled=False):  # a flipped sign is another token
            tokens = self._encode(bars)
        # Autograd cannot save tensors that were created in inference mode.
        return Tokens(*(half.clone() for half in tokens))


class WeightAverage:
    """Exponential moving average of an objective's weights, the same in every process; validated and saved.

    The decay at step s, from 0, is min(decay, (1 + s) / (10 + s)), so that the first weights are soon forgotten.

    Args:
        stage: objective whose weights to average.
        decay: decay of the average; 0 uses the weights themselves.
    """

    def __init__(self, stage: TokenizerObjective | PredictorObjective, decay: float) -> None:
        self.decay = decay
        live = stage.weights
        self.weights: Saveable = copy.deepcopy(live) if decay else live  # to save
        self._live = _floats(live)
        self._averages = _floats(self.weights)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after optimizer step `step`, counted from 0."""
        if self.decay:
            share = 1 - min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self._averages, self._live, share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Temporarily replace the weights by their averages."""
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
        """The averages, to resume from."""
        return {"averages": self._averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the averages of a saved state."""
        _copy(state["averages"], self._averages)


def _floats(network: Saveable) -> list[Tensor]:
    return [weight for weight in network.state_dict().values() if weight.is_floating_point()]


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
