"""How many floating-point operations a forecast takes, plainly and at least: matrix products and attention.

A product of (m, k) and (k, n) takes 2mkn. A query meeting t keys takes 2td for the scores and 2td for the mean of
the values, d the width of all heads; causal attention over t positions meets t(t + 1)/2 pairs. Norms, activations,
look-ups and sampling are left out: they are not matrix products, though they take time.

At least means that whatever samples, steps or positions have in common is computed once:

1. Each window is encoded once, and the trunk reads it once; of the decoder's last block a window needs only keys
   and values, since no bar of the past is forecast.
2. Each step takes one position of each path through the trunk, which meets the prefix and its own suffix.
3. The heads read that one position. The fine half's layer appends one pair of key and value and asks one query,
   whose projection is a row of a table (2**s1_bits rows, made once); so is the fusion of a token's two halves.
4. Once the window slides, positions start over and nothing kept is valid: each such step reads the window again,
   its history once per asset and the generated bars once per path.
5. The tokenizer's decoder reads the last bars of the window once and each path's own bars after them.
"""

from __future__ import annotations

from typing import NamedTuple

from kronos.config import ModelConfig, TokenizerConfig
from tests.benchmarks.cases import MAX_CONTEXT, MODELS, TOKENIZER, Case


class Flops(NamedTuple):
    """Operations of one forecast by part."""

    encode: float
    read: float  # the trunk over whole windows
    steps: float  # the trunk over single positions
    heads: float
    decode: float

    @property
    def total(self) -> float:
        """Sum over all parts."""
        return sum(self)


def plain_flops(case: Case, context: int = MAX_CONTEXT) -> Flops:
    """Operations of the plain loop: N * S rows, all of the window at every step."""
    model, d = MODELS[case.size], MODELS[case.size].d_model
    read = heads = 0.0
    for step in range(case.horizon):
        t = min(case.lookback + step, context)
        fuse = 2 * t * 2 * d * d
        read += fuse + _trunk(model, t, _causal(t))
        dependency = 2 * (2 * t + 2) * d * d + 4 * t * d  # keys and values of t, query and output of 1
        heads += 2 * t * d * (2**model.s1_bits + 2**model.s2_bits) + dependency
    length = min(case.lookback + case.horizon, context)
    encode = _encode(TOKENIZER, case.lookback)
    decode = _decoder(TOKENIZER, length, _causal(length))
    return Flops(*(case.rows * part for part in (encode, read, 0.0, heads, decode)))


def least_flops(case: Case, context: int = MAX_CONTEXT, rolling: bool = False) -> Flops:
    """Operations of an engine that computes nothing twice; with `rolling`, its cache drops old positions."""
    model, d = MODELS[case.size], MODELS[case.size].d_model
    n, rows = case.assets, case.rows
    width = min(case.lookback, context)
    cached = case.horizon if rolling else max(1, min(case.horizon, context - width + 1))
    read = n * (
        _trunk(model, width, _causal(width)) + 4 * width * d * d
    )  # and the fine half's keys and values
    steps = heads = 0.0
    for step in range(case.horizon):
        seen = min(width + step, context)
        if 0 < step < cached:
            steps += rows * (_trunk(model, 1, seen) + 4 * d * d)
        elif step >= cached:
            own = min(step, seen)
            past = seen - own
            read += n * (_trunk(model, past, _causal(past)) + 4 * past * d * d)
            read += rows * (_trunk(model, own, _causal(seen) - _causal(past)) + 4 * own * d * d)
        dependency = 2 * d * d + 4 * seen * d  # output projection, one query over all keys
        states = n if step == 0 else rows  # before the first draw all samples are one
        heads += states * 2 * d * 2**model.s1_bits + rows * (dependency + 2 * d * 2**model.s2_bits)
    return Flops(n * _encode(TOKENIZER, case.lookback), read, steps, heads, _shared_decode(case, context))


def _trunk(model: ModelConfig, positions: int, pairs: float) -> float:
    """Operations of all blocks over some positions, with `pairs` of query and key."""
    return model.n_layers * _block(model, positions, pairs)


def _block(config: ModelConfig | TokenizerConfig, positions: int, pairs: float) -> float:
    d = config.d_model
    return 2 * positions * (4 * d * d + 3 * d * config.ff_dim) + 4 * pairs * d


def _causal(length: int) -> float:
    """Pairs of query and key in causal attention."""
    return length * (length + 1) / 2


def _encode(config: TokenizerConfig, length: int) -> float:
    edges = 2 * length * config.d_model * (config.d_in + config.s1_bits + config.s2_bits)
    return edges + (config.n_enc_layers - 1) * _block(config, length, _causal(length))


def _decoder(config: TokenizerConfig, positions: int, pairs: float) -> float:
    edges = 2 * positions * config.d_model * (config.d_in + config.s1_bits + config.s2_bits)
    return edges + (config.n_dec_layers - 1) * _block(config, positions, pairs)


def _shared_decode(case: Case, context: int) -> float:
    config, d = TOKENIZER, TOKENIZER.d_model
    past = min(case.lookback, context - case.horizon)
    pairs = _causal(past + case.horizon) - _causal(past)
    window = 2 * past * d * (config.s1_bits + config.s2_bits)
    window += (config.n_dec_layers - 2) * _block(config, past, _causal(past)) + 4 * past * d * d
    return case.assets * window + case.rows * _decoder(config, case.horizon, pairs)
