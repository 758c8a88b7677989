"""Buckets are even without ties, the same in any order of names, and earn what alphalens says."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.signal.quantiles import (
    FEW_QUANTILES,
    QUANTILES,
    assign_quantiles,
    evaluate_quantiles,
    num_quantiles,
    quantile_means,
)
from kronos_strategies.evaluation.significance import mean_test

DATES = pd.date_range("2024-01-01", periods=40, name="datetime")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def score(rng) -> np.ndarray:
    """40 dates x 100 names, no ties."""
    return rng.standard_normal((40, 100))


@pytest.fixture
def label(rng, score) -> np.ndarray:
    return 0.002 * score + 0.02 * rng.standard_normal(score.shape)


def test_agrees_with_alphalens(score, label):
    alphalens = pytest.importorskip("alphalens")
    index = pd.MultiIndex.from_product([DATES, range(100)], names=["date", "asset"])
    returns = pd.DataFrame({"1D": label.ravel()}, index)
    data = alphalens.utils.get_clean_factor(pd.Series(score.ravel(), index), returns, quantiles=10)
    expected, _ = alphalens.performance.mean_return_by_quantile(data, by_date=True, demeaned=False)
    study = evaluate_quantiles(score, label, DATES, 1, 10)
    np.testing.assert_allclose(study.by_date.T, expected["1D"].unstack("date"), atol=1e-15)
    spread, _ = alphalens.performance.compute_mean_returns_spread(expected, 10, 1)
    np.testing.assert_allclose(
        study.top_minus_bottom_by_date, 2 * spread["1D"], atol=1e-15
    )  # theirs is of 100 % gross


@pytest.mark.parametrize("names", [20, 21, 27, 99, 300])
def test_sizes_differ_by_one_at_most_without_ties(rng, names):
    sizes = np.bincount(assign_quantiles(rng.standard_normal((1, names)), 10)[0].astype(int), minlength=11)[
        1:
    ]
    assert sizes.sum() == names
    assert sizes.max() - sizes.min() <= 1


def test_a_higher_score_is_never_in_a_lower_quantile(score):
    in_order = np.take_along_axis(assign_quantiles(score.round(1), 10), score.argsort(axis=1), axis=1)
    assert (np.diff(in_order, axis=1) >= 0).all()


def test_equal_scores_share_a_quantile_in_any_order_of_instruments(rng, score):
    tied, order = score.round(0), rng.permutation(100)
    quantiles = assign_quantiles(tied, 10)
    np.testing.assert_array_equal(assign_quantiles(tied[:, order], 10), quantiles[:, order])
    for row, numbers in zip(tied, quantiles, strict=True):
        assert pd.Series(numbers).groupby(row).nunique().eq(1).all()


def test_the_average_rank_of_a_tie_decides():
    row = np.array([[0, 0, 0, 0, 0, 0, 1, 2, 3, 4]], float)  # six share rank 3.5 of 10: the second fifth
    np.testing.assert_array_equal(assign_quantiles(row, 5), [[2, 2, 2, 2, 2, 2, 4, 4, 5, 5]])


def test_a_quantile_that_ties_left_empty_is_undefined():
    score = np.array([[0, 0, 0, 0, 0, 0, 1, 2, 3, 4]], float)
    means = quantile_means(assign_quantiles(score, 5), np.arange(10.0)[None], 5)
    np.testing.assert_array_equal(means, [[np.nan, 2.5, np.nan, 6.5, 8.5]])


def test_a_date_of_one_score_or_of_too_few_instruments_is_undefined(score, label):
    whole = evaluate_quantiles(score, label, DATES, 1, 10)
    score[3], score[5, 19:], label[7, 19:] = 0.1 + 0.2, np.nan, np.inf
    study = evaluate_quantiles(score, label, DATES, 1, 10)
    assert list(np.flatnonzero(study.top_minus_bottom_by_date.isna())) == [3, 5, 7]
    assert (study.top_minus_bottom.dates, study.top_minus_bottom.undefined) == (37, 3)
    kept = np.delete(np.arange(40), [3, 5, 7])
    pd.testing.assert_frame_equal(study.by_date.iloc[kept], whole.by_date.iloc[kept])
    assert study.top_hit_rate != 0


def test_instruments_without_both_values_are_in_no_quantile(score, label):
    score[:, 0], label[:, 1] = np.inf, np.nan
    left = evaluate_quantiles(score[:, 2:], label[:, 2:], DATES, 1, 10)
    pd.testing.assert_frame_equal(evaluate_quantiles(score, label, DATES, 1, 10).by_date, left.by_date)
    assert np.isnan(assign_quantiles(score, 10)[:, 0]).all()


@pytest.mark.parametrize(("sign", "monotonicity", "hits"), [(1, 1, 1), (-1, -1, 0)])
def test_a_score_that_is_the_return_is_found_out(label, sign, monotonicity, hits):
    study = evaluate_quantiles(sign * label, label, DATES, 1, 10)
    assert study.monotonicity == pytest.approx(monotonicity)
    assert study.top_hit_rate == hits
    in_order = np.sort(label, axis=1)
    apart = sign * (in_order[:, -10:].mean(axis=1) - in_order[:, :10].mean(axis=1))
    np.testing.assert_allclose(study.top_minus_bottom_by_date, apart)
    assert study.top_minus_bottom == mean_test(study.top_minus_bottom_by_date)


def test_no_instrument_beats_the_median_where_all_returns_are_equal(score):
    study = evaluate_quantiles(score, np.full_like(score, 0.01), DATES, 1, 10)
    assert study.top_hit_rate == 0.5
    assert np.isnan(study.monotonicity)
    assert study.top_minus_bottom.mean == pytest.approx(0, abs=1e-15)
    assert np.isnan(study.top_minus_bottom.t)


def test_moves_of_the_market_are_in_the_mean_and_not_in_the_excess(rng, score, label):
    market = 0.05 * rng.standard_normal((40, 1))
    calm, moved = (evaluate_quantiles(score, each, DATES, 1, 10) for each in (label, label + market))
    columns = ["excess", "excess_low", "excess_high"]
    np.testing.assert_allclose(moved.means[columns], calm.means[columns])
    np.testing.assert_allclose(moved.means["mean"], calm.means["mean"] + market.mean())
    wide, narrow = (study.means["high"] - study.means["low"] for study in (moved, calm))
    assert (wide > 3 * narrow).all()
    assert moved.monotonicity == calm.monotonicity
    assert moved.top_hit_rate == calm.top_hit_rate


def test_means_and_intervals_are_those_of_the_series(score, label):
    study = evaluate_quantiles(score, label, DATES, 3, 5)
    assert list(study.means.index) == list(study.by_date) == [1, 2, 3, 4, 5]
    for bucket, row in study.means.iterrows():
        test = mean_test(study.by_date[bucket], 3)
        assert (row["mean"], row["low"], row["high"]) == (test.mean, test.low, test.high)


def test_small_universes_have_quintiles(score):
    assert num_quantiles(score, score) == QUANTILES
    assert num_quantiles(score[:, 1:], score[:, 1:]) == FEW_QUANTILES
    assert num_quantiles(score * np.nan, score) == FEW_QUANTILES
    unlabelled = np.vstack([score, np.full((60, 100), np.nan)])  # dates without a label do not vote
    assert num_quantiles(np.vstack([score, score, score])[:100], unlabelled) == QUANTILES


def test_one_quantile_is_refused(score, label):
    with pytest.raises(ValueError, match="at least 2 quantiles"):
        evaluate_quantiles(score, label, DATES, 1, 1)
