import math

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("empyrical")

from kronos_strategies.evaluation.portfolio.costs import break_even_bps, cost_table
from kronos_strategies.evaluation.portfolio.returns import annual_return, max_drawdown, sharpe

DAYS = pd.bdate_range("2024-01-01", periods=200, name="datetime")


@pytest.fixture
def gross() -> pd.Series:
    return pd.Series(np.random.default_rng(0).normal(0.001, 0.01, len(DAYS)), DAYS)


@pytest.fixture
def turnover() -> pd.Series:
    return pd.Series(np.random.default_rng(1).uniform(0.1, 0.3, len(DAYS)), DAYS)


def test_each_cost_is_taken_of_what_is_traded(gross, turnover):
    table = cost_table(gross, turnover, 100)
    assert table.index.tolist() == [0, 5, 10, 20, 30, 50]
    net = gross - 0.003 * turnover
    assert table.loc[30].tolist() == [annual_return(net, 100), sharpe(net, 100), max_drawdown(net)]
    assert table.loc[0, "annual_return"] == annual_return(gross, 100)


def test_dearer_trades_leave_less(gross, turnover):
    table = cost_table(gross, turnover, 252)
    assert (table.diff().iloc[1:] < 0).all(axis=None)


def test_a_book_that_does_not_trade_is_indifferent_to_costs(gross):
    still = pd.Series(0.0, DAYS)
    table = cost_table(gross, still, 252)
    assert (table == table.iloc[0]).all(axis=None)
    assert math.isnan(break_even_bps(gross, still))


def test_at_break_even_nothing_is_left_on_average(gross, turnover):
    bps = break_even_bps(gross, turnover)
    assert (gross - turnover * bps / 1e4).mean() == pytest.approx(0, abs=1e-15)
    table = cost_table(gross, turnover, 252)
    assert ((table["sharpe"] > 0) == (table.index < bps)).all()


def test_a_book_that_loses_before_costs_would_have_to_be_paid(gross, turnover):
    assert break_even_bps(-gross, turnover) == -break_even_bps(gross, turnover) < 0


def test_a_bar_that_lacks_its_return_or_its_turnover_is_left_out(gross, turnover):
    gapped, unknown = gross.copy(), turnover.copy()
    gapped.iloc[3], unknown.iloc[5] = np.nan, np.inf
    kept = DAYS.delete([3, 5])
    assert break_even_bps(gapped, unknown) == pytest.approx(break_even_bps(gross[kept], turnover[kept]))


def test_a_cost_of_everything_is_a_total_loss():
    table = cost_table(pd.Series([0.1, 0.1]), pd.Series([300.0, 300.0]), 252)
    assert table.loc[50].drop("sharpe").tolist() == [-1.0, -1.0]


def test_no_bars_have_no_figures():
    none = pd.Series([], DAYS[:0], dtype=float)
    assert cost_table(none, none, 252).isna().all(axis=None)
    assert math.isnan(break_even_bps(none, none))
