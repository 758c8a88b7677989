"""The exponential moving average of a stage's weights, which is what validation scores and what is saved."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kronos.training.stages import PredictorStage, Saved, TokenizerStage


class WeightAverage:
    """Averages that follow the weights step by step, the same in every process.

    The decay of step s, from 0, is min(decay, (1 + s) / (10 + s)), so that the first weights are soon forgotten.

    Args:
        stage: whose weights to follow.
        decay: of the average; with 0 it is the weights themselves.
    """

    def __init__(self, stage: TokenizerStage | PredictorStage, decay: float) -> None:
        self.decay = decay
        live = stage.weights
        self.weights: Saved = copy.deepcopy(live) if decay else live  # what to save
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


def _floats(network: Saved) -> list[Tensor]:
    return [weight for weight in network.state_dict().values() if weight.is_floating_point()]


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
