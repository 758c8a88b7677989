"""A neutralized score is the residual of a regression of ranks, date by date."""

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from kronos_strategies.evaluation.panel import PanelIndex
from kronos_strategies.evaluation.signal.metrics import (
    information_coefficients,
    information_coefficients_wide,
)
from kronos_strategies.evaluation.signal.neutralization import (
    Exposure,
    beta,
    neutralize,
    neutralized_rank_ic,
    price_exposures,
    reversal,
    size,
    volatility,
)

INDEX = pd.MultiIndex.from_product(
    [pd.date_range("2024-01-01", periods=4), [f"N{i:02d}" for i in range(25)]],
    names=["datetime", "instrument"],
)


@pytest.fixture
def exposure() -> pd.Series:
    return pd.Series(np.random.default_rng(0).standard_normal(100).round(1), INDEX)  # with ties


@pytest.fixture
def score(exposure) -> pd.Series:
    return exposure**3 + pd.Series(np.random.default_rng(1).standard_normal(100), INDEX)


@pytest.fixture
def several(exposure) -> pd.DataFrame:
    """Two numbers, and two kinds of groups of which the second almost nests in the first."""
    rng = np.random.default_rng(2)
    sector = rng.integers(0, 3, 100)
    industry = np.where(rng.random(100) < 0.9, 2 * sector + rng.integers(0, 2, 100), 0)
    return pd.DataFrame(
        {
            "volatility": exposure,
            "sector": [f"S{i}" for i in sector],
            "size": rng.standard_normal(100) + 0.5 * exposure,
            "industry": [f"I{i}" for i in industry],
        }
    )


def by_regression(score: pd.Series, exposures: pd.DataFrame) -> pd.Series:
    """statsmodels, a date at a time; its pseudo-inverse takes care of columns that repeat others."""
    left = score * np.nan
    both = exposures.assign(score=score).replace([np.inf, -np.inf], np.nan).dropna()
    for _, day in both.groupby(level="datetime"):
        design = [
            pd.get_dummies(day[name]) if day[name].dtype.kind not in "fi" else day[name].rank()
            for name in exposures
        ]
        x = sm.add_constant(pd.concat(design, axis=1).to_numpy(float), has_constant="add")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # columns that repeat others
            left[day.index] = sm.OLS(day["score"].rank().to_numpy(), x).fit().resid
    return left


def test_a_neutralized_score_is_the_residual_of_a_regression_of_ranks(score, exposure):
    score.iloc[[3, 30]], exposure.iloc[[4, 60]] = np.nan, np.nan
    found = neutralize(score, exposure)
    assert list(np.flatnonzero(found.isna())) == [3, 4, 30, 60]
    np.testing.assert_allclose(found, by_regression(score, exposure.to_frame("x")), atol=1e-6)


