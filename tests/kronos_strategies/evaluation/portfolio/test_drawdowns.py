import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("empyrical")

from kronos_strategies.evaluation.portfolio.drawdowns import deepest_drawdowns
from kronos_strategies.evaluation.portfolio.returns import drawdowns, max_drawdown

DAYS = pd.bdate_range("2024-01-01", periods=400, name="datetime")


def stream(*returns: float) -> pd.Series:
    return pd.Series(returns, DAYS[: len(returns)], dtype=float)


def test_a_fall_runs_from_its_first_bar_below_to_the_bar_that_is_back():
    (fall,) = deepest_drawdowns(stream(0.1, -0.1, -0.1, 0.1, 0.2, 0.1)).itertuples()
    assert (fall.start, fall.trough, fall.end) == (DAYS[1], DAYS[2], DAYS[4])
    assert fall.depth == pytest.approx(0.81 - 1)
    assert fall.bars == 3


def test_a_fall_on_the_first_bar_is_one():
    (fall,) = deepest_drawdowns(stream(-0.1, 0.2)).itertuples()
    assert (fall.start, fall.trough, fall.end, fall.bars) == (DAYS[0], DAYS[0], DAYS[1], 1)


def test_what_is_not_recovered_has_no_end_and_all_bars_to_the_last():
    table = deepest_drawdowns(stream(0.1, -0.1, 0.2, -0.3, 0.1, 0.1))
    assert table["depth"].tolist() == pytest.approx([-0.3, -0.1])
    assert table["end"].isna().tolist() == [True, False]
    assert table["bars"].tolist() == [3, 1]


@pytest.mark.parametrize("fall", [0.05, 0.3])
def test_back_to_the_very_high_is_recovered_whatever_the_rounding(fall):
    table = deepest_drawdowns(stream(0.1, -fall, 1 / (1 - fall) - 1, 0.0, 0.1))
    assert table["end"].tolist() == [DAYS[2]]


def test_the_deepest_come_first_and_no_more_than_asked_for():
    falls = [-0.01, 0.02, -0.05, 0.06, -0.03, 0.04, -0.02, 0.03, -0.04, 0.05, -0.06, 0.07]
    assert deepest_drawdowns(stream(*falls))["depth"].tolist() == pytest.approx(
        [-0.06, -0.05, -0.04, -0.03, -0.02]
    )
    assert len(deepest_drawdowns(stream(*falls), count=2)) == 2


@pytest.mark.parametrize("returns", [(), (0.1, 0.0, 0.2), (np.nan, np.nan)])
def test_what_never_falls_has_no_rows_but_all_columns(returns):
    table = deepest_drawdowns(stream(*returns))
    assert list(table.columns) == ["start", "trough", "end", "depth", "bars"]
    assert table.empty
    assert table["start"].dtype.kind == table["end"].dtype.kind == "M"


def test_nothing_recovers_from_a_total_loss():
    (fall,) = deepest_drawdowns(stream(0.1, -1.0, 0.5, -2.0)).itertuples()
    assert (fall.start, fall.trough, fall.depth, fall.bars) == (DAYS[1], DAYS[1], -1.0, 3)
    assert pd.isna(fall.end)


@given(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=60))
def test_falls_cover_all_bars_below_the_high(values):
    returns = stream(*values)
    table = deepest_drawdowns(returns, count=len(returns))
    assert table["bars"].sum() == (drawdowns(returns) < -1e-12).sum()
    assert table["depth"].min() == pytest.approx(max_drawdown(returns)) or table.empty
    assert (table["depth"] == drawdowns(returns).loc[table["trough"]].to_numpy()).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_falls_are_those_of_quantstats():
    stats = pytest.importorskip("quantstats").stats
    returns = pd.Series(np.random.default_rng(0).normal(0.001, 0.01, len(DAYS)), DAYS)
    theirs = stats.drawdown_details(stats.to_drawdown_series(returns)).sort_values("max drawdown").head(5)
    ours = deepest_drawdowns(returns)
    assert list(ours["start"]) == list(pd.to_datetime(theirs["start"]))
    assert list(ours["trough"]) == list(pd.to_datetime(theirs["valley"]))
    np.testing.assert_allclose(ours["depth"], theirs["max drawdown"] / 100)
