from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from scipy.stats import rankdata, spearmanr

from kronos.bars import CLOSE, FEATURES
from kronos.tokenizer import KronosTokenizer, Tokens
from kronos.training import evaluation
from kronos.training.config import Source, TrainingConfig
from kronos.training.dataset import TrainingWindows, split_windows
from kronos.training.evaluation import (
    HeadValidation,
    HeldOutResult,
    evaluate_held_out,
    head_frequency,
    rank_ics,
    ranked_dates,
    split_for_head,
)
from kronos.training.objectives import PredictorObjective
from kronos.training.run import run_stage
from tests.kronos.builders import make_bars, make_model, make_tokenizer
from tests.kronos.training.builders import (
    HORIZON,
    LOOKBACK,
    make_config,
    make_mapped_bars,
    make_market,
    make_windows,
    planted_market,
    write_bars,
)
from tests.kronos.training.test_objectives import make_head


def windows(seed: int, count: int = 40) -> TrainingWindows:
    return make_windows(make_mapped_bars(make_bars(count, seed)))


@pytest.fixture(scope="module")
def scores() -> HeldOutResult:
    return evaluate_held_out(make_model(), make_tokenizer(), windows(0), windows(1))


def tokens(tokenizer: KronosTokenizer, seed: int) -> Tokens:
    with torch.no_grad():
        held = windows(seed)
        return tokenizer.encode(held.batch(np.arange(len(held))).bars)


def test_the_models_score_is_its_loss_after_the_lookback(scores: HeldOutResult) -> None:
    held, seen = windows(1), tokens(make_tokenizer(), 1)
    stamps = held.batch(np.arange(len(held))).stamps
    with torch.no_grad():
        loss = make_model().loss(seen, stamps, scored=HORIZON)
    assert scores.nll["s1"]["kronos"] == pytest.approx(loss.s1.item(), rel=1e-5)
    assert scores.nll["s2"]["kronos"] == pytest.approx(loss.s2.item(), rel=1e-5)
    assert scores.tokens == seen.s1[:, LOOKBACK:].numel()


