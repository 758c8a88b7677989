"""A perfect forecast has correlation 1, error 0 and R² 1; the values of others are computed by hand.

A classifier distinguishes different distributions and not equal ones; a model learns the effect of its bars.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.paper_tasks import (
    Sequences,
    absolute_error_by_date,
    discrimination,
    held_out,
    learned_forecasts,
    predicted_volatility,
    price_coefficients,
    r2_by_date,
    realized_volatility,
    second_half,
)
from kronos_strategies.evaluation.signal.metrics import information_coefficients

PAIRS = pd.MultiIndex.from_product(
    [pd.date_range("2024-01-01", periods=2), ["A", "B"]], names=["datetime", "instrument"]
)
REALIZED = pd.Series([0.1, 0.3, 0.2, 0.4], PAIRS)
HORIZON = 8
DAYS = pd.bdate_range("2023-01-02", periods=60)
DATES = DAYS[:48:4]
NAMES = [f"N{i:02d}" for i in range(40)]
INDEX = pd.MultiIndex.from_product([DATES, NAMES], names=["datetime", "instrument"])
ENDS = np.repeat(DAYS[DAYS.get_indexer(DATES) + HORIZON].to_numpy(), len(NAMES))
fits_trees = pytest.mark.skipif(find_spec("lightgbm") is None, reason="needs LightGBM")


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


def sequences(seed: int, deviation: float = 0.01, momentum: float = 0.0) -> Sequences:
    """Random walks; with momentum, the second half drifts on as the first did on average."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((len(INDEX), HORIZON)) * deviation
    half = HORIZON // 2
    steps[:, half:] += momentum * steps[:, :half].mean(axis=1, keepdims=True)
    close = 20 * np.exp(steps.cumsum(axis=1))
    open_ = np.concatenate([np.full((len(close), 1), 20.0), close[:, :-1]], axis=1)
    reach = np.exp(np.abs(rng.standard_normal(close.shape)) * deviation / 2)
    high, low = np.maximum(open_, close) * reach, np.minimum(open_, close) / reach
    volume = np.exp(rng.standard_normal(close.shape))
    bars = np.stack([open_, high, low, close, volume, volume * close], axis=-1)
    return Sequences(bars, np.full(len(close), 20.0), np.full(len(close), 0.01))


def changed(made: Sequences, factor: float, volume: float = 1.0) -> Sequences:
    """The same bars in another currency and other units of volume."""
    units = np.array([factor] * 4 + [volume, factor * volume])
    return replace(made, bars=made.bars * units, last_close=made.last_close * factor)


@fits_trees
def test_the_same_bars_cannot_be_told_apart():
    real = sequences(0)
    np.testing.assert_array_equal(discrimination(real, real, INDEX, ENDS), 0)


@fits_trees
def test_bars_of_the_same_distribution_are_hardly_told_apart():
    assert abs(discrimination(sequences(0), sequences(1), INDEX, ENDS).mean()) < 0.06


@fits_trees
def test_bars_of_another_volatility_are_told_apart():
    assert discrimination(sequences(0), sequences(1, deviation=0.04), INDEX, ENDS).mean() > 0.4


def test_no_unit_of_price_or_volume_tells_bars_apart():
    made = sequences(0)
    np.testing.assert_allclose(changed(made, 7.0, 300.0).features(), made.features(), atol=0.0011)


@fits_trees
def test_rounding_does_not_tell_bars_apart():
    real = sequences(0)
    rounded = replace(real, bars=real.bars.astype(np.float32))
    assert abs(discrimination(real, rounded, INDEX, ENDS).mean()) < 0.02


@fits_trees
def test_the_score_depends_on_nothing_but_bars_and_seed():
    real, generated = sequences(0), sequences(1, deviation=0.012)
    first, again = (discrimination(real, generated, INDEX, ENDS, seed=3) for _ in range(2))
    pd.testing.assert_series_equal(first, again)


def test_rows_to_test_share_neither_instruments_nor_bars_with_those_to_fit():
    dates, names = (INDEX.get_level_values(level) for level in ("datetime", "instrument"))
    tested = np.zeros(len(INDEX), int)
    for train, test in held_out(INDEX, ENDS, seed=1):
        assert not set(names[train]) & set(names[test])
        assert ENDS[train].max() <= dates[test].min().to_numpy()
        tested += test
    assert tested.max() == 1
    assert (tested == (dates >= DATES[len(DATES) // 2])).all()


@fits_trees
def test_a_model_learns_the_sign_that_its_bars_have():
    real = sequences(0, momentum=2.0)
    truth = second_half(real, INDEX)["return"]

    def rank_ic(momentum: float) -> float:
        found = learned_forecasts(sequences(1, momentum=momentum), real, INDEX, ENDS)
        return information_coefficients(found["return"], truth)["rank_ic"].mean()

    assert rank_ic(2.0) > 0.4
    assert rank_ic(-2.0) < -0.4


@fits_trees
def test_a_forecast_does_not_read_what_it_forecasts():
    learned_from, real = sequences(1), sequences(0)
    ahead = real.bars.copy()
    ahead[:, HORIZON // 2 :] *= np.random.default_rng(5).uniform(0.5, 2, (len(ahead), HORIZON // 2, 1))
    pd.testing.assert_frame_equal(
        learned_forecasts(learned_from, real, INDEX, ENDS),
        learned_forecasts(learned_from, replace(real, bars=ahead), INDEX, ENDS),
    )


def test_short_sequences_and_too_few_dates_are_refused():
    made = sequences(0)
    with pytest.raises(ValueError, match=r"3 bars\. Compare at least 4"):
        replace(made, bars=made.bars[:, :3])
    with pytest.raises(ValueError, match="1 dates of 40 instruments leave 0 windows to fit on"):
        list(held_out(INDEX[: len(NAMES)], ENDS[: len(NAMES)]))


def test_windows_too_few_for_trees_to_split_are_refused_and_not_called_indistinguishable():
    rows = np.flatnonzero(INDEX.get_level_values("instrument").isin(NAMES[:10]))
    real, louder = (
        Sequences(made.bars[rows], made.last_close[rows], made.volatility[rows])
        for made in (sequences(0), sequences(1, deviation=0.05))
    )
    with pytest.raises(ValueError, match="12 dates of 10 instruments leave 25 windows to fit on"):
        discrimination(real, louder, INDEX[rows], ENDS[rows])
    with pytest.raises(ValueError, match="80 are needed"):
        learned_forecasts(louder, real, INDEX[rows], ENDS[rows])
