"""Joint scenarios and correlations from past closes: the paths stay, the dependence is that of the past."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.portfolio import UnsolvedError
from kronos_strategies.portfolio.dependence import joint_scenarios, past_correlations, window_returns

NAMES = ["A", "B", "C"]


def independent_paths(samples: int = 40, bars: int = 3, seed: int = 0, names: int = 3) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(0, 0.02, (names, samples, bars))
    return np.exp(steps.cumsum(axis=2)) - 1


def past(bars: int = 200, seed: int = 1) -> np.ndarray:
    """Closes of A and B, which move together, and of C, which moves against them."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 0.02, (bars, 1))
    own = rng.normal(0, 0.004, (bars, 3))
    return 50 * np.exp((common * [1, 1, -1] + own).cumsum(axis=0))


def rank_correlation(scenarios: np.ndarray) -> np.ndarray:
    return pd.DataFrame(scenarios[:, :, -1].T).rank().corr().to_numpy()


def test_the_paths_of_an_instrument_are_reordered_and_otherwise_unchanged():
    paths = independent_paths()
    made = joint_scenarios(paths, past(), NAMES)
    for before, after in zip(paths, made, strict=True):
        assert not np.array_equal(before, after)
        np.testing.assert_array_equal(
            before[np.lexsort(before.T)], after[np.lexsort(after.T)]
        )  # whole paths, each once


def test_the_ranks_of_the_scenarios_are_those_of_the_past_windows():
    paths, closes = independent_paths(samples=50), past()
    made = joint_scenarios(paths, closes, NAMES)
    chosen = np.linspace(0, len(closes) - 4, 50).round().astype(int)
    expected = pd.DataFrame(window_returns(closes, 3)[chosen]).rank().to_numpy()
    np.testing.assert_array_equal(pd.DataFrame(made[:, :, -1].T).rank().to_numpy(), expected)
    assert rank_correlation(made)[0, 1] > 0.8
    assert rank_correlation(made)[0, 2] < -0.8
    assert np.abs(rank_correlation(paths) - np.eye(3)).max() < 0.5


def test_scenarios_do_not_depend_on_the_order_of_the_instruments():
    paths, closes, order = independent_paths(), past(), [2, 0, 1]
    closes[20:60, 1] = closes[20, 1]  # windows that tie
    straight = joint_scenarios(paths, closes, NAMES)
    turned = joint_scenarios(paths[order], closes[:, order], [NAMES[i] for i in order])
    np.testing.assert_array_equal(straight[order], turned)
    np.testing.assert_array_equal(straight, joint_scenarios(paths, closes, NAMES))


def test_windows_that_tie_do_not_make_instruments_dependent():
    closes = np.ones((120, 40))
    closes[-10:] = np.random.default_rng(0).uniform(0.9, 1.1, (10, 40))  # so that not all windows tie
    names = [f"N{i}" for i in range(40)]
    made = joint_scenarios(independent_paths(60, names=40), closes, names)
    off = rank_correlation(made)[np.triu_indices(40, 1)]
    assert abs(off.mean()) < 0.1


def test_an_instrument_without_a_past_moves_with_the_mean_of_the_others():
    closes = past()
    closes[:, 2] = np.nan
    closes[-2:, 2] = 10.0  # listed two bars ago: no window
    made = joint_scenarios(independent_paths(), closes, NAMES)
    assert rank_correlation(made)[0, 2] > 0.8
    assert np.isfinite(made).all()


def test_a_window_that_an_instrument_lacks_leaves_its_other_windows_as_they_are():
    closes, cut = past(), past()
    cut[:100, 2] = np.nan
    whole, part = (joint_scenarios(independent_paths(100), each, NAMES)[2] for each in (closes, cut))
    late = np.linspace(0, len(closes) - 4, 100).round() >= 100
    ranks = [pd.Series(each[late, -1]).rank() for each in (whole, part)]
    assert np.corrcoef(*ranks)[0, 1] == pytest.approx(1.0)


def test_a_past_shorter_than_the_paths_repeats_its_windows():
    made = joint_scenarios(independent_paths(100), past(40), NAMES)
    assert rank_correlation(made)[0, 1] > 0.7


def test_too_short_a_past_has_no_scenarios():
    with pytest.raises(
        UnsolvedError, match=r"need 20 past windows of 3 bars, and 22 bars before the date have 19"
    ):
        joint_scenarios(independent_paths(), past(22), NAMES)


def test_correlations_are_halfway_between_those_of_the_past_and_the_assumed_one():
    closes = past(400)
    expected = np.corrcoef(np.diff(np.log(closes), axis=0).T)
    found = past_correlations(closes, 0.3)
    np.testing.assert_allclose(found[0, 1], (expected[0, 1] + 0.3) / 2, atol=1e-12)
    np.testing.assert_array_equal(np.diag(found), 1.0)
    assert np.linalg.eigvalsh(found)[0] > 0


def test_a_missing_bar_is_a_return_of_zero_in_the_correlations():
    closes = past(60)
    filled, missing = closes.copy(), closes.copy()
    filled[30:33, 1] = closes[29, 1]
    missing[30:33, 1] = np.nan
    np.testing.assert_array_equal(past_correlations(filled, 0.3), past_correlations(missing, 0.3))
