"""Attention with a shared prefix: what the engine keeps of the bars it has read.

A window is read once and continued S times. Its keys and values are kept once, every sample keeps only its
own, and one softmax over both parts joins them. Samples take the place of time, (N, S * T), so that one
matrix product serves them all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class Visible:
    """Which positions of the prefixes may be seen, the same for all layers of a model.

    Attributes:
        bias: (N, 1, L) to add to scores; None where all is seen, which spares the addition.

    Args:
        lengths: (N,) real positions of each row, from the left.
        width: L.
        even: every row fills the width.
    """

    def __init__(self, lengths: Tensor, width: int, even: bool) -> None:
        self.lengths, self.width = lengths, width
        self.bias: Tensor | None = None
        if not even:
            self.hide(torch.zeros_like(lengths))

    def hide(self, oldest: Tensor) -> None:
        """Hide the first (N,) positions of each row as well; none where it is negative."""
        positions = torch.arange(self.width, device=self.lengths.device)
        seen = (positions >= oldest[:, None]) & (positions < self.lengths[:, None])
        self.bias = torch.where(seen, 0.0, -torch.inf)[:, None]


class PrefixCache:
    """Keys and values of one attention layer: a prefix of each window, and a suffix of each of its samples.

    Queries, keys and values arrive as (N, positions, heads, head width), rotated, queries scaled.

    Args:
        visible: which prefix positions are real.
        samples: S, that share a prefix.
        steps: bars that a sample appends at most.
    """

    def __init__(self, visible: Visible, samples: int, steps: int) -> None:
        self.visible, self.samples, self.steps = visible, samples, steps
        self.used = 0

    def prefill(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep (N, L, heads, w) keys and values as the prefix, and attend causally within it."""
        self.store(k, v)
        return causal(q, k, v)

    def store(self, k: Tensor, v: Tensor) -> None:
        """Keep (N, L, heads, w) keys and values as the prefix."""
        n, _, heads, width = k.shape
        self.keys, self.values = _by_head(k), _by_head(v)  # (N * heads, L, w)
        shape = (n * heads, self.samples, self.steps, width)
        self.own_keys, self.own_values = k.new_empty(shape), k.new_empty(shape)

    def extend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """T new bars of every sample, (N, S * T, heads, w) each: append them, then attend."""
        self.append(k, v)
        return self.read(q, new=k.shape[1] // self.samples)

    def append(self, k: Tensor, v: Tensor) -> None:
        """Add (N, S * T, heads, w) keys and values to the suffixes."""
        new = k.shape[1] // self.samples
        span = slice(self.used, self.used + new)
        shape = (len(self.own_keys), self.samples, new, -1)
        self.own_keys[:, :, span] = _by_head(k).view(shape)
        self.own_values[:, :, span] = _by_head(v).view(shape)
        self.used += new

    def read(self, q: Tensor, new: int = 1) -> Tensor:
        """Attend from (N, S * new, heads, w) queries, those of the last `new` bars: -> (N, S * new, d)."""
        n, rows, heads, width = q.shape
        q = _by_head(q)  # (N * heads, S * new, w)
        scores = self._prefix_scores(q, heads)  # (N * heads, S * new, L)
        length = scores.shape[-1]
        if self.used:
            own_keys = self.own_keys[:, :, : self.used].flatten(0, 1)  # (N * heads * S, used, w)
            own_values = self.own_values[:, :, : self.used].flatten(0, 1)
            own = q.view(-1, new, width) @ own_keys.transpose(1, 2)  # (N * heads * S, new, used)
            if new > 1:
                own = own + _causal_bias(new, self.used, own)
            scores = torch.cat([scores, own.view(*scores.shape[:2], -1)], dim=-1)
        weights = scores.softmax(dim=-1)
        out = weights[..., :length] @ self.values  # (N * heads, S * new, w)
        if self.used:
            own = weights[..., length:].unflatten(1, (-1, new)).flatten(0, 1)
            out.view(-1, new, width).baddbmm_(own, own_values)
        return out.view(n, heads, rows, width).transpose(1, 2).flatten(2)

    def _prefix_scores(self, q: Tensor, heads: int) -> Tensor:
        keys = self.keys.transpose(1, 2)
        if self.visible.bias is None:
            return q @ keys
        return torch.baddbmm(self.visible.bias.repeat_interleave(heads, 0), q, keys)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of (N, L, heads, w) over itself, scaled before -> (N, L, d)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0).transpose(1, 2).flatten(2)


def _by_head(x: Tensor) -> Tensor:
    """(N, positions, heads, w) -> (N * heads, positions, w), contiguous."""
    return x.transpose(1, 2).flatten(0, 1).contiguous()


def _causal_bias(new: int, used: int, like: Tensor) -> Tensor:
    """(new, used) -inf where a position is later than the query's."""
    return torch.full((new, used), -torch.inf, dtype=like.dtype, device=like.device).triu(used - new + 1)
