"""Ways to draw that `sampling_noise` compares: which uniforms, shared by whom, along which order of tokens."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from kronos.bars import FEATURES
from kronos.layers import rope_table
from kronos.quantizer import Tokens
from kronos.tokenizer import KronosTokenizer

ALMOST_ONE = np.nextafter(np.float32(1), np.float32(0))
Uniforms = Callable[[np.random.Generator, int, int], np.ndarray]  # (stream, S, D) -> (S, D) in [0, 1)


def plain(stream: np.random.Generator, samples: int, width: int) -> np.ndarray:
    """Independent ones."""
    return stream.random((samples, width), np.float32)


def latin(stream: np.random.Generator, samples: int, width: int) -> np.ndarray:
    """One in each S-th of every column; another S is another set (McKay et al. 1979)."""
    strata = stream.permuted(np.tile(np.arange(samples)[:, None], width), axis=0)
    return np.minimum((strata + stream.random(strata.shape)) / samples, ALMOST_ONE)


def sobol(stream: np.random.Generator, samples: int, width: int) -> np.ndarray:
    """A scrambled net, whose first points are even too (Owen 1998)."""
    engine = SobolEngine(width, scramble=True, seed=int(stream.integers(2**31)))
    return np.minimum(engine.draw(samples, dtype=torch.float64).numpy(), ALMOST_ONE)


@dataclass(frozen=True)
class Variant:
    """One way to draw: shared by the names of a date or not, tokens in order of ids or of price."""

    uniforms: Uniforms
    shared: bool = True
    by_price: bool = True
    nested: bool = True  # the first samples are the same however many are drawn


BASELINE, WINNER = "separate, plain", "shared, Sobol, by price"
VARIANTS = {
    BASELINE: Variant(plain, shared=False, by_price=False),
    "shared, plain": Variant(plain, by_price=False),
    "shared, plain, by price": Variant(plain),
    "shared, Sobol": Variant(sobol, by_price=False),
    "shared, Latin hypercube, by price": Variant(latin, nested=False),
    "separate, Sobol, by price": Variant(sobol, shared=False),
    WINNER: Variant(sobol),
}


class InverseCdf:
    """Draws by (N, S, H, 2) uniforms along the tokens in a given order."""

    def __init__(self, uniforms: Tensor, orders: tuple[Tensor, Tensor] | None) -> None:
        self.uniforms = uniforms
        self.orders = orders

    def pick(self, probabilities: Tensor, step: int, half: int) -> Tensor:
        """See `kronos.sampling.Draws`."""
        device, size = probabilities.device, probabilities.shape[-1]
        order = self.orders[half].to(device) if self.orders else torch.arange(size, device=device)
        cdf = probabilities[..., order].cumsum(dim=-1).expand(-1, self.uniforms.shape[1], -1).contiguous()
        target = self.uniforms[:, :, step, half, None].to(device) * cdf[..., -1:]
        return order[torch.searchsorted(cdf, target, right=True).squeeze(-1).clamp(max=size - 1)]


@torch.inference_mode()
def price_orders(tokenizer: KronosTokenizer) -> tuple[Tensor, Tensor]:
    """Ids of s1 and of s2 by the close of one bar that has the other half at zero, its mean over all ids."""
    tokenizer = deepcopy(tokenizer).double()
    config, orders = tokenizer.config, []
    for half, bits in enumerate((config.s1_bits, config.s2_bits)):
        ids = torch.arange(2**bits)
        pair = (ids, torch.zeros_like(ids)) if half == 0 else (torch.zeros_like(ids), ids)
        corners = tokenizer.quantizer.corners(Tokens(*pair)).double()
        (corners[:, config.s1_bits :] if half == 0 else corners[:, : config.s1_bits]).zero_()
        x = tokenizer.post_quant_embed(corners)[:, None]  # (V, 1, d_model)
        for block in tokenizer.decoder:
            x = block(x, rope_table(torch.zeros(1), config.d_model // config.n_heads))
        orders.append(tokenizer.head(x)[:, 0, FEATURES.index("close")].argsort(stable=True))
    return orders[0], orders[1]
