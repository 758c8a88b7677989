"""From logits to tokens: filters, and the two sources of random draws.

`SharedDraws` is ours: one uniform stream per (seed, forecast date), the same for every instrument of that
date and every model version, turned into tokens by inverse CDF. Monte-Carlo noise then cancels between
instruments and between versions, and a forecast depends on no batch size, order or worker.
`TorchDraws` is upstream's: `torch.multinomial` over all rows, in upstream's order.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kronos.config import SampleConfig


class Draws(Protocol):
    """Picks one token of each row's distribution."""

    def pick(self, probabilities: Tensor, step: int, half: int) -> Tensor:
        """(N, S, V) probabilities -> (N, S) ids, at a step of the horizon, for s1 (half 0) or s2 (half 1)."""
        ...


class TorchDraws:
    """Upstream's stream: the same seed gives upstream's tokens, if the batch is the same too."""

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator  # None: torch's global one, as `torch.manual_seed` sets it

    def pick(self, probabilities: Tensor, step: int, half: int) -> Tensor:
        """See `Draws`; rows are drawn series by series, sample by sample."""
        rows = probabilities.flatten(0, 1)  # (N * S, V)
        return torch.multinomial(rows, 1, generator=self.generator).view(probabilities.shape[:2])


class SharedDraws:
    """Inverse CDF of uniforms that depend on the seed and the forecast date alone."""

    def __init__(
        self, seed: int, dates: pd.DatetimeIndex, samples: int, horizon: int, device: torch.device
    ) -> None:
        self.uniforms = torch.from_numpy(date_uniforms(seed, dates, samples, horizon)).to(device)

    def pick(self, probabilities: Tensor, step: int, half: int) -> Tensor:
        """See `Draws`."""
        cdf = probabilities.cumsum(dim=-1)
        # Scaled by the last entry, so that rounding in the sum never asks for more than there is.
        target = self.uniforms[:, :, step, half, None] * cdf[..., -1:]
        return torch.searchsorted(cdf, target, right=True).squeeze(-1)


def date_uniforms(seed: int, dates: pd.DatetimeIndex, samples: int, horizon: int) -> np.ndarray:
    """(N, S, H, 2) float32 uniforms in [0, 1): one stream per distinct date, each date's shared by its rows.

    The first samples of a date are the same however many are drawn.
    """
    unique, inverse = np.unique(dates.as_unit("ns").asi8, return_inverse=True)
    table = np.empty((len(unique), samples, horizon, 2), np.float32)
    for row, date in zip(table, unique, strict=True):
        # Nanoseconds as two unsigned words: dates before 1970 are negative, which SeedSequence refuses.
        words = np.array([date], np.int64).view(np.uint32)
        stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *words.tolist()])))
        row[:] = stream.random(row.shape, np.float32)
    return table[inverse]


def probabilities(logits: Tensor, config: SampleConfig) -> Tensor:
    """(..., V) logits -> probabilities after temperature and the top-k or nucleus filter.

    The nucleus keeps the token that crosses `top_p` (Holtzman et al. 2020); `top_k` overrides it. T=0 puts
    all mass on the most likely token.
    """
    if config.T == 0:
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, best, 1.0)
    logits = logits / config.T
    if config.top_k > 0:
        least = logits.topk(min(config.top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    elif config.top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        mass = ordered.softmax(dim=-1).cumsum(dim=-1)
        beyond = mass.roll(1, dims=-1) > config.top_p  # mass of the tokens before
        beyond[..., 0] = False
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter_(-1, order, beyond), -torch.inf)
    return logits.softmax(dim=-1)
