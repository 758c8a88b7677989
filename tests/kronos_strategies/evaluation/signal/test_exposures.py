"""Exposures are what their names say, from bars up to their date and no later one."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from kronos_strategies.evaluation.panel import PanelIndex
from kronos_strategies.evaluation.signal.exposures import (
    Exposure,
    beta,
    price_exposures,
    reversal,
    size,
    volatility,
)

AT = 80  # the bar that is looked at; 20 follow


@pytest.fixture
def closes() -> pd.DataFrame:
    """100 bars x 5 names that share a market."""
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 0.01, (100, 1)) * [0.5, 0.8, 1, 1.2, 1.5] + rng.normal(0, 0.005, (100, 5))
    dates = pd.bdate_range("2024-01-01", periods=100, name="datetime")
    return pd.DataFrame(10 * np.exp(steps.cumsum(axis=0)), dates, pd.Index(list("ABCDE"), name="instrument"))


@pytest.fixture
def amounts(closes) -> pd.DataFrame:
    drawn = np.random.default_rng(1).lognormal(10, 1, closes.shape)
    return pd.DataFrame(drawn, closes.index, closes.columns)


def test_volatility_is_the_deviation_of_20_returns(closes):
    window = closes.iloc[AT - 20 : AT + 1].to_numpy()
    expected = np.std(window[1:] / window[:-1] - 1, axis=0, ddof=1)
    np.testing.assert_allclose(volatility(closes).iloc[AT], expected)


def test_reversal_is_minus_the_return_of_20_days_over_which_a_last_close_stands_in(closes):
    closes.iloc[AT - 20, 0] = np.nan
    found = reversal(closes).iloc[AT]
    assert found["A"] == pytest.approx(1 - closes["A"].iloc[AT] / closes["A"].iloc[AT - 21])
    assert found["B"] == pytest.approx(1 - closes["B"].iloc[AT] / closes["B"].iloc[AT - 20])


def test_size_is_the_log_of_the_mean_amount_of_bars_that_traded(amounts):
    amounts.iloc[AT - 3, 0], amounts.iloc[AT - 5, 0] = np.nan, 0.0
    amounts.iloc[AT - 10 : AT + 1, 1] = np.nan
    found = size(amounts).iloc[AT]
    traded = amounts["A"].iloc[AT - 19 : AT + 1]
    assert found["A"] == pytest.approx(np.log(traded[traded > 0].mean()))
    assert np.isnan(found["B"])  # 9 of 20
    assert found["C"] == pytest.approx(np.log(amounts["C"].iloc[AT - 19 : AT + 1].mean()))


def test_beta_is_the_slope_on_the_equal_weight_market(closes):
    returns = closes.pct_change().iloc[AT - 59 : AT + 1]
    market = sm.add_constant(returns.mean(axis=1))
    expected = [sm.OLS(returns[name], market).fit().params.iloc[1] for name in closes]
    np.testing.assert_allclose(beta(closes).iloc[AT], expected, rtol=1e-9)
    assert np.mean(expected) == pytest.approx(1)
    assert (np.diff(beta(closes).iloc[AT]) > 0).all()  # as planted


def test_beta_wants_40_returns(closes):
    closes.iloc[:50, 0] = np.nan  # lists on bar 50, first return on 51
    found = beta(closes)
    assert found["A"].first_valid_index() == closes.index[90]
    assert found["B"].first_valid_index() == closes.index[40]


def test_a_day_without_a_trade_is_a_zero_return_of_the_instrument_and_excluded_from_the_market(closes):
    gapped = closes.copy()
    gapped.iloc[AT - 10 : AT - 4, 0] = np.nan
    returns = gapped.ffill().pct_change().iloc[AT - 59 : AT + 1]
    market = returns.where(gapped.notna()).mean(axis=1)
    expected = returns.apply(lambda own: np.cov(own, market)[0, 1] / market.var())
    np.testing.assert_allclose(beta(gapped).iloc[AT], expected, rtol=1e-9)
    np.testing.assert_allclose(volatility(gapped)["A"].iloc[AT], returns["A"].iloc[-20:].std(), rtol=1e-9)


def test_a_constant_market_has_no_beta():
    dates = pd.bdate_range("2024-01-01", periods=70)
    assert beta(pd.DataFrame(10.0, dates, list("AB"))).isna().all(axis=None)


def test_no_exposure_uses_a_later_bar(closes, amounts):
    before = price_exposures(closes, amounts)
    assert list(before) == ["volatility", "reversal", "size", "beta"]
    closes.iloc[AT + 1 :], amounts.iloc[AT + 1 :] = closes.iloc[AT + 1 :].to_numpy()[::-1] * 7, 5.0
    for name, after in price_exposures(closes, amounts).items():
        pd.testing.assert_frame_equal(before[name].iloc[: AT + 1], after.iloc[: AT + 1], check_exact=True)
        assert not before[name].iloc[AT + 1 :].equals(after.iloc[AT + 1 :])


def test_the_documented_expression_gives_the_exposures_of_an_evaluation(closes, amounts):
    index = pd.MultiIndex.from_product([closes.index[60:], ["C", "A"]], names=["datetime", "instrument"])
    wides = price_exposures(closes, amounts)
    rows = pd.DataFrame({name: wide.stack().reindex(index) for name, wide in wides.items()})
    assert rows.index.equals(index)
    assert rows.loc[(closes.index[AT], "A"), "beta"] == wides["beta"].loc[closes.index[AT], "A"]


@pytest.fixture
def grid() -> PanelIndex:
    index = pd.MultiIndex.from_product(
        [pd.date_range("2024-01-01", periods=2), list("AB")], names=["datetime", "instrument"]
    )
    return PanelIndex.from_index(index[::-1])


def test_strings_are_groups_and_missing_ones_no_group(grid):
    found = Exposure.from_column(pd.Series(["tech", None, "bank", "tech"]), grid)
    assert found.groups == ("bank", "tech")
    np.testing.assert_array_equal(found.values, [[1, 0], [np.nan, 1]])


@pytest.mark.parametrize("dtype", ["float64", "Float64", "Int64"])
def test_numbers_are_no_groups(grid, dtype):
    found = Exposure.from_column(pd.Series([4, None, 2, 1], dtype=dtype), grid)
    assert found.groups == ()
    np.testing.assert_array_equal(found.values, [[1, 2], [np.nan, 4]])
