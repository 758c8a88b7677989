"""Upstream's algorithm, written plainly: at every step each copy of each window is read again from its start.

No cache, no batch, no padding: slow, and simple enough to be believed. The engine is held to it. The rolling
window, which upstream does not know, is written in the same way, with a mask in place of a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kronos.config import DEPENDENCY_HEADS
from kronos.layers import Rope, rope_table
from kronos.model import Kronos, Logits, ModelLoss
from kronos.tokenizer import KronosTokenizer, Tokens


class Window(NamedTuple):
    """One window without any padding, and the stamps of the bars to forecast."""

    tokens: Tokens  # each (L,)
    stamps: Tensor  # (L, 5)
    future: Tensor  # (H, 5)


class Generated(NamedTuple):
    """Sampled tokens (N, S, H) each, and the logits each was drawn from, (H, N, S, V) each."""

    tokens: Tokens
    s1_logits: Tensor
    s2_logits: Tensor


Choose = Callable[[Tensor, int, int], Tensor]  # logits (N, S, V), step, half -> ids (N, S)


@torch.no_grad()
def recompute(model: Kronos, windows: list[Window], samples: int, choose: Choose, context: int) -> Generated:
    """Sample every window's future, `samples` times, seeing the last `context` tokens at each step."""
    return _sample(model, windows, samples, choose, lambda window: _read(model, window, context))


@torch.no_grad()
def roll(model: Kronos, windows: list[Window], samples: int, choose: Choose, context: int) -> Generated:
    """Like `recompute`, but a token is read once, at its own position, after the `context` - 1 tokens before it."""
    windows = [_cut(window, context) for window in windows]
    return _sample(model, windows, samples, choose, lambda window: _read_band(model, window, context))


def _sample(
    model: Kronos, windows: list[Window], samples: int, choose: Choose, read: Callable[[Window], Tensor]
) -> Generated:
    copies = [[window] * samples for window in windows]  # (N, S) sequences that grow
    seen: tuple[list[Tensor], list[Tensor]] = ([], [])
    for step in range(len(windows[0].future)):
        hidden = [[read(copy) for copy in row] for row in copies]
        s1_logits = _each(hidden, lambda h: model.s1_logits(h)[0, -1])
        s1 = choose(s1_logits, step, 0)
        s2_logits = torch.stack(
            [
                torch.stack([_fine(model, h, ids[j]) for j, h in enumerate(row)])
                for row, ids in zip(hidden, s1, strict=True)
            ]
        )
        s2 = choose(s2_logits, step, 1)
        seen[0].append(s1_logits)
        seen[1].append(s2_logits)
        copies = [
            [_append(copy, s1[i, j], s2[i, j], step) for j, copy in enumerate(row)]
            for i, row in enumerate(copies)
        ]
    horizon = len(windows[0].future)
    tokens = Tokens(
        _each(copies, lambda copy: copy.tokens.s1[-horizon:]),
        _each(copies, lambda copy: copy.tokens.s2[-horizon:]),
    )
    return Generated(tokens, torch.stack(seen[0]), torch.stack(seen[1]))


@torch.no_grad()
def rebuild(
    tokenizer: KronosTokenizer, windows: list[Window], generated: Tokens, context: int
) -> list[list[Tensor]]:
    """(N, S) lists of (H, 6) bars: each whole path decoded at once after the end of its window."""
    horizon = generated.s1.shape[-1]
    rows = []
    for i, window in enumerate(windows):
        row = []
        for s1, s2 in zip(generated.s1[i], generated.s2[i], strict=True):
            ids = Tokens(torch.cat([window.tokens.s1, s1]), torch.cat([window.tokens.s2, s2]))
            row.append(tokenizer.decode(Tokens(*(half[None, -context:] for half in ids)))[0, -horizon:])
        rows.append(row)
    return rows


def _read(model: Kronos, window: Window, context: int) -> Tensor:
    """(1, T, d) hidden states of the last `context` tokens, positions from 0."""
    seen = _cut(window, context)
    return model.hidden(Tokens(*(half[None] for half in seen.tokens)), seen.stamps[None])


def _read_band(model: Kronos, window: Window, context: int) -> Tensor:
    """(1, context, d) last hidden states of the whole window, where each token sees the `context` up to it."""
    positions = torch.arange(len(window.stamps))
    distance = positions[:, None] - positions  # (T, T)
    seen = (distance >= 0) & (distance < context)
    rope = rope_table(positions, model.config.d_model // model.config.n_heads)
    x = model.embedding(Tokens(*(half[None] for half in window.tokens))) + model.time_emb(window.stamps[None])
    for block in model.transformer:
        attention, normed = block.self_attn, block.norm1(x)
        q, k, v = (
            project(normed).unflatten(-1, (attention.n_heads, -1)).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        scores = rotate(q, rope) @ rotate(k, rope).transpose(2, 3) / q.shape[-1] ** 0.5
        joined = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v
        x = x + attention.out_proj(joined.transpose(1, 2).flatten(2))
        x = x + block.ffn(block.norm2(x))
    return model.norm(x)[:, -context:]


def _cut(window: Window, context: int) -> Window:
    tokens = Tokens(*(half[-context:] for half in window.tokens))
    return Window(tokens, window.stamps[-context:], window.future)


def _fine(model: Kronos, hidden: Tensor, s1: Tensor) -> Tensor:
    """(V,) logits of s2 after the last position; only that query is used."""
    return model.s2_logits(hidden, s1.expand(1, hidden.shape[1]))[0, -1]


def _append(window: Window, s1: Tensor, s2: Tensor, step: int) -> Window:
    tokens = Tokens(torch.cat([window.tokens.s1, s1[None]]), torch.cat([window.tokens.s2, s2[None]]))
    return window._replace(tokens=tokens, stamps=torch.cat([window.stamps, window.future[step : step + 1]]))


def _each(rows: list[list], take: Callable[..., Tensor]) -> Tensor:
    return torch.stack([torch.stack([take(item) for item in row]) for row in rows])


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Rotate (B, heads, T, width) by each position's angles; the halves of a head are the pairs."""
    left, right = x.chunk(2, dim=-1)
    return x * rope.cos + torch.cat([-right, left], dim=-1) * rope.sin


def rotated_logits(model: Kronos, tokens: Tokens, stamps: Tensor, next_s1: Tensor) -> Logits:
    """Logits with a rotated cross-attention, as upstream trains it; decoding does not rotate it."""
    hidden = model.hidden(tokens, stamps)
    rope = rope_table(torch.arange(hidden.shape[1]), model.config.d_model // DEPENDENCY_HEADS)
    return Logits(model.s1_logits(hidden), model.s2_logits(hidden, next_s1, rope))


def rotated_loss(model: Kronos, tokens: Tokens, stamps: Tensor) -> ModelLoss:
    """`Kronos.loss` with the logits of `rotated_logits`."""
    past = Tokens(tokens.s1[:, :-1], tokens.s2[:, :-1])
    logits = rotated_logits(model, past, stamps[:, :-1], tokens.s1[:, 1:])
    s1, s2 = (
        F.cross_entropy(half.flatten(0, 1), true[:, 1:].flatten())
        for half, true in zip(logits, tokens, strict=True)
    )
    return ModelLoss((s1 + s2) / 2, s1, s2)
