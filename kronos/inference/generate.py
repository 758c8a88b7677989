"""The engine: tokens in, sampled tokens out. It knows no prices.

Each window is read once (prefill) and then continued S times. A step takes one bar of every sample through
the trunk, (N, S, d), beside the caches of what came before; the rest of the model never sees time again.
When a window outgrows the context, its oldest bars leave: exactly, as upstream does, by reading all that is
left anew from position 0, or rolling, by hiding them from the caches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from kronos.config import SampleConfig
from kronos.inference.fused import FusedKronos, FusedTokenizer
from kronos.inference.kv_cache import Cursor, PrefixCache, causal
from kronos.sampling import Sampler, SobolSampler, probabilities
from kronos.tokenizer import Tokens

ContextOverflow = Literal["recompute", "rolling"]
REREAD_TOKENS = 8192  # of the rows that are read anew together: throughput is flat beyond


class StepRunner(Protocol):
    """Takes the decode steps that caches serve in place of the loop of `generate`."""

    def pays(self, rows: int, cached: int) -> bool:
        """Whether it is faster for a chunk of N * S paths that has so many steps on caches."""
        ...

    def run(
        self,
        model: FusedKronos,
        past: DecodeState,
        future: Tensor,
        draws: SobolSampler,
        config: SampleConfig,
        out: Tokens,
        cached: int,
        fitting: int,
        max_context: int,
        on_step: Callable[[], None],
    ) -> None:
        """Fill bars 0 to `cached` - 1 of `out`, (N, S, H) each."""
        ...


@torch.inference_mode()
def generate(
    model: FusedKronos,
    prompt: Prompt,
    config: SampleConfig,
    draws: Sampler,
    max_context: int,
    context_overflow: ContextOverflow = "recompute",
    on_step: Callable[[], None] | None = None,
    recorder: StepRunner | None = None,
) -> Tokens:
    """Sample the tokens of the next H bars: (N, S, H) each.

    Args:
        model: fused.
        prompt: any lengths together; only the last `max_context` tokens of each are seen.
        config: temperature and filters; `config.samples` paths a window.
        draws: random numbers of these N windows.
        max_context: tokens that the model sees at most.
        context_overflow: how one that outgrows it slides on, see above.
        on_step: called after each bar of the horizon.
        recorder: takes the steps that caches serve where that pays, if the draws are `SobolSampler`.

    Raises:
        ValueError: a rolling window would have to drop bars of its own path.
    """
    n, horizon = prompt.future.shape[:2]
    if context_overflow == "rolling" and horizon >= max_context:
        raise ValueError(
            f"{horizon} bars roll out of a context of {max_context}. Ask for fewer, or context_overflow='recompute'."
        )
    shape = (n, config.samples, horizon)
    out = Tokens(prompt.lengths.new_zeros(shape), prompt.lengths.new_zeros(shape))
    width = min(prompt.tokens.s1.shape[1], max_context)  # of the longest row, without asking the device
    fitting = max(1, min(horizon, max_context - width + 1))  # steps before it outgrows the context
    cached = fitting if context_overflow == "recompute" else horizon
    past = prefill(model, _tail(prompt, max_context), config.samples, cached)
    announce = on_step or _nothing
    start = 0
    if recorder is not None and isinstance(draws, SobolSampler) and recorder.pays(n * config.samples, cached):
        recorder.run(model, past, prompt.future, draws, config, out, cached, fitting, max_context, announce)
        start = cached
    for step in range(start, horizon):
        if step >= cached:
            past = _reread(model, _tail(_continued(prompt, out, step), max_context))
        tokens = sample_next(model, past, n, config, draws, step)
        out.s1[:, :, step], out.s2[:, :, step] = tokens
        if step + 1 < cached:
            if step + 1 >= fitting:
                past.cursor.mask_oldest(past.cursor.lengths + step + 1 - max_context)
            past = append_bar(model, past, tokens, prompt.future[:, step], step)
        announce()
    return out


@torch.inference_mode()
def read_last_hidden(model: FusedKronos, prompt: Prompt, max_context: int) -> Tensor:
    """(N, d): the hidden state, after the final norm, of each window's last bar; nothing is sampled.

    Only the last `max_context` tokens of a window are seen, as `generate` sees them at its first step.
    """
    prompt = _tail(prompt, max_context)
    cursor = make_cursor(prompt, steps=0)
    rope_rotations = model.rope_rotations(cursor.positions)
    cache = PrefixCache(cursor, samples=1, steps=0)
    return model.last_hidden(prompt.tokens, prompt.stamps, prompt.lengths, rope_rotations, cache)


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
    cursor = make_cursor(window, horizon)
    caches = [PrefixCache(cursor, samples, horizon) for _ in tokenizer.decoder]
    last = tokenizer.read(window.tokens, window.lengths, tokenizer.rope_rotations(cursor.positions), caches)
    first = window.lengths  # position of a path's first bar
    if horizon == max_context:
        # Paths fill the context: they start it and see nothing of the window, which was read for its last bar.
        cursor.mask_oldest(window.lengths)
        first = torch.zeros_like(first)
    steps = torch.arange(horizon, device=window.lengths.device).repeat(samples)
    paths = Tokens(*(half.flatten(1) for half in generated))  # (N, S * H): all bars of all paths at once
    cursor.advance(0, horizon)
    bars = tokenizer.decode(paths, tokenizer.rope_rotations(first[:, None] + steps), caches)
    return Decoded(bars.view(n, samples, horizon, -1), last)


def _reread(model: FusedKronos, prompt: Prompt) -> DecodeState:
    """Read N * S windows anew, each a window of its own, keeping only what this step needs."""
    cursor = make_cursor(prompt, steps=0)
    hidden, keys, values = [], [], []
    rope_rotations = model.rope_rotations(cursor.positions)
    for block in _blocks(prompt):
        states = model.hidden(block.tokens, block.stamps, rope_rotations, [causal] * len(model.blocks))
        k, v = model.cross_keys_values(states)
        hidden.append(last_hidden(states, block))
        keys.append(k)
        values.append(v)
    dependency = PrefixCache(cursor, samples=1, steps=0)
    dependency.store(torch.cat(keys), torch.cat(values))
    return DecodeState(torch.cat(hidden), cursor, [], dependency, dependency.read_prefix)


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


class Prompt(NamedTuple):
    """N windows as tokens, aligned left, and the calendar around them."""

    tokens: Tokens  # each (N, L)
    lengths: Tensor  # (N,) int64
    stamps: Tensor  # (N, L, 5) int64
    future: Tensor  # (N, H, 5) int64
    even: bool  # every row fills the width; known by the host, so that no device is asked


class DecodeState(NamedTuple):
    """What is kept of the bars read so far."""

    hidden: Tensor  # (N, S, d) of each path's last bar, (N, 1, d) while its samples are one
    cursor: Cursor
    trunk: list[PrefixCache]
    dependency: PrefixCache
    attend: Callable[[Tensor], Tensor]  # how the dependency-aware layer reads its cache


def prefill(model: FusedKronos, prompt: Prompt, samples: int, steps: int) -> DecodeState:
    """Read the windows once."""
    cursor = make_cursor(prompt, steps)
    trunk = [PrefixCache(cursor, samples, steps) for _ in model.blocks]
    dependency = PrefixCache(cursor, samples, steps)
    rope_rotations = model.rope_rotations(cursor.positions)
    hidden = model.hidden(prompt.tokens, prompt.stamps, rope_rotations, [cache.prefill for cache in trunk])
    dependency.store(*model.cross_keys_values(hidden))
    return DecodeState(last_hidden(hidden, prompt), cursor, trunk, dependency, dependency.read_prefix)


def sample_next(
    model: FusedKronos, past: DecodeState, n: int, config: SampleConfig, draws: Sampler, step: int
) -> Tokens:
    """Sample the next bar of every path of N windows, with the draws of step `step`: (N, S) tokens."""
    s1_logits = model.s1_logits(past.hidden)
    s1 = draws.sample(probabilities(_by_window(s1_logits, n), config), step, half=0)
    s2_logits = model.s2_logits(past.hidden, s1.view(len(past.hidden), -1), past.attend)
    return Tokens(s1, draws.sample(probabilities(_by_window(s2_logits, n), config), step, half=1))


def append_bar(
    model: FusedKronos, past: DecodeState, tokens: Tokens, stamps: Tensor, step: int | Tensor
) -> DecodeState:
    """Take one more bar of every sample: (N, S) tokens, (N, 5) stamps; `step` as `Cursor.advance` takes it."""
    past.cursor.advance(step)
    stamps = stamps[:, None].expand(-1, tokens.s1.shape[1], -1)
    rope_rotations = model.rope_rotations(
        past.cursor.lengths[:, None] + step
    )  # (N, 1): each sample sits where its window ends
    hidden = model.hidden(tokens, stamps, rope_rotations, [cache.extend for cache in past.trunk])
    past.dependency.append(*model.cross_keys_values(hidden))
    return past._replace(hidden=hidden, attend=past.dependency.read)


def last_hidden(hidden: Tensor, prompt: Prompt) -> Tensor:
    """(N, L, d) -> (N, 1, d) of each row's last bar."""
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, prompt.lengths - 1][:, None]


def make_cursor(prompt: Prompt, steps: int) -> Cursor:
    """A cursor over these windows, for suffixes of `steps` bars."""
    return Cursor(prompt.lengths, prompt.tokens.s1.shape[1], prompt.even, steps)


def _by_window(logits: Tensor, n: int) -> Tensor:
    """Logits of N or N * S rows -> (N, S or 1, V)."""
    return logits.view(n, -1, logits.shape[-1])
