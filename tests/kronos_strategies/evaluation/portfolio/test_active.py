import numpy as np
import pandas as pd
import pytest

pytest.importorskip("empyrical")

from kronos_strategies.evaluation.portfolio.active import active_table
from kronos_strategies.evaluation.significance import mean_test

DAYS = pd.bdate_range("2022-01-03", periods=500, name="datetime")
COLUMNS = [
    "active_return", "low", "high", "tracking_error", "information_ratio", "beta", "alpha", "correlation",
]  # fmt: skip


def market(seed: int = 0) -> pd.Series:
    return pd.Series(np.random.default_rng(seed).normal(0.0004, 0.01, len(DAYS)), DAYS)


def table(net: pd.Series, bars_per_year: int = 252, **benchmarks: pd.Series) -> pd.DataFrame:
    return active_table(net, pd.DataFrame(benchmarks), bars_per_year)


def test_a_planted_beta_and_alpha_are_found():
    row = table(0.7 * market() + 0.0002, index=market()).loc["index"]
    assert row["beta"] == pytest.approx(0.7)
    assert row["alpha"] == pytest.approx(0.0002 * 252)
    assert row["correlation"] == pytest.approx(1)


def test_active_return_is_alpha_and_what_beta_adds_to_the_market():
    row = table(0.7 * market() + market(1), index=market()).loc["index"]
    assert row["active_return"] == pytest.approx(row["alpha"] + (row["beta"] - 1) * market().mean() * 252)


def test_the_information_ratio_is_annualised_and_active_return_over_tracking_error():
    net = market() + market(1)
    row, other = (table(net, n, index=market()).loc["index"] for n in (252, 100))
    assert row["information_ratio"] == pytest.approx(market(1).mean() / market(1).std() * np.sqrt(252))
    assert row["information_ratio"] == pytest.approx(row["active_return"] / row["tracking_error"])
    assert other["information_ratio"] == pytest.approx(row["information_ratio"] * np.sqrt(100 / 252))


def test_the_interval_is_that_of_the_mean_of_differences():
    row, test = table(market() + market(1), 100, index=market()).loc["index"], mean_test(market(1))
    assert row["low"] == pytest.approx(100 * test.low)
    assert row["high"] == pytest.approx(100 * test.high)
    assert row["low"] < row["active_return"] < row["high"]


def test_the_interval_holds_no_skill_95_times_of_100():
    rows = [table(market() + market(seed) - 0.0004, index=market()).loc["index"] for seed in range(1, 201)]
    assert np.mean([row["low"] <= 0 <= row["high"] for row in rows]) == pytest.approx(0.95, abs=0.035)


def test_figures_are_those_of_statsmodels_and_empyrical():
    api, empyrical = pytest.importorskip("statsmodels.api"), pytest.importorskip("empyrical")
    net, index = 0.9 * market() + market(1), market()
    row, line = table(net, index=index).loc["index"], api.OLS(net, api.add_constant(index)).fit()
    assert row["alpha"] == pytest.approx(line.params.iloc[0] * 252)
    assert row["beta"] == pytest.approx(line.params.iloc[1])
    assert row["correlation"] ** 2 == pytest.approx(line.rsquared)
    assert row["beta"] == pytest.approx(empyrical.beta(net, index))
    assert row["information_ratio"] == pytest.approx(empyrical.excess_sharpe(net, index) * np.sqrt(252))


def test_each_benchmark_has_a_row_in_its_order_and_by_its_name():
    frame = active_table(market(), pd.DataFrame({"index": market(1), "equal weight": market(2)}), 252)
    assert frame.index.tolist() == ["index", "equal weight"]
    assert frame.columns.tolist() == COLUMNS
    alone = table(market(), index=market(1))
    pd.testing.assert_series_equal(frame.loc["index"], alone.loc["index"])


def test_a_bar_that_either_lacks_is_left_out_of_that_row_only():
    gapped = market(1).copy()
    gapped.iloc[[0, 7]] = np.nan, np.inf
    frame, kept = table(market(), gapped=gapped, whole=market(1)), DAYS.delete([0, 7])
    pd.testing.assert_series_equal(
        frame.loc["gapped"], table(market()[kept], gapped=market(1)[kept]).loc["gapped"]
    )
    pd.testing.assert_series_equal(frame.loc["whole"], table(market(), whole=market(1)).loc["whole"])


@pytest.mark.parametrize("rounding", [0.0, 1e-16])
def test_a_benchmark_that_is_the_book_leaves_nothing_to_be_tested(rounding):
    row = table(market(), index=market() * (1 + rounding * np.sign(market(1)))).loc["index"]
    assert row[["active_return", "tracking_error"]].tolist() == [0, 0]
    assert row[["beta", "correlation"]].tolist() == pytest.approx([1, 1])
    assert row["alpha"] == pytest.approx(0, abs=1e-15)
    assert row[["low", "high", "information_ratio"]].isna().all()


def test_nothing_moves_with_what_stands_still():
    row = table(market(), cash=pd.Series(0.0001, DAYS)).loc["cash"]
    assert row[["beta", "alpha", "correlation"]].isna().all()
    assert row["active_return"] == pytest.approx((market().mean() - 0.0001) * 252)


def test_what_stands_still_moves_with_nothing():
    row = table(pd.Series(0.0001, DAYS), index=market()).loc["index"]
    assert row["beta"] == pytest.approx(0, abs=1e-15)
    assert row["alpha"] == pytest.approx(0.0252)
    assert np.isnan(row["correlation"])


@pytest.mark.parametrize("bars", [0, 1])
def test_a_bar_or_none_has_no_spread_and_no_line(bars):
    row = table(market()[:bars], index=market()[:bars]).loc["index"]
    assert row.drop("active_return").isna().all()
    assert np.isnan(row["active_return"]) == (bars == 0)


def test_a_benchmark_without_a_return_has_no_figures():
    assert table(market(), unknown=pd.Series(np.nan, DAYS)).isna().all(axis=None)


def test_no_benchmarks_make_no_rows():
    frame = active_table(market(), pd.DataFrame(index=DAYS), 252)
    assert frame.empty
    assert frame.columns.tolist() == COLUMNS