@pytest.mark.parametrize(
    "names",
    [
        ["volatility", "size"],
        ["sector"],
        ["size", "sector"],
        ["sector", "industry"],
        ["volatility", "sector", "size", "industry"],
    ],
)
def test_several_exposures_are_taken_away_at_once(score, several, names):
    score.iloc[5], several.loc[INDEX[7], "size"], several.loc[INDEX[8], "sector"] = np.inf, np.nan, np.nan
    chosen = several[names]
    found, expected = neutralize(score, chosen), by_regression(score, chosen)
    assert found.isna().equals(expected.isna())
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_residual_is_uncorrelated_with_each_exposure(score, several):
    left = neutralize(score, several)
    for name in ("volatility", "size"):
        related = information_coefficients(left, several[name].groupby(level="datetime").rank())["ic"]
        np.testing.assert_allclose(related, 0, atol=1e-6)
    means = left.groupby([INDEX.get_level_values("datetime"), several["industry"]]).mean()
    np.testing.assert_allclose(means, 0, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_score_that_is_only_the_exposure_has_a_residual_of_zero(exposure, several, sign):
    for exposures in (exposure, several, several[["size", "volatility"]]):
        left = neutralize(sign * np.exp(exposure), exposures)
        assert (left == 0).all()
        assert information_coefficients(left, exposure)["rank_ic"].isna().all()


def test_a_score_that_combines_two_exposures_in_full_has_a_residual_of_zero():
    names = np.tile(np.r_[np.repeat([0.0, 1.0, 2.0, 3.0], 6), np.nan], 4)  # four steps of equal size
    exposures = pd.DataFrame({"half": names // 2, "odd": names % 2}, INDEX)
    total = pd.Series(names, INDEX)
    assert (neutralize(total, exposures).dropna() == 0).all()
    for name in exposures:
        assert (neutralize(total, exposures[name]).dropna() != 0).all()


def test_an_exposure_given_twice_has_no_further_effect(score, exposure):
    once = neutralize(score, exposure)
    copies = pd.DataFrame({"x": exposure, "same": np.exp(exposure), "opposite": -exposure, "none": 1.0})
    pd.testing.assert_series_equal(neutralize(score, copies), once, check_exact=True)


def test_the_order_of_exposures_does_not_matter(score, several):
    forth, back = neutralize(score, several), neutralize(score, several[several.columns[::-1]])
    np.testing.assert_allclose(forth, back, atol=2e-6)


def test_instruments_alone_in_their_group_are_at_its_mean(score):
    groups = pd.Series(["all"] * 100, INDEX)
    groups.iloc[[0, 50]] = "alone"
    left = neutralize(score, groups)
    assert (left.iloc[[0, 50]] == 0).all()
    assert (left != 0).sum() > 90


def test_a_constant_exposure_takes_nothing_away(score):
    for constant in (1.0, "one"):
        left = neutralize(score, pd.Series(constant, INDEX))
        np.testing.assert_allclose(information_coefficients(left, score)["rank_ic"], 1)


def test_dates_are_independent_of_each_other(score, several):
    first = INDEX[:25]
    alone = neutralize(score[first], several.loc[first])
    pd.testing.assert_series_equal(neutralize(score, several)[first], alone)


def test_rows_may_come_in_any_order(score, several):
    order = np.random.default_rng(4).permutation(100)
    shuffled = neutralize(score.iloc[order], several.iloc[order])
    pd.testing.assert_series_equal(shuffled, neutralize(score, several).iloc[order], check_exact=True)


def test_rows_without_both_are_undefined(score):
    assert neutralize(score, score * np.nan).isna().all()
    assert neutralize(score * np.nan, score).isna().all()


def test_another_index_is_refused(score, exposure):
    with pytest.raises(ValueError, match=r"Reindex them first: exposures\.reindex"):
        neutralize(score, exposure.iloc[::-1])


def test_a_key_that_occurs_twice_is_refused(score, exposure):
    twice = pd.concat([score, score.iloc[:1]])
    with pytest.raises(ValueError, match="twice"):
        neutralize(twice, pd.concat([exposure, exposure.iloc[:1]]))


def wide(values: pd.Series) -> np.ndarray:
    return values.to_numpy().reshape(4, 25)


def test_the_neutralized_ic_is_the_semi_partial_rank_correlation(score, exposure):
    label = score + exposure + pd.Series(np.random.default_rng(5).standard_normal(100), INDEX)
    score.iloc[3], exposure.iloc[30], label.iloc[60] = np.nan, np.nan, np.inf
    found = neutralized_rank_ic(wide(score), wide(label), [Exposure(wide(exposure))])
    days = pd.DataFrame({"s": score, "x": exposure, "y": label}).replace(np.inf, np.nan).dropna()
    for value, (_, day) in zip(found, days.groupby(level="datetime"), strict=True):
        sy, sx, xy = (stats.spearmanr(day[a], day[b]).statistic for a, b in ("sy", "sx", "xy"))
        assert value == pytest.approx((sy - sx * xy) / np.sqrt(1 - sx**2), abs=1e-7)


def test_without_exposures_the_neutralized_ic_is_that_of_spearman(score, exposure):
    found = neutralized_rank_ic(wide(score), wide(exposure), [])
    np.testing.assert_allclose(found, information_coefficients(score, exposure)["rank_ic"])


@pytest.mark.parametrize("noise", [0.03, 0.3, 1.0])
def test_a_score_of_a_style_and_noise_has_no_neutralized_ic(noise):
    rng = np.random.default_rng(6)
    style, error, luck = rng.standard_normal((3, 400, 50))
    score, label = style + noise * error, style + luck
    assert information_coefficients_wide(score, label)[1].mean() > 0.4
    assert abs(neutralized_rank_ic(score, label, [Exposure(style)]).mean()) < 0.025


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


def test_beta_needs_40_returns(closes):
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
def test_numbers_are_not_groups(grid, dtype):
    found = Exposure.from_column(pd.Series([4, None, 2, 1], dtype=dtype), grid)
    assert found.groups == ()
    np.testing.assert_array_equal(found.values, [[1, 2], [np.nan, 4]])
