"""Metrics of each version by date are those of a single score; their differences are tested by date."""

import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import MCS
from scipy import stats
from statsmodels.stats.multitest import multipletests

from kronos_strategies.evaluation.comparison.metrics import (
    difference,
    holm,
    mcs_block_length,
    mcs_pvalues,
    metrics_by_date,
    paired_table,
    paired_test,
    score_metrics_by_date,
)
from kronos_strategies.evaluation.comparison.version import Version, align
from kronos_strategies.evaluation.signal.metrics import information_coefficients
from kronos_strategies.evaluation.significance import mean_test, minimum_detectable_effect

from .planted import drawn, random_coefficients, rows, version


def test_ic_and_rank_ic_are_those_of_the_score_alone_on_complete_rows():
    index = rows(dates=20)
    label = drawn(index, 0)
    versions = [version("a", label, 0.3, 1), version("b", label, -0.2, 2)]
    found = metrics_by_date(align(versions, {1: label}, 1, None), 1)
    for each in versions:
        expected = information_coefficients(each.score, label)
        for metric in ("ic", "rank_ic"):
            np.testing.assert_allclose(found[metric][each.name], expected[metric], atol=1e-14)


@pytest.mark.parametrize(("names", "part"), [(30, 0.2), (200, 0.1)])
def test_spread_is_top_minus_bottom_decile_or_quintile_of_few_instruments(names, part):
    rng = np.random.default_rng(0)
    score, label = rng.standard_normal((2, 5, names))
    dates = pd.bdate_range("2024-01-01", periods=5)
    found = score_metrics_by_date({"a": score}, label, dates)["spread"]["a"]
    size = int(names * part)
    order = np.argsort(score, axis=1)
    ends = (
        np.take_along_axis(label, order[:, chosen], axis=1).mean(axis=1)
        for chosen in (slice(-size, None), slice(size))
    )
    top, bottom = ends
    np.testing.assert_allclose(found, top - bottom)


def test_a_loss_is_the_mean_over_the_rows_of_a_date():
    index = rows(dates=3, names=12)
    losses = [pd.DataFrame({"crps": drawn(index, seed)}) for seed in (1, 2)]
    losses[1].iloc[12:24] = np.nan
    versions = [Version(name, drawn(index, 5), of) for name, of in zip("ab", losses, strict=True)]
    found = metrics_by_date(align(versions, {1: drawn(index, 0)}, 1, None), 1)["crps"]
    expected = losses[0]["crps"].groupby(level="datetime").mean().to_numpy()
    np.testing.assert_allclose(found["a"], [expected[0], np.nan, expected[2]])
    assert np.isnan(found["b"].iloc[1])


def test_a_constant_score_and_a_date_of_few_instruments_rank_nothing():
    rng = np.random.default_rng(0)
    score, label = rng.standard_normal((2, 3, 30))
    score[1], label[2, 9:] = 0.1, np.nan
    dates = pd.bdate_range("2024-01-01", periods=3)
    for figures in score_metrics_by_date({"a": score}, label, dates).values():
        assert np.isfinite(figures["a"]).tolist()[:2] == [True, False]
    assert np.isnan(score_metrics_by_date({"a": score}, label, dates)["rank_ic"]["a"].iloc[2])


def test_a_loss_named_like_a_metric_of_the_score_is_refused():
    index = rows(dates=2, names=12)
    versions = [Version(name, drawn(index, 1), pd.DataFrame({"ic": drawn(index, 2)})) for name in "ab"]
    with pytest.raises(ValueError, match="A loss is called 'ic'"):
        metrics_by_date(align(versions, {1: drawn(index, 0)}, 1, None), 1)


DATES = pd.bdate_range("2023-01-02", periods=200)


def figures(*columns) -> pd.DataFrame:
    return pd.DataFrame(dict(zip("abcdef", columns, strict=False)), index=DATES[: len(columns[0])])


def rejected(pairs: np.ndarray) -> float:
    """Share of runs with p < .05 for the second less the first."""
    found = [paired_test(pd.Series(b), pd.Series(a), 10).p for a, b in zip(*pairs, strict=True)]
    return float(np.mean(np.array(found) < 0.05))


