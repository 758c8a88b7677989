"""PSR and DSR are those of the papers, and the interval has its nominal coverage."""

import math

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("arch")
pytest.importorskip("empyrical")

from kronos_strategies.evaluation.portfolio.returns import sharpe
from kronos_strategies.evaluation.portfolio.sharpe import (
    bootstrap_interval,
    expected_max_sharpe,
    infer_sharpe,
    probabilistic_sharpe,
    sharpe_block_length,
)


def drawn(seed: int, bars: int = 500, ratio: float = 0.06) -> pd.Series:
    """Independent, heavy-tailed, with that true ratio a bar."""
    shocks = np.random.default_rng(seed).standard_t(5, bars) / math.sqrt(5 / 3)
    return pd.Series(0.01 * (ratio + shocks))


def test_psr_by_hand():
    returns = pd.Series([0.02, -0.01, 0.03, 0.0])  # .01 and twice +-.01, +-.02: no skewness, kurtosis 1.36
    ratio = 0.01 / math.sqrt(1e-3 / 3)
    z = ratio * math.sqrt(3) / math.sqrt(1 + 0.36 / 4 * ratio**2)
    assert probabilistic_sharpe(returns) == pytest.approx(0.5 * (1 + math.erf(z / math.sqrt(2))))


@pytest.mark.parametrize("threshold", [0.0, 0.05, -0.1])
def test_psr_is_that_of_skfolio(threshold):
    measures = pytest.importorskip("skfolio.measures")
    returns = drawn(0)
    theirs = measures.probabilistic_sharpe_ratio(returns.to_numpy(), benchmark_sharpe_ratio=threshold)
    assert probabilistic_sharpe(returns, threshold) == pytest.approx(theirs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_psr_is_nearly_that_of_quantstats_which_corrects_moments_for_bias():
    theirs = pytest.importorskip("quantstats").stats.probabilistic_sharpe_ratio(drawn(0))
    assert probabilistic_sharpe(drawn(0)) == pytest.approx(theirs, abs=1e-4)


def test_dsr_of_known_trials_is_that_of_skfolio():
    measures = pytest.importorskip("skfolio.measures")
    trials = [drawn(seed, ratio=0.0) for seed in range(20)]
    ratios = np.array([sharpe(trial, bars_per_year=1) for trial in trials])
    best = trials[ratios.argmax()]
    ours = probabilistic_sharpe(best, expected_max_sharpe(len(ratios), ratios.std(ddof=1)))
    assert ours == pytest.approx(measures.deflated_sharpe_ratio(best.to_numpy(), ratios))
    known = infer_sharpe(best, trials=len(ratios), trials_deviation=float(ratios.std(ddof=1)))
    assert known.dsr == pytest.approx(ours)


@pytest.mark.parametrize("trials", [10, 100, 1000])
def test_the_expected_maximum_is_the_mean_of_simulated_maxima(trials):
    rng = np.random.default_rng(trials)
    best = np.mean([rng.standard_normal(trials).max() for _ in range(4000)])
    assert expected_max_sharpe(trials, 0.5) == pytest.approx(0.5 * best, abs=0.03)


def test_the_best_of_many_without_skill_is_not_significant_once_deflated():
    trials = np.random.default_rng(0).normal(0, 0.01, (25, 60, 250))
    ratios = trials.mean(axis=2) / trials.std(axis=2)
    best = [pd.Series(of[place]) for of, place in zip(trials, ratios.argmax(axis=1), strict=True)]
    studies = [infer_sharpe(returns, trials=60) for returns in best]
    assert np.mean([study.psr > 0.95 for study in studies]) > 0.9  # who sees only the best is fooled
    assert np.mean([study.dsr > 0.95 for study in studies]) < 0.1
    assert np.median([study.dsr for study in studies]) == pytest.approx(0.5, abs=0.15)


def test_one_trial_is_not_deflated_and_more_are_deflated_more():
    studies = [infer_sharpe(drawn(0), trials=trials) for trials in (1, 2, 20)]
    assert studies[0].dsr == studies[0].psr
    assert studies[0].dsr > studies[1].dsr > studies[2].dsr
    assert [study.trials for study in studies] == [1, 2, 20]


@pytest.mark.parametrize("trials", [0, -3])
def test_no_trial_at_all_is_refused(trials):
    with pytest.raises(ValueError, match=f"trials must be at least 1, .* got {trials}"):
        infer_sharpe(pd.Series([], dtype=float), trials=trials)


def test_the_interval_covers_the_truth_95_times_of_100():
    held = []
    for seed in range(200):
        returns = drawn(seed, bars=250)
        low, high = bootstrap_interval(returns, sharpe_block_length(returns), seed, replications=400)
        held.append(low <= 0.06 <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.035)  # 2.3 standard errors


def test_the_interval_of_returns_that_persist_is_wider():
    shocks = np.random.default_rng(0).normal(0, 0.01, 1002)
    persistent = pd.Series(shocks[2:] + shocks[1:-1] + shocks[:-2])
    shuffled = persistent.sample(frac=1, random_state=0)
    widths = [np.diff(interval(returns))[0] for returns in (persistent, shuffled)]
    assert widths[0] > 1.2 * widths[1]  # 1.6 of the long run
    assert sharpe_block_length(persistent) > sharpe_block_length(shuffled)


def interval(returns: pd.Series) -> np.ndarray:
    return bootstrap_interval(returns, sharpe_block_length(returns), seed=0)


def test_the_interval_is_annualized_as_the_ratio_is():
    study = infer_sharpe(drawn(0), bars_per_year=100)
    np.testing.assert_allclose([study.low, study.high], 10 * interval(drawn(0)))
    assert study.sharpe == sharpe(drawn(0), 100)
    assert study.low < study.sharpe < study.high


def test_equal_seeds_give_equal_studies_and_others_nearly():
    assert infer_sharpe(drawn(0), seed=3) == infer_sharpe(drawn(0), seed=3)
    one, other = infer_sharpe(drawn(0), seed=3), infer_sharpe(drawn(0), seed=4)
    assert one.low != other.low == pytest.approx(one.low, abs=0.2)


def test_blocks_are_at_least_a_bar_and_at_most_a_fifth():
    independent = [sharpe_block_length(drawn(seed, ratio=0)) for seed in range(20)]
    assert min(independent) == 1
    assert sharpe_block_length(pd.Series(np.linspace(-1, 1, 30))) == 6
    assert sharpe_block_length(pd.Series([0.1, -0.1, 0.2])) == 1


def test_bars_without_a_return_are_left_out():
    gapped = drawn(0).reindex(range(-3, 500)).replace({drawn(0)[7]: np.inf})
    assert infer_sharpe(gapped) == infer_sharpe(drawn(0).drop(7))


@pytest.mark.parametrize("values", [[], [0.1], [0.1, -0.1], [0.001] * 50, [0.0] * 3, [np.nan] * 9])
def test_too_few_bars_or_constant_ones_have_nothing_but_their_trials(values):
    study = infer_sharpe(pd.Series(values, dtype=float), trials=4)
    figures = (study.sharpe, study.low, study.high, study.block, study.psr, study.dsr)
    assert all(map(math.isnan, figures))
    assert study.trials == 4
    assert math.isnan(probabilistic_sharpe(pd.Series(values, dtype=float)))


def test_a_single_bar_that_earns_has_a_ratio_but_no_interval():
    study = infer_sharpe(pd.Series([0.0] * 20 + [0.1]))  # a third of the replications earn nothing
    assert study.sharpe > 0
    assert math.isnan(study.low)
    assert math.isnan(study.high)
