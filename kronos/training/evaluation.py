"""Held-out losses of a trained pair compared with simple baselines, and the RankIC of its return head.

Only the horizon of a window is scored, since its lookback may overlap the training span. For the RankIC a date is
scored as in use: one window of the lookback per instrument, read once, at its last bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from kronos.bars import CLOSE, FEATURES
from kronos.config import SampleConfig
from kronos.inference.fused import ExecutionConfig, FusedKronos, FusedTokenizer
from kronos.inference.generate import Prompt, decode, generate
from kronos.model import Kronos
from kronos.sampling import TorchSampler
from kronos.tokenizer import KronosTokenizer, Tokens
from kronos.training.bar_array import (
    HORIZONS,
    MIN_INSTRUMENTS,
    MappedBars,
    centered_ranks,
    forward_returns,
    midnight,
    residual,
    return_labels,
    rolling_volatility,
)
from kronos.training.config import Source, TrainingConfig
from kronos.training.dataset import Batch, Split, TrainingWindows, mixture_weights, source_span
from kronos.training.objectives import PredictorObjective


@dataclass(frozen=True)
class HeldOutResult:
    """Results of a pair on held-out windows.

    Attributes:
        nll: mean negative log-likelihood in nats per token, by half ("s1", "s2") and predictor: "kronos", "unigram"
            (frequencies in training) and "bigram" (given the same half of the previous token).
        close_mae: mean absolute error of the next close in standard deviations of the lookback: of "kronos" (mean
            of one-step samples) and of "persistence" (the last close).
        recon_mse: mean squared reconstruction error by feature, in squared standard deviations of the lookback.
        codes_used: share of each half's vocabulary that occurs in the held-out windows.
        tokens: number of predicted tokens.
    """

    nll: dict[str, dict[str, float]]
    close_mae: dict[str, float]
    recon_mse: dict[str, float]
    codes_used: dict[str, float]
    tokens: int


@torch.no_grad()
def evaluate_held_out(
    model: Kronos,
    tokenizer: KronosTokenizer,
    training: TrainingWindows,
    held_out: TrainingWindows,
    count: int = 4096,
) -> HeldOutResult:
    """Score up to `count` evenly spaced windows of each set; the baselines use `training` only."""
    model.eval()
    tokenizer.eval()
    past = [tokenizer.encode(bars) for bars, _ in _batches(training, count)]
    squares, nll, seen, total = torch.zeros(len(FEATURES)), {"s1": 0.0, "s2": 0.0}, [], 0
    errors = torch.zeros(2)
    for bars, stamps in _batches(held_out, count):
        tokens = tokenizer.encode(bars)
        loss = model.loss(tokens, stamps, scored=held_out.horizon)
        predicted = len(bars) * held_out.horizon  # the lookback may be part of the training data
        squares += (tokenizer.decode(tokens) - bars)[:, -held_out.horizon :].square().mean(dim=1).sum(dim=0)
        nll["s1"] += loss.s1.item() * predicted
        nll["s2"] += loss.s2.item() * predicted
        total += predicted
        errors += _close_errors(model, tokenizer, bars, stamps, held_out.lookback)
        seen.append(tokens)
    windows = sum(len(tokens.s1) for tokens in seen)
    table = {}
    for half, bits in zip(Tokens._fields, tokenizer.quantizer.split, strict=True):
        before = [getattr(tokens, half) for tokens in past]
        after = [getattr(tokens, half)[:, -held_out.horizon - 1 :] for tokens in seen]
        table[half] = {"kronos": nll[half] / total, **_counting(before, after, 2**bits)}
    return HeldOutResult(
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
    """(2,) summed absolute errors of the first close after the lookback: of the expected bar, of the last bar."""
    past = bars[:, :lookback]
    lengths = torch.full((len(bars),), lookback)
    future = stamps[:, lookback : lookback + 1]
    prompt = Prompt(tokenizer.encode(past), lengths, stamps[:, :lookback], future, even=True)
    sampling = SampleConfig(samples=20, T=1.0, top_p=1.0)
    draws = TorchSampler(sampling.samples, torch.Generator().manual_seed(0))
    context = lookback + 1
    tokens = generate(FusedKronos(model, ExecutionConfig()), prompt, sampling, draws, context)
    decoded = decode(FusedTokenizer(tokenizer, ExecutionConfig()), prompt, tokens, context).paths
    expected = decoded[:, :, 0, CLOSE].mean(dim=1)
    truth = bars[:, lookback, CLOSE]
    return torch.stack([(expected - truth).abs().sum(), (past[:, -1, CLOSE] - truth).abs().sum()])


def _batches(windows: TrainingWindows, count: int, size: int = 256) -> Iterator[Batch]:
    chosen = np.concatenate(windows.sample(count))
    return (windows.batch(chosen[i : i + size]) for i in range(0, len(chosen), size))


def _counting(before: list[Tensor], after: list[Tensor], vocabulary: int) -> dict[str, float]:
    """NLL of add-one unigram and bigram counts of `before` on `after`, at positions 1 and later."""
    old = torch.cat(before)
    pairs = (old[:, :-1] * vocabulary + old[:, 1:]).flatten()
    bigram = torch.bincount(pairs, minlength=vocabulary**2).view(vocabulary, vocabulary).float() + 1
    unigram = torch.bincount(old.flatten(), minlength=vocabulary).float() + 1
    new = torch.cat(after)
    single = F.nll_loss((unigram / unigram.sum()).log().expand(new[:, 1:].numel(), -1), new[:, 1:].flatten())
    # Rows of the bigram are shrunk to the unigram by 20 pseudo-counts, since rare tokens have few counts.
    rows = bigram - 1 + 20 * unigram / unigram.sum()
    rows = (rows / rows.sum(dim=1, keepdim=True)).log()
    double = -rows[new[:, :-1].flatten(), new[:, 1:].flatten()].mean()
    return {"unigram": single.item(), "bigram": double.item()}


BATCH = 1024


@dataclass(frozen=True)
class RankedDates:
    """Instruments to rank on held-out dates of one source.

    Attributes:
        windows: N windows of the lookback only.
        dates: (N,) number of each window's last date, from 0.
        returns: (N, len(HORIZONS)) forward returns, NaN if unknown.
        volatility: (N,) volatility of the last bars.
    """

    windows: TrainingWindows
    dates: np.ndarray
    returns: np.ndarray
    volatility: np.ndarray


class HeadValidation:
    """RankIC of a head on the held-out dates of several sources.

    Args:
        ranked: instruments to rank, by source.
        weights: weights of the sources in `rank`.
    """

    def __init__(self, ranked: dict[str, RankedDates], weights: Sequence[float]) -> None:
        self.ranked = ranked
        self.mixture_weights = [float(share) for share in mixture_weights([1] * len(ranked), weights)]

    @torch.no_grad()
    def score(self, stage: PredictorObjective, accelerator: Accelerator) -> dict[str, float]:
        """Mean RankIC over dates by source and horizon, with and without neutralizing volatility.

        Returns:
            rank_ic/SOURCE/HORIZON and neutral_rank_ic/SOURCE/HORIZON, each with its t statistic for independent
            dates (rank_t, neutral_rank_t); `rank`, the mean neutral RankIC of the horizons above one bar.
        """
        figures: dict[str, float] = {"rank": 0.0}
        for (name, ranked), share in zip(self.ranked.items(), self.mixture_weights, strict=True):
            scores = _scores(stage, ranked.windows, accelerator)
            for column, horizon in enumerate(HORIZONS):
                plain, neutral = rank_ics(
                    scores[:, column], ranked.returns[:, column], ranked.volatility, ranked.dates
                )
                for prefix, values in (("", plain), ("neutral_", neutral)):
                    mean, t = _mean_and_t(values)
                    figures[f"{prefix}rank_ic/{name}/{horizon}"] = mean
                    figures[f"{prefix}rank_t/{name}/{horizon}"] = t
            longer = [figures[f"neutral_rank_ic/{name}/{horizon}"] for horizon in HORIZONS[1:]]
            figures["rank"] += share * float(np.mean(longer))
        return figures


def head_frequency(split: Split, config: TrainingConfig) -> str:
    """The frequency of all sources with a head; "" without such sources.

    Raises:
        ValueError: they have different frequencies.
    """
    mapped_bars = zip(config.all_sources(), split.training.mapped_bars, strict=False)
    found = list(dict.fromkeys(mapped.info.frequency for source, mapped in mapped_bars if source.head))
    if len(found) > 1:
        raise ValueError(
            f"The head has sources of {found[0]} and of {found[1]} bars. Set head: true for one frequency only."
        )
    return found[0] if found else ""


def split_for_head(split: Split, config: TrainingConfig) -> tuple[Split, HeadValidation | None]:
    """The split with training labels of sources with a head, and their validation by RankIC.

    Labels use no bar after the last training date, held-out returns none after the last validation date. Without a
    held-out date of MIN_INSTRUMENTS instruments there is no RankIC.

    Raises:
        ValueError: a source with `head: true` has too few instruments for any label.
    """
    sources = config.all_sources()
    learn: list[np.ndarray | None] = []
    ranked: dict[str, RankedDates] = {}
    weights = []
    for source, mapped in zip(sources, split.training.mapped_bars, strict=True):
        learn.append(_labels(source, mapped, config))
        _, after, end = source_span(source, mapped, config)
        if source.head and (dates := ranked_dates(mapped, after, end, config.lookback, config.rank_dates)):
            ranked[mapped.info.name] = dates
            weights.append(source.weight or 1.0)
    ranking = HeadValidation(ranked, weights) if ranked else None
    return split._replace(training=replace(split.training, labels=tuple(learn))), ranking


def ranked_dates(
    mapped: MappedBars, since: str, until: str | None, lookback: int, count: int
) -> RankedDates | None:
    """Up to `count` evenly spaced dates in [since, until] with returns of MIN_INSTRUMENTS instruments, or None."""
    returns, volatility = forward_returns(mapped, until), rolling_volatility(mapped)
    rows = np.arange(len(mapped.values))
    firsts = np.repeat(mapped.bounds[:-1], np.diff(mapped.bounds))
    usable = (rows - firsts >= lookback - 1) & np.isfinite(volatility) & np.isfinite(returns[:, 0])
    usable &= mapped.dates >= midnight(since)
    rows = rows[usable]
    complete = rows[np.isfinite(returns[rows]).all(axis=1)]
    dates, names = np.unique(mapped.dates[complete], return_counts=True)
    dates = dates[names >= MIN_INSTRUMENTS]
    if not len(dates):
        return None
    dates = dates[np.unique(np.linspace(0, len(dates) - 1, min(count, len(dates))).round().astype(int))]
    rows = rows[np.isin(mapped.dates[rows], dates)]
    windows = TrainingWindows((mapped,), (rows - lookback + 1,), lookback, horizon=0)
    return RankedDates(windows, np.searchsorted(dates, mapped.dates[rows]), returns[rows], volatility[rows])


def rank_ics(
    scores: np.ndarray, returns: np.ndarray, volatility: np.ndarray, dates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """RankIC by date, and the RankIC of the score neutralized for volatility (a semi-partial rank correlation).

    Args:
        scores: (N,) scores.
        returns: (N,) forward returns; NaN are dropped.
        volatility: (N,) volatility.
        dates: (N,) number of the date, from 0.

    Returns:
        Two arrays with one entry per date with a return; NaN if undefined.
    """
    known = np.isfinite(returns)
    dates = np.unique(dates[known], return_inverse=True)[1]
    score, outcome, style = (centered_ranks(values[known], dates) for values in (scores, returns, volatility))
    left = residual(score, style, dates)
    return _correlation(score, outcome, dates), _correlation(left, outcome, dates)


def _labels(source: Source, mapped: MappedBars, config: TrainingConfig) -> np.ndarray | None:
    if not source.head:
        return None
    labels = return_labels(mapped, source_span(source, mapped, config)[0])
    if not np.isfinite(labels).any():
        raise ValueError(
            f"{mapped.info.name} has head: true, but no training date with {MIN_INSTRUMENTS} instruments. Pass "
            "more instruments or remove head."
        )
    return labels


def _scores(stage: PredictorObjective, windows: TrainingWindows, accelerator: Accelerator) -> np.ndarray:
    """(N, len(HORIZONS)) outputs of the head; batches are distributed over processes."""
    scores = torch.zeros(len(windows), len(HORIZONS), device=accelerator.device)
    starts = range(0, len(windows), BATCH)
    for start in starts[accelerator.process_index :: accelerator.num_processes]:
        rows = np.arange(start, min(start + BATCH, len(windows)))
        batch = windows.batch(rows)
        scores[start : start + len(rows)] = stage.rank(*(part.to(accelerator.device) for part in batch))
    summed: np.ndarray = accelerator.reduce(scores, "sum").cpu().numpy()
    return summed.astype(float)


def _correlation(one: np.ndarray, other: np.ndarray, dates: np.ndarray) -> np.ndarray:
    """(dates,) Pearson correlation of values with mean 0."""
    shared = np.bincount(dates, one * other)
    scale = np.sqrt(np.bincount(dates, one**2) * np.bincount(dates, other**2))
    return np.divide(shared, scale, out=np.full(len(shared), np.nan), where=scale > 1e-12)


def _mean_and_t(values: np.ndarray) -> tuple[float, float]:
    """The mean and its t statistic; 0 if undefined."""
    values = values[np.isfinite(values)]
    if len(values) < 2 or not values.std() > 0:
        return float(values.mean()) if len(values) else 0.0, 0.0
    return float(values.mean()), float(values.mean() / values.std(ddof=1) * np.sqrt(len(values)))
