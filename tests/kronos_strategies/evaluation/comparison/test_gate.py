"""A gate stops a version that is significantly worse, and no other."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kronos_strategies.evaluation.comparison.comparison import Gate, check_gate, compare_versions
from kronos_strategies.evaluation.comparison.version import Version

from .planted import drawn, rows, version

INDEX = rows(dates=150)
LABEL = drawn(INDEX, 0)
GATE = Gate.parse("rank_ic>=-0.005")


@pytest.fixture(scope="module")
def comparison():
    """Base, its copy, one that is far worse, one better, and losses that rise by a hundredth."""
    score = version("base", LABEL, 0.1, 1).score
    noise = drawn(INDEX, 2) * 0.02
    losses = {name: pd.DataFrame({"crps": noise + by}) for name, by in (("base", 0), ("copy", 0))}
    losses |= {
        name: pd.DataFrame({"crps": noise + by + 0.002 * drawn(INDEX, 3)})
        for name, by in (("worse", 0.01), ("better", -0.01))
    }
    scores = {"base": score, "copy": score, "worse": -score, "better": LABEL + score}
    versions = [Version(name, scores[name], losses[name]) for name in scores]
    return compare_versions(versions, LABEL, label_horizon=1)


def passed(text: str, comparison) -> dict[str, bool]:
    return {result.version: result.passed for result in check_gate(Gate.parse(text), comparison)}


@pytest.mark.parametrize(
    "text", ["rank_ic>=-0.005", "ic >= -.005", "spread>=0", "crps<=0.005", " crps <= 5e-3 "]
)
def test_a_worse_version_fails_an_equal_and_a_better_one_pass(text, comparison):
    assert passed(text, comparison) == {"copy": True, "worse": False, "better": True}


def test_an_identical_version_has_a_difference_of_exactly_zero_and_passes_without_a_margin(comparison):
    result = check_gate(Gate("rank_ic", ">=", 0.0), comparison)[0]
    assert (result.version, result.difference, result.bound, result.passed) == ("copy", 0.0, 0.0, True)


@pytest.mark.parametrize(("metric", "sign", "side"), [("rank_ic", ">=", 1), ("crps", "<=", -1)])
def test_the_bound_is_one_sided_at_95_percent_on_the_side_of_better(metric, sign, side, comparison):
    result = check_gate(Gate(metric, sign, 0.0), comparison)[1]
    row = comparison.table.query("metric == @metric and version == 'worse'").iloc[0]
    error = row["difference"] / row["t"]
    degrees = int(row["method"].partition("B=")[2])
    assert result.difference == row["difference"]
    assert result.bound == pytest.approx(row["difference"] + side * stats.t.ppf(0.95, degrees) * error)


def test_the_margin_decides_at_the_bound(comparison):
    (bound,) = [result.bound for result in check_gate(GATE, comparison) if result.version == "worse"]
    for margin, passes in ((bound, True), (np.nextafter(bound, 1), False)):
        assert passed(f"rank_ic>={float(margin)!r}", comparison)["worse"] is passes


def test_equal_skill_fails_about_one_time_in_twenty_without_a_margin(comparison):
    rng, failed = np.random.default_rng(1), 0
    for _ in range(800):
        noise = pd.DataFrame(rng.standard_normal((150, 2)), columns=["a", "b"])
        equal = replace(comparison, reference="a", versions=("a", "b"), by_date={"rank_ic": noise})
        failed += not check_gate(Gate("rank_ic", ">=", 0.0), equal)[0].passed
    assert 0.03 < failed / 800 < 0.075


def test_perfect_against_reversed_is_the_same_on_every_date_and_fails():
    versions = [Version("right", LABEL), Version("wrong", -LABEL)]
    (result,) = check_gate(GATE, compare_versions(versions, LABEL, 1))
    assert (result.bound, result.passed) == (pytest.approx(-2), False)


@pytest.mark.parametrize(
    "text", ["rank_ic", "rank_ic>-0.005", "rank_ic>=", "rank_ic>=low", ">=0", "ic>=nan", "ic>=inf", ""]
)
def test_text_that_is_not_a_gate_has_an_error_with_an_example(text):
    with pytest.raises(ValueError, match=r"is not a gate.*rank_ic>=-0.005"):
        Gate.parse(text)


def test_a_gate_reads_as_it_is_written():
    assert str(GATE) == "rank_ic>=-0.005"
    assert Gate.parse(str(GATE)) == GATE == Gate("rank_ic", ">=", -0.005)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sharpe>=0", r"an unknown metric.*'rank_ic'"),
        ("rank_ic<=0.005", r"wrong sign: for rank_ic, higher is better. Write >="),
        ("crps>=-0.005", r"wrong sign: for crps, lower is better. Write <="),
    ],
)
def test_a_gate_with_an_unknown_metric_or_the_wrong_sign_is_refused(text, reason, comparison):
    with pytest.raises(ValueError, match=reason):
        check_gate(Gate.parse(text), comparison)


def test_too_few_dates_do_not_pass():
    few = [Version(name, drawn(INDEX, seed).iloc[: 15 * 30]) for seed, name in enumerate("ab")]
    comparison = compare_versions(few, LABEL, label_horizon=10)
    with pytest.raises(ValueError, match=r"'b' and 'a' have rank_ic on 15 common dates, too few.*span 10"):
        check_gate(GATE, comparison)
