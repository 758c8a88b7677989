"""Rank and quantile metrics agree with Qlib, scipy, alphalens and hand values; undefined where they should be."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kronos_strategies.evaluation.ranks import CELLS
from kronos_strategies.evaluation.signal.metrics import (
    FEW_QUANTILES,
    QUANTILES,
    assign_quantiles,
    evaluate_quantiles,
    icir,
    information_coefficients,
    information_coefficients_wide,
    num_quantiles,
    quantile_means,
)
from kronos_strategies.evaluation.significance import mean_test

DAYS = pd.date_range("2024-01-01", periods=6)


def one_day(values, day: str = "2024-01-01") -> pd.Series:
    """Values of names N00, N01, ... on one date."""
    names = [f"N{i:02d}" for i in range(len(values))]
    index = pd.MultiIndex.from_product([[pd.Timestamp(day)], names], names=["datetime", "instrument"])
    return pd.Series(values, index=index, dtype=float)


def by_scipy(score: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(2, dates) of names with both values, a date at a time."""
    pairs = [
        (x[b], y[b]) for x, y, b in zip(score, label, np.isfinite(score) & np.isfinite(label), strict=True)
    ]
    return np.array([[f(x, y).statistic for x, y in pairs] for f in (stats.pearsonr, stats.spearmanr)])


@pytest.fixture
def pair() -> tuple[pd.Series, pd.Series]:
    """A rounded score, so that ranks tie, and a label, both with gaps: 6 dates x 30 names."""
    rng = np.random.default_rng(0)
    names = [f"N{i:02d}" for i in range(30)]
    index = pd.MultiIndex.from_product([DAYS, names], names=["datetime", "instrument"])
    score = pd.Series(rng.standard_normal(len(index)).round(1), index=index)
    label = 0.3 * score + rng.standard_normal(len(index))
    return score.mask(rng.random(len(index)) < 0.2), label.mask(rng.random(len(index)) < 0.2)


def test_coefficients_agree_with_qlib(pair):
    calc_ic = pytest.importorskip("qlib.contrib.eva.alpha").calc_ic
    found = information_coefficients(*pair)
    for name, expected in zip(("ic", "rank_ic"), calc_ic(*pair), strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-12)


def test_coefficients_agree_with_scipy_over_instruments_with_both_values(pair):
    both = pd.concat(pair, axis=1).dropna()
    days = [(day[0], day[1]) for _, day in both.groupby(level="datetime")]
    found = information_coefficients(*pair)
    assert list(found.index) == list(DAYS)
    assert (list(found.columns), found.index.name) == (["ic", "rank_ic"], "datetime")
    for name, correlate in (("ic", stats.pearsonr), ("rank_ic", stats.spearmanr)):
        expected = [correlate(x, y).statistic for x, y in days]
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-14)


DRAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "float32": lambda rng, shape: rng.standard_normal(shape).astype(np.float32),
    "heavy tails": lambda rng, shape: rng.standard_cauchy(shape) ** 3,
    "skewed": lambda rng, shape: np.exp(5 * rng.standard_normal(shape)),
    "a huge level": lambda rng, shape: 1e9 + rng.standard_normal(shape),
    "one far out": lambda rng, shape: np.where(np.arange(shape[1]) == 3, 1e12, rng.standard_normal(shape)),
    "near ties": lambda rng, shape: np.spacing(1) * rng.integers(0, 9, shape) + rng.integers(1, 5, shape),
    "few values": lambda rng, shape: rng.integers(0, 3, shape),
    "signed zeros": lambda rng, shape: rng.integers(-1, 2, shape) * 0.0 + (rng.random(shape) < 0.3),
}


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("draw", DRAWS)
def test_coefficients_agree_with_scipy_for_any_distribution(draw, missing):
    rng = np.random.default_rng(0)
    score = DRAWS[draw](rng, (8, 700)).astype(float)
    label = rng.standard_normal(score.shape).round(2)
    label[rng.random(score.shape) < missing] = np.nan
    found, expected = information_coefficients_wide(score, label), by_scipy(score, label)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(information_coefficients_wide(label, score), expected, rtol=0, atol=1e-12)


