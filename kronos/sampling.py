"""From logits to tokens: filters, and the two sources of random draws.

`SobolSampler` is ours: one set of uniforms per (seed, forecast date), the same for every instrument of that
date and every model version, turned into tokens by inverse CDF in order of price. The draws of a forecast then
depend on no batch size, order or worker, and much of the Monte-Carlo noise cancels between two versions. The
uniforms are a scrambled Sobol net, worth two to three times as many independent ones
(`backtests/sampling_noise.py`).
`TorchSampler` is upstream's: `torch.multinomial` over all rows, in upstream's order.
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

SOBOL = "sobol by price"  # the draws of `forecast`, in its provenance
ALMOST_ONE = np.nextafter(np.float32(1), np.float32(0))

TICKS = 2**30  # of a whole CDF
SEARCH_BITS = 22  # a floor is found among 2**22 within some 13 octaves: to 3e-6 octaves
TIE = 2.0**-18  # octaves: what is so near the floor counts as above it, however exp2 and log2 round
SPLIT_SIZE = 2**17  # numbers that are cheaper to look at than one more round
WIDE_SPLIT_SIZE = 2**22  # the same on an accelerator, where a round costs some launches: 16 MiB


class Sampler(Protocol):
    """Picks tokens of each window's samples."""

    def sample(self, probabilities: Tensor, step: int, half: int) -> Tensor:
        """(N, S, V) probabilities, or (N, 1, V) while all samples share them, -> ids (N, S).

        At a step of the horizon, for s1 (half 0) or s2 (half 1).
        """
        ...


class TorchSampler:
    """Upstream's stream: the same seed gives upstream's tokens, if the batch is the same too."""

    def __init__(self, samples: int, generator: torch.Generator | None = None) -> None:
        self.samples = samples
        self.generator = generator  # None: torch's global one, as `torch.manual_seed` sets it

    def sample(self, probabilities: Tensor, step: int, half: int) -> Tensor:
        """See `Sampler`; rows are drawn series by series, sample by sample."""
        rows = probabilities.expand(-1, self.samples, -1).flatten(0, 1)  # (N * S, V)
        return torch.multinomial(rows, 1, generator=self.generator).view(-1, self.samples)


class SobolSampler:
    """Inverse CDF, along tokens in order of price, of uniforms that depend on the seed and the date alone.

    Args:
        uniforms: (N, S, H, 2), see `sobol_uniforms`.
        order: ids of each half in the order in which their probabilities add up, see `token_price_order`.
    """

    def __init__(self, uniforms: Tensor, order: Tokens) -> None:
        self.uniforms, self.order = uniforms, order

    def sample(self, probabilities: Tensor, step: int, half: int) -> Tensor:
        """See `Sampler`."""
        order = self.order[half]
        ordered = probabilities.gather(-1, order.expand_as(probabilities))
        # Whole numbers add up the same in any order: the CDF is monotone, and flat where nothing is, on
        # every device, which a parallel sum of floats does not promise.
        cdf = (ordered * TICKS).long().cumsum(dim=-1)
        uniforms = self.uniforms[:, :, step, half].unflatten(1, (probabilities.shape[1], -1))
        return order[torch.searchsorted(cdf, (uniforms * cdf[..., -1:]).long(), right=True)].flatten(1)


def sobol_uniforms(seed: int, dates: pd.DatetimeIndex, samples: int, horizon: int) -> np.ndarray:
    """(N, S, H, 2) float32 uniforms in [0, 1): one set per distinct date, each date's shared by its rows.

    Each date's S points are the first of a scrambled Sobol net in 2 H dimensions (Owen 1998): every point is
    uniform, together they are more even than independent ones, and however many are drawn, the first are the same.
    """
    unique, inverse = np.unique(dates.as_unit("ns").asi8, return_inverse=True)
    table = np.empty((len(unique), samples, horizon, 2), np.float32)
    for row, date in zip(table, unique, strict=True):
        # Nanoseconds as two unsigned words: dates before 1970 are negative, which SeedSequence refuses.
        words = np.array([date], np.int64).view(np.uint32)
        state = np.random.SeedSequence([seed, *words.tolist()]).generate_state(1, np.uint64)[0] >> 1
        net = SobolEngine(2 * horizon, scramble=True, seed=int(state))
        points = net.draw(samples, dtype=torch.float64).numpy()
        row[:] = np.minimum(points, ALMOST_ONE).reshape(row.shape)
    return table[inverse]


@torch.inference_mode()
def token_price_order(tokenizer: KronosTokenizer) -> Tokens:
    """Ids of each half, (2**s1_bits,) and (2**s2_bits,), by the close of the bar that each alone stands for.

    The other half counts as the mean over its ids. Along this order a CDF moves with the price, so that equal
    uniforms mean alike bars for all instruments, and even uniforms even prices.
    """
    device = tokenizer.head.weight.device
    # In double precision, and on the CPU, for MPS knows none: no near-tie that another device orders otherwise.
    tokenizer = deepcopy(tokenizer).cpu().double().eval()
    orders = []
    for half, bits in enumerate(tokenizer.quantizer.split):
        ids = torch.arange(2**bits)
        other = torch.zeros_like(ids)
        codes = tokenizer.quantizer.codes(Tokens(other, ids) if half else Tokens(ids, other)).double()
        coarse, fine = codes.split(tokenizer.quantizer.split, dim=-1)
        (coarse if half else fine).zero_()
        bars = tokenizer.rebuild(tokenizer.post_quant_embed(codes)[:, None])  # (V, 1, 6)
        orders.append(bars[:, 0, CLOSE].argsort(stable=True).to(device))
    return Tokens(*orders)


def probabilities(logits: Tensor, config: SampleConfig) -> Tensor:
    """(..., V) logits -> probabilities after temperature and the top-k or nucleus filter.

    The nucleus keeps the token that crosses `top_p` (Holtzman et al. 2020); `top_k` overrides it. T=0 puts
    all mass on the most likely token.
    """
    if config.T == 0:
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(logits).scatter_(-1, best, 1.0)
    all_of_them = (logits / config.T).softmax(dim=-1)
    if config.top_k > 0:
        least = all_of_them.topk(min(config.top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        kept = all_of_them * (all_of_them >= least)
    elif config.top_p < 1:
        kept = all_of_them * (all_of_them > _nucleus_floor(all_of_them, config.top_p))
    else:
        return all_of_them
    return kept / kept.sum(dim=-1, keepdim=True)


def _nucleus_floor(probabilities: Tensor, top_p: float) -> Tensor:
    """(..., V) -> (..., 1): the nucleus is what lies above it, tokens with at most `top_p` of mass above theirs.

    Mass above a floor falls as the floor rises, so the floor is searched for, by splitting the octaves that it
    may lie in: for many rows this costs a fraction of sorting them. Few rows are split in more parts at a time,
    which takes fewer rounds.
    """
    size = probabilities.shape[-1]
    # What lies at or below an equal share of 1 - top_p has more than top_p above it.
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
