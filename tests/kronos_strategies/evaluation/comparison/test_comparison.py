"""Versions side by side: what is planted is found, and what should not matter does not."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kronos_strategies.evaluation.comparison.comparison import compare_versions
from kronos_strategies.evaluation.comparison.version import Version
from kronos_strategies.evaluation.significance import mean_test

from .planted import drawn, rows, version

pytestmark = pytest.mark.slow  # a bootstrap of the model confidence set in nearly every test

INDEX = rows()
LABEL = drawn(INDEX, 0) * 0.02
GOOD, FAIR, BAD = (
    version(name, LABEL, skill, i)
    for i, (name, skill) in enumerate([("good", 0.3), ("fair", 0.1), ("bad", -0.1)], 1)
)


@pytest.fixture(scope="module")
def comparison():
    return compare_versions([FAIR, GOOD, BAD], LABEL, label_horizon=1)


def of(comparison, version: str, metric: str = "rank_ic") -> pd.Series:
    table = comparison.table
    return table[(table["version"] == version) & (table["metric"] == metric)].iloc[0]


def test_the_planted_order_is_found(comparison):
    good, bad = of(comparison, "good"), of(comparison, "bad")
    assert good["difference_low"] > 0.1
    assert bad["difference_high"] < -0.1
    assert max(good["p_holm"], bad["p_holm"]) < 0.001
    assert good["in_mcs"] is True
    assert (bad["in_mcs"], of(comparison, "fair")["in_mcs"]) == (False, False)


def test_the_mean_difference_is_that_of_the_means_on_dates_that_both_have(comparison):
    for metric, figures in comparison.by_date.items():
        row = of(comparison, "good", metric)
        assert row["difference"] == pytest.approx(row["mean"] - of(comparison, "fair", metric)["mean"])
        assert row["mean"] == pytest.approx(figures["good"].mean())


def test_rank_ic_by_date_is_scipys(comparison):
    day = INDEX.levels[0][17]
    expected = stats.spearmanr(GOOD.score.loc[day], LABEL.loc[day]).statistic
    assert comparison.by_date["rank_ic"].loc[day, "good"] == pytest.approx(expected)


def test_rows_of_one_version_only_change_the_sample_counts_only(comparison):
    more = rows(dates=150, names=35, start="2022-05-02")
    extended = GOOD.score.reindex(more).where(lambda s: s.notna(), drawn(more, 7))
    found = compare_versions([FAIR, Version("good", extended), BAD], LABEL, label_horizon=1)
    pd.testing.assert_frame_equal(found.table, comparison.table)
    pd.testing.assert_frame_equal(found.by_year, comparison.by_year)
    more, before = found.sample_counts, comparison.sample_counts
    assert more["compared"] == before["compared"]
    assert more["rows of any version"] - before["rows of any version"] == more["no score of 'fair'"] > 0


def test_the_order_of_versions_changes_the_order_only(comparison):
    other = compare_versions([BAD, FAIR, GOOD], LABEL, label_horizon=1, reference="fair")
    assert other.versions == ("bad", "fair", "good")
    key = ["metric", "version"]
    left, right = (c.table.set_index(key).loc[other.table.set_index(key).index] for c in (other, comparison))
    pd.testing.assert_frame_equal(left, right)


def test_an_identical_version_has_a_difference_of_exactly_zero():
    found = compare_versions(
        [GOOD, Version("again", GOOD.score.sample(frac=1, random_state=0))], LABEL, label_horizon=1
    )
    for metric in found.by_date:
        row = of(found, "again", metric)
        assert (row["difference"], row["difference_low"], row["difference_high"], row["p"]) == (
            0.0,
            0.0,
            0.0,
            1.0,
        )
        assert row["in_mcs"] is of(found, "good", metric)["in_mcs"] is True
    assert (found.by_year["difference"].dropna() == 0).all()


def test_overlap_is_the_label_in_dates_rounded_up():
    for label_horizon, between, overlap in ((10, 1, 10), (10, 5, 2), (10, 3, 4), (1, 5, 1)):
        found = compare_versions([FAIR, GOOD], LABEL, label_horizon, bars_between=between)
        assert found.overlap == overlap
        figures = found.by_date["ic"]
        test = mean_test(figures["good"] - figures["fair"], overlap)
        assert (of(found, "good", "ic")["p"], of(found, "good", "ic")["method"]) == (test.p, test.method)


def test_every_year_has_its_means_and_differences():
    index = rows(dates=300, start="2021-09-01")
    label = drawn(index, 0)
    found = compare_versions(
        [version("a", label, 0.1, 1), version("b", label, 0.3, 2)], label, label_horizon=1
    )
    of_2022 = found.by_year.query("metric == 'ic' and year == 2022").set_index("version")
    figures = found.by_date["ic"].loc["2022"]
    assert of_2022.loc["b", "mean"] == pytest.approx(figures["b"].mean())
    assert of_2022.loc["b", "difference"] == pytest.approx((figures["b"] - figures["a"]).mean())
    assert np.isnan(of_2022.loc["a", "difference"])
    assert found.by_year["year"].unique().tolist() == [2021, 2022]
    assert len(found.by_year) == 3 * 2 * 2


def test_a_decay_has_every_horizon_on_the_dates_of_the_longest():
    daily = LABEL.unstack()
    labels = pd.DataFrame(
        {h: daily.rolling(h).sum().shift(1 - h).stack(future_stack=True) for h in (5, 1, 20)}
    )
    found = compare_versions([FAIR, GOOD], labels, label_horizon=5)
    decay = found.decay.set_index(["version", "horizon"])
    assert list(decay.index) == [(v, h) for v in ("fair", "good") for h in (1, 5, 20)]
    assert (decay["dates"] == 101).all()
    assert decay["rank_ic"]["good"].is_monotonic_decreasing
    days = INDEX.levels[0][:101]
    alone = compare_versions([FAIR, GOOD], labels[5].loc[days], label_horizon=5)
    assert (
        decay.loc[("good", 5), ["rank_ic", "low", "high"]].tolist()
        == of(alone, "good")[["mean", "low", "high"]].tolist()
    )
    assert found.decay.columns.equals(alone.decay.columns)
    assert alone.decay.empty


def test_a_horizon_longer_than_the_data_does_not_empty_the_decay():
    labels = pd.DataFrame({1: LABEL, 5: LABEL, 250: np.nan})
    decay = compare_versions([FAIR, GOOD], labels, label_horizon=1).decay.set_index(["version", "horizon"])
    for name in ("fair", "good"):
        assert decay["dates"][name].tolist() == [120, 120, 0]
        assert decay["rank_ic"][name].notna().tolist() == [True, True, False]


def test_other_horizons_do_not_change_the_headline():
    labels = pd.DataFrame({1: LABEL, 5: LABEL.where(drawn(INDEX, 5) > 0)})
    pd.testing.assert_frame_equal(
        compare_versions([FAIR, GOOD], labels, label_horizon=1).table,
        compare_versions([FAIR, GOOD], LABEL, label_horizon=1).table,
    )


def test_losses_that_all_versions_have_are_metrics_and_lower_is_better():
    noise = drawn(INDEX, 3)
    with_losses = [
        Version(
            v.name,
            v.score,
            pd.DataFrame(
                {"crps_1": 1 + shift + 0.1 * noise + 0.1 * drawn(INDEX, i), "own": 1.0}
                if i
                else {"crps_1": 1 + 0.1 * noise}
            ),
        )
        for i, (v, shift) in enumerate([(FAIR, 0.0), (GOOD, -0.5)])
    ]
    found = compare_versions(with_losses, LABEL, label_horizon=1)
    assert list(found.by_date) == ["ic", "rank_ic", "spread", "crps_1"]
    row = of(found, "good", "crps_1")
    assert row["difference"] == pytest.approx(-0.5, abs=0.01)
    assert row["in_mcs"] is True
    assert of(found, "fair", "crps_1")["in_mcs"] is False
    assert any("'own' is left out: 'fair' does not have it" in warning for warning in found.warnings)


def test_baselines_are_listed_without_a_test():
    naive = pd.DataFrame({"truth": LABEL, "noise": drawn(INDEX, 8)})
    found = compare_versions([FAIR, GOOD], LABEL, label_horizon=1, baselines=naive)
    means = found.baselines.set_index(["version", "metric"])
    assert means.loc[("truth", "rank_ic"), "mean"] == pytest.approx(1)
    assert means.loc[("noise", "ic"), "low"] < 0 < means.loc[("noise", "ic"), "high"]
    assert list(found.baselines.columns) == ["version", "metric", "mean", "low", "high", "dates"]
    assert set(found.table["version"]) == {"fair", "good"}


def test_dates_without_a_ranking_are_counted_excluded_and_warned_of():
    label, good = LABEL.copy(), GOOD.score.copy()
    days = INDEX.levels[0]
    good.loc[days[3]] = 0.1
    good.loc[days[5], "N001":] = np.nan  # one name is left
    label.loc[days[[7, 8]]] = 0.0
    found = compare_versions([FAIR, Version("good", good)], label, label_horizon=1)
    fair, row = of(found, "fair"), of(found, "good")
    assert (fair["dates"], fair["undefined"]) == (117, 3)
    assert (row["dates"], row["undefined"]) == (116, 4)
    assert row["difference"] == pytest.approx(
        (found.by_date["rank_ic"]["good"] - found.by_date["rank_ic"]["fair"]).mean()
    )
    text = " ".join(found.warnings)
    assert "1 of 120 dates have fewer than 10 common instruments" in text
    assert "'good' is constant on 1 of 120 dates" in text
    assert "The label is constant on 2 of 120 dates" in text
    assert "'fair' is constant" not in text
    assert found.sample_counts["no score of 'good'"] == 29


def test_a_date_that_counts_is_never_reported_as_constant():
    """Ranks see differences of rounding, which a score far from zero has little more of."""
    far = Version("far", GOOD.score + 1e14)
    found = compare_versions([FAIR, far], LABEL, label_horizon=1)
    assert of(found, "far")["dates"] == 120
    assert not any("constant" in warning for warning in found.warnings)


def test_an_infinite_score_is_missing():
    good = GOOD.score.copy()
    good.iloc[[0, 40]] = np.inf, -np.inf
    found = compare_versions([FAIR, Version("good", good)], LABEL, label_horizon=1)
    assert found.sample_counts["no score of 'good'"] == 2
    assert of(found, "good")["undefined"] == 0


def test_few_independent_labels_and_a_missing_confidence_set_are_warned_of():
    found = compare_versions([FAIR, GOOD], LABEL, label_horizon=20)
    assert of(found, "good")["in_mcs"] is None
    assert any("have 6 non-overlapping labels, fewer than 50" in warning for warning in found.warnings)
    assert any("too few for a model confidence set" in warning for warning in found.warnings)
    assert not compare_versions([FAIR, GOOD], LABEL, label_horizon=1).warnings


def test_a_single_date_has_means_and_no_tests():
    one = [Version(v.name, v.score.iloc[:30]) for v in (FAIR, GOOD)]
    found = compare_versions(one, LABEL, label_horizon=1)
    assert of(found, "good")["difference"] == pytest.approx(
        of(found, "good")["mean"] - of(found, "fair")["mean"]
    )
    assert np.isnan(of(found, "good")["p"])
    json.dumps(found.as_dict(), allow_nan=False)


def test_as_dict_is_strict_json_and_has_every_number(comparison):
    plain = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))
    assert (plain["reference"], plain["versions"], plain["overlap"]) == ("fair", ["fair", "good", "bad"], 1)
    for metric, by_version in plain["metrics"].items():
        for name, figures in by_version.items():
            row = of(comparison, name, metric)
            assert set(figures) == set(comparison.table.columns) - {"metric", "version"}
            assert figures["mean"] == row["mean"]
            assert figures["difference"] == (None if name == "fair" else row["difference"])
            assert figures["in_mcs"] is row["in_mcs"]
    mean = of(comparison, "fair", "ic")["mean"]
    assert plain["by_year"][0] == {
        "metric": "ic", "year": 2022, "version": "fair", "mean": pytest.approx(mean), "difference": None
    }  # fmt: skip
    assert plain["decay"] == plain["baselines"] == []
    assert plain["sample_counts"]["compared"] == 3600


def test_provenance_is_kept():
    versions = [Version("a", FAIR.score, provenance={"file": "a.parquet"}), GOOD]
    assert compare_versions(versions, LABEL, 1).provenance == {"a": {"file": "a.parquet"}, "good": {}}


@pytest.mark.parametrize(
    ("versions", "options", "reason"),
    [
        ([FAIR], {}, r"needs two or more versions, got 1"),
        ([], {}, r"got 0"),
        ([FAIR, GOOD, FAIR], {}, r"2 versions are called 'fair'"),
        ([FAIR, GOOD], {"reference": "old"}, r"'old' is not one of the versions.*\['fair', 'good'\]"),
        ([FAIR, GOOD], {"label_horizon": 0}, r"at least 1 bar, got 0"),
        ([FAIR, GOOD], {"bars_between": 0}, r"bars_between must be at least 1 bar, got 0"),
        ([FAIR, GOOD], {"labels": pd.DataFrame({5: LABEL})}, r"no label of 1 bars, only of \[5\]"),
        ([FAIR, GOOD], {"labels": pd.DataFrame({"1": LABEL})}, r"'1' is not a horizon"),
        ([FAIR, GOOD], {"labels": LABEL * np.nan}, r"labels of 1 bars have no finite value"),
    ],
)
def test_input_that_cannot_be_compared_is_refused(versions, options, reason):
    with pytest.raises(ValueError, match=reason):
        compare_versions(versions, **{"labels": LABEL, "label_horizon": 1, **options})


def test_means_over_other_dates_than_the_difference_are_warned_of_with_their_numbers(comparison):
    assert not any("each mean is over the dates" in warning for warning in comparison.warnings)
    tied = FAIR.score.copy()
    days = INDEX.levels[0]
    tied.loc[days[:15]] = 1.0  # ranks nothing there
    found = compare_versions([Version("tied", tied), GOOD], LABEL, label_horizon=1)
    (warning,) = [each for each in found.warnings if "each mean is over the dates" in each]
    assert warning.startswith("ic, rank_ic")
    assert "('tied' 105, 'good' 120)" in warning
    assert "it shares with 'tied' ('good' 105)" in warning
    row = of(found, "good")
    assert row["difference"] != pytest.approx(row["mean"] - of(found, "tied")["mean"], abs=1e-6)
    both = found.by_date["rank_ic"].dropna()
    assert row["difference"] == pytest.approx((both["good"] - both["tied"]).mean())
