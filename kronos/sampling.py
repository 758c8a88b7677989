"""From logits to tokens: filters, and the two samplers.

`SobolSampler` draws one set of uniforms per (seed, forecast date), shared by all instruments of that date and all
model versions, and maps them to tokens by inverse CDF with tokens sorted by decoded close. Forecasts then do not
depend on batch size, order or number of workers, and much of the Monte Carlo noise cancels between two versions.
The uniforms are scrambled Sobol points (quasi-Monte Carlo), worth two to three times as many independent ones
(`backtests/sampling_noise.py`). `TorchSampler` is upstream's: `torch.multinomial` over all rows, in upstream's
order.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from kronos.bars import CLOSE
from kronos.config import SampleConfig
from kronos.tokenizer import KronosTokenizer, Tokens

SOBOL = "sobol"  # the draws of `forecast`, in its provenance
ALMOST_ONE = np.nextafter(np.float32(1), np.float32(0))

TICKS = 2**30  # integer value of a CDF of 1
SEARCH_BITS = 22  # resolves a threshold within some 13 octaves to 3e-6 octaves
TIE = 2.0**-18  # octaves: tolerance for ties with the threshold, against rounding of exp2 and log2
SPLIT_SIZE = 2**17  # comparisons that cost less than another round
WIDE_SPLIT_SIZE = 2**22  # the same on an accelerator, where a round costs kernel launches: 16 MiB


class Sampler(Protocol):
    """Draws the next tokens of each window's paths."""

    def sample(self, probabilities: Tensor, step: int, half: int) -> Tensor:
        """(N, S, V) probabilities, or (N, 1, V) if all paths share them, -> ids (N, S).

        For step `step` of the horizon, and s1 (half 0) or s2 (half 1).
        """
        ...


class TorchSampler:
    """Upstream's random stream: the same seed and batch give upstream's tokens."""

    def __init__(self, samples: int, generator: torch.Generator | None = None) -> None:
        self.samples = samples
        self.generator = generator  # None: torch's global generator

    def sample(self, probabilities: Tensor, step: int, half: int) -> Tensor:
        """See `Sampler`; rows are drawn series by series, path by path."""
        rows = probabilities.expand(-1, self.samples, -1).flatten(0, 1)  # (N * S, V)
        return torch.multinomial(rows, 1, generator=self.generator).view(-1, self.samples)


class SobolSampler:
    """Inverse CDF, over tokens sorted by price, of uniforms that depend only on the seed and the date.

    Args:
        uniforms: (N, S, H, 2), see `sobol_uniforms`.
        order: ids of each half in the order of the CDF, see `token_price_order`.
    """

    def __init__(self, uniforms: Tensor, order: Tokens) -> None:
        self.uniforms, self.order = uniforms, order

    def sample(self, probabilities: Tensor, step: int, half: int) -> Tensor:
        """See `Sampler`."""
        order = self.order[half]
        ordered = probabilities.gather(-1, order.expand_as(probabilities))
        # Integer sums do not depend on the order: on every device the CDF is monotone, and flat where the
        # probability is 0, which parallel sums of floats do not guarantee.
        cdf = (ordered * TICKS).long().cumsum(dim=-1)
        uniforms = self.uniforms[:, :, step, half].unflatten(1, (probabilities.shape[1], -1))
        return order[torch.searchsorted(cdf, (uniforms * cdf[..., -1:]).long(), right=True)].flatten(1)


def sobol_uniforms(seed: int, dates: pd.DatetimeIndex, samples: int, horizon: int) -> np.ndarray:
    """(N, S, H, 2) float32 uniforms in [0, 1): one set per distinct date, shared by the rows of the date.

    The S points of a date are the first of a scrambled Sobol sequence in 2 H dimensions (Owen 1998): each point is
    uniform, together they are more even than independent ones, and the first k do not depend on S.
    """
    unique, inverse = np.unique(dates.as_unit("ns").asi8, return_inverse=True)
    table = np.empty((len(unique), samples, horizon, 2), np.float32)
    for row, date in zip(table, unique, strict=True):
        # Nanoseconds as two unsigned words, since SeedSequence refuses negative numbers (dates before 1970).
        words = np.array([date], np.int64).view(np.uint32)
        state = np.random.SeedSequence([seed, *words.tolist()]).generate_state(1, np.uint64)[0] >> 1
        net = SobolEngine(2 * horizon, scramble=True, seed=int(state))
        points = net.draw(samples, dtype=torch.float64).numpy()
        row[:] = np.minimum(points, ALMOST_ONE).reshape(row.shape)
    return table[inverse]


