"""Variances by hand, range estimators on simulated bars, and a loss that is lowest at the truth."""

import math

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.distribution.volatility import (
    garman_klass,
    overnight,
    qlike,
    realized_variance,
    sampled_variance,
    score_variance,
)

DAYS = pd.bdate_range("2024-01-01", periods=6)


def wide(*names: list[float]) -> pd.DataFrame:
    """One column a name."""
    return pd.DataFrame(dict(enumerate(names)), index=DAYS[: len(names[0])], dtype=float)


def test_realized_variance_sums_the_squared_log_returns_that_follow():
    closes = wide([10, 11, 12, 9, 9.5, 10])
    steps = np.log([11 / 10, 12 / 11, 9 / 12, 9.5 / 9, 10 / 9.5]) ** 2
    expected = [steps[:2].sum(), steps[1:3].sum(), steps[2:4].sum(), steps[3:5].sum(), np.nan, np.nan]
    np.testing.assert_allclose(realized_variance(closes, 2)[0], expected)


def test_a_move_over_a_suspension_counts_once_on_the_day_that_trading_resumes():
    closes = wide([10, np.nan, np.nan, 12, 12.5, 13])
    found = realized_variance(closes, 3)[0]
    assert found.iloc[0] == pytest.approx(math.log(1.2) ** 2)
    assert found.iloc[1:3].isna().all()  # no trade, so no forecast either


@pytest.mark.parametrize("missing", [1, 3])
def test_without_a_trade_on_both_ends_there_is_no_realized_variance(missing):
    closes = wide([10, 11, 12, 9, 9.5, 10])
    closes.iloc[missing] = np.nan
    assert math.isnan(realized_variance(closes, 2)[0].iloc[1])


def test_an_unchanged_price_has_no_variance_however_its_adjustment_is_rounded():
    closes = wide([0.1 + 0.2, 0.3, 0.3 * (1 + 1e-15), 0.3])
    assert (realized_variance(closes, 1)[0].iloc[:3] == 0).all()


def test_no_realized_variance_uses_bars_beyond_its_horizon():
    closes = wide([10, 11, 12, 9, 9.5, 10])
    scrambled = closes.copy()
    scrambled.iloc[4:] *= 3
    pd.testing.assert_frame_equal(
        realized_variance(closes, 2).iloc[:2], realized_variance(scrambled, 2).iloc[:2]
    )


def test_range_estimators_by_hand():
    open_, high, low, close = wide([10]), wide([12]), wide([9]), wide([11])
    across, along = math.log(12 / 9), math.log(11 / 10)
    expected = across**2 / 2 - (2 * math.log(2) - 1) * along**2
    assert garman_klass(open_, high, low, close).iloc[0, 0] == pytest.approx(expected)


def test_range_estimators_find_the_variance_of_simulated_bars_with_less_noise_than_closes():
    steps = np.random.default_rng(0).normal(0, 0.02 / math.sqrt(2000), (2000, 1500))
    path = np.vstack([np.zeros(1500), steps.cumsum(axis=0)])
    open_, high, low, close = (
        pd.DataFrame(np.exp(row)[None]) for row in (path[0], path.max(axis=0), path.min(axis=0), path[-1])
    )
    squared = np.log(close / open_).to_numpy() ** 2
    for estimate in (garman_klass(open_, high, low, close),):
        assert estimate.to_numpy().mean() == pytest.approx(0.02**2, rel=0.05)
        assert estimate.to_numpy().std() < 0.6 * squared.std()


def test_the_gap_is_from_the_last_traded_close():
    close, open_ = wide([10, np.nan, 11]), wide([10, np.nan, 12])
    gaps = overnight(open_, close)[0]
    assert gaps.iloc[2] == pytest.approx(math.log(1.2) ** 2)
    assert gaps.iloc[:2].isna().all()


def test_sampled_variance_is_of_each_path_and_never_of_their_average():
    closes = np.array([[[11, 10, 99], [9, 10, 99]]], dtype=np.float32)  # 2 paths whose average never moves
    up, down = math.log(1.1) ** 2, math.log(0.9) ** 2
    assert sampled_variance(closes, np.array([10.0]), 1) == pytest.approx([(up + down) / 2])
    assert sampled_variance(closes, np.array([10.0]), 2) == pytest.approx([up + down])


def test_sampled_variance_of_a_random_walk_is_its_variance():
    steps = np.random.default_rng(0).normal(0, 0.02, (3, 20000, 5))
    closes = 7 * np.exp(steps.cumsum(axis=2))
    assert sampled_variance(closes, np.full(3, 7.0), 4) == pytest.approx(4 * 0.02**2, rel=0.02)


@pytest.mark.parametrize("horizon", [0, 4])
def test_a_horizon_beyond_the_paths_is_refused(horizon):
    with pytest.raises(ValueError, match=f"horizon={horizon}"):
        sampled_variance(np.ones((1, 2, 3)), np.ones(1), horizon)


def test_qlike_by_hand():
    assert qlike(np.array([2.0, 1.0]), np.array([1.0, 1.0])) == pytest.approx([1 - math.log(2), 0])


def test_qlike_is_lowest_at_the_true_variance_however_noisy_the_proxy():
    realized = 4e-4 * np.random.default_rng(0).chisquare(1, 200000)
    losses = {scale: qlike(realized, np.full(1, 4e-4 * scale)).mean() for scale in (0.5, 0.9, 1.0, 1.1, 2.0)}
    assert min(losses, key=losses.__getitem__) == 1.0
    assert losses[0.5] > losses[2.0]  # too calm is punished harder


@pytest.mark.parametrize(
    "pair", [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (1.0, -1.0), (np.nan, 1.0), (1.0, np.nan)]
)
def test_qlike_of_what_is_not_positive_is_undefined(pair):
    assert np.isnan(qlike(np.array([pair[0]]), np.array([pair[1]]))).all()


def test_pairs_that_are_not_positive_are_dropped_from_qlike_and_counted():
    realized, forecast = np.array([4.0, 0.0, np.nan, 1.0]), np.array([1.0, 1.0, 1.0, np.nan])
    found = score_variance(realized, forecast)
    assert (found.pairs, found.dropped) == (2, 1)
    assert found.qlike == pytest.approx(4 - math.log(4) - 1)
    assert found.mae == pytest.approx((1 + 1) / 2)
    assert found.r2 == pytest.approx(1 - 2 / 2)  # roots 2, 0 against 1, 1


def test_a_perfect_forecast_loses_nothing():
    realized = np.random.default_rng(0).chisquare(3, (20, 5))
    found = score_variance(realized, realized)
    assert (found.qlike, found.mae, found.r2) == pytest.approx((0, 0, 1))


def test_without_pairs_there_is_no_score():
    found = score_variance(np.array([np.nan]), np.array([1.0]))
    assert found.pairs == found.dropped == 0
    assert all(math.isnan(figure) for figure in (found.qlike, found.mae, found.r2))
