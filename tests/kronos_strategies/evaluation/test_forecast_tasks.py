"""A perfect forecast has correlation 1, error 0 and R² 1; the values of others are computed by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.forecast_tasks import (
    absolute_error_by_date,
    predicted_volatility,
    price_coefficients,
    r2_by_date,
    realized_volatility,
)

INDEX = pd.MultiIndex.from_product(
    [pd.date_range("2024-01-01", periods=2), ["A", "B"]], names=["datetime", "instrument"]
)
REALIZED = pd.Series([0.1, 0.3, 0.2, 0.4], INDEX)


def test_price_ic_is_the_correlation_along_each_path():
    realized = np.array([[1.0, 2.0, 4.0, 3.0]] * 3)
    predicted = np.array([[10.0, 20.0, 40.0, 30.0], [-1.0, -2.0, -4.0, -3.0], [1.0, 2.0, 3.0, 4.0]])
    ic, rank_ic = price_coefficients(predicted, realized)
    np.testing.assert_allclose(ic, [1, -1, 0.8])
    np.testing.assert_allclose(rank_ic, [1, -1, 0.8])


def test_price_ic_differs_from_rank_ic_by_the_size_of_moves():
    ic, rank_ic = price_coefficients(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 2.0, 9.0]]))
    assert rank_ic[0] == pytest.approx(1)
    assert ic[0] == pytest.approx(8 / np.sqrt(2 * 38))


def test_a_path_that_does_not_move_has_no_price_ic():
    assert np.isnan(price_coefficients(np.ones((1, 5)), np.arange(5.0)[None])).all()


def test_realized_volatility_sums_squared_steps_from_the_last_close():
    assert realized_volatility(np.array([0.3, -0.1, -0.1])) == pytest.approx(np.sqrt(0.09 + 0.16))


def test_opposite_paths_keep_their_volatility():
    paths = np.array([[[0.1, 0.0], [-0.1, 0.0]]])
    np.testing.assert_allclose(predicted_volatility(paths), [np.sqrt(0.02)])


def test_volatility_is_averaged_as_variance():
    paths = np.array([[[0.1], [0.3]]])
    np.testing.assert_allclose(predicted_volatility(paths), [np.sqrt((0.01 + 0.09) / 2)])


def test_a_perfect_volatility_has_no_error_and_r2_of_one():
    np.testing.assert_array_equal(absolute_error_by_date(REALIZED, REALIZED), [0, 0])
    np.testing.assert_array_equal(r2_by_date(REALIZED, REALIZED), [1, 1])


def test_r2_is_that_of_all_rows_where_dates_have_equal_sizes():
    predicted = REALIZED + np.array([0.05, -0.1, 0.0, 0.1])
    squares = ((predicted - REALIZED) ** 2).sum() / ((REALIZED - REALIZED.mean()) ** 2).sum()
    assert r2_by_date(predicted, REALIZED).mean() == pytest.approx(1 - squares)
    np.testing.assert_allclose(absolute_error_by_date(predicted, REALIZED), [0.075, 0.05])


def test_the_overall_mean_has_r2_of_zero():
    assert r2_by_date(REALIZED * 0 + REALIZED.mean(), REALIZED).mean() == pytest.approx(0)
