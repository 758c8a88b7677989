"""Which windows each step holds: a function of the seed and the step alone, for any number of workers and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Draw(NamedTuple):
    """The windows of one step: (B,) indices, and (B,) whether volume and amount are hidden."""

    indices: np.ndarray
    hidden: np.ndarray


class Order:
    """Shuffled epochs over windows of one or several sources.

    An epoch holds no window twice. Without weights it holds every window once. With weights its sources are mixed
    in these proportions, and it ends when one of them has no window left; what an epoch leaves out of a source
    comes in the epochs after, until all of it was seen and it is shuffled anew.

    Args:
        sizes: windows of each source; their indices count through all sources.
        weights: of the sources; None: in proportion to their sizes.
        batch: windows of a step. What remains of an epoch behind its last whole batch is left out.
        hide: share of windows whose volume and amount are hidden.
        seed: of all draws.

    Raises:
        ValueError: an epoch does not fill one batch.
    """

    def __init__(
        self, sizes: Sequence[int], weights: Sequence[float] | None, batch: int, hide: float, seed: int
    ) -> None:
        self.sizes, self.batch, self.hide, self.seed = tuple(sizes), batch, hide, seed
        self.shares = shares(sizes, weights)
        total = min(size / share for size, share in zip(sizes, self.shares, strict=True))
        # Rounding must not ask a source for more than it has, nor for nothing.
        self.quotas = [
            max(1, min(size, round(total * share))) for size, share in zip(sizes, self.shares, strict=True)
        ]
        self.epoch_steps = sum(self.quotas) // batch
        if self.epoch_steps == 0:
            raise ValueError(
                f"{sum(self.quotas)} training windows do not fill one batch of {batch}. Give more bars or a "
                "smaller batch."
            )
        self._cached: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def draw(self, step: int) -> Draw:
        """The windows of a step, which count from 0."""
        epoch, i = divmod(step, self.epoch_steps)
        if self._cached[0] != epoch:
            self._cached = epoch, self._epoch(epoch)
        indices = self._cached[1][i * self.batch : (i + 1) * self.batch]
        hidden = np.random.default_rng([self.seed, epoch, i]).random(self.batch) < self.hide
        return Draw(indices, hidden)

    def _epoch(self, epoch: int) -> np.ndarray:
        """Indices of an epoch's windows, in their order."""
        parts, offset = [], 0
        for source, (size, quota) in enumerate(zip(self.sizes, self.quotas, strict=True)):
            # A pass through the source takes several epochs if each takes a part of it only.
            # Its last part is filled up with windows of the first, so that none is left out.
            turn, part = divmod(epoch, -(-size // quota))
            order = np.random.default_rng([self.seed, source, turn, 1]).permutation(size)
            rows = np.arange(part * quota, (part + 1) * quota) % size
            parts.append(offset + order[rows])
            offset += size
        whole = np.concatenate(parts)
        # numpy fills short seeds up with zeros: without the 2 this would be the first step's stream of `hidden`.
        return whole[np.random.default_rng([self.seed, epoch, 0, 2]).permutation(len(whole))]


def shares(sizes: Sequence[int], weights: Sequence[float] | None) -> list[float]:
    """What part of the drawn windows comes from each source; they sum to 1."""
    parts = np.asarray(sizes if weights is None else weights, float)
    return list(parts / parts.sum())
