"""CSCV: splits by hand; noise is overfit half of the time, and lasting skill never."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("empyrical")

from kronos_strategies.evaluation.portfolio.overfitting import evaluate_overfitting
from kronos_strategies.evaluation.portfolio.returns import sharpe

BARS = 480


def noise(seed: int, settings: int = 20, bars: int = BARS) -> pd.DataFrame:
    shocks = np.random.default_rng(seed).normal(0, 0.01, (bars, settings))
    return pd.DataFrame(shocks, pd.bdate_range("2020-01-01", periods=bars))


def test_every_split_is_that_of_the_paper():
    returns = noise(1, settings=5, bars=50)
    found = evaluate_overfitting(returns, blocks=6)
    parts = np.array_split(np.arange(50), 6)
    expected = []
    for half in combinations(range(6), 3):
        own = np.concatenate([parts[i] for i in half])
        other = np.setdiff1d(np.arange(50), own)
        inside, outside = (returns.iloc[rows].apply(sharpe, bars_per_year=1) for rows in (own, other))
        best = int(inside.argmax())
        expected.append((inside[best], outside[best], outside.rank()[best] / 6))
    np.testing.assert_allclose(found.in_sample, [each[0] for each in expected])
    np.testing.assert_allclose(found.out_of_sample, [each[1] for each in expected])
    np.testing.assert_allclose(found.relative_rank, [each[2] for each in expected])
    ranks = np.array([each[2] for each in expected])
    assert found.pbo == pytest.approx(np.mean((ranks < 0.5) + 0.5 * (ranks == 0.5)))
    assert found.prob_loss == np.mean([each[1] < 0 for each in expected])
    assert (found.blocks, found.settings, len(found.logits)) == (6, 5, math.comb(6, 3))
    assert ((found.logits < 0) == (ranks < 0.5)).all()


@pytest.mark.parametrize("settings", [2, 3, 20])
def test_the_best_of_settings_without_skill_is_below_the_median_half_of_the_time(settings):
    found = [evaluate_overfitting(noise(seed, settings), blocks=8).pbo for seed in range(60)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)


def test_a_setting_that_is_truly_best_is_never_overfit():
    returns = noise(0)
    returns[7] += 0.004  # a ratio of .4 per bar
    found = evaluate_overfitting(returns)
    assert (found.pbo, found.prob_loss) == (0.0, 0.0)
    assert (found.relative_rank == 20 / 21).all()


def test_a_setting_that_is_good_in_one_half_only_is_overfit():
    """Each setting is good in one block and bad in all others: what was best is worst afterwards."""
    returns = noise(0, settings=16)
    for block, rows in enumerate(np.array_split(np.arange(BARS), 16)):
        returns.iloc[rows, block] += 0.05
    assert evaluate_overfitting(returns).pbo > 0.9


def test_copies_of_a_setting_count_once():
    returns = noise(3, settings=6)
    copies = pd.concat([returns, returns[[2] * 9]], axis=1)
    alone, found = evaluate_overfitting(returns), evaluate_overfitting(copies)
    assert (found.settings, found.pbo) == (6, alone.pbo)
    np.testing.assert_array_equal(np.sort(found.relative_rank), np.sort(alone.relative_rank))


def test_the_order_of_settings_and_the_leverage_of_one_do_not_matter():
    returns = noise(4, settings=7)
    found = evaluate_overfitting(returns)
    other = evaluate_overfitting(returns[[3, 1, 0, 2, 6, 5, 4]] * [3, 1, 1, 1, 1, 1, 0.1])
    assert found.pbo == pytest.approx(other.pbo)
    np.testing.assert_allclose(found.out_of_sample, other.out_of_sample)


def test_a_setting_in_cash_has_a_ratio_of_zero():
    returns = noise(5, settings=3) - 0.01  # all lose
    returns[1] = 0.0
    found = evaluate_overfitting(returns)
    assert (found.in_sample == 0).all()
    assert found.pbo == 0


@pytest.mark.parametrize(("bars", "blocks"), [(31, 2), (32, 4), (100, 12), (1000, 16)])
def test_few_bars_make_few_blocks_and_too_few_no_result(bars, blocks):
    found = evaluate_overfitting(noise(0, bars=bars))
    assert found.blocks == blocks
    assert np.isnan(found.pbo) == (blocks < 4)


def test_one_setting_has_no_result():
    assert np.isnan(evaluate_overfitting(noise(0, settings=1)).pbo)


def test_many_settings_are_evaluated_in_parts():
    returns = noise(6, settings=1500, bars=160)
    found = evaluate_overfitting(returns, blocks=12)
    assert len(found.in_sample) == math.comb(12, 6)
    assert 0.2 < found.pbo < 0.8


def test_gaps_and_odd_blocks_are_refused():
    returns = noise(0)
    with pytest.raises(ValueError, match="blocks=5 cannot be halved"):
        evaluate_overfitting(returns, blocks=5)
    returns.iloc[3, 1] = np.nan
    with pytest.raises(ValueError, match="A return of 2020-01-06 00:00:00 is missing"):
        evaluate_overfitting(returns)
