"""Paths from quantiles, and draws by rank."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from kronos.bars import CLOSE
from kronos.paths import count_violations
from kronos_strategies.forecasters.candles import draw_bars, paths_from_quantiles

from .builders import market, uniforms_of, windows_of

LEVELS = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
NORMAL = np.array([NormalDist().inv_cdf(level) for level in LEVELS])


@pytest.fixture(scope="module")
def windows():
    return windows_of(market())


def test_every_step_has_the_given_quantiles_and_candles_are_valid(windows):
    rng = np.random.default_rng(0)
    quantiles = np.sort(rng.normal(0, 0.05, (len(windows), 5, 5)), axis=-1)
    paths = paths_from_quantiles(windows, quantiles, LEVELS, uniforms_of(windows, 4096))
    returns = np.log(paths[..., CLOSE] / windows.last_bar[:, CLOSE][:, None, None])
    np.testing.assert_allclose(
        np.moveaxis(np.quantile(returns, LEVELS, axis=1), 0, -1), quantiles, atol=0.004
    )
    assert not any(count_violations(paths).shares().values())


def test_the_quantiles_of_a_random_walk_give_a_random_walk(windows):
    steps = np.arange(1, 6)
    quantiles = np.broadcast_to(0.02 * np.sqrt(steps)[:, None] * NORMAL, (len(windows), 5, 5))
    paths = paths_from_quantiles(windows, quantiles, LEVELS, uniforms_of(windows, 8192))
    closes = np.log(paths[..., CLOSE] / windows.last_bar[:, CLOSE][:, None, None])
    increments = np.diff(closes, axis=2, prepend=0.0)[0]
    np.testing.assert_allclose(increments.std(axis=0), 0.02, rtol=0.05)
    correlations = np.corrcoef(increments.T) - np.eye(5)
    assert np.abs(correlations).max() < 0.05


def test_crossing_quantiles_are_sorted_and_a_row_depends_on_its_own_window(windows):
    quantiles = np.random.default_rng(1).normal(0, 0.05, (len(windows), 5, 5))
    uniforms = uniforms_of(windows, 8)
    whole = paths_from_quantiles(windows, quantiles, LEVELS, uniforms)
    ordered = paths_from_quantiles(windows, np.sort(quantiles, axis=-1), LEVELS, uniforms)
    np.testing.assert_array_equal(whole, ordered)
    alone = paths_from_quantiles(windows[3:4], quantiles[3:4], LEVELS, uniforms[3:4])
    np.testing.assert_allclose(alone[0], whole[3], rtol=1e-6)


@pytest.mark.parametrize("levels", [[0.5], [0.1, 0.1], [0.9, 0.1], [0.0, 0.5], [0.5, 1.0]])
def test_invalid_levels_are_refused(windows, levels):
    with pytest.raises(ValueError, match="not quantile levels"):
        paths_from_quantiles(
            windows, np.zeros((len(windows), 5, len(levels))), levels, uniforms_of(windows, 2)
        )


def test_quantiles_of_another_shape_are_refused(windows):
    with pytest.raises(ValueError, match=r"quantiles have the shape .* not \(12, 5, 5\)"):
        paths_from_quantiles(windows, np.zeros((2, 5, 5)), LEVELS, uniforms_of(windows, 2))


def test_bars_are_drawn_by_rank_among_the_usable_ones():
    order_by = np.array([[3.0, 1.0, 2.0, 0.0]])
    usable = np.array([[True, True, True, False]])
    uniforms = np.array([[0.0, 0.34, 0.67, np.nextafter(np.float32(1), np.float32(0))]], np.float32)
    np.testing.assert_array_equal(draw_bars(order_by, usable, uniforms), [[1, 2, 0, 0]])
