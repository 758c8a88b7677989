"""The model confidence set keeps what may be the best, and lets go of what is far worse."""

import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import MCS

from kronos_strategies.evaluation.versions.mcs import block_length, confidence_p


def losses(*means: float, dates: int = 300, seed: int = 1) -> pd.DataFrame:
    """Columns a, b, ... of those means, noise that is shared and noise of their own."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((dates, 1))
    values = np.array(means) + shared + 0.5 * rng.standard_normal((dates, len(means)))
    return pd.DataFrame(values, columns=list("abcdef")[: len(means)])


def test_the_best_stays_a_far_worse_one_goes_and_a_twin_cannot_be_told_from_the_best():
    p = confidence_p(losses(0.0, 0.01, 0.5), 1, 0)
    assert (p[["a", "b"]] > 0.1).all()
    assert p["c"] < 0.01


def test_it_is_that_of_arch():
    given = losses(0.0, 0.06, 0.1)
    test = MCS(given.to_numpy(), 0.1, 1000, 10, "R", "stationary", seed=3)
    test.compute()
    expected = test.pvalues["Pvalue"].sort_index()
    assert 0 < expected.min() < 0.99
    np.testing.assert_array_equal(confidence_p(given, 5, 3), expected)


def test_the_better_of_two_equal_versions_is_thrown_out_seldom():
    out = [(confidence_p(losses(0.0, 0.0, dates=120, seed=seed), 1, 0) <= 0.1).any() for seed in range(60)]
    assert np.mean(out) < 0.25  # 10 % in large samples


def test_equal_columns_share_a_p_and_change_no_others():
    given = losses(0.0, 0.5, 0.02)
    twice = given.assign(d=given["a"], e=given["b"] * (1 + 1e-16), f=given["b"])[list("fedcba")]
    p, alone = confidence_p(twice, 1, 0), confidence_p(given, 1, 0)
    assert p["a"] == p["d"]
    assert p["b"] == p["e"] == p["f"]
    assert p[["a", "c"]].tolist() == alone[["a", "c"]].tolist()
    assert (confidence_p(given[["a"]].assign(b=given["a"]), 1, 0) == 1.0).all()


def test_a_constant_difference_is_certain(recwarn):
    given = losses(0.0, 1.0)
    p = confidence_p(given.assign(b=given["a"] + 1), 1, 0)
    assert (p["a"], p["b"]) == (1.0, 0.0)
    exact = pd.DataFrame({"a": np.zeros(100), "b": np.ones(100)})
    assert confidence_p(exact, 1, 0).tolist() == [1.0, 0.0]
    assert not recwarn


def test_dates_that_one_lacks_are_left_out():
    given = losses(0.0, 0.1)
    holes = pd.concat([given.iloc[:100], given.iloc[100:110].assign(b=np.nan), given.iloc[100:]])
    pd.testing.assert_series_equal(confidence_p(holes, 1, 0), confidence_p(given, 1, 0))


def test_order_is_no_matter_and_equal_seeds_give_equal_p():
    given = losses(0.0, 0.05, 0.06, 0.2)
    p = confidence_p(given, 3, 7)
    pd.testing.assert_series_equal(confidence_p(given[list("cadb")], 3, 7), p[list("cadb")])


@pytest.mark.parametrize(("dates", "overlap"), [(0, 1), (7, 1), (79, 10)])
def test_fewer_than_four_blocks_make_no_set(dates, overlap):
    assert confidence_p(losses(0.0, 1.0, dates=dates), overlap, 0).isna().all()


def test_a_block_is_twice_the_label_or_more():
    assert [block_length(dates, overlap) for dates, overlap in ((100, 1), (1000, 1), (1000, 20))] == [
        5,
        10,
        40,
    ]
