"""Intervals agree with their formulas and libraries, and reject no skill about as often as they say."""

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from scipy.signal import lfilter

from kronos_strategies.evaluation.significance import (
    MeanTest,
    ewc,
    mean_test,
    newey_west,
    non_overlapping,
)

TESTS = [mean_test, ewc, non_overlapping, newey_west]


@pytest.fixture
def series() -> np.ndarray:
    """120 dates, correlated, around .1."""
    return lfilter([1], [1, -0.5], np.random.default_rng(0).standard_normal(120)) * 0.1 + 0.1


def test_ewc_is_the_published_formula(series):
    size = len(series)
    cosines = round(0.41 * size ** (2 / 3))
    variance = 0.0
    for j in range(1, cosines + 1):
        weight = sum(
            y * math.cos(math.pi * j * (t - 0.5) / size) for t, y in enumerate(series, start=1)
        ) * math.sqrt(2 / size)
        variance += weight**2 / cosines
    error = math.sqrt(variance / size)
    test = ewc(series)
    assert cosines == test.df == 10
    assert test.t == pytest.approx(series.mean() / error)
    assert test.p == pytest.approx(2 * stats.t.sf(abs(series.mean() / error), 10))
    assert test.high - test.mean == pytest.approx(stats.t.ppf(0.975, 10) * error)
    assert test.method == "EWC, B=10"


def test_ewc_has_at_least_four_cosines():
    assert ewc(np.random.default_rng(0).standard_normal(12)).df == 4


@pytest.mark.parametrize(("overlap", "lags"), [(1, 4), (3, 4), (10, 9)])
def test_newey_west_agrees_with_statsmodels(series, overlap, lags):
    fit = sm.OLS(series, np.ones(len(series))).fit(
        cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False}, use_t=True
    )
    test = newey_west(series, overlap)
    assert (test.t, test.p) == (pytest.approx(fit.tvalues[0]), pytest.approx(fit.pvalues[0]))
    assert (test.low, test.high) == pytest.approx(tuple(fit.conf_int()[0]))
    assert test.method == f"Newey-West, L={lags}"


