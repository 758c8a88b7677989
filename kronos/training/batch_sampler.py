"""Which windows each step holds, and how they reach the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kronos.training.bar_array import HORIZONS
from kronos.training.config import TrainingConfig
from kronos.training.dataset import TrainingWindows, shares
from kronos.windows import RELATIVE_FLOOR, UPSTREAM_FLOOR


class Draw(NamedTuple):
    """The windows of one step: (B,) indices, and (B,) whether volume and amount are hidden."""

    indices: np.ndarray
    hidden: np.ndarray


SHARE = 0.5  # of the free memory that the bars may take


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


class Picker(Protocol):
    """Makes what the host hands over for a part of a step."""

    def pick(self, indices: np.ndarray, hidden: np.ndarray) -> tuple[Tensor, ...]:
        """Windows by index; those `hidden` without volume and amount."""
        ...


class MicroBatches(Dataset[tuple[Tensor, ...]]):
    """What one process learns from, part after part of its steps: an item depends on its number alone.

    Args:
        windows: to learn from.
        order: of the windows.
        parts: of a step, over all processes.
        rank: of this process.
        processes: how many there are.
        picker: makes an item's content of the drawn windows; the windows themselves when omitted.
    """

    def __init__(
        self,
        windows: TrainingWindows,
        order: Order,
        parts: int,
        rank: int,
        processes: int,
        picker: Picker | None = None,
    ) -> None:
        self.windows, self.picker, self.order = windows, picker or windows, order
        self.parts, self.rank, self.processes = parts, rank, processes
        self.own = parts // processes  # parts of a step that are this process's
        self.size = order.batch // parts

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        step, part = divmod(number, self.own)
        first = (part * self.processes + self.rank) * self.size
        draw = self.order.draw(step)
        indices, hidden = (column[first : first + self.size] for column in draw)
        item = self.picker.pick(indices, hidden)
        if self.windows.labels is None:
            return item
        # The mean over all labels of the step, however they are spread over its parts.
        count = self.windows.labels_of(draw.indices).isfinite().sum() / self.parts
        return *item, count

    def numbers(self, steps: Sequence[int]) -> range:
        """Numbers of the items of consecutive steps."""
        return range(steps[0] * self.own, (steps[-1] + 1) * self.own) if steps else range(0)


class DeviceWindows:
    """`TrainingWindows` whose tapes lie on a device: the host draws rows, the device cuts the windows.

    Args:
        windows: to hold.
        device: where to.
    """

    def __init__(self, windows: TrainingWindows, device: torch.device) -> None:
        tapes = windows.tapes
        self.windows = windows
        self.values = _joined([tape.values for tape in tapes]).to(device)  # (M, 6) float32
        self.stamps = _joined([tape.stamps for tape in tapes]).to(device)  # (M, 5) int8
        self.labels = _joined(windows.filled_labels()).to(device) if windows.labels else None
        self.offsets = np.cumsum([0, *(len(tape.values) for tape in tapes)])
        self.bars = torch.arange(windows.lookback + windows.horizon, device=device)

    def pick(self, indices: np.ndarray, hidden: np.ndarray) -> tuple[Tensor, ...]:
        """What the host hands over: the first row of each window and whether its volume is hidden."""
        source, starts = self.windows.locate(indices)
        return torch.from_numpy(self.offsets[source] + starts), torch.from_numpy(hidden)

    def gather(self, rows: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        """(B,) rows and (B,) flags, on the device -> what `TrainingWindows.pick` gives, there."""
        w = self.windows
        at = rows[:, None] + self.bars
        values = self.values[at]
        mean, width = _scale(values[:, : w.lookback])
        bars = ((values - mean) / width).clamp(-w.clip, w.clip).float()
        bars[:, :, 4:] = bars[:, :, 4:].masked_fill(hidden[:, None, None], 0.0)
        stamps = self.stamps[at].long()
        if self.labels is None:
            return bars, stamps
        return bars, stamps, self.labels[at[:, w.labelled]]


def fits(windows: TrainingWindows, device: torch.device, config: TrainingConfig) -> bool:
    """Whether to hold the bars on the device."""
    if config.data_on_device != "auto":
        return config.data_on_device == "on"
    if device.type != "cuda":
        return False
    labels = len(HORIZONS) * 4 if windows.labels else 0
    needed = sum(
        tape.values.nbytes + tape.stamps.nbytes + len(tape.values) * labels for tape in windows.tapes
    )
    return needed < SHARE * torch.cuda.mem_get_info(device)[0]


def _scale(past: Tensor) -> tuple[Tensor, Tensor]:
    """`Scale.fit` of (B, L, 6) bars, on their device."""
    deviation, mean = torch.std_mean(past.double(), dim=1, correction=0, keepdim=True)
    width = deviation + RELATIVE_FLOOR * mean.abs()
    return mean, torch.where(width > 0, width, float(UPSTREAM_FLOOR))


def _joined(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))
