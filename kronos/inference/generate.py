"""Sampling: tokens of windows in, sampled tokens of their futures out, without reference to prices.

Each window is read once (prefill) and then continued S times. A step takes one bar of every path through the
trunk, (N, S, d), which attends to the caches of earlier bars. When a window exceeds the context, its oldest bars
are dropped: "recompute" reads the remaining bars again from position 0, as upstream does, "rolling" masks the
oldest in the caches.
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
RECOMPUTED_TOKENS = 8192  # tokens recomputed together: throughput is flat beyond


class Prompt(NamedTuple):
    """N windows as tokens, left-aligned, with calendar fields of past and future."""

    tokens: Tokens  # each (N, L)
    lengths: Tensor  # (N,) int64
    stamps: Tensor  # (N, L, 5) int64
    future: Tensor  # (N, H, 5) int64
    even: bool  # whether every row has the full width; kept on the host to avoid a device synchronization


class DecodeState(NamedTuple):
    """State after the bars read so far."""

    hidden: Tensor  # (N, S, d) of each path's last bar, (N, 1, d) before paths diverge
    cursor: Cursor
    trunk: list[PrefixCache]
    dependency: PrefixCache
    attend: Callable[[Tensor], Tensor]  # how the dependency layer reads its cache


class StepRunner(Protocol):
    """Runs the steps that use caches in place of the loop in `generate`."""

    def is_faster(self, rows: int, cached: int) -> bool:
        """Whether it is faster for a chunk of `rows` = N * S paths with `cached` steps on caches."""
        ...

    def run(
        self,
        model: FusedKronos,
        state: DecodeState,
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
        model: the model.
        prompt: windows of any lengths; only the last `max_context` tokens of each are used.
        config: temperature and filters; `config.samples` paths per window.
        draws: sampler for these N windows.
        max_context: maximum number of tokens that the model sees.
        context_overflow: what happens when a window exceeds it, see above.
        on_step: called after each bar of the horizon.
        recorder: runs the steps on caches if that is faster and `draws` is a `SobolSampler`.

    Raises:
        ValueError: a rolling context would drop bars of the path itself.
    """
    n, horizon = prompt.future.shape[:2]
    if context_overflow == "rolling" and horizon >= max_context:
        raise ValueError(
            f"A horizon of {horizon} bars does not fit a rolling context of {max_context}. Shorten it, or pass "
            "context_overflow='recompute'."
        )
    shape = (n, config.samples, horizon)
    out = Tokens(prompt.lengths.new_zeros(shape), prompt.lengths.new_zeros(shape))
    # Of the longest row, without a device synchronization.
    width = min(prompt.tokens.s1.shape[1], max_context)
    fitting = max(1, min(horizon, max_context - width + 1))  # steps before it exceeds the context
    cached = fitting if context_overflow == "recompute" else horizon
    state = prefill(model, _tail(prompt, max_context), config.samples, cached)
    report_step = on_step or _no_callback
    start = 0
    paths = n * config.samples
    if recorder and isinstance(draws, SobolSampler) and recorder.is_faster(paths, cached):
        recorder.run(
            model, state, prompt.future, draws, config, out, cached, fitting, max_context, report_step
        )
        start = cached
    for step in range(start, horizon):
        if step >= cached:
            state = _recompute(model, _tail(_continued(prompt, out, step), max_context))
        tokens = sample_next(model, state, n, config, draws, step)
        out.s1[:, :, step], out.s2[:, :, step] = tokens
        if step + 1 < cached:
            if step + 1 >= fitting:
                state.cursor.mask_oldest(state.cursor.lengths + step + 1 - max_context)
            state = append_bar(model, state, tokens, prompt.future[:, step], step)
        report_step()
    return out


@torch.inference_mode()
def read_last_hidden(model: FusedKronos, prompt: Prompt, max_context: int) -> Tensor:
    """(N, d) hidden state of each window's last bar, after the final norm; nothing is sampled.

    Only the last `max_context` tokens of a window are used, as in the first step of `generate`.
    """
    prompt = _tail(prompt, max_context)
    cursor = make_cursor(prompt, steps=0)
    rope_rotations = model.rope_rotations(cursor.positions)
    cache = PrefixCache(cursor, samples=1, steps=0)
    return model.last_hidden(prompt.tokens, prompt.stamps, prompt.lengths, rope_rotations, cache)


class Decoded(NamedTuple):
    """Normalized bars decoded from tokens."""

    paths: Tensor  # (N, S, H, 6)
    last_bar: Tensor  # (N, 6), the decoded last bar of each window, which its paths continue


