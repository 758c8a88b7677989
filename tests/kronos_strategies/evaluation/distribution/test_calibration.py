"""A calibrated forecast is called so at any number of samples; scores agree with sums written out."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from kronos_strategies.evaluation.distribution.calibration import (
    covered,
    crps_ensemble,
    crps_fair,
    crps_normal,
    expected_pit_std,
    min_samples_for_coverage,
    pit,
    pit_histogram,
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
    drawn, came = rng.standard_normal((ROWS, samples)), rng.standard_normal(ROWS)
    assert covered(drawn, came, level).mean() == pytest.approx(level, abs=0.02)


def test_numpys_own_quantiles_would_cover_less(rng):
    drawn, came = rng.standard_normal((ROWS, 20)), rng.standard_normal(ROWS)
    low, high = np.quantile(drawn, [0.05, 0.95], axis=1)
    assert ((low <= came) & (came <= high)).mean() < covered(drawn, came, 0.9).mean() - 0.05


@pytest.mark.parametrize(("level", "needed"), [(0.8, 9), (0.9, 19), (0.5, 3), (0.95, 39)])
def test_a_band_that_the_samples_cannot_reach_is_refused(level, needed):
    assert min_samples_for_coverage(level) == needed
    covered(np.zeros((1, needed)), np.zeros(1), level)
    with pytest.raises(ValueError, match=f"which needs {needed}"):
        covered(np.zeros((1, needed - 1)), np.zeros(1), level)


@pytest.mark.parametrize("level", [0.0, 1.0, 80.0])
def test_a_level_is_a_share(level):
    with pytest.raises(ValueError, match="level must be a nominal coverage"):
        covered(np.zeros((1, 200)), np.zeros(1), level)


def test_crps_is_the_sum_written_out(rng):
    samples, outcomes = rng.standard_normal((7, 6)), rng.standard_normal(7)
    error = np.abs(samples - outcomes[:, None]).mean(axis=1)
    spread = np.abs(samples[:, :, None] - samples[:, None]).sum(axis=(1, 2))
    assert crps_fair(samples, outcomes) == pytest.approx(error - spread / (2 * 6 * 5))
    assert crps_ensemble(samples, outcomes) == pytest.approx(error - spread / (2 * 6 * 6))


@pytest.mark.parametrize("samples", [2, 5, 20])
def test_fair_crps_does_not_know_how_many_samples_there_are(rng, samples):
    drawn, came = rng.standard_normal((ROWS, samples)), rng.standard_normal(ROWS)
    truth = 1 / math.sqrt(math.pi)  # of a perfect standard normal forecast
    assert crps_fair(drawn, came).mean() == pytest.approx(truth, abs=0.015)
    assert crps_ensemble(drawn, came).mean() == pytest.approx(truth * (1 + 1 / samples), abs=0.015)


def test_for_evenly_drawn_samples_the_truth_lies_between_the_two(rng):
    even = stats.norm.ppf((np.arange(16) + rng.random((ROWS, 16))) / 16)  # one in each 16th
    came = rng.standard_normal(ROWS)
    truth = crps_normal(np.zeros(ROWS), np.ones(ROWS), came).mean()
    assert crps_fair(even, came).mean() < truth - 0.01
    assert crps_ensemble(even, came).mean() > truth


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
