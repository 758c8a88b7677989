"""Losses on bars that training never saw, beside counting tokens and repeating the last bar.

Of a window the horizon alone is scored: its lookback may lie in the training span.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kronos.bars import CLOSE, FEATURES
from kronos.config import SampleConfig
from kronos.engine.fused import Form, FusedKronos, FusedTokenizer
from kronos.engine.generate import Prompt, decode, generate
from kronos.model import Kronos
from kronos.quantizer import Tokens
from kronos.sampling import TorchDraws
from kronos.tokenizer import KronosTokenizer
from kronos.training.dataset import Batch, TrainingWindows


@dataclass(frozen=True)
class HeldOut:
    """What a pair achieves on held-out windows.

    Attributes:
        nll: mean negative log-likelihood in nats a token, by half ("s1", "s2") and by who predicts: "kronos",
            "unigram" (frequencies in training) and "bigram" (given the same half of the token before).
        close_mae: mean absolute error of the next close in deviations of the lookback: of "kronos" (the expected
            bar: one-step samples averaged) and of "persistence" (the last close).
        recon_mse: mean squared reconstruction error by feature, in squared deviations of the lookback.
        codes_used: share of each half's vocabulary seen in the held-out windows.
        tokens: predicted tokens.
    """

    nll: dict[str, dict[str, float]]
    close_mae: dict[str, float]
    recon_mse: dict[str, float]
    codes_used: dict[str, float]
    tokens: int


@torch.no_grad()
def held_out(
    model: Kronos,
    tokenizer: KronosTokenizer,
    training: TrainingWindows,
    held: TrainingWindows,
    count: int = 4096,
) -> HeldOut:
    """Score up to `count` evenly spaced windows of each set; the baselines learn from `training` alone."""
    model.eval()
    tokenizer.eval()
    past = [tokenizer.encode(bars) for bars, _ in _batches(training, count)]
    squares, nll, seen, total = torch.zeros(len(FEATURES)), {"s1": 0.0, "s2": 0.0}, [], 0
    errors = torch.zeros(2)
    for bars, stamps in _batches(held, count):
        tokens = tokenizer.encode(bars)
        loss = model.loss(tokens, stamps, scored=held.horizon)
        predicted = len(bars) * held.horizon  # training may have seen the lookback
        squares += (tokenizer.decode(tokens) - bars)[:, -held.horizon :].square().mean(dim=1).sum(dim=0)
        nll["s1"] += loss.s1.item() * predicted
        nll["s2"] += loss.s2.item() * predicted
        total += predicted
        errors += _close_errors(model, tokenizer, bars, stamps, held.lookback)
        seen.append(tokens)
    windows = sum(len(tokens.s1) for tokens in seen)
    table = {}
    for half, bits in zip(Tokens._fields, tokenizer.quantizer.split, strict=True):
        before = [getattr(tokens, half) for tokens in past]
        after = [getattr(tokens, half)[:, -held.horizon - 1 :] for tokens in seen]
        table[half] = {"kronos": nll[half] / total, **_counting(before, after, 2**bits)}
    return HeldOut(
        nll=table,
        close_mae=dict(zip(("kronos", "persistence"), (errors / windows).tolist(), strict=True)),
        recon_mse=dict(zip(FEATURES, (squares / windows).tolist(), strict=True)),
        codes_used={
            half: len(torch.cat([getattr(t, half).flatten() for t in seen]).unique()) / 2**bits
            for half, bits in zip(Tokens._fields, tokenizer.quantizer.split, strict=True)
        },
        tokens=total,
    )


def _close_errors(
    model: Kronos, tokenizer: KronosTokenizer, bars: Tensor, stamps: Tensor, lookback: int
) -> Tensor:
    """(2,) summed absolute errors of the first close behind the lookback: of the expected bar, of the last."""
    past = bars[:, :lookback]
    lengths = torch.full((len(bars),), lookback)
    future = stamps[:, lookback : lookback + 1]
    prompt = Prompt(tokenizer.encode(past), lengths, stamps[:, :lookback], future, even=True)
    sampling = SampleConfig(samples=20, T=1.0, top_p=1.0)
    draws = TorchDraws(sampling.samples, torch.Generator().manual_seed(0))
    context = lookback + 1
    tokens = generate(FusedKronos(model, Form()), prompt, sampling, draws, context)
    bars_ahead = decode(FusedTokenizer(tokenizer, Form()), prompt, tokens, context).paths
    expected = bars_ahead[:, :, 0, CLOSE].mean(dim=1)
    truth = bars[:, lookback, CLOSE]
    return torch.stack([(expected - truth).abs().sum(), (past[:, -1, CLOSE] - truth).abs().sum()])


def _batches(windows: TrainingWindows, count: int, size: int = 256) -> Iterator[Batch]:
    chosen = np.concatenate(windows.sample(count))
    return (windows.batch(chosen[i : i + size]) for i in range(0, len(chosen), size))


def _counting(before: list[Tensor], after: list[Tensor], vocabulary: int) -> dict[str, float]:
    """NLL of add-one unigram and bigram counts of `before` on `after`, positions 1 and later."""
    old = torch.cat(before)
    pairs = (old[:, :-1] * vocabulary + old[:, 1:]).flatten()
    bigram = torch.bincount(pairs, minlength=vocabulary**2).view(vocabulary, vocabulary).float() + 1
    unigram = torch.bincount(old.flatten(), minlength=vocabulary).float() + 1
    new = torch.cat(after)
    single = F.nll_loss((unigram / unigram.sum()).log().expand(new[:, 1:].numel(), -1), new[:, 1:].flatten())
    # A row of the bigram is shrunk to the unigram by 20 pseudo-counts: rare tokens have no row of their own.
    rows = bigram - 1 + 20 * unigram / unigram.sum()
    rows = (rows / rows.sum(dim=1, keepdim=True)).log()
    double = -rows[new[:, :-1].flatten(), new[:, 1:].flatten()].mean()
    return {"unigram": single.item(), "bigram": double.item()}