@torch.inference_mode()
def decode(tokenizer: FusedTokenizer, prompt: Prompt, generated: Tokens, max_context: int) -> Decoded:
    """Tokens -> normalized bars; each path is decoded after its window.

    The decoder sees the last `max_context` tokens of window and path together, as upstream's does.
    """
    n, samples, horizon = generated.s1.shape
    window = _tail(prompt, max_context - horizon or max_context)
    cursor = make_cursor(window, horizon)
    caches = [PrefixCache(cursor, samples, horizon) for _ in tokenizer.decoder]
    last = tokenizer.read(window.tokens, window.lengths, tokenizer.rope_rotations(cursor.positions), caches)
    first = window.lengths  # position of a path's first bar
    if horizon == max_context:
        # Paths fill the context and see no bar of the window, which is read for its last bar only.
        cursor.mask_oldest(window.lengths)
        first = torch.zeros_like(first)
    steps = torch.arange(horizon, device=window.lengths.device).repeat(samples)
    paths = Tokens(*(half.flatten(1) for half in generated))  # (N, S * H): all bars of all paths at once
    cursor.advance(0, horizon)
    bars = tokenizer.decode(paths, tokenizer.rope_rotations(first[:, None] + steps), caches)
    return Decoded(bars.view(n, samples, horizon, -1), last)


def _recompute(model: FusedKronos, prompt: Prompt) -> DecodeState:
    """Read N * S windows from position 0, keeping only what this step needs."""
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


def _no_callback() -> None:
    pass


def _blocks(prompt: Prompt) -> Iterator[Prompt]:
    """Parts of the rows, to limit activation memory."""
    rows = max(1, RECOMPUTED_TOKENS // prompt.tokens.s1.shape[1])
    for start in range(0, len(prompt.lengths), rows):
        part = slice(start, start + rows)
        tokens = Tokens(*(half[part] for half in prompt.tokens))
        future = prompt.future[part]
        yield Prompt(tokens, prompt.lengths[part], prompt.stamps[part], future, prompt.even)


def _tail(prompt: Prompt, keep: int) -> Prompt:
    """The last `keep` positions of each row, left-aligned."""
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
    """The windows followed by the first `step` generated bars of every path: N * S rows."""
    samples = generated.s1.shape[1]
    lengths = prompt.lengths.repeat_interleave(samples)
    at = lengths[:, None] + torch.arange(step, device=lengths.device)  # (N * S, step)

    def append(past: Tensor, new: Tensor) -> Tensor:
        padded = F.pad(past.repeat_interleave(samples, 0), (0, step))
        return padded.scatter(1, at, new.flatten(0, 1)[:, :step])

    tokens = Tokens(*(append(past, new) for past, new in zip(prompt.tokens, generated, strict=True)))
    future = prompt.future.transpose(1, 2)[:, :, None].expand(-1, -1, samples, -1)  # (N, 5, S, H)
    past_stamps = prompt.stamps.unbind(-1)
    stamps = torch.stack([append(past, future[:, i]) for i, past in enumerate(past_stamps)], dim=-1)
    return Prompt(tokens, lengths + step, stamps, prompt.future.repeat_interleave(samples, 0), prompt.even)


def prefill(model: FusedKronos, prompt: Prompt, samples: int, steps: int) -> DecodeState:
    """Read the windows."""
    cursor = make_cursor(prompt, steps)
    trunk = [PrefixCache(cursor, samples, steps) for _ in model.blocks]
    dependency = PrefixCache(cursor, samples, steps)
    rope_rotations = model.rope_rotations(cursor.positions)
    hidden = model.hidden(prompt.tokens, prompt.stamps, rope_rotations, [cache.prefill for cache in trunk])
    dependency.store(*model.cross_keys_values(hidden))
    return DecodeState(last_hidden(hidden, prompt), cursor, trunk, dependency, dependency.read_prefix)


def sample_next(
    model: FusedKronos, state: DecodeState, n: int, config: SampleConfig, draws: Sampler, step: int
) -> Tokens:
    """Sample the next bar of every path of N windows at step `step`: (N, S) tokens."""
    s1_logits = model.s1_logits(state.hidden)
    s1 = draws.sample(probabilities(_by_window(s1_logits, n), config), step, half=0)
    s2_logits = model.s2_logits(state.hidden, s1.view(len(state.hidden), -1), state.attend)
    return Tokens(s1, draws.sample(probabilities(_by_window(s2_logits, n), config), step, half=1))


def append_bar(
    model: FusedKronos, state: DecodeState, tokens: Tokens, stamps: Tensor, step: int | Tensor
) -> DecodeState:
    """Read one more bar of every path: (N, S) tokens, (N, 5) stamps; `step` as in `Cursor.advance`."""
    state.cursor.advance(step)
    stamps = stamps[:, None].expand(-1, tokens.s1.shape[1], -1)
    rope_rotations = model.rope_rotations(
        state.cursor.lengths[:, None] + step
    )  # (N, 1): paths start where their window ends
    hidden = model.hidden(tokens, stamps, rope_rotations, [cache.extend for cache in state.trunk])
    state.dependency.append(*model.cross_keys_values(hidden))
    return state._replace(hidden=hidden, attend=state.dependency.read)


def last_hidden(hidden: Tensor, prompt: Prompt) -> Tensor:
    """(N, L, d) -> (N, 1, d), of each row's last bar."""
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, prompt.lengths - 1][:, None]


def make_cursor(prompt: Prompt, steps: int) -> Cursor:
    """A cursor for these windows and suffixes of `steps` bars."""
    return Cursor(prompt.lengths, prompt.tokens.s1.shape[1], prompt.even, steps)


def _by_window(logits: Tensor, n: int) -> Tensor:
    """Logits of N or N * S rows -> (N, S or 1, V)."""
    return logits.view(n, -1, logits.shape[-1])
