"""Returns compound from 1, a loss on the first bar counts, and what is undefined is NaN."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("empyrical")

from kronos_strategies.evaluation.portfolio.returns import (
    annual_return,
    calmar,
    drawdowns,
    max_drawdown,
    sharpe,
    sortino,
    volatility,
)

NONE = pd.Series([], dtype=float)
FIGURES = (annual_return, volatility, sharpe, sortino, calmar, max_drawdown)
YEARLY = FIGURES[:-1]
streams = st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=40).map(lambda values: pd.Series(values))


def drawn(bars: int = 600, seed: int = 0) -> pd.Series:
    """A first bar of -5 % before 0.05 +- 1 %."""
    returns = np.random.default_rng(seed).normal(0.0005, 0.01, bars)
    returns[0] = -0.05
    return pd.Series(returns, pd.bdate_range("2020-01-01", periods=bars))


def test_a_year_of_bars_earns_its_own_compound_return():
    assert annual_return(pd.Series([0.1, -0.05, 0.2]), bars_per_year=3) == pytest.approx(1.1 * 0.95 * 1.2 - 1)


def test_half_a_year_is_squared_and_two_years_are_rooted():
    returns = pd.Series([0.1, 0.1])
    assert annual_return(returns, bars_per_year=4) == pytest.approx(1.1**4 - 1)
    assert annual_return(returns, bars_per_year=1) == pytest.approx(0.1)


@pytest.mark.parametrize("figure", YEARLY)
def test_a_year_has_252_bars_unless_told(figure):
    assert figure(drawn()) == figure(drawn(), 252) != figure(drawn(), 238)


def test_a_total_loss_stays_one():
    returns = pd.Series([0.1, -1.0, 0.5])
    assert annual_return(returns) == -1.0
    assert max_drawdown(returns) == -1.0
    assert calmar(returns) == -1.0


@pytest.mark.parametrize("returns", [[-1.5, 0.1, 0.1], [-1.5, -1.5, 0.1]])
def test_more_than_all_lost_is_a_total_loss(returns):
    assert annual_return(pd.Series(returns), bars_per_year=2) == -1.0
    assert drawdowns(pd.Series(returns)).tolist() == [-1.0, -1.0, -1.0]


def test_sharpe_is_mean_over_deviation_times_root_of_bars():
    returns = pd.Series([0.01, -0.02, 0.03, 0.005])
    deviation = math.sqrt(sum((r - 0.00625) ** 2 for r in returns) / 3)
    assert sharpe(returns, bars_per_year=4) == pytest.approx(0.00625 / deviation * 2)
    assert volatility(returns, bars_per_year=4) == pytest.approx(deviation * 2)


def test_sortino_divides_by_losses_over_all_bars():
    returns = pd.Series([0.01, -0.02, 0.03, 0.005])
    assert sortino(returns, bars_per_year=4) == pytest.approx(0.00625 / math.sqrt(0.02**2 / 4) * 2)


def test_calmar_is_growth_over_the_deepest_fall():
    returns = pd.Series([0.01, -0.02, 0.03, 0.005])
    assert calmar(returns, bars_per_year=4) == pytest.approx((1.01 * 0.98 * 1.03 * 1.005 - 1) / 0.02)


def test_what_never_falls_has_neither_sortino_nor_calmar():
    assert math.isnan(sortino(pd.Series([0.01, 0.0, 0.02])))
    assert math.isnan(calmar(pd.Series([0.01, 0.0, 0.02])))


@pytest.mark.parametrize("level", [0.0, 0.001, -0.1, 1e-20])
@pytest.mark.parametrize("bars", [1, 2, 7, 252])
def test_constant_returns_have_no_sharpe_and_no_volatility(level, bars):
    returns = pd.Series([level] * bars)
    assert math.isnan(sharpe(returns))
    assert math.isnan(volatility(returns)) if bars == 1 else volatility(returns) == 0.0


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
    assert drawdowns(returns).min() == max_drawdown(returns)


@given(streams)
def test_drawdowns_lie_between_a_total_loss_and_none(returns):
    below = drawdowns(returns)
    assert below.index.equals(returns.index)
    assert below.between(-1, 0).all()


def test_a_book_that_only_rises_never_falls():
    assert max_drawdown(pd.Series([0.01, 0.0, 0.02])) == 0.0


@pytest.mark.parametrize("figure", FIGURES)
def test_no_returns_give_no_figure(figure):
    assert math.isnan(figure(NONE))
    assert math.isnan(figure(pd.Series([np.nan, np.nan])))


def test_no_returns_have_no_drawdowns():
    assert drawdowns(NONE).empty


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf])
def test_a_bar_without_a_return_is_left_out(figure, nothing):
    returns = pd.Series([0.01, -0.02, 0.03, -0.01])
    gapped = pd.Series([0.01, nothing, -0.02, 0.03, nothing, -0.01])
    assert figure(gapped) == pytest.approx(figure(returns))


def test_a_bar_without_a_return_leaves_wealth_where_it_was():
    np.testing.assert_allclose(drawdowns(pd.Series([0.1, -0.2, np.nan, 0.1])), [0, -0.2, -0.2, -0.12])


def test_a_fortune_beyond_all_numbers_is_undefined():
    assert math.isnan(annual_return(pd.Series([30.0])))


def test_returns_of_whole_numbers_are_returns_too():
    assert annual_return(pd.Series([1, 0]), bars_per_year=2) == 1.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_figures_are_those_of_quantstats():
    theirs = pytest.importorskip("quantstats").stats
    returns = drawn()
    assert sharpe(returns) == pytest.approx(theirs.sharpe(returns, periods=252))
    assert sortino(returns) == pytest.approx(theirs.sortino(returns, periods=252))
    assert calmar(returns) == pytest.approx(theirs.calmar(returns, periods=252))
    assert annual_return(returns) == pytest.approx(theirs.cagr(returns, periods=252))
    assert max_drawdown(returns) == pytest.approx(theirs.max_drawdown(returns))
