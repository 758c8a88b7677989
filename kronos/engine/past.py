"""The windows of a chunk, what is kept of them once they are read, and how it takes one more bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kronos.config import SampleConfig
from kronos.engine.cache import Cursor, PrefixCache
from kronos.engine.fused import FusedKronos
from kronos.quantizer import Tokens
from kronos.sampling import Draws, probabilities


class Prompt(NamedTuple):
    """N windows as tokens, aligned left, and the calendar around them."""

    tokens: Tokens  # each (N, L)
    lengths: Tensor  # (N,) int64
    stamps: Tensor  # (N, L, 5) int64
    future: Tensor  # (N, H, 5) int64
    even: bool  # every row fills the width; known by the host, so that no device is asked


class Past(NamedTuple):
    """What is kept of the bars read so far."""

    hidden: Tensor  # (N, S, d) of each path's last bar, (N, 1, d) while its samples are one
    cursor: Cursor
    trunk: list[PrefixCache]
    dependency: PrefixCache
    attend: Callable[[Tensor], Tensor]  # how the dependency-aware layer reads its cache


def read(model: FusedKronos, prompt: Prompt, samples: int, steps: int) -> Past:
    """Read the windows once."""
    cursor = cursor_of(prompt, steps)
    trunk = [PrefixCache(cursor, samples, steps) for _ in model.blocks]
    dependency = PrefixCache(cursor, samples, steps)
    turns = model.turns(cursor.positions)
    hidden = model.hidden(prompt.tokens, prompt.stamps, turns, [cache.prefill for cache in trunk])
    dependency.store(*model.cross_keys_values(hidden))
    return Past(last_bar(hidden, prompt), cursor, trunk, dependency, dependency.read_prefix)


def draw(model: FusedKronos, past: Past, n: int, config: SampleConfig, draws: Draws, step: int) -> Tokens:
    """Sample the next bar of every path of N windows, with the draws of step `step`: (N, S) tokens."""
    s1_logits = model.s1_logits(past.hidden)
    s1 = draws.pick(probabilities(_by_window(s1_logits, n), config), step, half=0)
    s2_logits = model.s2_logits(past.hidden, s1.view(len(past.hidden), -1), past.attend)
    return Tokens(s1, draws.pick(probabilities(_by_window(s2_logits, n), config), step, half=1))


def extend(model: FusedKronos, past: Past, tokens: Tokens, stamps: Tensor, step: int | Tensor) -> Past:
    """Take one more bar of every sample: (N, S) tokens, (N, 5) stamps; `step` as `Cursor.move` takes it."""
    past.cursor.move(step)
    stamps = stamps[:, None].expand(-1, tokens.s1.shape[1], -1)
    turns = model.turns(past.cursor.lengths[:, None] + step)  # (N, 1): each sample sits where its window ends
    hidden = model.hidden(tokens, stamps, turns, [cache.extend for cache in past.trunk])
    past.dependency.append(*model.cross_keys_values(hidden))
    return past._replace(hidden=hidden, attend=past.dependency.read)


def last_bar(hidden: Tensor, prompt: Prompt) -> Tensor:
    """(N, L, d) -> (N, 1, d) of each row's last bar."""
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, prompt.lengths - 1][:, None]


def cursor_of(prompt: Prompt, steps: int) -> Cursor:
    """A cursor over these windows, for suffixes of `steps` bars."""
    return Cursor(prompt.lengths, prompt.tokens.s1.shape[1], prompt.even, steps)


def _by_window(logits: Tensor, n: int) -> Tensor:
    """Logits of N or N * S rows -> (N, S or 1, V)."""
    return logits.view(n, -1, logits.shape[-1])