@torch.inference_mode()
def token_price_order(tokenizer: KronosTokenizer) -> Tokens:
    """Ids of each half, (2**s1_bits,) and (2**s2_bits,), sorted by the close that each decodes to on its own.

    The other half is replaced by the mean over its ids. In this order a CDF increases with the price, so that equal
    uniforms give similar bars for all instruments, and evenly spread uniforms evenly spread prices.
    """
    device = tokenizer.head.weight.device
    # In double precision, so that all devices sort near-ties identically; on the CPU, since MPS has no float64.
    tokenizer = deepcopy(tokenizer).cpu().double().eval()
    orders = []
    for half, bits in enumerate(tokenizer.quantizer.split):
        ids = torch.arange(2**bits)
        other = torch.zeros_like(ids)
        codes = tokenizer.quantizer.codes(Tokens(other, ids) if half else Tokens(ids, other)).double()
        coarse, fine = codes.split(tokenizer.quantizer.split, dim=-1)
        (coarse if half else fine).zero_()
        bars = tokenizer.run_decoder(tokenizer.post_quant_embed(codes)[:, None])  # (V, 1, 6)
        orders.append(bars[:, 0, CLOSE].argsort(stable=True).to(device))
    return Tokens(*orders)


def probabilities(logits: Tensor, config: SampleConfig) -> Tensor:
    """(..., V) logits -> probabilities after temperature and the top-k or nucleus filter.

    The nucleus includes the token that crosses `top_p` (Holtzman et al. 2020); `top_k` overrides it. T=0 puts all
    mass on the most likely token.
    """
    if config.T == 0:
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, best, 1.0)
    unfiltered = (logits / config.T).softmax(dim=-1)
    if config.top_k > 0:
        smallest = unfiltered.topk(min(config.top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        kept = unfiltered * (unfiltered >= smallest)
    elif config.top_p < 1:
        kept = unfiltered * (unfiltered > _nucleus_threshold(unfiltered, config.top_p))
    else:
        return unfiltered
    return kept / kept.sum(dim=-1, keepdim=True)


def _nucleus_threshold(probabilities: Tensor, top_p: float) -> Tensor:
    """(..., V) -> (..., 1): tokens above the threshold form the nucleus; at most `top_p` of the mass is above each.

    The mass above a threshold decreases with the threshold, so that a search over its octaves finds it at a
    fraction of the cost of sorting many rows. With few rows each round splits the range into more parts, which
    takes fewer rounds.
    """
    size = probabilities.shape[-1]
    # Tokens at or below an equal share of 1 - top_p have more than top_p of the mass above them.
    lowest = math.log2((1 - top_p) / size)
    low = probabilities.new_full((*probabilities.shape[:-1], 1), lowest)  # in octaves below 1
    split_size = SPLIT_SIZE if probabilities.device.type == "cpu" else WIDE_SPLIT_SIZE
    parts = 2 ** min(6, max(1, int(math.log2(split_size / probabilities.numel() + 1))))
    cuts = torch.arange(1, parts, device=low.device)  # (parts - 1,)
    rows, width = probabilities[..., None, :], -lowest
    above = rows.new_empty(*rows.shape[:-2], parts - 1, size)
    for _ in range(math.ceil(SEARCH_BITS / math.log2(parts))):
        width /= parts
        floors = torch.exp2(low + width * cuts)[..., None]  # (..., parts - 1, 1)
        too_much = torch.gt(rows, floors, out=above).mul_(rows).sum(dim=-1) > top_p  # (..., parts - 1)
        low = low + width * too_much.sum(dim=-1, keepdim=True)
    return torch.exp2(low - TIE)
