"""Attention with a shared prefix: keys and values of the bars read so far.

A window is read once and continued S times. Its keys and values are stored once, each path stores only its own, and
one softmax covers both parts. Paths are laid out along the time axis, (N, S * T), so that one matrix product serves
all of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class Cursor:
    """Position of a chunk of windows, shared by all layers: attention masks, and the slots of new bars.

    Attributes:
        prefix: (N, 1, L) mask to add to scores of the prefix; None if all of it is visible.
        slots: slots in the suffixes of the T bars being read: a slice, or one slot as a (1,) tensor.
        suffix: (1, T, steps) mask to add to scores of the suffixes: -inf at slots after each of those bars.

    Args:
        lengths: (N,) number of real positions in each row, from the left.
        width: L.
        even: whether every row has the full width.
        steps: number of slots in a suffix.
    """

    def __init__(self, lengths: Tensor, width: int, even: bool, steps: int) -> None:
        self.lengths = lengths
        self.positions = torch.arange(width, device=lengths.device)
        self.all_slots = torch.arange(steps, device=lengths.device)
        self.prefix: Tensor | None = None
        if not even:
            self.mask_oldest(torch.zeros_like(lengths))

    def mask_oldest(self, oldest: Tensor) -> None:
        """Mask the first `oldest` (N,) positions of each row; none if negative."""
        seen = (self.positions >= oldest[:, None]) & (self.positions < self.lengths[:, None])
        self.prefix = torch.where(seen, 0.0, -torch.inf).float()[:, None]

    def advance(self, first: int | Tensor, count: int = 1) -> None:
        """Move to `count` bars from slot `first` on, or to the bar whose slot is in a (1,) int64 tensor.

        The tensor stays on the device, so that the host can launch a step without knowing its number.
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
    """Keys and values of one attention layer: a prefix per window, and a suffix per path.

    Queries, keys and values are (N, positions, heads, head width), rotated, with scaled queries. All slots of a
    suffix are read, filled or not, because constant shapes save more than they cost.

    Args:
        cursor: shared by the layers.
        samples: S, number of paths that share a prefix.
        steps: number of slots in a suffix.
    """

    def __init__(self, cursor: Cursor, samples: int, steps: int) -> None:
        self.cursor, self.samples, self.steps = cursor, samples, steps

    def prefill(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store (N, L, heads, w) keys and values as the prefix, and attend causally within it."""
        self.store(k, v)
        return causal(q, k, v)

    def store(self, k: Tensor, v: Tensor) -> None:
        """Store (N, L, heads, w) keys and values as the prefix."""
        n, _, heads, width = k.shape
        self.keys = (
            k.permute(0, 2, 3, 1).flatten(0, 1).contiguous()
        )  # (N * heads, w, L), the layout for matrix products
        self.values = _by_head(v)  # (N * heads, L, w)
        shape = (n * heads * self.samples, self.steps, width)
        self.own_keys, self.own_values = k.new_zeros(shape), k.new_zeros(shape)

    def restart(self, other: PrefixCache) -> None:
        """Copy the prefix of a cache of the same shape and clear the suffixes, in the same memory."""
        self.keys.copy_(other.keys)
        self.values.copy_(other.values)
        self.own_keys.zero_()
        self.own_values.zero_()

    def extend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store T new bars of every path, (N, S * T, heads, w) each, then attend from them."""
        self.append(k, v)
        return self.read(q)

    def append(self, k: Tensor, v: Tensor) -> None:
        """Store (N, S * T, heads, w) keys and values at the cursor's slots."""
        self.own_keys[:, self.cursor.slots] = _by_head(k).unflatten(1, (self.samples, -1)).flatten(0, 1)
        self.own_values[:, self.cursor.slots] = _by_head(v).unflatten(1, (self.samples, -1)).flatten(0, 1)

    def read(self, q: Tensor) -> Tensor:
        """Attend from (N, S * T, heads, w) queries of the bars at the cursor -> (N, S * T, d)."""
        n, _, heads, width = q.shape
        q = _by_head(q)
        shared = self._prefix_scores(q, heads)  # (N * heads, S * T, L)
        alone = (len(self.own_keys), -1, width)  # (N * heads * S, T, w): each path sees its own
        own = torch.baddbmm(self.cursor.suffix, q.view(alone), self.own_keys.transpose(1, 2))
        weights = torch.cat([shared, own.view(*shared.shape[:2], -1)], dim=-1).softmax(dim=-1)
        shared, own = weights.split([shared.shape[-1], self.steps], dim=-1)
        out = torch.bmm(shared, self.values)
        own = own.unflatten(1, (self.samples, -1)).flatten(0, 1)
        out.view(alone).baddbmm_(own, self.own_values)
        return _by_row(out, n)

    def read_prefix(self, q: Tensor) -> Tensor:
        """Attend from (N, S, heads, w) queries to the prefix only -> (N, S, d)."""
        n, _, heads, _ = q.shape
        weights = self._prefix_scores(_by_head(q), heads).softmax(dim=-1)
        return _by_row(torch.bmm(weights, self.values), n)

    def _prefix_scores(self, q: Tensor, heads: int) -> Tensor:
        if self.cursor.prefix is None:
            return torch.bmm(q, self.keys)
        return torch.baddbmm(self.cursor.prefix.repeat_interleave(heads, 0), q, self.keys)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal self-attention of (N, L, heads, w) with scaled queries -> (N, L, d)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0).transpose(1, 2).flatten(2)


def _by_head(x: Tensor) -> Tensor:
    """(N, positions, heads, w) -> (N * heads, positions, w), contiguous."""
    return x.transpose(1, 2).flatten(0, 1).contiguous()


def _by_row(x: Tensor, n: int) -> Tensor:
    """(N * heads, positions, w) -> (N, positions, d)."""
    return x.unflatten(0, (n, -1)).transpose(1, 2).flatten(2)
