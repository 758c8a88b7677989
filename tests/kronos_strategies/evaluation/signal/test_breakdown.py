"""A planted effect shows where it was planted: in its year, group, horizon and lag, and not beyond what made it."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kronos_strategies.evaluation.signal.breakdown import (
    compare_with_baselines,
    neutralization_table,
    rank_ic_by_group,
    rank_ic_by_lag,
    rank_ic_by_year,
    rank_ic_decay,
)
from kronos_strategies.evaluation.signal.metrics import information_coefficients_wide
from kronos_strategies.evaluation.signal.neutralization import Exposure
from kronos_strategies.evaluation.significance import label_overlap, mean_test

SHAPE = DATES, NAMES = 300, 60


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def score(rng) -> np.ndarray:
    return rng.standard_normal(SHAPE)


@pytest.fixture
def noise(rng) -> np.ndarray:
    return rng.standard_normal(SHAPE)


def rank_ic(score: np.ndarray, label: np.ndarray) -> np.ndarray:
    return information_coefficients_wide(score, label)[1]


@pytest.mark.parametrize(
    ("horizon", "between", "dates"), [(1, 1, 1), (10, 1, 10), (10, 5, 2), (11, 5, 3), (3, 5, 1)]
)
def test_a_label_spans_its_bars_in_dates_rounded_up(horizon, between, dates):
    assert label_overlap(horizon, between) == dates


def test_skill_in_one_year_shows_in_that_year(score, noise):
    days = pd.bdate_range("2021-06-01", periods=DATES, name="datetime")
    skilled = (days.year == 2022)[:, None]
    by_date = pd.DataFrame(
        information_coefficients_wide(score, noise + score * skilled).T, days, ["ic", "rank_ic"]
    )
    by_date.iloc[3] = np.nan
    found = rank_ic_by_year(by_date, 1)
    assert list(found.index) == [2021, 2022]
    assert found["low"][2021] < 0 < found["high"][2021]
    assert found["low"][2022] > 0.5
    assert list(found["dates"]) == [(days.year == 2021).sum() - 1, (days.year == 2022).sum()]
    assert found["ic"][2022] == pytest.approx(by_date["ic"][skilled[:, 0]].mean())


def test_skill_in_one_tercile_shows_in_that_tercile(rng, score, noise):
    size = rng.lognormal(size=SHAPE)
    large = size > np.quantile(size, 2 / 3, axis=1, keepdims=True)
    found = rank_ic_by_group(score, noise + score * large, {"size": Exposure(size)}, 1).set_index("group")
    assert list(found.index) == ["low", "middle", "high"]
    assert (found["instruments"] == 20).all()
    assert (found["dates"] == DATES).all()
    assert found["low"]["high"] > 0.5
    assert found["rank_ic"][["low", "middle"]].abs().max() < 0.05


def test_instruments_without_score_label_or_exposure_are_in_no_tercile(score, noise):
    exposure = np.tile(np.arange(NAMES, dtype=float), (DATES, 1))
    whole = rank_ic_by_group(score[:, 6:], noise[:, 6:], {"x": Exposure(exposure[:, 6:])}, 1)
    score[:, :2], noise[:, 2:4], exposure[:, 4:6] = np.nan, np.inf, np.nan
    pd.testing.assert_frame_equal(rank_ic_by_group(score, noise, {"x": Exposure(exposure)}, 1), whole)


def test_an_industry_is_ranked_within_itself(score, noise):
    codes = np.tile(np.r_[np.zeros(30), np.ones(25), np.full(5, 2)], (DATES, 1))
    codes[:, 0] = np.nan
    industry = Exposure(codes, ("bank", "tech", "rare"))
    label = noise + score * (codes == 0) + 100 * codes  # levels of industries are nothing to it
    found = rank_ic_by_group(score, label, {"industry": industry}, 1).set_index("group")
    expected = [stats.spearmanr(*pair).statistic for pair in zip(score[:, 1:30], label[:, 1:30], strict=True)]
    assert found["rank_ic"]["bank"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert found["low"]["bank"] > 0.5
    assert abs(found["rank_ic"]["tech"]) < 0.05
    assert list(found["instruments"]) == [29, 25, 5]
    assert list(found["dates"]) == [DATES, DATES, 0]
    assert np.isnan(found["rank_ic"]["rare"])


def test_nothing_to_group_by_is_an_empty_table(score, noise):
    assert rank_ic_by_group(score, noise, {}, 1).empty


def returns_ahead(daily: np.ndarray, horizon: int) -> np.ndarray:
    """Sum of the next `horizon` rows, NaN where they are not all there."""
    sums = np.lib.stride_tricks.sliding_window_view(daily, horizon, axis=0).sum(axis=-1)
    return np.vstack([sums[1:], np.full((horizon, NAMES), np.nan)])[: len(daily)]


def test_an_effect_of_one_bar_fades_as_the_label_grows(score, noise):
    daily = noise.copy()
    daily[1:] += score[:-1]
    by_horizon = {h: rank_ic(score, returns_ahead(daily, h)) for h in (20, 1, 5)}
    found = rank_ic_decay({"own": by_horizon}, 1).set_index("horizon")
    assert list(found.index) == [1, 5, 20]
    assert found["rank_ic"][1] > 2 * found["rank_ic"][5] > 3 * found["rank_ic"][20]
    ahead = {
        h: rank_ic(score, np.roll(returns_ahead(daily, h), -1, axis=0)) for h in (1, 5)
    }  # the bar is over
    assert rank_ic_decay({"own": ahead}, 1)["rank_ic"].abs().max() < 0.03


def test_every_horizon_is_on_the_dates_of_the_longest(score, noise):
    by_horizon = {h: rank_ic(score, returns_ahead(noise, h)) for h in (1, 20)}
    by_horizon[20][5] = np.nan
    found = rank_ic_decay({"own": by_horizon}, 2).set_index("horizon")
    kept = np.isfinite(by_horizon[20])
    assert (found["dates"] == DATES - 21).all()
    short = mean_test(np.where(kept, by_horizon[1], np.nan))
    assert (found["rank_ic"][1], found["low"][1], found["p"][1]) == (short.mean, short.low, short.p)
    assert found["high"][20] == mean_test(by_horizon[20], 10).high  # 20 bars are 10 dates


def test_a_horizon_beyond_the_data_is_undefined_and_leaves_the_others_alone(score, noise):
    by_horizon = {1: rank_ic(score, noise), 500: np.full(DATES, np.nan)}
    found = rank_ic_decay({"own": by_horizon, "naive": {1: by_horizon[500]}}, 1)
    assert list(found["score"]) == ["own", "own", "naive"]
    assert list(found["dates"]) == [DATES, 0, 0]
    assert list(found["rank_ic"].isna()) == [False, True, True]


def test_skill_for_one_date_disappears_at_a_lag(score, noise):
    found = rank_ic_by_lag(score, score + noise, (0, 1, 2), 1)
    assert found["rank_ic"][0] > 0.6
    assert found["rank_ic"][[1, 2]].abs().max() < 0.03


def test_a_late_score_is_that_of_as_many_dates_before_on_the_same_dates(score, noise):
    score[10] = 1.0
    found = rank_ic_by_lag(score, noise, (0, 3), 2)
    late_by_3 = rank_ic(score[:-3], noise[3:])
    on_time = np.where(np.isfinite(late_by_3), rank_ic(score, noise)[3:], np.nan)
    for lag, values in ((0, on_time), (3, np.where(np.isfinite(on_time), late_by_3, np.nan))):
        test = mean_test(values, 2)
        assert found["rank_ic"][lag] == pytest.approx(test.mean)
        assert found["high"][lag] == pytest.approx(test.high, rel=0.05)
    assert list(found["dates"]) == [DATES - 5, DATES - 5]


def test_a_lag_beyond_the_data_is_undefined_and_leaves_the_others_alone(score, noise):
    found = rank_ic_by_lag(score[:4], noise[:4], (0, 1, 4, 9), 1)
    assert list(found["dates"]) == [3, 3, 0, 0]
    assert list(found["rank_ic"].isna()) == [False, False, True, True]


def test_a_score_explained_by_an_exposure_has_no_neutralized_ic(rng, noise):
    style = rng.standard_normal(SHAPE)
    exposures = {"beta": Exposure(np.exp(style)), "size": Exposure(rng.standard_normal(SHAPE))}
    found = neutralization_table(style + 0.3 * rng.standard_normal(SHAPE), style + noise, exposures, 1)
    assert list(found.index) == ["none", "beta", "size", "all"]
    assert found["low"]["none"] > 0.5
    assert abs(found["rank_ic"]["beta"]) < 0.03
    assert abs(found["rank_ic"]["all"]) < 0.03
    assert found["rank_ic"]["size"] == pytest.approx(found["rank_ic"]["none"], abs=0.02)


def test_skill_apart_from_an_exposure_remains(rng, score, noise):
    style = rng.standard_normal(SHAPE)
    found = neutralization_table(score + style, score + noise, {"beta": Exposure(style)}, 1)
    assert found["low"]["all"] > found["high"]["none"]  # the style only hid it
    assert found.loc["all"].equals(found.loc["beta"])


def test_a_score_that_is_the_exposure_is_undefined_beyond_it(score, noise):
    found = neutralization_table(score, noise, {"beta": Exposure(-score)}, 1)
    assert list(found["dates"]) == [DATES, 0, 0]
    assert found["rank_ic"][["beta", "all"]].isna().all()


def test_all_rows_are_over_the_same_instruments(rng, score, noise):
    first, second = rng.standard_normal(SHAPE), rng.standard_normal(SHAPE)
    first[:, :3], second[:, 3:6], second[7] = np.nan, np.nan, np.nan
    found = neutralization_table(score, noise, {"a": Exposure(first), "b": Exposure(second)}, 1)
    cut = neutralization_table(
        score[:, 6:], noise[:, 6:], {"a": Exposure(first[:, 6:]), "b": Exposure(second[:, 6:])}, 1
    )
    pd.testing.assert_frame_equal(found, cut)
    assert (found["dates"] == DATES - 1).all()
    kept = np.delete(rank_ic(score[:, 6:], noise[:, 6:]), 7)
    assert found["rank_ic"]["none"] == pytest.approx(kept.mean())


def test_an_exposure_without_a_value_is_undefined_and_restricts_nothing(score, noise):
    known, unknown = Exposure(score**2), Exposure(score * np.nan)
    found = neutralization_table(score, noise, {"known": known, "unknown": unknown}, 1)
    alone = neutralization_table(score, noise, {"known": known}, 1)
    pd.testing.assert_frame_equal(found.drop("unknown"), alone)
    assert found["dates"]["unknown"] == 0
    nothing = neutralization_table(score, noise, {"unknown": unknown}, 1)
    assert list(nothing["dates"]) == [DATES, 0, 0]


def test_without_exposures_there_is_only_the_score_itself(score, noise):
    found = neutralization_table(score, noise, {}, 1)
    assert list(found.index) == ["none"]
    assert found["rank_ic"]["none"] == pytest.approx(rank_ic(score, noise).mean())


DAYS = pd.date_range("2024-01-01", periods=80, name="datetime")


@pytest.fixture
def label(rng) -> np.ndarray:
    return rng.standard_normal((80, 40))


@pytest.fixture
def own(rng, label) -> np.ndarray:
    return 0.5 * label + rng.standard_normal(label.shape)


def table(scores: dict[str, np.ndarray], label: np.ndarray, overlap: int = 1) -> pd.DataFrame:
    by_date = {
        name: pd.DataFrame(information_coefficients_wide(score, label).T, DAYS, ["ic", "rank_ic"])
        for name, score in scores.items()
    }
    return compare_with_baselines(by_date, scores, label, overlap)


def test_metrics_are_those_of_the_series(own, label):
    label[3] = np.nan
    found = table({"own": own}, label, overlap=2).loc["own"]
    ic, rank_ic = information_coefficients_wide(own, label)
    test = mean_test(rank_ic, 2)
    defined = np.delete(rank_ic, 3)
    assert found["rank_ic"] == test.mean
    assert (found["rank_ic_low"], found["rank_ic_high"]) == (test.low, test.high)
    assert (found["rank_ic_t"], found["rank_ic_p"]) == (test.t, test.p)
    assert found["rank_icir"] == pytest.approx(defined.mean() / defined.std(ddof=1))
    assert found["ic"] == pytest.approx(np.nanmean(ic))
    assert found["positive"] == (defined > 0).mean()
    assert (found["dates"], found["undefined"]) == (79, 1)
    assert (
        found[
            [
                "rank_ic_difference",
                "rank_ic_difference_low",
                "rank_ic_difference_high",
                "rank_ic_difference_p",
            ]
        ]
        .isna()
        .all()
    )


def test_the_difference_is_over_instruments_that_have_both(rng, own, label):
    naive = rng.standard_normal(label.shape)
    own[:, :5], naive[:, 30:] = np.nan, np.nan
    found = table({"own": own, "naive": naive}, label).loc["naive"]
    gaps = [
        stats.spearmanr(a, y).statistic - stats.spearmanr(b, y).statistic
        for a, b, y in zip(own[:, 5:30], naive[:, 5:30], label[:, 5:30], strict=True)
    ]
    test = mean_test(gaps)
    expected = [test.mean, test.low, test.high, test.p]
    np.testing.assert_allclose(
        found[
            [
                "rank_ic_difference",
                "rank_ic_difference_low",
                "rank_ic_difference_high",
                "rank_ic_difference_p",
            ]
        ].astype(float),
        expected,
    )
    assert found["rank_ic_difference_low"] > 0


def test_a_copy_has_a_difference_of_zero(own, label):
    found = table({"own": own, "copy": np.exp(own)}, label).loc["copy"]
    assert found["rank_ic_difference"] == 0
    assert np.isnan(found["rank_ic_difference_p"])


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_constant_or_missing_score_is_undefined_and_not_zero(own, label, value):
    found = table({"own": own, "persistence": np.full_like(own, value)}, label)
    assert list(found.index) == ["own", "persistence"]
    row = found.loc["persistence"]
    assert (row["dates"], row["undefined"]) == (0, 80)
    assert row.drop(["dates", "undefined"]).isna().all()
    assert found.loc["own", "dates"] == 80