def test_dates_are_processed_in_independent_blocks():
    rng = np.random.default_rng(0)
    score = rng.standard_normal((5, CELLS // 3)).round(2)
    label = score + rng.standard_normal(score.shape)
    label[3, ::2] = np.nan
    found = information_coefficients_wide(score, label)
    alone = [information_coefficients_wide(score[[i]], label[[i]])[:, 0] for i in range(5)]
    np.testing.assert_allclose(found.T, alone, rtol=0, atol=1e-13)


def test_a_date_with_more_instruments_than_a_block_has_cells_is_one_block():
    rng = np.random.default_rng(0)
    score, label = rng.standard_normal((2, 2, CELLS + 9))
    np.testing.assert_allclose(
        information_coefficients_wide(score, label), by_scipy(score, label), rtol=0, atol=1e-12
    )


def test_tied_instruments_share_their_average_rank():
    score, label = one_day([1, 1, 2, 3]), one_day([1, 2, 3, 4])
    by_hand = 4.5 / math.sqrt(4.5 * 5)  # ranks 1.5 1.5 3 4 against 1 2 3 4
    assert information_coefficients(score, label, min_instruments=4)["rank_ic"].item() == pytest.approx(
        by_hand
    )


def test_ranks_are_taken_after_incomplete_instruments_are_left_out():
    score, label = one_day([1, 2, 3, 100]), one_day([3, 1, 2, np.nan])
    ranked_first = stats.spearmanr([1, 2, 3], [3, 1, 2]).statistic
    assert information_coefficients(score, label, min_instruments=3)["rank_ic"].item() == pytest.approx(
        ranked_first
    )


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_an_infinite_value_counts_as_missing(pair, infinite):
    score, label = pair
    missing, endless = score.copy(), score.copy()
    missing.iloc[::7], endless.iloc[::7] = np.nan, infinite
    pd.testing.assert_frame_equal(
        information_coefficients(endless, label), information_coefficients(missing, label)
    )
    grids = [series.unstack().to_numpy() for series in (endless, missing, label)]
    np.testing.assert_array_equal(
        information_coefficients_wide(grids[0], grids[2]), information_coefficients_wide(grids[1], grids[2])
    )


def test_rank_ic_depends_on_the_order_only(pair):
    score, label = pair
    pd.testing.assert_series_equal(
        information_coefficients(np.exp(score), label**3)["rank_ic"],
        information_coefficients(score, label)["rank_ic"],
    )


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_unit_does_not_matter(pair, scale):
    score, label = pair
    pd.testing.assert_frame_equal(
        information_coefficients(scale * score, scale * label),
        information_coefficients(score, label),
        rtol=1e-12,
    )


def test_the_same_order_is_one_and_the_opposite_minus_one():
    score = one_day(np.random.default_rng(0).standard_normal(40))
    assert information_coefficients(score, score).to_numpy() == pytest.approx(1)
    assert information_coefficients(score, -score).to_numpy() == pytest.approx(-1)
    assert (information_coefficients(score, score).abs() <= 1).all(axis=None)


def test_a_date_with_fewer_instruments_than_asked_is_undefined(pair):
    score, label = pair
    names = (score.notna() & label.notna()).groupby(level="datetime").sum()
    assert names.min() < names.max()
    found = information_coefficients(score, label, min_instruments=int(names.max()))
    for name in ("ic", "rank_ic"):
        assert (found[name].notna() == (names == names.max())).all()


@pytest.mark.parametrize("size", [0, 1])
def test_one_or_zero_instruments_are_undefined_for_any_minimum(size):
    values = np.full((1, 5), np.nan)
    values[0, :size] = 3.0
    assert np.isnan(information_coefficients_wide(values, values, min_instruments=0)).all()


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.3e7, 1e-9])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("missing", [0, 3])
def test_a_constant_is_undefined_and_not_zero(constant, dtype, missing):
    varied = one_day(np.random.default_rng(0).standard_normal(37))
    varied.iloc[:missing] = np.nan
    flat = one_day(np.full(37, constant)).astype(dtype)
    assert information_coefficients(flat, varied).isna().all(axis=None)
    assert information_coefficients(varied, flat).isna().all(axis=None)


def test_a_constant_of_rounding_has_no_ic():
    flat = one_day([0.1 + 0.2, 0.3] * 20)
    assert flat.nunique() == 2
    assert np.isnan(information_coefficients(flat, one_day(np.arange(40)))["ic"].item())


