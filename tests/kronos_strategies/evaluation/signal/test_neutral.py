"""What is left of a score beyond an exposure agrees with a regression of ranks, date by date."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from kronos_strategies.evaluation.signal.ic import information_coefficient
from kronos_strategies.evaluation.signal.neutral import neutralise

INDEX = pd.MultiIndex.from_product(
    [pd.date_range("2024-01-01", periods=4), [f"N{i:02d}" for i in range(25)]],
    names=["datetime", "instrument"],
)


@pytest.fixture
def exposure() -> pd.Series:
    return pd.Series(np.random.default_rng(0).standard_normal(100).round(1), INDEX)  # with ties


@pytest.fixture
def score(exposure) -> pd.Series:
    return exposure**3 + pd.Series(np.random.default_rng(1).standard_normal(100), INDEX)


def test_it_is_the_residual_of_a_regression_of_ranks(score, exposure):
    score.iloc[[3, 30]], exposure.iloc[[4, 60]] = np.nan, np.nan
    found = neutralise(score, exposure)
    assert list(np.flatnonzero(found.isna())) == [3, 4, 30, 60]
    both = pd.DataFrame({"y": score, "x": exposure}).dropna()
    for date, day in both.groupby(level="datetime"):
        ranks = day.rank()
        residual = sm.OLS(ranks["y"], sm.add_constant(ranks["x"])).fit().resid
        np.testing.assert_allclose(found.loc[date].dropna(), residual, atol=1e-9)


def test_what_is_left_is_unrelated_to_the_exposure(score, exposure):
    left = neutralise(score, exposure)
    related = information_coefficient(left, exposure.groupby(level="datetime").rank())
    np.testing.assert_allclose(related, 0, atol=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_score_that_is_only_the_exposure_ranks_nothing(exposure, sign):
    left = neutralise(sign * np.exp(exposure), exposure)
    assert (left == 0).all()
    assert information_coefficient(left, exposure, rank=True).isna().all()


def test_a_constant_exposure_takes_nothing_away(score):
    left = neutralise(score, pd.Series(1.0, INDEX))
    np.testing.assert_allclose(information_coefficient(left, score, rank=True), 1)


def test_dates_know_nothing_of_each_other(score, exposure):
    first = INDEX[:25]
    alone = neutralise(score[first], exposure[first])
    pd.testing.assert_series_equal(neutralise(score, exposure)[first], alone)


def test_rows_without_both_are_undefined(score):
    assert neutralise(score, score * np.nan).isna().all()
