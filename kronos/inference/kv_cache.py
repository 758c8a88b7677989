"""Attention with a shared prefix: what the engine keeps of the bars it has read.

A window is read once and continued S times. Its keys and values are kept once, every sample keeps only its
own, and one softmax over both parts joins them. Samples take the place of time, (N, S * T), so that one
matrix product serves them all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class Cursor:
    """Where a chunk of windows stands, the same for all layers: what may be seen, and where new bars go.

    Attributes:
        prefix: (N, 1, L) to add to scores of the prefix; None where all of it is seen.
        slots: the places in the suffixes of the T bars being read: a slice, or one place as a (1,) tensor.
        suffix: (1, T, steps) to add to scores of the suffixes: -inf at slots later than each of those bars.

    Args:
        lengths: (N,) real positions of each row, from the left.
        width: L.
        even: every row fills the width.
        steps: slots of a suffix.
    """

    def __init__(self, lengths: Tensor, width: int, even: bool, steps: int) -> None:
        self.lengths = lengths
        self.positions = torch.arange(width, device=lengths.device)
        self.all_slots = torch.arange(steps, device=lengths.device)
        self.prefix: Tensor | None = None
        if not even:
            self.mask_oldest(torch.zeros_like(lengths))

    def mask_oldest(self, oldest: Tensor) -> None:
        """Hide the first (N,) positions of each row; none where it is negative."""
        seen = (self.positions >= oldest[:, None]) & (self.positions < self.lengths[:, None])
        self.prefix = torch.where(seen, 0.0, -torch.inf).float()[:, None]

    def advance(self, first: int | Tensor, count: int = 1) -> None:
        """Stand at `count` bars from slot `first` on, or at the one bar whose slot is in a (1,) int64 tensor.

        The tensor's value stays on the device: the host can then ask for a step without knowing which it is.
        """
        if isinstance(first, Tensor):
            self.slots: slice | Tensor = first
            last = first[:, None]
        else:
            self.slots = slice(first, first + count)
            last = self.all_slots[self.slots, None]
        seen = self.all_slots <= last  # (T, steps)
        self.suffix = torch.where(seen, 0.0, -torch.inf).float()[None]


class PrefixCache:
    """Keys and values of one attention layer: a prefix of each window, and a suffix of each of its samples.

    Queries, keys and values arrive as (N, positions, heads, head width), rotated, queries scaled. Of a suffix
    all slots are read whether filled or not, for shapes that never change cost less than they save.

    Args:
        cursor: shared by the layers.
        samples: S, that share a prefix.
        steps: slots of a suffix.
    """

    def __init__(self, cursor: Cursor, samples: int, steps: int) -> None:
        self.cursor, self.samples, self.steps = cursor, samples, steps

    def prefill(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep (N, L, heads, w) keys and values as the prefix, and attend causally within it."""
        self.store(k, v)
        return causal(q, k, v)

    def store(self, k: Tensor, v: Tensor) -> None:
        """Keep (N, L, heads, w) keys and values as the prefix."""
        n, _, heads, width = k.shape
        self.keys = k.permute(0, 2, 3, 1).flatten(0, 1).contiguous()  # (N * heads, w, L), as products like it
        self.values = _by_head(v)  # (N * heads, L, w)
        shape = (n * heads * self.samples, self.steps, width)
        self.own_keys, self.own_values = k.new_zeros(shape), k.new_zeros(shape)

    def restart(self, other: PrefixCache) -> None:
        """Take over the prefix of a cache of the same shape, and forget the suffixes; memory stays in place."""
        self.keys.copy_(other.keys)
        self.values.copy_(other.values)
        self.own_keys.zero_()
        self.own_values.zero_()

    def extend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """T new bars of every sample, (N, S * T, heads, w) each: keep them, then attend from them."""
        self.append(k, v)
        return self.read(q)

    def append(self, k: Tensor, v: Tensor) -> None:
        """Put (N, S * T, heads, w) keys and values where the cursor stands."""
        self.own_keys[:, self.cursor.slots] = _by_head(k).unflatten(1, (self.samples, -1)).flatten(0, 1)
        self.own_values[:, self.cursor.slots] = _by_head(v).unflatten(1, (self.samples, -1)).flatten(0, 1)

    def read(self, q: Tensor) -> Tensor:
        """Attend from (N, S * T, heads, w) queries of the bars at the cursor -> (N, S * T, d)."""
        n, _, heads, width = q.shape
        q = _by_head(q)
        shared = self._prefix_scores(q, heads)  # (N * heads, S * T, L)
        alone = (len(self.own_keys), -1, width)  # (N * heads * S, T, w): each sample sees its own
        own = torch.baddbmm(self.cursor.suffix, q.view(alone), self.own_keys.transpose(1, 2))
        weights = torch.cat([shared, own.view(*shared.shape[:2], -1)], dim=-1).softmax(dim=-1)
        shared, own = weights.split([shared.shape[-1], self.steps], dim=-1)
        out = torch.bmm(shared, self.values)
        own = own.unflatten(1, (self.samples, -1)).flatten(0, 1)
        out.view(alone).baddbmm_(own, self.own_values)
        return _by_row(out, n)

    def read_prefix(self, q: Tensor) -> Tensor:
        """Attend from (N, S, heads, w) queries to the prefix alone -> (N, S, d)."""
        n, _, heads, _ = q.shape
        weights = self._prefix_scores(_by_head(q), heads).softmax(dim=-1)
        return _by_row(torch.bmm(weights, self.values), n)

    def _prefix_scores(self, q: Tensor, heads: int) -> Tensor:
        if self.cursor.prefix is None:
            return torch.bmm(q, self.keys)
        return torch.baddbmm(self.cursor.prefix.repeat_interleave(heads, 0), q, self.keys)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of (N, L, heads, w) over itself, scaled before -> (N, L, d)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0).transpose(1, 2).flatten(2)


def _by_head(x: Tensor) -> Tensor:
    """(N, positions, heads, w) -> (N * heads, positions, w), contiguous."""
    return x.transpose(1, 2).flatten(0, 1).contiguous()


def _by_row(x: Tensor, n: int) -> Tensor:
    """(N * heads, positions, w) -> (N, positions, d)."""
    return x.unflatten(0, (n, -1)).transpose(1, 2).flatten(2)
