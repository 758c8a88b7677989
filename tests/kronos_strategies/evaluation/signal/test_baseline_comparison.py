"""A lead is paired by date and name; what a naive score cannot say is undefined."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kronos_strategies.evaluation.signal.breakdown import compare_with_baselines
from kronos_strategies.evaluation.signal.metrics import information_coefficients_wide
from kronos_strategies.evaluation.significance import mean_test

DATES = pd.date_range("2024-01-01", periods=80, name="datetime")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def label(rng) -> np.ndarray:
    return rng.standard_normal((80, 40))


@pytest.fixture
def own(rng, label) -> np.ndarray:
    return 0.5 * label + rng.standard_normal(label.shape)


def table(scores: dict[str, np.ndarray], label: np.ndarray, overlap: int = 1) -> pd.DataFrame:
    by_date = {
        name: pd.DataFrame(information_coefficients_wide(score, label).T, DATES, ["ic", "rank_ic"])
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
def test_a_score_that_ranks_nothing_is_undefined_and_not_zero(own, label, value):
    found = table({"own": own, "persistence": np.full_like(own, value)}, label)
    assert list(found.index) == ["own", "persistence"]
    row = found.loc["persistence"]
    assert (row["dates"], row["undefined"]) == (0, 80)
    assert row.drop(["dates", "undefined"]).isna().all()
    assert found.loc["own", "dates"] == 80
