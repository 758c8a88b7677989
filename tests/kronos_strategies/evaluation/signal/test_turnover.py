"""Turnover and autocorrelation of a score agree with alphalens and say undefined on a first date."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.signal.evaluation import rank_autocorrelation, top_turnover
from kronos_strategies.evaluation.signal.metrics import assign_quantiles


@pytest.fixture
def score() -> np.ndarray:
    """12 dates x 50 names that remember half of themselves."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((12, 50))
    for date in range(1, 12):
        values[date] += 0.8 * values[date - 1]
    return values


@pytest.fixture
def alphalens_data(score) -> pd.DataFrame:
    index = pd.MultiIndex.from_product(
        [pd.date_range("2024-01-01", periods=12, freq="D"), range(50)], names=["date", "asset"]
    )
    return pd.DataFrame(
        {"factor": score.ravel(), "factor_quantile": assign_quantiles(score, 5).ravel()}, index
    )


def test_turnover_agrees_with_alphalens(score, alphalens_data):
    performance = pytest.importorskip("alphalens.performance")
    expected = performance.quantile_turnover(alphalens_data["factor_quantile"], 5, 1)
    np.testing.assert_allclose(top_turnover(score, 5), expected.reindex(alphalens_data.index.levels[0]))


def test_autocorrelation_agrees_with_alphalens(score, alphalens_data):
    performance = pytest.importorskip("alphalens.performance")
    expected = performance.factor_rank_autocorrelation(alphalens_data, 1)
    np.testing.assert_allclose(rank_autocorrelation(score), expected, atol=1e-12)


def test_a_score_that_stays_is_never_traded(score):
    still = np.repeat(score[:1], 12, axis=0)
    np.testing.assert_array_equal(top_turnover(still, 5), [np.nan] + [0.0] * 11)
    np.testing.assert_allclose(rank_autocorrelation(still)[1:], 1)


def test_a_score_that_turns_over_is_traded_in_full(score):
    turned = np.repeat(score[:1], 2, axis=0) * [[1], [-1]]
    assert top_turnover(turned, 5)[1] == 1
    assert rank_autocorrelation(turned)[1] == pytest.approx(-1)


def test_an_instrument_new_to_the_universe_is_new_to_the_top(score):
    still = np.repeat(score[:1], 2, axis=0)
    still[0, score[0].argmax()] = np.nan
    assert top_turnover(still, 5)[1] > 0
    assert rank_autocorrelation(still)[1] == pytest.approx(1)  # names that have both say nothing of it


def test_dates_without_a_top_are_undefined_and_so_is_the_date_after(score):
    score[4], score[8, 9:] = 1.0, np.nan
    undefined = [0, 4, 5, 8, 9]
    assert list(np.flatnonzero(np.isnan(top_turnover(score, 5)))) == undefined
    assert list(np.flatnonzero(np.isnan(rank_autocorrelation(score)))) == undefined


@pytest.mark.parametrize("dates", [0, 1])
def test_a_single_date_has_none_before_it(score, dates):
    assert len(top_turnover(score[:dates], 5)) == len(rank_autocorrelation(score[:dates])) == dates
    assert np.isnan(top_turnover(score[:dates], 5)).all()
    assert np.isnan(rank_autocorrelation(score[:dates])).all()