def test_a_faint_variation_on_a_large_level_still_counts():
    score = np.random.default_rng(0).standard_normal(20)
    label = score + np.random.default_rng(1).standard_normal(20)
    expected = stats.pearsonr(score, label).statistic
    faint = information_coefficients(one_day(1 + 1e-7 * score), one_day(1 + 1e-7 * label))["ic"].item()
    assert faint == pytest.approx(expected, abs=1e-6)


def test_the_order_of_rows_and_levels_does_not_matter(pair):
    score, label = pair
    shuffled = label.sample(frac=1, random_state=0).reorder_levels(["instrument", "datetime"])
    pd.testing.assert_frame_equal(
        information_coefficients(score, shuffled), information_coefficients(score, label), check_freq=False
    )
    assert information_coefficients(shuffled, shuffled).index.is_monotonic_increasing


def test_dates_and_instruments_of_one_side_only_are_left_out(pair):
    score, label = pair
    others = one_day(np.ones(12), "2030-01-01")
    strangers = one_day(np.arange(30)).rename(lambda name: f"X{name}", level="instrument")
    pd.testing.assert_frame_equal(
        information_coefficients(pd.concat([score, others]), pd.concat([strangers, label])),
        information_coefficients(score, label),
        check_freq=False,
    )


def test_a_common_date_without_a_common_instrument_is_undefined(pair):
    score, label = pair
    first = label.index.get_level_values("datetime") == DAYS[0]
    names = label.index.get_level_values("instrument")
    found = information_coefficients(score[~first | (names < "N15")], label[~first | (names >= "N15")])
    assert list(found.index) == list(DAYS)
    assert found["ic"].isna().tolist() == [True] + [False] * 5


def test_inputs_stay_as_they_were(pair):
    grids = [series.unstack().to_numpy(copy=True) for series in pair]
    before = [grid.copy() for grid in grids]
    information_coefficients_wide(*grids)
    for grid, was in zip(grids, before, strict=True):
        np.testing.assert_array_equal(grid, was)


@pytest.mark.parametrize("side", ["score", "label"])
def test_a_repeated_row_is_refused_by_name(pair, side):
    series = dict(zip(("score", "label"), pair, strict=True))
    series[side] = pd.concat([series[side], series[side].iloc[[7]]])
    with pytest.raises(ValueError, match=rf"The {side} have .*2024-01-01.*'N07'.* twice"):
        information_coefficients(**series)


@pytest.mark.parametrize(("day", "prefix"), [("2031-01-01", ""), ("2024-01-01", "other ")])
def test_no_overlap_is_refused(pair, day, prefix):
    apart = one_day(np.arange(12), day).rename(lambda name: prefix + name, level="instrument")
    with pytest.raises(ValueError, match=r"share no \(datetime, instrument\)"):
        information_coefficients(apart, pair[1])


def test_dates_and_instruments_in_common_but_no_row_are_refused(pair):
    score, label = pair
    odd = np.arange(len(score)) % 2 == 1
    with pytest.raises(ValueError, match=r"share no \(datetime, instrument\)"):
        information_coefficients(score[odd], label[~odd])


def test_empty_inputs_are_refused(pair):
    with pytest.raises(ValueError, match=r"share no \(datetime, instrument\)"):
        information_coefficients(pair[0].iloc[:0], pair[1].iloc[:0])


@pytest.mark.parametrize("shapes", [((3, 20), (3, 21)), ((20,), (20,))])
def test_arrays_of_different_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match="two arrays of the same dates and instruments"):
        information_coefficients_wide(*map(np.zeros, shapes))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_an_array_without_dates_or_instruments_has_no_coefficients(shape):
    found = information_coefficients_wide(np.zeros(shape), np.zeros(shape))
    assert found.shape == (2, shape[0])
    assert np.isnan(found).all()


def test_icir_is_mean_by_deviation_of_the_defined_dates():
    values = np.random.default_rng(0).normal(0.02, 0.1, 50)
    assert icir(values) == pytest.approx(values.mean() / np.std(values, ddof=1))
    assert icir(pd.Series([0.1, np.nan, 0.3, np.inf, 0.2])) == pytest.approx(2.0)


@pytest.mark.parametrize("values", [[], [np.nan], [0.1], [0.1] * 7, [0.0] * 7])
def test_icir_of_too_few_or_equal_dates_is_undefined(values):
    assert math.isnan(icir(values))


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


def test_quantile_returns_agree_with_alphalens(score, label):
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
def test_quantiles_of_the_return_itself_are_monotonic(label, sign, monotonicity, hits):
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
