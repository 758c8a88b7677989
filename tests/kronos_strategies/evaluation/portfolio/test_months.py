import numpy as np
import pandas as pd
import pytest

pytest.importorskip("empyrical")

from kronos_strategies.evaluation.portfolio.months import month_table

COLUMNS = [*range(1, 13), "year"]


def test_months_and_years_compound():
    days = pd.to_datetime(["2023-12-28", "2023-12-29", "2024-01-02", "2024-03-01", "2024-03-04"])
    table = month_table(pd.Series([0.1, -0.05, 0.2, 0.01, 0.02], days))
    assert table.index.tolist() == [2023, 2024]
    assert table.columns.tolist() == COLUMNS
    assert table.loc[2023, [12, "year"]].tolist() == pytest.approx([1.1 * 0.95 - 1] * 2)
    assert table.loc[2024, [1, 3]].tolist() == pytest.approx([0.2, 1.01 * 1.02 - 1])
    assert table.loc[2024, "year"] == pytest.approx(1.2 * 1.01 * 1.02 - 1)
    assert table.notna().to_numpy().sum() == 5


def test_years_are_their_months_and_all_years_are_all_bars():
    days = pd.bdate_range("2020-05-11", "2023-02-14")
    returns = pd.Series(np.random.default_rng(0).normal(0, 0.01, len(days)), days)
    table = month_table(returns)
    np.testing.assert_allclose((1 + table.drop(columns="year")).prod(axis=1), 1 + table["year"])
    assert (1 + table["year"]).prod() == pytest.approx((1 + returns).prod())


def test_a_month_without_a_return_is_empty_and_not_zero():
    days = pd.to_datetime(["2024-01-02", "2024-02-01", "2024-02-02"])
    table = month_table(pd.Series([np.nan, 0.1, np.inf], days))
    assert np.isnan(table.loc[2024, 1])
    assert table.loc[2024, 2] == pytest.approx(0.1)


def test_what_is_lost_stays_lost():
    days = pd.to_datetime(["2024-01-02", "2024-01-03", "2024-01-04"])
    assert month_table(pd.Series([-1.5, -1.5, 0.1], days)).loc[2024, [1, "year"]].tolist() == [-1.0, -1.0]


def test_one_bar_makes_one_month():
    table = month_table(pd.Series([0.1], pd.to_datetime(["2024-07-01"])))
    assert table.loc[2024].dropna().to_dict() == pytest.approx({7: 0.1, "year": 0.1})


def test_no_bars_make_no_year():
    table = month_table(pd.Series([], pd.DatetimeIndex([]), dtype=float))
    assert table.empty
    assert table.columns.tolist() == COLUMNS