def test_dates_that_do_not_overlap_are_students_t_test(series):
    test, expected = non_overlapping(series), stats.ttest_1samp(series, 0)
    assert (test.t, test.p, test.df) == (
        pytest.approx(expected.statistic),
        pytest.approx(expected.pvalue),
        119,
    )
    assert (test.low, test.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_apart_dates_take_the_average_error_of_their_sets(series):
    errors = [stats.sem(series[start::7]) for start in range(7)]
    test = non_overlapping(series, 7)
    assert test.mean == pytest.approx(series.mean())
    assert test.t == pytest.approx(series.mean() / np.sqrt(np.mean(np.square(errors))))
    assert test.df == 120 // 7 - 1


def test_an_undefined_date_keeps_its_place_among_apart_dates():
    gapped = [1.0, 5.0, np.nan, 6.0, 3.0, np.nan, 2.0, 9.0]
    errors = [stats.sem([1.0, 3.0, 2.0]), stats.sem([5.0, 6.0, 9.0])]
    test = non_overlapping(gapped, 2)
    assert test.t == pytest.approx(np.nanmean(gapped) / np.sqrt(np.mean(np.square(errors))))
    assert test.df == 2


@pytest.mark.parametrize("size", [49, 50])
@pytest.mark.parametrize("overlap", [1, 2, 10])
def test_the_headline_is_ewc_from_fifty_spans_on(size, overlap):
    values = np.random.default_rng(0).standard_normal(size * overlap)
    expected = ewc if size == 50 else non_overlapping
    assert mean_test(values, overlap) == expected(values, overlap)


@pytest.mark.parametrize("test", [ewc, newey_west])
def test_undefined_dates_in_the_middle_are_closed_up(series, test):
    gapped = np.insert(series, [0, 17, 17, 60, 120], [np.nan, np.inf, np.nan, np.nan, -np.inf])
    closed, whole = test(gapped), test(series)
    assert (closed.dates, closed.undefined, whole.undefined) == (120, 5, 0)
    assert (closed.t, closed.low, closed.df) == (whole.t, whole.low, whole.df)


@pytest.mark.parametrize("test", TESTS)
def test_undefined_dates_are_counted_and_never_zero(series, test):
    found = test(np.append(series, [np.nan] * 30))
    assert found.mean == pytest.approx(series.mean())
    assert (found.dates, found.undefined) == (120, 30)


@pytest.mark.parametrize("test", TESTS)
def test_interval_p_and_t_tell_the_same_story(series, test):
    for level in (0.5, 0.9, 0.95, 0.999):
        found = test(series - series.mean() * 0.7, 2, level)
        assert (found.low > 0) == (found.p < 1 - level)
        assert (found.low + found.high) / 2 == pytest.approx(found.mean)
        assert (found.level, found.overlap) == (level, 2)


@pytest.mark.parametrize("test", TESTS)
def test_unit_and_sign_are_no_matter(series, test):
    one, other = test(series), test(-1e-5 * series)
    assert (other.t, other.p) == (pytest.approx(-one.t), pytest.approx(one.p))
    assert (other.low, other.high) == pytest.approx((-1e-5 * one.high, -1e-5 * one.low))


@pytest.mark.parametrize("test", TESTS)
def test_a_pandas_series_is_read_by_position(series, test):
    assert test(pd.Series(series, index=range(500, 620))) == test(series)


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [0.3], [0.3, np.nan]])
def test_too_few_dates_have_a_mean_at_most(test, values):
    found = test(values)
    assert math.isnan(found.mean) == (0.3 not in values)
    assert all(math.isnan(figure) for figure in (found.low, found.high, found.t, found.p))
    assert "too few dates" in found.method


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("level", [0.0, 0.1, -1e-8])
def test_a_constant_has_a_mean_and_no_test(test, level):
    found = test([level] * 80)
    assert found.mean == pytest.approx(level)
    assert math.isnan(found.t)
    assert math.isnan(found.high)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (([1.0], 0), "overlap=0"),
        (([1.0], 1, 1.0), "level=1.0"),
        (([[1.0]],), "2 dimensions"),
    ],
)
def test_nonsense_is_refused(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        mean_test(*arguments)


def test_a_test_holds_plain_numbers(series):
    found = mean_test(series)
    assert isinstance(found, MeanTest)
    assert {type(value) for value in vars(found).values()} == {float, int, str}


def coefficients(
    skill: float, runs: int = 250, dates: int = 500, names: int = 30, horizon: int = 10
) -> np.ndarray:
    """(runs, dates) ICs of a persistent score against the returns of the next `horizon` days."""
    rng = np.random.default_rng(0)
    shocks = rng.standard_normal((runs, dates + 200, names), np.float32)
    score = lfilter([1], [1, -0.97], shocks, axis=1)[:, 200:] * np.sqrt(1 - 0.97**2)
    returns = rng.standard_normal((runs, dates + horizon, names), np.float32)
    returns[:, 1 : dates + 1] += skill * score  # each day's score moves the next day's return
    total = np.cumsum(returns, axis=1)
    label = total[:, horizon:] - total[:, :dates]
    x, y = (v - v.mean(axis=2, keepdims=True) for v in (score, label))
    return (x * y).sum(axis=2) / np.sqrt((x**2).sum(axis=2) * (y**2).sum(axis=2))


def rejections(values: np.ndarray, test, overlap: int) -> float:
    return float(np.mean([test(run, overlap).p < 0.05 for run in values]))


def test_no_skill_is_rejected_about_once_in_twenty_where_a_plain_test_does_half_of_the_time():
    values = coefficients(skill=0.0)
    assert rejections(values, non_overlapping, 1) > 0.35  # overlap and persistence ignored
    assert 0.01 < rejections(values, mean_test, 10) < 0.1
    assert 0.01 < rejections(values[:, :250], mean_test, 10) < 0.1  # too short for EWC


def test_a_small_skill_is_found():
    assert rejections(coefficients(skill=0.1, runs=60), mean_test, 10) > 0.8
