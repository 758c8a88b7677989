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
from kronos.training.dataset import TrainingWindows, mixture_weights
from kronos.windows import RELATIVE_FLOOR, UPSTREAM_FLOOR


class BatchIndices(NamedTuple):
    """The windows of one step: (B,) indices, and (B,) whether volume and amount are drop_volume."""

    indices: np.ndarray
    drop_volume: np.ndarray


SHARE = 0.5  # of the free memory that the bars may take


class BatchSampler:
    """Shuffled epochs over windows of one or several sources.

    An epoch holds no window twice. Without weights it holds every window once. With weights its sources are mixed
    in these proportions, and it ends when one of them has no window left; what an epoch leaves out of a source
    comes in the epochs after, until all of it was seen and it is shuffled anew.

    Args:
        sizes: windows of each source; their indices count through all sources.
        weights: of the sources; None: in proportion to their sizes.
        batch: windows of a step. What remains of an epoch behind its last whole batch is left out.
        volume_dropout: share of windows whose volume and amount are drop_volume.
        seed: of all draws.

    Raises:
        ValueError: an epoch does not fill one batch.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float] | None,
        batch: int,
        volume_dropout: float,
        seed: int,
    ) -> None:
        self.sizes, self.batch, self.volume_dropout, self.seed = tuple(sizes), batch, volume_dropout, seed
        self.mixture_weights = mixture_weights(sizes, weights)
        total = min(size / share for size, share in zip(sizes, self.mixture_weights, strict=True))
        # Rounding must not ask a source for more than it has, nor for nothing.
        self.epoch_sizes = [
            max(1, min(size, round(total * share)))
            for size, share in zip(sizes, self.mixture_weights, strict=True)
        ]
        self.epoch_steps = sum(self.epoch_sizes) // batch
        if self.epoch_steps == 0:
            raise ValueError(
                f"{sum(self.epoch_sizes)} training windows do not fill one batch of {batch}. Give more bars or a "
                "smaller batch."
            )
        self._cached: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def batch_indices(self, step: int) -> BatchIndices:
        """The windows of a step, which count from 0."""
        epoch, i = divmod(step, self.epoch_steps)
        if self._cached[0] != epoch:
            self._cached = epoch, self._epoch(epoch)
        indices = self._cached[1][i * self.batch : (i + 1) * self.batch]
        drop_volume = np.random.default_rng([self.seed, epoch, i]).random(self.batch) < self.volume_dropout
        return BatchIndices(indices, drop_volume)

    def _epoch(self, epoch: int) -> np.ndarray:
        """Indices of an epoch's windows, in their order."""
        parts, offset = [], 0
        for source, (size, quota) in enumerate(zip(self.sizes, self.epoch_sizes, strict=True)):
            # A pass through the source takes several epochs if each takes a part of it only.
            # Its last part is filled up with windows of the first, so that none is left out.
            turn, part = divmod(epoch, -(-size // quota))
            order = np.random.default_rng([self.seed, source, turn, 1]).permutation(size)
            rows = np.arange(part * quota, (part + 1) * quota) % size
            parts.append(offset + order[rows])
            offset += size
        whole = np.concatenate(parts)
        # numpy fills short seeds up with zeros: without the 2 this would be the first step's stream of
        # `drop_volume`.
        return whole[np.random.default_rng([self.seed, epoch, 0, 2]).permutation(len(whole))]


class ItemSource(Protocol):
    """Makes what the host hands over for a part of a step."""

    def item(self, indices: np.ndarray, drop_volume: np.ndarray) -> tuple[Tensor, ...]:
        """Windows by index; those `drop_volume` without volume and amount."""
        ...


class MicroBatches(Dataset[tuple[Tensor, ...]]):
    """What one process learns from, part after part of its steps: an item depends on its number alone.

    Args:
        windows: to learn from.
        order: of the windows.
        parts: of a step, over all processes.
        rank: of this process.
        processes: how many there are.
        item_source: makes an item's content of the drawn windows; the windows themselves when omitted.
    """

    def __init__(
        self,
        windows: TrainingWindows,
        order: BatchSampler,
        parts: int,
        rank: int,
        processes: int,
        item_source: ItemSource | None = None,
    ) -> None:
        self.windows, self.item_source, self.order = windows, item_source or windows, order
        self.parts, self.rank, self.processes = parts, rank, processes
        self.per_process = parts // processes  # parts of a step that are this process's
        self.size = order.batch // parts

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        step, part = divmod(number, self.per_process)
        first = (part * self.processes + self.rank) * self.size
        draw = self.order.batch_indices(step)
        indices, drop_volume = (column[first : first + self.size] for column in draw)
        item = self.item_source.item(indices, drop_volume)
        if self.windows.labels is None:
            return item
        # The mean over all labels of the step, however they are spread over its parts.
        count = self.windows.labels_of(draw.indices).isfinite().sum() / self.parts
        return *item, count

    def numbers(self, steps: Sequence[int]) -> range:
        """Numbers of the items of consecutive steps."""
        return range(steps[0] * self.per_process, (steps[-1] + 1) * self.per_process) if steps else range(0)


class DeviceWindows:
    """`TrainingWindows` whose mapped_bars lie on a device: the host draws rows, the device cuts the windows.

    Args:
        windows: to hold.
        device: where to.
    """

    def __init__(self, windows: TrainingWindows, device: torch.device) -> None:
        mapped_bars = windows.mapped_bars
        self.windows = windows
        self.values = _joined([mapped.values for mapped in mapped_bars]).to(device)  # (M, 6) float32
        self.stamps = _joined([mapped.stamps for mapped in mapped_bars]).to(device)  # (M, 5) int8
        self.labels = _joined(windows.filled_labels()).to(device) if windows.labels else None
        self.offsets = np.cumsum([0, *(len(mapped.values) for mapped in mapped_bars)])
        self.bars = torch.arange(windows.lookback + windows.horizon, device=device)

    def item(self, indices: np.ndarray, drop_volume: np.ndarray) -> tuple[Tensor, ...]:
        """What the host hands over: the first row of each window and whether its volume is drop_volume."""
        source, starts = self.windows.locate(indices)
        return torch.from_numpy(self.offsets[source] + starts), torch.from_numpy(drop_volume)

    def gather(self, rows: Tensor, drop_volume: Tensor) -> tuple[Tensor, ...]:
        """(B,) rows and (B,) flags, on the device -> what `TrainingWindows.item` gives, there."""
        w = self.windows
        at = rows[:, None] + self.bars
        values = self.values[at]
        mean, width = _scale(values[:, : w.lookback])
        bars = ((values - mean) / width).clamp(-w.clip, w.clip).float()
        bars[:, :, 4:] = bars[:, :, 4:].masked_fill(drop_volume[:, None, None], 0.0)
        stamps = self.stamps[at].long()
        if self.labels is None:
            return bars, stamps
        return bars, stamps, self.labels[at[:, w.labeled]]


def fits_on_device(windows: TrainingWindows, device: torch.device, config: TrainingConfig) -> bool:
    """Whether to hold the bars on the device."""
    if config.data_on_device != "auto":
        return config.data_on_device == "on"
    if device.type != "cuda":
        return False
    labels = len(HORIZONS) * 4 if windows.labels else 0
    needed = sum(
        mapped.values.nbytes + mapped.stamps.nbytes + len(mapped.values) * labels
        for mapped in windows.mapped_bars
    )
    return needed < SHARE * torch.cuda.mem_get_info(device)[0]


def _scale(past: Tensor) -> tuple[Tensor, Tensor]:
    """`Scale.fit` of (B, L, 6) bars, on their device."""
    deviation, mean = torch.std_mean(past.double(), dim=1, correction=0, keepdim=True)
    width = deviation + RELATIVE_FLOOR * mean.abs()
    return mean, torch.where(width > 0, width, float(UPSTREAM_FLOOR))


def _joined(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))
