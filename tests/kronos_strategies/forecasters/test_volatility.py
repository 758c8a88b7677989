"""Volatility models against closed forms and simulated processes."""

from __future__ import annotations

import numpy as np
import pytest

from kronos_strategies.forecasters.volatility import (
    VarianceModel,
    ewma_model,
    filter_variances,
    fit_har,
    simulate_deviations,
)


def test_ewma_is_the_weighted_mean_of_squared_returns():
    returns = np.random.default_rng(0).normal(0, 1, (2, 40))
    found = filter_variances(ewma_model(0.9), returns, np.array([2.0, 3.0]))
    weights = 0.1 * 0.9 ** np.arange(39, -1, -1)
    np.testing.assert_allclose(found[:, -1], returns**2 @ weights + 0.9**40 * np.array([2.0, 3.0]))
    assert found.shape == (2, 41)


def test_paths_have_the_expected_variance_of_each_step():
    model = VarianceModel(
        np.array([0.1, 0.0]), np.array([0.08, 0.06]), np.array([0.05, 0.0]), np.array([0.8, 0.94])
    )
    innovations = np.random.default_rng(1).normal(0, 1, (2, 200_000, 4))
    deviations = simulate_deviations(model, np.array([2.0, 1.0]), innovations)
    average = 0.1 / (1 - 0.905)
    expected = [average + (2.0 - average) * 0.905 ** np.arange(4), np.ones(4)]
    np.testing.assert_allclose((deviations**2).mean(axis=1), expected, rtol=0.01)


def har_process(count: int, coefficients: tuple[float, ...], seed: int) -> np.ndarray:
    """Variances whose mean is a HAR of the ones before."""
    rng = np.random.default_rng(seed)
    values = np.ones(count)
    for bar in range(22, count):
        known = values[bar - 22 : bar]
        mean = np.dot(coefficients, [1.0, known[-1], known[-5:].mean(), known.mean()])
        values[bar] = mean * rng.gamma(8, 1 / 8)
    return values[100:]


def test_har_recovers_a_simulated_process():
    known = (0.05, 0.35, 0.35, 0.25)
    series = np.stack([har_process(40_000, known, seed) for seed in (0, 1)])
    found = fit_har(series * [[1.0], [1e-4]], 5, 22, 3)
    np.testing.assert_allclose(found.coefficients[:, 1:], [known[1:]] * 2, atol=0.05)
    np.testing.assert_allclose(found.coefficients[:, 0], [0.05, 0.05e-4], rtol=0.4)
    assert np.isnan(found.fitted[:, :22]).all()


def test_har_steps_ahead_are_predictions_of_predictions():
    series = har_process(3000, (0.05, 0.35, 0.35, 0.25), 2)[None]
    found = fit_har(series, 5, 22, 2)
    known = series[0]
    for step in range(2):
        row = [1.0, known[-1], known[-5:].mean(), known[-22:].mean()]
        assert found.future[0, step] == pytest.approx(np.dot(found.coefficients[0], row))
        known = np.append(known, found.future[0, step])


def test_a_prediction_outside_of_what_was_fitted_becomes_the_mean():
    series = np.random.default_rng(3).gamma(2, 0.5, (1, 200))
    series[0, -1] = 1e6
    found = fit_har(series, 5, 22, 4)
    assert (found.future <= 1e6).all()
    assert (found.future >= 0).all()
    constant = fit_har(np.zeros((1, 100)), 5, 22, 4)
    np.testing.assert_array_equal(constant.future, 0.0)
