"""How many windows go through the engine together: as many as a memory budget holds, of like lengths.

A window's tokens do not depend on the others of its chunk, but the last digits of its logits do: matrix libraries
choose kernels by the number of rows. Equal chunks give equal bits, other chunks give 1e-4 of a close in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kronos.config import DEPENDENCY_HEADS, ModelConfig, TokenizerConfig

FLOAT = 4  # bytes


def chunks(lengths: np.ndarray, bytes_of: Callable[[int], int], budget: int) -> list[np.ndarray]:
    """Split N windows into chunks of rows, in order of length, so that little of a chunk is padding.

    Args:
        lengths: (N,) bars of each window.
        bytes_of: what a window of a length takes.
        budget: bytes that a chunk may take; one window is always let through.
    """
    order = np.argsort(lengths, kind="stable")[::-1]  # the longest first: a budget too small shows at once
    parts, start = [], 0
    while start < len(order):
        rows = max(1, budget // bytes_of(int(lengths[order[start]])))
        parts.append(order[start : start + rows])
        start += rows
    return parts


class WindowBytes:
    """Bytes that the engine takes for one window at its peak; an estimate, a little generous."""

    def __init__(
        self,
        model: ModelConfig,
        tokenizer: TokenizerConfig,
        samples: int,
        horizon: int,
        max_context: int,
        window: str,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.samples, self.horizon, self.max_context = samples, horizon, max_context
        self.rereads = window == "exact"

    def __call__(self, length: int) -> int:
        """For a lookback of `length` bars."""
        m, t = self.model, self.tokenizer
        seen, paths = min(length, self.max_context), self.samples * self.horizon
        logits = 8 * self.samples * 2 ** max(m.s1_bits, m.s2_bits)
        caches = 2 * m.d_model * (m.n_layers + 1) * (seen + paths)
        scores = 3 * max(m.n_heads, DEPENDENCY_HEADS) * self.samples * (seen + self.horizon)
        reading = caches + max(_activations(m, seen), scores + logits)
        if self.rereads and length + self.horizon - 1 > self.max_context:
            # While the last reading's keys and values are there: parts of this one, joined, laid out; the ids.
            positions = self.samples * self.max_context
            reading = max(reading, max(caches, positions * 2 * m.d_model) + positions * (6 * m.d_model + 32))
        decoding = 2 * t.d_model * (t.n_dec_layers - 1) * (seen + paths)
        decoding += _activations(t, max(seen, paths)) + 3 * t.n_heads * paths * (seen + self.horizon)
        return FLOAT * max(reading, decoding, _activations(t, length))


class EmbedBytes:
    """Bytes that reading one window takes at its peak, when nothing is sampled; an estimate, a little generous."""

    def __init__(self, model: ModelConfig, tokenizer: TokenizerConfig, max_context: int) -> None:
        self.model, self.tokenizer, self.max_context = model, tokenizer, max_context

    def __call__(self, length: int) -> int:
        """For a lookback of `length` bars."""
        seen = min(length, self.max_context)
        reading = _activations(self.model, seen) + 2 * self.model.d_model * seen
        return FLOAT * max(reading, _activations(self.tokenizer, length))


def _activations(config: ModelConfig | TokenizerConfig, rows: int) -> int:
    """Numbers alive at once in a block over `rows` positions."""
    return rows * (6 * config.d_model + 2 * config.ff_dim)