@pytest.mark.parametrize(("half", "size"), [("s1", 32), ("s2", 8)])
def test_the_counting_baselines_count_training_tokens_and_score_held_out_ones(
    half: str, size: int, scores: HeldOutResult
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


def test_reconstruction_is_scored_by_feature_and_the_vocabulary_by_use(scores: HeldOutResult) -> None:
    tokenizer, held = make_tokenizer(), windows(1)
    bars, seen = held.batch(np.arange(len(held))).bars, tokens(make_tokenizer(), 1)
    with torch.no_grad():
        squares = (tokenizer.decode(seen) - bars)[:, LOOKBACK:].square().mean(dim=(0, 1))
    assert list(scores.recon_mse) == list(FEATURES)
    np.testing.assert_allclose(list(scores.recon_mse.values()), squares, rtol=1e-5)
    assert scores.codes_used == {"s1": len(seen.s1.unique()) / 32, "s2": len(seen.s2.unique()) / 8}


def test_persistence_is_scored_on_the_first_close_after_the_lookback(scores: HeldOutResult) -> None:
    held = windows(1)
    bars = held.batch(np.arange(len(held))).bars.numpy()
    errors = np.abs(bars[:, LOOKBACK, CLOSE] - bars[:, LOOKBACK - 1, CLOSE])
    assert scores.close_mae["persistence"] == pytest.approx(errors.mean(), rel=1e-5)
    assert scores.close_mae["kronos"] > 0


def test_bars_after_the_first_forecast_one_do_not_affect_the_close_error(scores: HeldOutResult) -> None:
    held = windows(1)
    values = held.mapped_bars[0].values.copy()
    values[-1] *= 3  # the last bar of the last window, after its first step
    other = replace(held, mapped_bars=(replace(held.mapped_bars[0], values=values),))
    assert evaluate_held_out(make_model(), make_tokenizer(), windows(0), other).close_mae == scores.close_mae


def test_the_number_of_scored_windows_is_limited() -> None:
    few = evaluate_held_out(make_model(), make_tokenizer(), windows(0), windows(1), count=5)
    assert few.tokens == 5 * HORIZON


def test_windows_of_several_sources_are_scored_together() -> None:
    two = make_windows(make_mapped_bars(make_bars(40, 1)), make_mapped_bars(make_bars(30, 2), name="other"))
    scores = evaluate_held_out(make_model(), make_tokenizer(), windows(0), two)
    assert scores.tokens == len(two) * HORIZON


SPANS = {"train_until": "2024-06-10", "validate_until": "2024-08-12"}


def make_headed(folder: Path, strength: float = 0.0, **changes: object) -> TrainingConfig:
    """Settings of a run with a head on 24 names of 160 bars."""
    file = write_bars(folder / "market.parquet", *planted_market(24, 160, strength))
    return make_config(folder / "out", **{"sources": (Source(file, head=True),)} | SPANS | changes)


# RankIC


def test_rank_ics_are_spearmans_and_leave_out_returns_that_are_not_known() -> None:
    random = np.random.default_rng(0)
    dates = np.repeat([0, 1, 2], 30)
    style = random.normal(size=90)
    scores = style + random.normal(size=90)
    returns = style + random.normal(size=90)
    returns[5] = np.nan
    plain, neutral = rank_ics(scores, returns, style, dates)
    for date in range(3):
        own = (dates == date) & np.isfinite(returns)
        assert plain[date] == pytest.approx(spearmanr(scores[own], returns[own])[0])
        ranks = [rankdata(values[own]) for values in (scores, returns, style)]
        slope, intercept = np.polyfit(ranks[2], ranks[0], 1)
        left = ranks[0] - slope * ranks[2] - intercept
        assert neutral[date] == pytest.approx(np.corrcoef(left, ranks[1])[0, 1])
    assert (neutral < plain - 0.1).all()


def test_a_score_that_is_volatility_alone_has_no_rank_ic_once_neutralized() -> None:
    style = np.arange(40.0)
    plain, neutral = rank_ics(2 * style, style, style, np.zeros(40, int))
    assert plain == pytest.approx([1.0])
    assert np.isnan(neutral).all()


def test_a_head_is_scored_as_in_use_date_by_date() -> None:
    market = make_market(24, 60)
    days = market.dates[:60]
    ranked = ranked_dates(market, str(days[30])[:10], str(days[50])[:10], LOOKBACK, 4)
    assert len(ranked.windows) == 4 * 24
    stage = PredictorObjective(make_model(), make_tokenizer(), 4, head=make_head()).eval()
    figures = HeadValidation({"market": ranked}, [1.0]).score(stage, Accelerator(cpu=True))
    by_hand = []
    for date in range(4):
        rows = np.flatnonzero(ranked.dates == date)
        ends = ranked.windows.start_rows[0][rows] + LOOKBACK - 1
        assert len(set(market.dates[ends])) == 1
        bars, stamps = ranked.windows.batch(rows)
        assert bars.shape[1] == LOOKBACK
        with torch.no_grad():
            hidden = stage.network.hidden(stage.tokens(bars), stamps)[:, -1]
        close = market.values[:, 3].astype(float)
        by_hand.append(spearmanr(stage.head(hidden).detach()[:, 1], close[ends + 6] / close[ends + 1])[0])
    assert figures["rank_ic/market/5"] == pytest.approx(np.mean(by_hand), abs=1e-6)
    t = np.mean(by_hand) / np.std(by_hand, ddof=1) * 2
    assert figures["rank_t/market/5"] == pytest.approx(t, rel=1e-4)
    longer = [figures[f"neutral_rank_ic/market/{horizon}"] for horizon in (5, 10)]
    assert figures["rank"] == pytest.approx(np.mean(longer))


def test_metrics_do_not_depend_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    market = make_market(24, 60)
    ranked = ranked_dates(market, str(market.dates[30])[:10], None, LOOKBACK, 3)
    stage = PredictorObjective(make_model(), make_tokenizer(), 4, head=make_head()).eval()
    validation = HeadValidation({"market": ranked}, [1.0])
    whole = validation.score(stage, Accelerator(cpu=True))
    monkeypatch.setattr(evaluation, "BATCH", 7)
    assert validation.score(stage, Accelerator(cpu=True)) == pytest.approx(whole, abs=1e-3)


def test_held_out_dates_are_after_the_training_span_and_their_returns_within_the_validation_span() -> None:
    market = make_market(24, 60)
    days = market.dates[:60]
    since, until = days[30], days[50]
    ranked = ranked_dates(market, str(since)[:10], str(until)[:10], LOOKBACK, 1000)
    rows = ranked.windows.start_rows[0] + LOOKBACK - 1
    assert market.dates[rows].min() == since
    assert market.dates[rows + 11].max() == until
    assert np.isfinite(ranked.returns).all()
    assert ranked_dates(market, "2030-01-01", None, LOOKBACK, 10) is None


# Which sources have a head


def test_only_sources_with_a_head_have_labels(tmp_path: Path) -> None:
    config = make_headed(tmp_path)
    other = Source(write_bars(tmp_path / "other.parquet", make_bars(160, 1)), name="other")
    config = replace(config, sources=(*config.sources, other))
    split, validation = split_for_head(split_windows(config), config)
    labels, none = split.training.labels
    mapped = split.training.mapped_bars[0]
    assert none is None
    assert labels.shape == (len(mapped.values), 3)
    last = mapped.dates[np.isfinite(labels[:, 2])].max()
    position = np.flatnonzero(mapped.dates[:160] == last)[0]
    assert mapped.dates[position + 11] == pd.Timestamp(SPANS["train_until"])
    assert list(validation.ranked) == ["market"]


def test_a_source_of_too_few_instruments_for_a_head_is_refused(tmp_path: Path) -> None:
    file = write_bars(tmp_path / "few.parquet", *planted_market(5, 160, 0.0))
    config = make_config(tmp_path / "out", sources=(Source(file, head=True),), **SPANS)
    with pytest.raises(ValueError, match=r"few has head: true, but no training date with 20 instruments\."):
        split_for_head(split_windows(config), config)


def test_heads_of_two_frequencies_are_refused(tmp_path: Path) -> None:
    config = make_headed(tmp_path)
    weekly = replace(config.sources[0], name="weekly", frequency="1week")
    config = replace(config, sources=(*config.sources, weekly))
    with pytest.raises(ValueError, match=r"The head has sources of 1day and of 1week bars\."):
        head_frequency(split_windows(config), config)


# Learning


@pytest.mark.integration
def test_a_head_learns_a_planted_effect_and_finds_nothing_where_there_is_none(tmp_path: Path) -> None:
    """Volume predicts the return that the label of one bar ranks, strongly or not at all."""
    learning = {"max_steps": 80, "batch_size": 32, "learning_rate": 1e-2, "validate_every": 80, "ema": 0.9}
    found = []
    for strength in (2.0, 0.0):
        config = make_headed(tmp_path / str(strength), strength, **learning)
        run_stage("tokenizer", config)
        row = run_stage("predictor", config).history[-1]
        found.append((row["val_neutral_rank_ic/market/1"], row["val_neutral_rank_t/market/1"]))
    (planted, sure), (none, unsure) = found
    assert planted > 0.3
    assert sure > 8
    assert abs(none) < 0.15
    assert abs(unsure) < 4
