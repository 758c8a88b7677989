"""Sampling variants that `sampling_noise` compares: kind of uniform numbers, sharing, and order of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.quasirandom import SobolEngine

from kronos.sampling import ALMOST_ONE, token_price_order
from kronos.tokenizer import KronosTokenizer, Tokens

Uniforms = Callable[[np.random.Generator, int, int], np.ndarray]  # (stream, S, D) -> (S, D) in [0, 1)


def plain(stream: np.random.Generator, samples: int, width: int) -> np.ndarray:
    """Independent uniform numbers."""
    return stream.random((samples, width), np.float32)


def latin(stream: np.random.Generator, samples: int, width: int) -> np.ndarray:
    """Latin hypercube: one number in each S-th of every column; depends on S (McKay et al. 1979)."""
    strata = stream.permuted(np.tile(np.arange(samples)[:, None], width), axis=0)
    return np.minimum((strata + stream.random(strata.shape)) / samples, ALMOST_ONE)


def sobol(stream: np.random.Generator, samples: int, width: int) -> np.ndarray:
    """Scrambled Sobol points, whose first points are evenly spread, too (Owen 1998)."""
    engine = SobolEngine(width, scramble=True, seed=int(stream.integers(2**31)))
    return np.minimum(engine.draw(samples, dtype=torch.float64).numpy(), ALMOST_ONE)


@dataclass(frozen=True)
class Variant:
    """One variant: numbers shared by the instruments of a date or not, tokens in order of ids or of price."""

    uniforms: Uniforms
    shared: bool = True
    by_price: bool = True
    nested: bool = True  # the first samples do not depend on the number of samples


SEPARATE, WINNER = "separate, plain", "shared, Sobol, by price"
VARIANTS = {
    SEPARATE: Variant(plain, shared=False, by_price=False),
    "shared, plain": Variant(plain, by_price=False),
    "shared, plain, by price": Variant(plain),
    "shared, Sobol": Variant(sobol, by_price=False),
    "shared, Latin hypercube, by price": Variant(latin, nested=False),
    "separate, Sobol, by price": Variant(sobol, shared=False),
    WINNER: Variant(sobol),
}


def order_of(tokenizer: KronosTokenizer, variant: Variant) -> Tokens:
    """Ids of each half in the order in which their probabilities are accumulated."""
    if variant.by_price:
        return token_price_order(tokenizer)
    sizes = (2**bits for bits in tokenizer.quantizer.split)
    return Tokens(*(torch.arange(size, device=tokenizer.head.weight.device) for size in sizes))
