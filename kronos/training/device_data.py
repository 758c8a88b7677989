"""All bars in the memory of the accelerator, where windows are cut and scaled without the host."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kronos.scale import RELATIVE_FLOOR, UPSTREAM_FLOOR
from kronos.training.config import TrainingConfig
from kronos.training.dataset import TrainingWindows
from kronos.training.labels import HORIZONS

SHARE = 0.5  # of the free memory that the bars may take


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
