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
from kronos.engine.cache import PrefixCache, causal
from kronos.engine.fused import FusedKronos, FusedTokenizer
from kronos.engine.past import Past, Prompt, cursor_of, draw, extend, last_bar, read
from kronos.engine.steps import StepRecorder
from kronos.quantizer import Tokens
from kronos.sampling import Draws, SharedDraws

Window = Literal["exact", "rolling"]
REREAD_TOKENS = 8192  # of the rows that are read anew together: throughput is flat beyond


@torch.inference_mode()
def generate(
    model: FusedKronos,
    prompt: Prompt,
    config: SampleConfig,
    draws: Draws,
    max_context: int,
    window: Window = "exact",
    on_step: Callable[[], None] | None = None,
    recorder: StepRecorder | None = None,
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
        recorder: takes the steps that caches serve where that pays, if the draws are `SharedDraws`.

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
    past = read(model, _tail(prompt, max_context), config.samples, cached)
    announce = on_step or _nothing
    start = 0
    if recorder is not None and isinstance(draws, SharedDraws) and recorder.pays(n * config.samples, cached):
        recorder.run(model, past, prompt.future, draws, config, out, cached, fitting, max_context, announce)
        start = cached
    for step in range(start, horizon):
        if step >= cached:
            past = _reread(model, _tail(_continued(prompt, out, step), max_context))
        tokens = draw(model, past, n, config, draws, step)
        out.s1[:, :, step], out.s2[:, :, step] = tokens
        if step + 1 < cached:
            if step + 1 >= fitting:
                past.cursor.hide(past.cursor.lengths + step + 1 - max_context)
            past = extend(model, past, tokens, prompt.future[:, step], step)
        announce()
    return out


@torch.inference_mode()
def read_last(model: FusedKronos, prompt: Prompt, max_context: int) -> Tensor:
    """(N, d): the hidden state, after the final norm, of each window's last bar; nothing is sampled.

    Only the last `max_context` tokens of a window are seen, as `generate` sees them at its first step.
    """
    prompt = _tail(prompt, max_context)
    cursor = cursor_of(prompt, steps=0)
    turns = model.turns(cursor.positions)
    cache = PrefixCache(cursor, samples=1, steps=0)
    return model.last_hidden(prompt.tokens, prompt.stamps, prompt.lengths, turns, cache)


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
    window = _tail(prompt, max_context - horizon or max_context)
    cursor = cursor_of(window, horizon)
    caches = [PrefixCache(cursor, samples, horizon) for _ in tokenizer.decoder]
    last = tokenizer.read(window.tokens, window.lengths, tokenizer.turns(cursor.positions), caches)
    first = window.lengths  # position of a path's first bar
    if horizon == max_context:
        # Paths fill the context: they start it and see nothing of the window, which was read for its last bar.
        cursor.hide(window.lengths)
        first = torch.zeros_like(first)
    steps = torch.arange(horizon, device=window.lengths.device).repeat(samples)
    paths = Tokens(*(half.flatten(1) for half in generated))  # (N, S * H): all bars of all paths at once
    cursor.move(0, horizon)
    bars = tokenizer.decode(paths, tokenizer.turns(first[:, None] + steps), caches)
    return Decoded(bars.view(n, samples, horizon, -1), last)


def _reread(model: FusedKronos, prompt: Prompt) -> Past:
    """Read N * S windows anew, each a window of its own, keeping only what this step needs."""
    cursor = cursor_of(prompt, steps=0)
    hidden, keys, values = [], [], []
    turns = model.turns(cursor.positions)
    for block in _blocks(prompt):
        states = model.hidden(block.tokens, block.stamps, turns, [causal] * len(model.blocks))
        k, v = model.cross_keys_values(states)
        hidden.append(last_bar(states, block))
        keys.append(k)
        values.append(v)
    dependency = PrefixCache(cursor, samples=1, steps=0)
    dependency.store(torch.cat(keys), torch.cat(values))
    return Past(torch.cat(hidden), cursor, [], dependency, dependency.read_prefix)


def _nothing() -> None:
    pass


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
