"""The engine: tokens in, sampled tokens out. It knows no prices.

Each window is read once (prefill). Its S samples then share that prefix: in a decoding step the samples
take the place of time, (N, S, d), so that one matrix product serves them all, and every sample adds its own
suffix of keys and values. When the window slides past the context, positions start over and everything
is computed again, as upstream does: exactness before speed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kronos.config import SampleConfig
from kronos.model import Kronos
from kronos.quantizer import Tokens
from kronos.sampling import Draws, probabilities
from kronos.tokenizer import KronosTokenizer


class Prompt(NamedTuple):
    """N windows as tokens, aligned left, and the calendar around them."""

    tokens: Tokens  # each (N, L)
    lengths: Tensor  # (N,) int64
    stamps: Tensor  # (N, L, 5) int64
    future: Tensor  # (N, H, 5) int64


class PrefixCache:
    """Keys and values of one attention layer: a prefix shared by S samples, and a suffix of each."""

    def __init__(self, mask: Tensor, samples: int, steps: int) -> None:
        self.mask = mask  # (N, 1, 1, L) True where the prefix is real
        self.samples, self.steps = samples, steps
        self.used = 0

    def prefill(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(N, heads, L, w) each: remember keys and values, attend causally."""
        self.store(k, v)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def store(self, k: Tensor, v: Tensor) -> None:
        """Remember (N, heads, L, w) keys and values as the prefix."""
        self.keys, self.values = k, v
        n, heads, _, width = k.shape
        self.own_keys = k.new_empty(n, heads, self.samples, self.steps, width)
        self.own_values = torch.empty_like(self.own_keys)

    def extend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One step of all samples, (N, heads, S, w) each: append, then attend to prefix and own suffix."""
        self.own_keys[:, :, :, self.used], self.own_values[:, :, :, self.used] = k, v
        self.used += 1
        own_keys, own_values = self.own_keys[..., : self.used, :], self.own_values[..., : self.used, :]
        q = q * q.shape[-1] ** -0.5
        shared = (q @ self.keys.transpose(-1, -2)).masked_fill(~self.mask, -torch.inf)  # (N, heads, S, L)
        own = torch.einsum("nhsw,nhstw->nhst", q, own_keys)
        weights = torch.cat([shared, own], dim=-1).softmax(dim=-1)
        shared, own = weights.split([self.keys.shape[2], self.used], dim=-1)
        return shared @ self.values + torch.einsum("nhst,nhstw->nhsw", own, own_values)


@torch.inference_mode()
def generate(
    model: Kronos,
    prompt: Prompt,
    config: SampleConfig,
    draws: Draws,
    max_context: int,
    on_step: Callable[[], None] | None = None,
) -> Tokens:
    """Sample the tokens of the next H bars: (N, S, H) each.

    Args:
        model: in eval mode.
        prompt: any lengths together; only the last `max_context` tokens of each are seen.
        config: temperature and filters; `config.samples` paths a window.
        draws: random numbers of these N windows.
        max_context: tokens that the model sees at most.
        on_step: called after each bar of the horizon.
    """
    n, horizon = prompt.future.shape[:2]
    samples = config.samples
    shape = (n, samples, horizon)
    out = Tokens(prompt.lengths.new_zeros(shape), prompt.lengths.new_zeros(shape))
    reach = min(prompt.tokens.s1.shape[1], max_context)  # no row is longer: known without asking the device
    cached = max(1, min(horizon, max_context - reach + 1))  # steps before the first row slides
    state = _prefill(model, _tail(prompt, max_context), samples, cached)
    hidden = state.last.expand(-1, samples, -1)  # (N, S, d)
    for step in range(horizon):
        if step >= cached:
            rows = _tail(_continued(prompt, out, step), max_context)  # (N * S) windows of their own
            state = _prefill(model, rows, samples=1, steps=1)
            hidden = state.last
        s1_logits = model.s1_logits(hidden).view(n, samples, -1)
        s1 = draws.pick(probabilities(s1_logits, config), step, half=0)
        s2_logits = model.s2_logits(hidden, s1.view(hidden.shape[:2]), attend=state.dependency.extend)
        s2 = draws.pick(probabilities(s2_logits.view(n, samples, -1), config), step, half=1)
        out.s1[:, :, step], out.s2[:, :, step] = s1, s2
        if step + 1 < cached:
            stamps = prompt.future[:, step, None].expand(-1, samples, -1)  # (N, S, 5)
            # Each sample sits where its window ends, so one angle serves all samples of a window.
            rope = model.rope((state.lengths + step)[:, None, None])
            hidden = model.hidden(Tokens(s1, s2), stamps, rope, [cache.extend for cache in state.trunk])
        if on_step is not None:
            on_step()
    return out


@torch.inference_mode()
def decode(tokenizer: KronosTokenizer, prompt: Prompt, generated: Tokens, max_context: int) -> Tensor:
    """Tokens -> (N, S, H, 6) normalised bars; each path is read behind the window it continues.

    The decoder sees the last `max_context` tokens of window and path together, as upstream's does.
    """
    samples, horizon = generated.s1.shape[1:]
    window = _tail(prompt, max_context - horizon)
    mask = _mask(window.lengths, window.tokens.s1.shape[1])
    caches = [PrefixCache(mask, samples, horizon) for _ in tokenizer.decoder]
    positions = torch.arange(window.tokens.s1.shape[1], device=window.lengths.device)
    embedded = tokenizer.embed_tokens(window.tokens)
    tokenizer.decode_embedded(embedded, tokenizer.rope(positions), [cache.prefill for cache in caches])
    bars = []
    for step in range(horizon):
        embedded = tokenizer.embed_tokens(Tokens(generated.s1[:, :, step], generated.s2[:, :, step]))
        rope = tokenizer.rope((window.lengths + step)[:, None, None])
        bars.append(tokenizer.decode_embedded(embedded, rope, [cache.extend for cache in caches]))
    return torch.stack(bars, dim=2)


class _State(NamedTuple):
    """What a prefill leaves behind."""

    last: Tensor  # (N, 1, d) hidden state of each window's last bar
    lengths: Tensor  # (N,)
    trunk: list[PrefixCache]
    dependency: PrefixCache


def _prefill(model: Kronos, prompt: Prompt, samples: int, steps: int) -> _State:
    """Read the windows once."""
    width = prompt.tokens.s1.shape[1]
    mask = _mask(prompt.lengths, width)
    trunk = [PrefixCache(mask, samples, steps) for _ in model.transformer]
    rope = model.rope(torch.arange(width, device=prompt.lengths.device))
    hidden = model.hidden(prompt.tokens, prompt.stamps, rope, [cache.prefill for cache in trunk])
    # The dependency layer meets the last bar as the first entry of each sample's suffix, so that every
    # step, the first included, appends one hidden state and attends.
    dependency = PrefixCache(_mask(prompt.lengths - 1, width), samples, steps)
    dependency.store(*model.dep_layer.cross_attn.keys_values(hidden))
    rows = torch.arange(len(hidden), device=hidden.device)
    return _State(hidden[rows, prompt.lengths - 1][:, None], prompt.lengths, trunk, dependency)


def _mask(lengths: Tensor, width: int) -> Tensor:
    """(N, 1, 1, width) True at the first `lengths` positions."""
    return (torch.arange(width, device=lengths.device) < lengths[:, None])[:, None, None]


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
    return Prompt(tokens, prompt.lengths - start, stamps, prompt.future)


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
    stamps = [behind(past, future[:, i]) for i, past in enumerate(past_stamps)]
    return Prompt(
        tokens, lengths + step, torch.stack(stamps, dim=-1), prompt.future.repeat_interleave(samples, 0)
    )
