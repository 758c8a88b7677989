"""Upstream's algorithm, written plainly on our networks so that both share their weights.

Every path is a row of its own from the start, history included. At each step the whole window of every row goes
through the trunk and both heads, at all positions, and the last position is kept. The filter sorts, the tokenizer
reads and writes every row in full, and paths are averaged while they are still normalized.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kronos.config import SampleConfig
from kronos.layers import rope_table
from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer, Tokens
from kronos.windows import Windows


class Plain(NamedTuple):
    """Results of the plain loop for N windows."""

    tokens: Tokens  # (N, S, H) each
    mean: np.ndarray  # (N, H, 6) float32 bars in their own units, the average of S paths


def plain_forecast(
    model: Kronos,
    tokenizer: KronosTokenizer,
    windows: Windows,
    sampling: SampleConfig,
    max_context: int,
    clip: float = 5,
) -> Plain:
    """Forecast N windows of equal length, on the networks' device, with draws of torch's global stream.

    Raises:
        ValueError: lookbacks differ, or the temperature is 0.
    """
    if len(set(windows.lengths)) != 1:
        raise ValueError(f"Lookbacks are {sorted(set(windows.lengths))}. The plain loop takes one length.")
    if sampling.T == 0:
        raise ValueError("The plain loop divides by T=0. Pass top_k=1 for the most likely token.")
    scale, device = windows.scale(), model.head.proj_s1.weight.device
    bars = torch.from_numpy(scale.apply(windows.values, clip)).to(device)  # (N, L, 6)
    calendar = np.concatenate([windows.stamps, windows.future_stamps], axis=1)
    samples, horizon = sampling.samples, windows.horizon
    with torch.no_grad():
        stamps = (
            torch.from_numpy(calendar).to(device).repeat_interleave(samples, dim=0)
        )  # (B, L + H, 5), B = N * S
        tokens = tokenizer.encode(bars.repeat_interleave(samples, dim=0))  # (B, L)
        for _ in range(horizon):
            tokens = _step(model, tokens, stamps, sampling, max_context)
        seen = Tokens(*(half[:, -max_context:].contiguous() for half in tokens))
        paths = tokenizer.decode(seen)[:, -horizon:]  # (B, H, 6)
    paths = paths.unflatten(0, (len(windows), samples)).cpu().numpy()
    generated = Tokens(*(half[:, -horizon:].unflatten(0, (len(windows), samples)) for half in tokens))
    return Plain(generated, scale.invert(paths.mean(axis=1)))


def _step(model: Kronos, tokens: Tokens, stamps: Tensor, sampling: SampleConfig, max_context: int) -> Tokens:
    """Sample one more token after each of (B, T)."""
    end = tokens.s1.shape[1]
    start = max(0, end - max_context)
    seen = Tokens(*(half[:, start:].contiguous() for half in tokens))
    hidden = _trunk(model, seen, stamps[:, start:end].contiguous())  # (B, T, d)
    s1 = _draw(model.head.proj_s1(hidden)[:, -1], sampling)  # (B, 1)
    s2 = _draw(_fine_logits(model, hidden, s1)[:, -1], sampling)
    return Tokens(torch.cat([tokens.s1, s1], dim=1), torch.cat([tokens.s2, s2], dim=1))


def _trunk(model: Kronos, tokens: Tokens, stamps: Tensor) -> Tensor:
    """(B, T) tokens, (B, T, 5) stamps -> (B, T, d); positions start at 0."""
    x = model.embedding(tokens) + model.time_emb(stamps)
    rope = rope_table(torch.arange(x.shape[1], device=x.device), model.config.d_model // model.config.n_heads)
    for block in model.transformer:
        x = block(x, rope)
    return model.norm(x)


def _fine_logits(model: Kronos, hidden: Tensor, s1: Tensor) -> Tensor:
    """(B, T, d), (B, 1) -> (B, T, V): one query over all keys, unrotated, added to every position."""
    cross = model.dep_layer.cross_attn
    sources = (cross.q_proj(model.embedding.emb_s1(s1)), cross.k_proj(hidden), cross.v_proj(hidden))
    heads = (x.unflatten(-1, (cross.n_heads, -1)).transpose(1, 2) for x in sources)
    met = F.scaled_dot_product_attention(*heads)  # (B, heads, 1, head width)
    return model.head.proj_s2(model.dep_layer.norm(hidden + cross.out_proj(met.transpose(1, 2).flatten(2))))


def _draw(logits: Tensor, sampling: SampleConfig) -> Tensor:
    """(B, V) logits -> (B, 1) ids."""
    return torch.multinomial(_filtered(logits / sampling.T, sampling).softmax(dim=-1), num_samples=1)


def _filtered(logits: Tensor, sampling: SampleConfig) -> Tensor:
    """(B, V) logits with -inf at the tokens that top-k, or else the nucleus, leaves out."""
    if sampling.top_k > 0:
        least = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        return logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        beyond = ordered.softmax(dim=-1).cumsum(dim=-1) > sampling.top_p
        beyond = F.pad(beyond[:, :-1], (1, 0))  # the token that crosses the threshold stays
        return logits.masked_fill(beyond.scatter(1, order, beyond), -torch.inf)
    return logits
