"""The engine: tokens in, sampled tokens out. It knows no prices.

Each window is read once (prefill) and then continued S times. A step takes one bar of every sample through
the trunk, (N, S, d), beside the caches of what came before; the rest of the model never sees time again.
When a window outgrows the context, its oldest bars leave: exactly, as upstream does, by reading all that is
left anew from position 0, or rolling, by hiding them from the caches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kronos.config import SampleConfig
from kronos.engine.cache import Cursor, PrefixCache, causal
from kronos.engine.fused import FusedKronos, FusedTokenizer
from kronos.quantizer import Tokens
from kronos.sampling import Draws, probabilities

Window = Literal["exact", "rolling"]
REREAD_TOKENS = 8192  # of the rows that are read anew together: throughput is flat beyond


class Prompt(NamedTuple):
    """N windows as tokens, aligned left, and the calendar around them."""

    tokens: Tokens  # each (N, L)
    lengths: Tensor  # (N,) int64
    stamps: Tensor  # (N, L, 5) int64
    future: Tensor  # (N, H, 5) int64
    even: bool  # every row fills the width; known by the host, so that no device is asked


@torch.inference_mode()
def generate(
    model: FusedKronos,
    prompt: Prompt,
    config: SampleConfig,
    draws: Draws,
    max_context: int,
    window: Window = "exact",
    on_step: Callable[[], None] | None = None,
) -> Tokens:
    """Sample the tokens of the next H bars: (N, S, H) each.

    Args:
        model: fused.
        prompt: any lengths together; only the last `max_context` tokens of each are seen.
        config: temperature and filters; `config.samples` paths a window.
        draws: random numbers of these N windows.
        max_context: tokens that the model sees at most.
        window: how one that outgrows it slides on, see above.
        on_step: called after each bar of the horizon.

    Raises:
        ValueError: a rolling window would have to drop bars of its own path.
    """
    n, horizon = prompt.future.shape[:2]
    if window == "rolling" and horizon >= max_context:
        raise ValueError(
            f"{horizon} bars roll out of a context of {max_context}. Ask for fewer, or window='exact'."
        )
    shape = (n, config.samples, horizon)
    out = Tokens(prompt.lengths.new_zeros(shape), prompt.lengths.new_zeros(shape))
    width = min(prompt.tokens.s1.shape[1], max_context)  # of the longest row, without asking the device
    fitting = max(1, min(horizon, max_context - width + 1))  # steps before it outgrows the context
    cached = fitting if window == "exact" else horizon
    past = _read(model, _tail(prompt, max_context), config.samples, cached)
    for step in range(horizon):
        if step >= cached:
            past = _reread(model, _tail(_continued(prompt, out, step), max_context))
        s1_logits = model.s1_logits(past.hidden)
        s1 = draws.pick(probabilities(_by_window(s1_logits, n), config), step, half=0)
        s2_logits = model.s2_logits(past.hidden, s1.view(len(past.hidden), -1), past.attend)
        s2 = draws.pick(probabilities(_by_window(s2_logits, n), config), step, half=1)
        out.s1[:, :, step], out.s2[:, :, step] = s1, s2
        if step + 1 < cached:
            if step + 1 >= fitting:
                past.cursor.hide(past.cursor.lengths + step + 1 - max_context)
            past = _extend(model, past, Tokens(s1, s2), prompt.future[:, step], step)
        if on_step is not None:
            on_step()
    return out


class Decoded(NamedTuple):
    """Normalized bars that the tokenizer makes of tokens."""

    paths: Tensor  # (N, S, H, 6)
    last: Tensor  # (N, 6), the last bar of each window: the one that its paths continue


@torch.inference_mode()
def decode(tokenizer: FusedTokenizer, prompt: Prompt, generated: Tokens, max_context: int) -> Decoded:
    """Tokens -> normalized bars; each path is decoded after the window it continues.

    The decoder sees the last `max_context` tokens of window and path together, as upstream's does.
    """
    n, samples, horizon = generated.s1.shape
    window = _tail(prompt, max_context - horizon)
    cursor = _cursor(window, horizon)
    caches = [PrefixCache(cursor, samples, horizon) for _ in tokenizer.decoder]
    last = tokenizer.read(window.tokens, window.lengths, tokenizer.turns(cursor.positions), caches)
    steps = torch.arange(horizon, device=window.lengths.device).repeat(samples)
    paths = Tokens(*(half.flatten(1) for half in generated))  # (N, S * H): all bars of all paths at once
    cursor.move(0, horizon)
    bars = tokenizer.decode(paths, tokenizer.turns(window.lengths[:, None] + steps), caches)
    return Decoded(bars.view(n, samples, horizon, -1), last)


class _Past(NamedTuple):
    """What is kept of the bars read so far."""

    hidden: Tensor  # (N, S, d) of each path's last bar, (N, 1, d) while its samples are one
    cursor: Cursor
    trunk: list[PrefixCache]
    dependency: PrefixCache
    attend: Callable[[Tensor], Tensor]  # how the dependency-aware layer reads its cache


def _read(model: FusedKronos, prompt: Prompt, samples: int, steps: int) -> _Past:
    """Read the windows once."""
    cursor = _cursor(prompt, steps)
    trunk = [PrefixCache(cursor, samples, steps) for _ in model.blocks]
    dependency = PrefixCache(cursor, samples, steps)
    turns = model.turns(cursor.positions)
    hidden = model.hidden(prompt.tokens, prompt.stamps, turns, [cache.prefill for cache in trunk])
    dependency.store(*model.cross_keys_values(hidden))
    return _Past(_last(hidden, prompt), cursor, trunk, dependency, dependency.read_prefix)


def _extend(model: FusedKronos, past: _Past, tokens: Tokens, stamps: Tensor, step: int) -> _Past:
    """Take one more bar of every sample: (N, S) tokens, (N, 5) stamps."""
    past.cursor.move(step)
    stamps = stamps[:, None].expand(-1, tokens.s1.shape[1], -1)
    turns = model.turns(past.cursor.lengths[:, None] + step)  # (N, 1): each sample sits where its window ends
    hidden = model.hidden(tokens, stamps, turns, [cache.extend for cache in past.trunk])
    past.dependency.append(*model.cross_keys_values(hidden))
    return past._replace(hidden=hidden, attend=past.dependency.read)


def _reread(model: FusedKronos, prompt: Prompt) -> _Past:
    """Read N * S windows anew, each a window of its own, keeping only what this step needs."""
    cursor = _cursor(prompt, steps=0)
    hidden, keys, values = [], [], []
    turns = model.turns(cursor.positions)
    for block in _blocks(prompt):
        states = model.hidden(block.tokens, block.stamps, turns, [causal] * len(model.blocks))
        k, v = model.cross_keys_values(states)
        hidden.append(_last(states, block))
        keys.append(k)
        values.append(v)
    dependency = PrefixCache(cursor, samples=1, steps=0)
    dependency.store(torch.cat(keys), torch.cat(values))
    return _Past(torch.cat(hidden), cursor, [], dependency, dependency.read_prefix)


def _last(hidden: Tensor, prompt: Prompt) -> Tensor:
    """(N, L, d) -> (N, 1, d) of each row's last bar."""
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, prompt.lengths - 1][:, None]