def test_no_true_difference_is_found_one_time_in_twenty_where_a_plain_paired_t_finds_it_half_of_the_time():
    pairs = random_coefficients(skill=0.1, noises=(1, 1), runs=240, names=40)
    assert np.mean(stats.ttest_rel(*pairs, axis=1).pvalue < 0.05) > 0.4
    assert 0.01 < rejected(pairs) < 0.09
    assert rejected(pairs[:, :, :250]) < 0.09  # too short for EWC


def test_a_true_gap_of_two_hundredths_is_found_mostly():
    pairs = random_coefficients(skill=0.1, noises=(1, 1.232), runs=80)
    assert (pairs[0] - pairs[1]).mean() == pytest.approx(0.02, abs=0.002)
    assert rejected(pairs) > 0.7


def test_dates_are_paired_and_one_that_either_lacks_is_left_out():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 60))
    a[3], b[7] = np.nan, np.nan
    test = paired_test(pd.Series(b), pd.Series(a), 1)
    assert test == mean_test(b - a, 1)
    assert (test.dates, test.undefined) == (58, 2)


@pytest.mark.parametrize("noise", [0.0, 1e-16])
def test_values_that_differ_by_rounding_only_have_a_difference_of_zero(noise):
    a = pd.Series(np.random.default_rng(0).standard_normal(60))
    b = a * (1 + noise * np.random.default_rng(1).standard_normal(60))
    test = paired_test(b, a, 1)
    assert (test.mean, test.low, test.high, test.p) == (0.0, 0.0, 0.0, 1.0)
    assert np.isnan(test.t)
    assert (difference(b, a) == 0).all()


def test_a_difference_that_is_the_same_on_every_date_is_certain_given_two_spans():
    a = pd.Series(np.random.default_rng(0).standard_normal(60))
    test = paired_test(a - 0.25, a, 10)
    assert (test.mean, test.low, test.high, test.p) == pytest.approx((-0.25, -0.25, -0.25, 0.0))
    short = paired_test(a[:19] - 0.25, a[:19], 10)
    assert (short.mean, short.p) == (pytest.approx(-0.25), pytest.approx(np.nan, nan_ok=True))


def test_holm_is_that_of_statsmodels_within_a_metric_and_never_below_p():
    rng = np.random.default_rng(2)
    base = rng.standard_normal(200)
    of = figures(base, *(base + 0.3 * rng.standard_normal(200) + shift for shift in (0.0, 0.03, 0.05, 0.1)))
    table = paired_table({"ic": of, "crps_1": of.iloc[::-1]}, "a", 1, 0)
    for _, found in table.groupby("metric"):
        tested = found[found["version"] != "a"]
        expected = multipletests(tested["p"], method="holm")[1]
        np.testing.assert_allclose(tested["p_holm"], expected)
        assert (tested["p_holm"] >= tested["p"]).all()
        assert (tested["p_holm"] > tested["p"]).any()


def test_holm_counts_defined_p_only():
    np.testing.assert_allclose(holm(np.array([np.nan, 0.01, np.nan, 0.03])), [np.nan, 0.02, np.nan, 0.03])
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_the_reference_has_its_mean_and_no_test():
    of = figures(*np.random.default_rng(0).standard_normal((3, 200)))
    row = paired_table({"ic": of}, "b", 4, 0).set_index("version").loc["b"]
    own = mean_test(of["b"], 4)
    assert (row["mean"], row["low"], row["high"], row["method"]) == (own.mean, own.low, own.high, own.method)
    assert (
        row[["difference", "difference_low", "difference_high", "t", "p", "p_holm", "detectable"]]
        .isna()
        .all()
    )
    assert isinstance(row["in_mcs"], bool)


def test_the_others_have_the_test_of_their_difference():
    of = figures(*np.random.default_rng(0).standard_normal((3, 200)))
    table = paired_table({"ic": of, "crps_1": of}, "b", 4, 0)
    assert list(zip(table["metric"], table["version"], strict=True)) == [
        (metric, version) for metric in ("ic", "crps_1") for version in "abc"
    ]
    test, row = paired_test(of["c"], of["b"], 4), table.iloc[2]
    assert row["difference"] == test.mean == pytest.approx(of["c"].mean() - of["b"].mean())
    found = row[["difference_low", "difference_high", "t", "p", "detectable", "method"]]
    assert found.tolist() == [
        test.low,
        test.high,
        test.t,
        test.p,
        minimum_detectable_effect(test),
        test.method,
    ]


