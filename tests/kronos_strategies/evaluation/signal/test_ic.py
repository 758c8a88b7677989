"""Coefficients agree with Qlib, scipy and hand values, and say undefined where nothing can be said."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kronos_strategies.evaluation.signal.ic import ICSummary, information_coefficient, summarise

DAYS = pd.date_range("2024-01-01", periods=6)


def one_day(values, day: str = "2024-01-01") -> pd.Series:
    """Values of names N00, N01, ... on one date."""
    names = [f"N{i:02d}" for i in range(len(values))]
    index = pd.MultiIndex.from_product([[pd.Timestamp(day)], names], names=["datetime", "instrument"])
    return pd.Series(values, index=index, dtype=float)


@pytest.fixture
def pair() -> tuple[pd.Series, pd.Series]:
    """A rounded signal, so that ranks tie, and a label, both with gaps: 6 dates x 30 names."""
    rng = np.random.default_rng(0)
    names = [f"N{i:02d}" for i in range(30)]
    index = pd.MultiIndex.from_product([DAYS, names], names=["datetime", "instrument"])
    signal = pd.Series(rng.standard_normal(len(index)).round(1), index=index)
    label = 0.3 * signal + rng.standard_normal(len(index))
    return signal.mask(rng.random(len(index)) < 0.2), label.mask(rng.random(len(index)) < 0.2)


def test_agrees_with_qlib(pair):
    alpha = pytest.importorskip("qlib.contrib.eva.alpha")
    ic, rank_ic = alpha.calc_ic(*pair)
    np.testing.assert_allclose(information_coefficient(*pair), ic, rtol=0, atol=1e-14)
    np.testing.assert_allclose(information_coefficient(*pair, rank=True), rank_ic, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("rank", "correlate"), [(False, stats.pearsonr), (True, stats.spearmanr)])
def test_agrees_with_scipy_over_names_with_both_values(pair, rank, correlate):
    both = pd.concat(pair, axis=1).dropna()
    expected = [correlate(day[0], day[1]).statistic for _, day in both.groupby(level="datetime")]
    computed = information_coefficient(*pair, rank=rank)
    assert list(computed.index) == list(DAYS)
    np.testing.assert_allclose(computed, expected, rtol=0, atol=1e-14)


def test_tied_names_share_their_average_rank():
    signal, label = one_day([1, 1, 2, 3]), one_day([1, 2, 3, 4])
    by_hand = 4.5 / math.sqrt(4.5 * 5)  # ranks 1.5 1.5 3 4 against 1 2 3 4
    assert information_coefficient(signal, label, rank=True, min_names=4).item() == pytest.approx(by_hand)


def test_ranks_are_taken_after_incomplete_names_are_left_out():
    signal, label = one_day([1, 2, 3, 100]), one_day([3, 1, 2, np.nan])
    ranked_first = stats.spearmanr([1, 2, 3], [3, 1, 2]).statistic
    assert information_coefficient(signal, label, rank=True, min_names=3).item() == pytest.approx(
        ranked_first
    )


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
@pytest.mark.parametrize("rank", [False, True])
def test_an_infinite_value_is_no_value(pair, rank, infinite):
    signal, label = pair
    missing, endless = signal.copy(), signal.copy()
    missing.iloc[::7], endless.iloc[::7] = np.nan, infinite
    pd.testing.assert_series_equal(
        information_coefficient(endless, label, rank), information_coefficient(missing, label, rank)
    )


def test_rank_ic_sees_the_order_only(pair):
    signal, label = pair
    pd.testing.assert_series_equal(
        information_coefficient(np.exp(signal), label**3, rank=True),
        information_coefficient(signal, label, rank=True),
    )


def test_a_date_with_fewer_names_than_asked_is_undefined(pair):
    signal, label = pair
    names = (signal.notna() & label.notna()).groupby(level="datetime").sum()
    assert names.min() < names.max()
    computed = information_coefficient(signal, label, min_names=int(names.max()))
    assert (computed.notna() == (names == names.max())).all()


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.3e7, 1e-9])
@pytest.mark.parametrize("rank", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_constant_is_undefined_and_not_zero(constant, rank, dtype):
    varied = one_day(np.random.default_rng(0).standard_normal(37))
    flat = one_day(np.full(37, constant)).astype(dtype)
    assert information_coefficient(flat, varied, rank).isna().all()
    assert information_coefficient(varied, flat, rank).isna().all()


def test_a_faint_variation_on_a_large_level_still_counts():
    signal = np.random.default_rng(0).standard_normal(20)
    label = signal + np.random.default_rng(1).standard_normal(20)
    expected = stats.pearsonr(signal, label).statistic
    faint = information_coefficient(one_day(1 + 1e-7 * signal), one_day(1 + 1e-7 * label)).item()
    assert faint == pytest.approx(expected, abs=1e-6)


def test_the_order_of_rows_and_levels_is_no_matter(pair):
    signal, label = pair
    shuffled = label.sample(frac=1, random_state=0).reorder_levels(["instrument", "datetime"])
    pd.testing.assert_series_equal(
        information_coefficient(signal, shuffled), information_coefficient(signal, label), check_freq=False
    )


def test_dates_and_names_of_one_side_only_are_left_out(pair):
    signal, label = pair
    others = one_day(np.ones(12), "2030-01-01")
    pd.testing.assert_series_equal(
        information_coefficient(pd.concat([signal, others]), label),
        information_coefficient(signal, label),
        check_freq=False,
    )


@pytest.mark.parametrize("side", ["signal", "label"])
def test_a_repeated_row_is_refused_by_name(pair, side):
    series = dict(zip(("signal", "label"), pair, strict=True))
    series[side] = pd.concat([series[side], series[side].iloc[[7]]])
    with pytest.raises(ValueError, match=rf"The {side} has .*2024-01-01.*'N07'.* twice"):
        information_coefficient(**series)


@pytest.mark.parametrize(("day", "prefix"), [("2031-01-01", ""), ("2024-01-01", "other ")])
def test_no_overlap_is_refused(pair, day, prefix):
    apart = one_day(np.arange(12), day).rename(lambda name: prefix + name, level="instrument")
    with pytest.raises(ValueError, match=r"share no \(datetime, instrument\)"):
        information_coefficient(apart, pair[1])


def test_the_summary_of_independent_dates_is_the_t_test():
    coefficients = pd.Series(np.random.default_rng(0).normal(0.02, 0.1, 50))
    summary = summarise(coefficients)
    assert summary.mean == pytest.approx(coefficients.mean())
    assert summary.ir == pytest.approx(coefficients.mean() / np.std(coefficients, ddof=1))
    assert summary.t == pytest.approx(stats.ttest_1samp(coefficients, 0).statistic)
    assert (summary.dates, summary.undefined) == (50, 0)


def test_undefined_dates_are_counted_and_left_out():
    summary = summarise(pd.Series([0.1, np.nan, 0.3, np.nan, 0.2]))
    assert summary.mean == pytest.approx(0.2)
    assert summary.ir == pytest.approx(2.0)
    assert (summary.dates, summary.undefined) == (3, 2)


def test_overlapping_labels_count_once_and_gaps_keep_their_place():
    coefficients = pd.Series([0.1, 9.0, 9.0, np.nan, 9.0, 9.0, 0.3, 9.0, 9.0, 0.2, 9.0])
    assert summarise(coefficients, horizon=3).t == pytest.approx(
        stats.ttest_1samp([0.1, 0.3, 0.2], 0).statistic
    )


def test_two_dates_make_no_t():
    assert math.isnan(summarise(pd.Series([0.1, 0.2])).t)
    assert math.isnan(summarise(pd.Series([0.1, 5.0, 0.2, 5.0]), horizon=2).t)


def test_no_defined_date_gives_no_figures():
    summary = summarise(pd.Series([np.nan, np.nan, np.nan]))
    assert all(math.isnan(value) for value in (summary.mean, summary.ir, summary.t))
    assert (summary.dates, summary.undefined) == (0, 3)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.0])
def test_equal_coefficients_have_a_mean_but_neither_ratio_nor_t(level):
    summary = summarise(pd.Series([level] * 7))
    assert summary.mean == pytest.approx(level)
    assert math.isnan(summary.ir)
    assert math.isnan(summary.t)


def test_the_t_of_an_overlapping_label_rejects_chance_about_once_in_twenty():
    """A persistent signal without skill against 5-day returns; on every date it would reject far more often."""
    rng = np.random.default_rng(0)
    # Moving sums of 5 stand for coefficients of overlapping labels.
    runs = pd.DataFrame(rng.standard_normal((504, 300))).rolling(5).sum().dropna()
    apart = [abs(summarise(runs[run], horizon=5).t) > 1.984 for run in runs]
    daily = [abs(summarise(runs[run]).t) > 1.965 for run in runs]
    assert 0.02 < np.mean(apart) < 0.08
    assert np.mean(daily) > 0.25


def test_a_summary_holds_plain_numbers():
    summary = summarise(pd.Series([0.1, 0.2, 0.4]))
    assert isinstance(summary, ICSummary)
    assert [type(value) for value in (summary.mean, summary.ir, summary.t)] == [float] * 3
