"""Ranks of rows are those of pandas to the bit, on any number of threads."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from kronos_strategies.evaluation import ranks
from kronos_strategies.evaluation.ranks import CELLS, average_ranks

numbers = st.floats(-1e308, 1e308) | st.sampled_from([0.0, -0.0, 1.0, 1 + 1e-15, 5e-324, np.nan])


@given(arrays(float, array_shapes(min_dims=2, max_dims=2, max_side=30), elements=numbers))
def test_ranks_are_those_of_pandas(values):
    np.testing.assert_array_equal(average_ranks(values), pd.DataFrame(values).rank(axis=1).to_numpy())


@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (2, CELLS + 3)], ids=str)
def test_panels_of_any_shape_have_ranks(shape):
    values = np.random.default_rng(0).standard_normal(shape).round(1)
    np.testing.assert_array_equal(average_ranks(values), pd.DataFrame(values).rank(axis=1).to_numpy())


def test_threads_change_nothing(monkeypatch):
    values = np.random.default_rng(0).standard_normal((400, 90)).round(1)
    values[values > 1] = np.nan
    whole = average_ranks(values)
    monkeypatch.setattr(ranks, "CELLS", 180)
    monkeypatch.setattr(ranks, "usable_cpus", lambda: 4)
    np.testing.assert_array_equal(average_ranks(values), whole)


def test_an_error_on_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(ranks, "CELLS", 1)
    monkeypatch.setattr(ranks, "usable_cpus", lambda: 4)

    def work(block):
        raise ZeroDivisionError(block)

    with pytest.raises(ZeroDivisionError):
        ranks.by_blocks(work, 1000, 1)