def test_more_ic_and_less_loss_are_better():
    base = np.random.default_rng(0).standard_normal(200)
    of = figures(base, base + 1 + 0.1 * np.random.default_rng(1).standard_normal(200))
    table = paired_table(dict.fromkeys(("rank_ic", "spread", "crps_1"), of), "a", 1, 0)
    best = table[table["in_mcs"].astype(bool)].set_index("metric")["version"]
    assert best.to_dict() == {"rank_ic": "b", "spread": "b", "crps_1": "a"}


def test_the_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(0)
    found = []
    for a, b in rng.standard_normal((150, 2, 200)):
        least = minimum_detectable_effect(paired_test(pd.Series(b), pd.Series(a), 1))
        found.append(paired_test(pd.Series(b + least), pd.Series(a), 1).p < 0.05)
    assert 0.7 < np.mean(found) < 0.9


def losses(*means: float, dates: int = 300, seed: int = 1) -> pd.DataFrame:
    """Columns a, b, ... of those means, noise that is shared and noise of their own."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((dates, 1))
    values = np.array(means) + shared + 0.5 * rng.standard_normal((dates, len(means)))
    return pd.DataFrame(values, columns=list("abcdef")[: len(means)])


def test_the_set_has_the_best_version_and_its_copy_and_excludes_a_far_worse_one():
    p = mcs_pvalues(losses(0.0, 0.01, 0.5), 1, 0)
    assert (p[["a", "b"]] > 0.1).all()
    assert p["c"] < 0.01


def test_the_confidence_set_is_that_of_arch():
    given = losses(0.0, 0.06, 0.1)
    test = MCS(given.to_numpy(), 0.1, 1000, 10, "R", "stationary", seed=3)
    test.compute()
    expected = test.pvalues["Pvalue"].sort_index()
    assert 0 < expected.min() < 0.99
    np.testing.assert_array_equal(mcs_pvalues(given, 5, 3), expected)


def test_one_of_two_equal_versions_is_rarely_excluded():
    out = [(mcs_pvalues(losses(0.0, 0.0, dates=120, seed=seed), 1, 0) <= 0.1).any() for seed in range(60)]
    assert np.mean(out) < 0.25  # 10 % in large samples


def test_equal_columns_share_a_p_and_change_no_others():
    given = losses(0.0, 0.5, 0.02)
    twice = given.assign(d=given["a"], e=given["b"] * (1 + 1e-16), f=given["b"])[list("fedcba")]
    p, alone = mcs_pvalues(twice, 1, 0), mcs_pvalues(given, 1, 0)
    assert p["a"] == p["d"]
    assert p["b"] == p["e"] == p["f"]
    assert p[["a", "c"]].tolist() == alone[["a", "c"]].tolist()
    assert (mcs_pvalues(given[["a"]].assign(b=given["a"]), 1, 0) == 1.0).all()


def test_a_constant_difference_is_certain(recwarn):
    given = losses(0.0, 1.0)
    p = mcs_pvalues(given.assign(b=given["a"] + 1), 1, 0)
    assert (p["a"], p["b"]) == (1.0, 0.0)
    exact = pd.DataFrame({"a": np.zeros(100), "b": np.ones(100)})
    assert mcs_pvalues(exact, 1, 0).tolist() == [1.0, 0.0]
    assert not recwarn


def test_dates_that_one_lacks_are_left_out():
    given = losses(0.0, 0.1)
    holes = pd.concat([given.iloc[:100], given.iloc[100:110].assign(b=np.nan), given.iloc[100:]])
    pd.testing.assert_series_equal(mcs_pvalues(holes, 1, 0), mcs_pvalues(given, 1, 0))


def test_order_does_not_matter_and_equal_seeds_give_equal_p():
    given = losses(0.0, 0.05, 0.06, 0.2)
    p = mcs_pvalues(given, 3, 7)
    pd.testing.assert_series_equal(mcs_pvalues(given[list("cadb")], 3, 7), p[list("cadb")])


@pytest.mark.parametrize(("dates", "overlap"), [(0, 1), (7, 1), (79, 10)])
def test_fewer_than_four_blocks_make_no_set(dates, overlap):
    assert mcs_pvalues(losses(0.0, 1.0, dates=dates), overlap, 0).isna().all()


def test_a_block_is_twice_the_label_or_more():
    assert [mcs_block_length(dates, overlap) for dates, overlap in ((100, 1), (1000, 1), (1000, 20))] == [
        5,
        10,
        40,
    ]
