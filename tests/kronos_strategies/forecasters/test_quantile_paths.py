"""Paths from quantiles have exactly these quantiles, and steps that move like a random walk."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from kronos.bars import CLOSE
from kronos.sampling import sobol_uniforms
from kronos.windows import Windows
from kronos_strategies.forecasters.candles import paths_from_quantiles

from .markets import panel_of

HORIZON, SAMPLES = 6, 4096
LEVELS = np.array([0.05, 0.1, 0.3, 0.5, 0.8, 0.95])
NORMAL = np.array([NormalDist().inv_cdf(level) for level in LEVELS])


@pytest.fixture(scope="module")
def windows() -> Windows:
    found = Windows.rolling(panel_of(), 60, HORIZON, "B")
    last = found.index.get_level_values("datetime").max()
    return found[np.asarray(found.index.get_level_values("datetime") == last)]


def log_returns(windows: Windows, quantiles: np.ndarray, samples: int = SAMPLES, seed: int = 0) -> np.ndarray:
    """(N, S, H) log of each sampled close over the last close."""
    dates = pd.DatetimeIndex(windows.index.get_level_values("datetime"))
    uniforms = sobol_uniforms(seed, dates, samples, HORIZON)
    paths = paths_from_quantiles(windows, quantiles, LEVELS, uniforms)
    return np.log(paths[..., CLOSE].astype(float) / windows.last_bar[:, None, None, CLOSE])


def random_walk(windows: Windows, deviation: float = 0.02) -> np.ndarray:
    """(N, H, Q) quantiles of a Gaussian random walk."""
    one = deviation * np.sqrt(np.arange(1, HORIZON + 1))[:, None] * NORMAL
    return np.broadcast_to(one, (len(windows), *one.shape))


def test_the_share_of_paths_below_a_quantile_is_its_level(windows: Windows) -> None:
    random = np.random.default_rng(1)  # quantiles of no known distribution, different at each step
    quantiles = np.sort(random.normal(0, 0.03, (len(windows), HORIZON, len(LEVELS))))
    returns = log_returns(windows, quantiles)
    share = (returns[..., None] <= quantiles[:, None]).mean(axis=1)  # (N, H, Q)
    error = np.sqrt(LEVELS * (1 - LEVELS) / SAMPLES)  # of independent paths; Sobol points have less
    assert (np.abs(share - LEVELS) < 2 * error).all()


def test_beyond_the_outer_quantiles_tails_are_those_of_a_normal_distribution(windows: Windows) -> None:
    returns = log_returns(windows, random_walk(windows))
    for step in (0, HORIZON - 1):
        deviation = 0.02 * np.sqrt(step + 1)
        for level in (0.005, 0.995):
            expected = deviation * NormalDist().inv_cdf(level)
            np.testing.assert_allclose(np.quantile(returns[:, :, step], level, axis=1), expected, rtol=0.05)


def test_quantiles_of_a_random_walk_give_steps_of_one_size_without_correlation(windows: Windows) -> None:
    steps = np.diff(log_returns(windows, random_walk(windows)), axis=2, prepend=0.0)
    for one in steps:
        np.testing.assert_allclose(one.std(axis=0), 0.02, rtol=0.03)
        correlation = np.corrcoef(one.T) - np.eye(HORIZON)
        assert np.abs(correlation).max() < 0.06


def test_crossing_quantiles_are_sorted(windows: Windows) -> None:
    quantiles = random_walk(windows)
    np.testing.assert_array_equal(
        log_returns(windows, quantiles[..., ::-1], 16), log_returns(windows, quantiles, 16)
    )


def test_instruments_of_a_date_share_their_random_numbers(windows: Windows) -> None:
    returns = log_returns(windows, random_walk(windows), 16)
    np.testing.assert_allclose(returns[0], returns[1], atol=1e-6)
    assert np.abs(returns[0] - log_returns(windows, random_walk(windows), 16, seed=1)[0]).max() > 0.01


def test_the_first_paths_do_not_depend_on_how_many_follow(windows: Windows) -> None:
    few, many = (log_returns(windows, random_walk(windows), samples) for samples in (8, 64))
    np.testing.assert_array_equal(few, many[:, :8])


def test_absurd_quantiles_give_finite_prices_and_amounts(windows: Windows) -> None:
    dates = pd.DatetimeIndex(windows.index.get_level_values("datetime"))
    uniforms = sobol_uniforms(0, dates, 8, HORIZON)
    paths = paths_from_quantiles(windows, random_walk(windows, deviation=1000.0), LEVELS, uniforms)
    assert np.isfinite(paths).all()


def test_quantiles_that_are_not_finite_are_refused_with_their_window(windows: Windows) -> None:
    quantiles = random_walk(windows).copy()
    quantiles[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"N01.*not finite"):
        log_returns(windows, quantiles, 8)
