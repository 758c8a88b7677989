"""The windows of each step, a function of seed and step only, for any number of workers and processes.

The host loads the windows, or an accelerator that keeps all bars extracts them.
"""

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
    """The windows of one step: (B,) indices, and (B,) whether to set volume and amount to 0."""

    indices: np.ndarray
    drop_volume: np.ndarray


MEMORY_SHARE = 0.5  # of the accelerator's free memory, for bars


class BatchSampler:
    """Shuffled epochs over the windows of one or several sources.

    An epoch contains no window twice. Without weights it contains every window once. With weights sources are
    mixed in these proportions, and the epoch ends when one source is exhausted; the remaining windows of the
    other sources follow in the next epochs, before these sources are shuffled again.

    Args:
        sizes: number of windows of each source; indices run through all sources.
        weights: weights of the sources; None: in proportion to their sizes.
        batch: windows per step. An incomplete last batch of an epoch is dropped.
        volume_dropout: share of windows whose volume and amount are set to 0.
        seed: random seed.

    Raises:
        ValueError: an epoch is smaller than one batch.
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
        # Rounding must not exceed a source's size, nor give 0.
        self.epoch_sizes = [
            max(1, min(size, round(total * share)))
            for size, share in zip(sizes, self.mixture_weights, strict=True)
        ]
        self.epoch_steps = sum(self.epoch_sizes) // batch
        if self.epoch_steps == 0:
            raise ValueError(
                f"{sum(self.epoch_sizes)} training windows are fewer than one batch of {batch}. Pass more bars or "
                "a smaller batch size."
            )
        self._cached: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def batch_indices(self, step: int) -> BatchIndices:
        """The windows of a step, counted from 0."""
        epoch, i = divmod(step, self.epoch_steps)
        if self._cached[0] != epoch:
            self._cached = epoch, self._epoch(epoch)
        indices = self._cached[1][i * self.batch : (i + 1) * self.batch]
        drop_volume = np.random.default_rng([self.seed, epoch, i]).random(self.batch) < self.volume_dropout
        return BatchIndices(indices, drop_volume)

    def _epoch(self, epoch: int) -> np.ndarray:
        """Indices of an epoch's windows in order."""
        parts, offset = [], 0
        for source, (size, quota) in enumerate(zip(self.sizes, self.epoch_sizes, strict=True)):
            # A pass through a source takes several epochs if each uses only a part of it. The last part is
            # completed with windows of the first, so that every window is used.
            turn, part = divmod(epoch, -(-size // quota))
            order = np.random.default_rng([self.seed, source, turn, 1]).permutation(size)
            rows = np.arange(part * quota, (part + 1) * quota) % size
            parts.append(offset + order[rows])
            offset += size
        whole = np.concatenate(parts)
        # numpy pads short seeds with zeros: without the 2 this would be the first step's stream of
        # `drop_volume`.
        return whole[np.random.default_rng([self.seed, epoch, 0, 2]).permutation(len(whole))]


class ItemSource(Protocol):
    """Prepares on the host what is transferred for a part of a step."""

    def item(self, indices: np.ndarray, drop_volume: np.ndarray) -> tuple[Tensor, ...]:
        """Windows by index; volume and amount are 0 where `drop_volume`."""
        ...


class MicroBatches(Dataset[tuple[Tensor, ...]]):
    """The parts of all steps for one process; an item depends on its number only.

    Args:
        windows: training windows.
        order: sampler of the windows.
        parts: number of parts of a step, over all processes.
        rank: rank of this process.
        processes: number of processes.
        item_source: prepares the items of the sampled windows; the windows themselves when omitted.
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
        self.per_process = parts // processes  # parts of a step for this process
        self.size = order.batch // parts

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        step, part = divmod(number, self.per_process)
        first = (part * self.processes + self.rank) * self.size
        draw = self.order.batch_indices(step)
        indices, drop_volume = (column[first : first + self.size] for column in draw)
        item = self.item_source.item(indices, drop_volume)
        if self.windows.labels is None:
            return item
        # The loss is the mean over all labels of the step, regardless of how many are in each part.
        count = self.windows.labels_of(draw.indices).isfinite().sum() / self.parts
        return *item, count

    def numbers(self, steps: Sequence[int]) -> range:
        """Item numbers of consecutive steps."""
        return range(steps[0] * self.per_process, (steps[-1] + 1) * self.per_process) if steps else range(0)


class DeviceWindows:
    """`TrainingWindows` with all bars in device memory: the host samples rows, the device extracts the windows.

    Args:
        windows: training windows.
        device: device for the bars.
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
        """Transferred to the device: the first row of each window, and whether to set its volume to 0."""
        source, starts = self.windows.locate(indices)
        return torch.from_numpy(self.offsets[source] + starts), torch.from_numpy(drop_volume)

    def gather(self, rows: Tensor, drop_volume: Tensor) -> tuple[Tensor, ...]:
        """(B,) rows and (B,) flags on the device -> the result of `TrainingWindows.item` on the device."""
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
    """Whether to keep the bars in device memory."""
    if config.data_on_device != "auto":
        return config.data_on_device == "on"
    if device.type != "cuda":
        return False
    labels = len(HORIZONS) * 4 if windows.labels else 0
    needed = sum(
        mapped.values.nbytes + mapped.stamps.nbytes + len(mapped.values) * labels
        for mapped in windows.mapped_bars
    )
    return needed < MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]


def _scale(past: Tensor) -> tuple[Tensor, Tensor]:
    """`Scale.fit` of (B, L, 6) bars on their device."""
    deviation, mean = torch.std_mean(past.double(), dim=1, correction=0, keepdim=True)
    width = deviation + RELATIVE_FLOOR * mean.abs()
    return mean, torch.where(width > 0, width, float(UPSTREAM_FLOOR))


def _joined(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))
