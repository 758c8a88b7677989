from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kronos.scale import Scale
from tests.kronos.builders import make_bars

EXAMPLES = settings(deadline=None, max_examples=30)


@EXAMPLES
@given(
    values=arrays(np.float32, (2, 5, 6), elements=st.floats(0, 1e9, width=32)),
    shift=st.sampled_from([0.0, 1e4]),
)
def test_scaling_and_scaling_back_returns_the_bars(values: np.ndarray, shift: float) -> None:
    values = values + np.float32(shift)
    scale = Scale.fit(values)
    back = scale.invert(scale.apply(values, clip=np.inf))
    # Six float32 roundings between, each relative to the largest number in sight: bar, mean or their distance.
    size = np.maximum(np.abs(values), np.abs(scale.mean)) + np.abs(values - scale.mean)
    assert (np.abs(back - values) <= 8 * np.finfo(np.float32).eps * size + 1e-30).all()


@EXAMPLES
@given(values=arrays(np.float32, (3, 7, 6), elements=st.floats(0, 1e6, width=32)), clip=st.floats(0.5, 5))
def test_scaled_bars_never_exceed_the_clip(values: np.ndarray, clip: float) -> None:
    assert np.abs(Scale.fit(values).apply(values, clip)).max() <= np.float32(clip)


def test_scaled_bars_have_mean_zero_and_population_deviation_one() -> None:
    values = np.random.default_rng(0).normal(50, 3, (4, 200, 6)).astype(np.float32)
    scaled = Scale.fit(values).apply(values, clip=np.inf).astype(float)
    # float32 means of 200 numbers; and the deviation is divided by itself plus 1e-5
    np.testing.assert_allclose(scaled.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=1), 1, atol=1e-4)


def test_bars_that_never_move_scale_to_zero_and_back_to_themselves() -> None:
    values = np.full((1, 4, 6), 7.0, np.float32)
    scale = Scale.fit(values)
    assert (scale.apply(values, clip=5) == 0).all()
    np.testing.assert_array_equal(scale.invert(np.zeros((1, 3, 6), np.float32)), values[:, :3])


def test_paths_scale_back_with_their_own_windows_scale() -> None:
    values = np.stack([make_bars(20, seed).to_numpy(np.float32) for seed in range(3)])
    scale = Scale.fit(values)
    paths = np.random.default_rng(0).normal(size=(3, 2, 4, 6)).astype(np.float32)  # (N, S, H, 6)
    back = scale.invert(paths)
    for i in range(3):
        alone = Scale(scale.mean[i : i + 1], scale.width[i : i + 1])
        np.testing.assert_array_equal(back[i, 1], alone.invert(paths[i : i + 1, 1])[0])


UNITS = [1e-8, 1e-6, 1e-4, 1e-2, 1e2, 1e4, 1e6, 1e8]


@pytest.mark.parametrize("unit", UNITS)
def test_bars_normalize_alike_in_every_unit_of_price_and_volume(unit: float) -> None:
    bars = np.stack([make_bars(90, seed).to_numpy() for seed in range(5)])
    for columns in (slice(0, 4), slice(4, 6), slice(0, 6)):
        other = bars.copy()
        other[..., columns] *= unit
        ours, theirs = (
            Scale.fit(values).apply(values, clip=5)
            for values in (bars.astype(np.float32), other.astype(np.float32))
        )
        # Bars are rounded to float32 in each unit: 6e-8 of a price that is some ten deviations.
        np.testing.assert_allclose(ours, theirs, atol=5e-6)


def test_upstreams_scale_is_the_plain_formula_at_ordinary_prices() -> None:
    values = np.stack([make_bars(90, seed).to_numpy(np.float32) for seed in range(5)])
    for level in (1, 0.02, 1e3):  # prices near 50, 1 and 50,000
        prices = values * np.float32(level)
        plain = (prices - prices.mean(1, keepdims=True)) / (prices.std(1, keepdims=True) + np.float32(1e-5))
        ours = Scale.fit_upstream(prices).apply(prices, clip=np.inf)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("unit", [1e-10, 1e-8, 1e-6])
def test_upstreams_scale_takes_small_prices_in_any_unit(unit: float) -> None:
    values = make_bars(90).to_numpy()[None]
    wanted = Scale.fit(values.astype(np.float32)).apply(values.astype(np.float32), clip=5)
    small = (values * unit).astype(np.float32)
    np.testing.assert_allclose(
        Scale.fit_upstream(small).apply(small, clip=5)[..., :4], wanted[..., :4], atol=1e-4
    )


@pytest.mark.parametrize("fit", [Scale.fit, Scale.fit_upstream])
def test_huge_volumes_do_not_overflow(fit: Callable[[np.ndarray], Scale]) -> None:
    values = make_bars(90).to_numpy(np.float32)[None]
    huge = values.copy()
    huge[..., 4:] *= np.float32(1e25)  # squares of 1e30 are beyond float32
    with np.errstate(over="raise", invalid="raise"):
        ours, wanted = (fit(part).apply(part, clip=5) for part in (huge, values))
    np.testing.assert_allclose(ours, wanted, atol=1e-4)


def test_a_column_of_zeros_stays_near_zero() -> None:
    scale = Scale.fit(np.zeros((1, 9, 6), np.float32))
    assert np.abs(scale.invert(np.full((1, 2, 6), 5, np.float32))).max() <= 1e-4