def _by_window(logits: Tensor, n: int) -> Tensor:
    """Logits of N or N * S rows -> (N, S or 1, V)."""
    return logits.view(n, -1, logits.shape[-1])


def _cursor(prompt: Prompt, steps: int) -> Cursor:
    return Cursor(prompt.lengths, prompt.tokens.s1.shape[1], prompt.even, steps)


def _blocks(prompt: Prompt) -> Iterator[Prompt]:
    """Parts of the rows, so that activations stay small."""
    rows = max(1, REREAD_TOKENS // prompt.tokens.s1.shape[1])
    for start in range(0, len(prompt.lengths), rows):
        part = slice(start, start + rows)
        tokens = Tokens(*(half[part] for half in prompt.tokens))
        future = prompt.future[part]
        yield Prompt(tokens, prompt.lengths[part], prompt.stamps[part], future, prompt.even)


def _tail(prompt: Prompt, keep: int) -> Prompt:
    """The last `keep` positions of each row, aligned left again."""
    width = prompt.tokens.s1.shape[1]
    if width <= keep:
        return prompt
    start = (prompt.lengths - keep).clamp(min=0)
    positions = start[:, None] + torch.arange(keep, device=start.device)  # (N, keep)
    positions = positions.clamp(max=width - 1)
    tokens = Tokens(*(half.gather(1, positions) for half in prompt.tokens))
    stamps = prompt.stamps.gather(1, positions[..., None].expand(-1, -1, prompt.stamps.shape[-1]))
    return Prompt(tokens, prompt.lengths - start, stamps, prompt.future, prompt.even)


def _continued(prompt: Prompt, generated: Tokens, step: int) -> Prompt:
    """The windows with the first `step` generated bars of every sample behind them: N * S rows."""
    samples = generated.s1.shape[1]
    lengths = prompt.lengths.repeat_interleave(samples)
    at = lengths[:, None] + torch.arange(step, device=lengths.device)  # (N * S, step)

    def behind(past: Tensor, new: Tensor) -> Tensor:
        padded = F.pad(past.repeat_interleave(samples, 0), (0, step))
        return padded.scatter(1, at, new.flatten(0, 1)[:, :step])

    tokens = Tokens(*(behind(past, new) for past, new in zip(prompt.tokens, generated, strict=True)))
    future = prompt.future.transpose(1, 2)[:, :, None].expand(-1, -1, samples, -1)  # (N, 5, S, H)
    past_stamps = prompt.stamps.unbind(-1)
    stamps = torch.stack([behind(past, future[:, i]) for i, past in enumerate(past_stamps)], dim=-1)
    return Prompt(tokens, lengths + step, stamps, prompt.future.repeat_interleave(samples, 0), prompt.even)
