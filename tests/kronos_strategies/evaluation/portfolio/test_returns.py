"""Returns compound from 1, a loss on the first bar counts, and what is undefined is NaN."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronos_strategies.evaluation.portfolio.returns import annual_return, drawdowns, max_drawdown, sharpe

NONE = pd.Series([], dtype=float)
streams = st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=40).map(lambda values: pd.Series(values))


def test_a_year_of_bars_earns_its_own_compound_return():
    assert annual_return(pd.Series([0.1, -0.05, 0.2]), bars_per_year=3) == pytest.approx(1.1 * 0.95 * 1.2 - 1)


def test_half_a_year_is_squared_and_two_years_are_rooted():
    returns = pd.Series([0.1, 0.1])
    assert annual_return(returns, bars_per_year=4) == pytest.approx(1.1**4 - 1)
    assert annual_return(returns, bars_per_year=1) == pytest.approx(0.1)


def test_a_year_has_252_bars_unless_told():
    returns = pd.Series(np.random.default_rng(0).normal(0, 0.01, 100))
    assert annual_return(returns) == annual_return(returns, 252) != annual_return(returns, 238)
    assert sharpe(returns) == sharpe(returns, 252) != sharpe(returns, 238)


def test_a_total_loss_stays_one():
    returns = pd.Series([0.1, -1.0, 0.5])
    assert annual_return(returns) == -1.0
    assert max_drawdown(returns) == -1.0


@pytest.mark.parametrize("returns", [[-1.5, 0.1, 0.1], [-1.5, -1.5, 0.1]])
def test_more_than_all_lost_is_a_total_loss(returns):
    assert annual_return(pd.Series(returns), bars_per_year=2) == -1.0


def test_sharpe_is_mean_over_deviation_times_root_of_bars():
    returns = pd.Series([0.01, -0.02, 0.03, 0.005])
    by_hand = 0.00625 / math.sqrt(sum((r - 0.00625) ** 2 for r in returns) / 3) * 2
    assert sharpe(returns, bars_per_year=4) == pytest.approx(by_hand)


@pytest.mark.parametrize("level", [0.0, 0.001, -0.1, 1e-20])
@pytest.mark.parametrize("bars", [1, 2, 7, 252])
def test_constant_returns_have_no_sharpe(level, bars):
    assert math.isnan(sharpe(pd.Series([level] * bars)))


def test_leverage_leaves_sharpe_alone():
    returns = pd.Series(np.random.default_rng(0).normal(0.001, 0.01, 50))
    assert sharpe(3e-6 * returns) == pytest.approx(sharpe(returns))
    assert sharpe(-returns) == pytest.approx(-sharpe(returns))


def test_a_loss_on_the_first_bar_counts():
    assert max_drawdown(pd.Series([-0.1, 0.02, 0.01])) == pytest.approx(-0.1)
    np.testing.assert_allclose(drawdowns(pd.Series([-0.1, 0.02, 0.01])), [-0.1, 0.918 - 1, 0.92718 - 1])


def test_drawdowns_compound():
    assert max_drawdown(pd.Series([0.5, -0.1, -0.1, 0.3])) == pytest.approx(0.9 * 0.9 - 1)  # summed: -0.2


@given(streams)
def test_max_drawdown_is_the_worst_of_all_pairs_of_bars(returns):
    wealth = [1.0, *(1 + returns).cumprod()]
    worst = min(later / earlier - 1 for i, earlier in enumerate(wealth) for later in wealth[i:])
    assert max_drawdown(returns) == pytest.approx(worst)


@given(streams)
def test_drawdowns_lie_between_a_total_loss_and_none(returns):
    below = drawdowns(returns)
    assert below.index.equals(returns.index)
    assert below.between(-1, 0).all()


def test_a_book_that_only_rises_never_falls():
    assert max_drawdown(pd.Series([0.01, 0.0, 0.02])) == 0.0


@pytest.mark.parametrize("figure", [annual_return, sharpe, max_drawdown])
def test_no_returns_give_no_figure(figure):
    assert math.isnan(figure(NONE))


@pytest.mark.parametrize("figure", [annual_return, sharpe, max_drawdown])
def test_a_bar_without_a_return_is_left_out(figure):
    returns = pd.Series([0.01, -0.02, 0.03, -0.01])
    gapped = pd.Series([0.01, np.nan, -0.02, 0.03, np.nan, -0.01])
    assert figure(gapped) == pytest.approx(figure(returns))
