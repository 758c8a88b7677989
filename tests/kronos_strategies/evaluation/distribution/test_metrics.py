"""A calibrated forecast is called so at any number of samples; scores agree with sums written out."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from kronos_strategies.evaluation.distribution.metrics import (
    covered,
    crps_ensemble,
    crps_fair,
    crps_normal,
    expected_pit_std,
    garman_klass,
    min_samples_for_coverage,
    overnight,
    pit,
    pit_histogram,
    qlike,
    realized_variance,
    sampled_variance,
    score_variance,
)

ROWS = 20000


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_pit_counts_what_is_below_and_half_of_what_is_equal():
    samples = np.array([[1.0, 2.0, 2.0, 5.0]] * 4)
    assert pit(samples, np.array([0.0, 2.0, 3.0, 6.0])) == pytest.approx([0, 0.5, 0.75, 1])


@pytest.mark.parametrize("count", [1, 4, 9, 10, 37])
def test_shares_of_a_calibrated_forecast_are_equal_at_any_number_of_samples(rng, count):
    ranks = pit(rng.standard_normal((ROWS, count)), rng.standard_normal(ROWS))
    for bins in (4, 10):
        assert pit_histogram(ranks, count, bins) == pytest.approx(
            np.full(bins, 1 / bins), abs=4 / ROWS**0.5 / 2
        )


@pytest.mark.parametrize("count", [2, 10, 37])
def test_the_deviation_of_a_calibrated_pit_depends_on_the_number_of_samples(rng, count):
    ranks = pit(rng.standard_normal((ROWS, count)), rng.standard_normal(ROWS))
    assert expected_pit_std(count) == pytest.approx(ranks.std(), abs=0.005)
    assert expected_pit_std(count) == pytest.approx(np.std(np.arange(count + 1) / count))


def test_shares_of_a_narrow_forecast_lie_at_both_ends(rng):
    ranks = pit(0.3 * rng.standard_normal((ROWS, 20)), rng.standard_normal(ROWS))
    shares = pit_histogram(ranks, 20, 10)
    assert shares.sum() == pytest.approx(1)
    assert min(shares[0], shares[-1]) > 3 * shares[1:-1].max()


def test_shares_leave_out_what_is_missing_and_are_missing_without_any():
    assert pit_histogram(np.array([0.0, np.nan]), 1, 2) == pytest.approx([1.0, 0.0])
    assert np.isnan(pit_histogram(np.array([np.nan]), 1, 2)).all()


def test_pit_of_a_calibrated_forecast_is_uniform(rng):
    ranks = pit(rng.standard_normal((ROWS // 4, 200)), rng.standard_normal(ROWS // 4))
    assert stats.kstest(ranks, "uniform").statistic < 0.03
    narrow = pit(0.5 * rng.standard_normal((ROWS // 4, 200)), rng.standard_normal(ROWS // 4))
    assert narrow.std() > 1.2 * ranks.std()


@pytest.mark.parametrize(("samples", "level"), [(9, 0.8), (10, 0.8), (19, 0.9), (20, 0.9), (20, 0.5)])
def test_a_band_covers_its_level_at_few_samples(rng, samples, level):
    drawn, observed = rng.standard_normal((ROWS, samples)), rng.standard_normal(ROWS)
    assert covered(drawn, observed, level).mean() == pytest.approx(level, abs=0.02)


def test_numpys_own_quantiles_would_cover_less(rng):
    drawn, observed = rng.standard_normal((ROWS, 20)), rng.standard_normal(ROWS)
    low, high = np.quantile(drawn, [0.05, 0.95], axis=1)
    assert ((low <= observed) & (observed <= high)).mean() < covered(drawn, observed, 0.9).mean() - 0.05


@pytest.mark.parametrize(("level", "needed"), [(0.8, 9), (0.9, 19), (0.5, 3), (0.95, 39)])
def test_a_band_that_the_samples_cannot_reach_is_refused(level, needed):
    assert min_samples_for_coverage(level) == needed
    covered(np.zeros((1, needed)), np.zeros(1), level)
    with pytest.raises(ValueError, match=f"which needs {needed}"):
        covered(np.zeros((1, needed - 1)), np.zeros(1), level)


@pytest.mark.parametrize("level", [0.0, 1.0, 80.0])
def test_a_level_outside_of_0_to_1_is_refused(level):
    with pytest.raises(ValueError, match="level must be a nominal coverage"):
        covered(np.zeros((1, 200)), np.zeros(1), level)


def test_crps_is_the_sum_written_out(rng):
    samples, outcomes = rng.standard_normal((7, 6)), rng.standard_normal(7)
    error = np.abs(samples - outcomes[:, None]).mean(axis=1)
    spread = np.abs(samples[:, :, None] - samples[:, None]).sum(axis=(1, 2))
    assert crps_fair(samples, outcomes) == pytest.approx(error - spread / (2 * 6 * 5))
    assert crps_ensemble(samples, outcomes) == pytest.approx(error - spread / (2 * 6 * 6))


@pytest.mark.parametrize("samples", [2, 5, 20])
def test_fair_crps_does_not_depend_on_the_number_of_samples(rng, samples):
    drawn, observed = rng.standard_normal((ROWS, samples)), rng.standard_normal(ROWS)
    truth = 1 / math.sqrt(math.pi)  # of a perfect standard normal forecast
    assert crps_fair(drawn, observed).mean() == pytest.approx(truth, abs=0.015)
    assert crps_ensemble(drawn, observed).mean() == pytest.approx(truth * (1 + 1 / samples), abs=0.015)


def test_for_evenly_drawn_samples_the_truth_lies_between_the_two(rng):
    even = stats.norm.ppf((np.arange(16) + rng.random((ROWS, 16))) / 16)  # one in each 16th
    observed = rng.standard_normal(ROWS)
    truth = crps_normal(np.zeros(ROWS), np.ones(ROWS), observed).mean()
    assert crps_fair(even, observed).mean() < truth - 0.01
    assert crps_ensemble(even, observed).mean() > truth


def test_normal_crps_is_its_integral():
    def squared(x: float) -> float:
        return (stats.norm.cdf(x, 0.3, 2) - (x >= 1.1)) ** 2

    expected = integrate.quad(squared, -30, 1.1)[0] + integrate.quad(squared, 1.1, 30)[0]
    assert crps_normal(np.array([0.3]), np.array([2.0]), np.array([1.1])) == pytest.approx([expected])


@pytest.mark.parametrize("deviation", [0.0, np.nan])
def test_a_normal_without_deviation_has_no_crps(deviation):
    assert np.isnan(crps_normal(np.zeros(1), np.array([deviation]), np.ones(1))).all()


@pytest.mark.parametrize("score", [pit, crps_fair, crps_ensemble, lambda x, y: covered(x, y, 0.5)])
def test_a_row_with_something_missing_is_undefined_and_leaves_the_others_alone(rng, score):
    samples, outcomes = rng.standard_normal((5, 8)), rng.standard_normal(5)
    whole = score(samples, outcomes)
    samples[1, 3], outcomes[4] = np.nan, np.nan
    found = score(samples, outcomes)
    assert np.isnan(found[[1, 4]]).all()
    np.testing.assert_array_equal(found[[0, 2, 3]], whole[[0, 2, 3]])
    assert np.isnan(score(samples[:0], outcomes[:0])).all()


def test_one_sample_is_not_a_distribution():
    with pytest.raises(ValueError, match="at least 2 samples"):
        crps_fair(np.zeros((3, 1)), np.zeros(3))


@pytest.mark.parametrize("shapes", [((3, 4), (4,)), ((3,), (3,)), ((3, 4), (3, 1))])
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match="do not match"):
        pit(*map(np.zeros, shapes))


DAYS = pd.bdate_range("2024-01-01", periods=6)


def wide(*names: list[float]) -> pd.DataFrame:
    """One column per instrument."""
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
