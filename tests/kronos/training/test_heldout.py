from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from kronos.bars import CLOSE, FEATURES
from kronos.quantizer import Tokens
from kronos.tokenizer import KronosTokenizer
from kronos.training.dataset import TrainingWindows
from kronos.training.heldout import HeldOut, held_out
from tests.kronos.builders import make_bars, make_model, make_tokenizer
from tests.kronos.training.builders import HORIZON, LOOKBACK, make_tape, make_windows


def windows(seed: int, count: int = 40) -> TrainingWindows:
    return make_windows(make_tape(make_bars(count, seed)))


@pytest.fixture(scope="module")
def scores() -> HeldOut:
    return held_out(make_model(), make_tokenizer(), windows(0), windows(1))


def tokens(tokenizer: KronosTokenizer, seed: int) -> Tokens:
    with torch.no_grad():
        held = windows(seed)
        return tokenizer.encode(held.batch(np.arange(len(held))).bars)


def test_the_models_score_is_its_loss_behind_the_lookback(scores: HeldOut) -> None:
    held, seen = windows(1), tokens(make_tokenizer(), 1)
    stamps = held.batch(np.arange(len(held))).stamps
    with torch.no_grad():
        loss = make_model().loss(seen, stamps, scored=HORIZON)
    assert scores.nll["s1"]["kronos"] == pytest.approx(loss.s1.item(), rel=1e-5)
    assert scores.nll["s2"]["kronos"] == pytest.approx(loss.s2.item(), rel=1e-5)
    assert scores.tokens == seen.s1[:, LOOKBACK:].numel()


@pytest.mark.parametrize(("half", "size"), [("s1", 32), ("s2", 8)])
def test_the_counting_baselines_count_training_tokens_and_score_held_out_ones(
    half: str, size: int, scores: HeldOut
) -> None:
    before, after = (getattr(tokens(make_tokenizer(), seed), half).tolist() for seed in (0, 1))
    single = Counter(token for row in before for token in row)
    double = Counter(pair for row in before for pair in itertools.pairwise(row))
    firsts = Counter(token for row in before for token in row[:-1])
    chance = {token: (single[token] + 1) / (single.total() + size) for token in range(size)}
    pairs = [pair for row in after for pair in itertools.pairwise(row[LOOKBACK - 1 :])]
    unigram = -sum(math.log(chance[new]) for _, new in pairs) / len(pairs)
    bigram = -sum(
        math.log((double[old, new] + 20 * chance[new]) / (firsts[old] + 20)) for old, new in pairs
    ) / len(pairs)
    assert scores.nll[half]["unigram"] == pytest.approx(unigram, rel=1e-5)
    assert scores.nll[half]["bigram"] == pytest.approx(bigram, rel=1e-5)


def test_reconstruction_is_scored_by_feature_and_the_vocabulary_by_use(scores: HeldOut) -> None:
    tokenizer, held = make_tokenizer(), windows(1)
    bars, seen = held.batch(np.arange(len(held))).bars, tokens(make_tokenizer(), 1)
    with torch.no_grad():
        squares = (tokenizer.decode(seen) - bars)[:, LOOKBACK:].square().mean(dim=(0, 1))
    assert list(scores.recon_mse) == list(FEATURES)
    np.testing.assert_allclose(list(scores.recon_mse.values()), squares, rtol=1e-5)
    assert scores.codes_used == {"s1": len(seen.s1.unique()) / 32, "s2": len(seen.s2.unique()) / 8}


def test_persistence_is_scored_on_the_first_close_behind_the_lookback(scores: HeldOut) -> None:
    held = windows(1)
    bars = held.batch(np.arange(len(held))).bars.numpy()
    errors = np.abs(bars[:, LOOKBACK, CLOSE] - bars[:, LOOKBACK - 1, CLOSE])
    assert scores.close_mae["persistence"] == pytest.approx(errors.mean(), rel=1e-5)
    assert scores.close_mae["kronos"] > 0


def test_bars_behind_the_first_forecast_one_do_not_move_the_close_error(scores: HeldOut) -> None:
    held = windows(1)
    values = held.tapes[0].values.copy()
    values[-1] *= 3  # the last bar of the last window, behind its first step
    other = replace(held, tapes=(replace(held.tapes[0], values=values),))
    assert held_out(make_model(), make_tokenizer(), windows(0), other).close_mae == scores.close_mae


def test_only_as_many_windows_are_scored_as_asked_for() -> None:
    few = held_out(make_model(), make_tokenizer(), windows(0), windows(1), count=5)
    assert few.tokens == 5 * HORIZON


def test_windows_of_several_sources_are_scored_together() -> None:
    two = make_windows(make_tape(make_bars(40, 1)), make_tape(make_bars(30, 2), name="other"))
    scores = held_out(make_model(), make_tokenizer(), windows(0), two)
    assert scores.tokens == len(two) * HORIZON
