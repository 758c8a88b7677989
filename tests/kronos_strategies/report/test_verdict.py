"""The verdict claims no more than the figures do."""

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.report.verdict import judge

BOOK = {"sharpe": 0.85, "max_drawdown": -0.1234}


def against(score: float, **baselines: float) -> pd.DataFrame:
    """A comparison, the score first."""
    names = ["Kronos", *(name.replace("_", " ") for name in baselines)]
    return pd.DataFrame({"rank_ic": [score, *baselines.values()]}, index=names)


@pytest.mark.parametrize(
    ("mean", "t", "others", "tone", "says"),
    [
        (0.04, 4.2, (0.01, 0.02), "good",
         "Mean RankIC is 0.040 (t 4.20 on non-overlapping dates), above zero; it beats all 2 naive baselines."),
        (0.04, 4.2, (0.01, 0.05), "mixed",
         "Mean RankIC is 0.040 (t 4.20 on non-overlapping dates), above zero; "
         "it beats 1 of 2 naive baselines, not reversal (0.050)."),
        (0.04, 4.2, (0.06, 0.05), "mixed",
         "Mean RankIC is 0.040 (t 4.20 on non-overlapping dates), above zero; "
         "it beats nothing, not even momentum (0.060) and reversal (0.050)."),
        (0.01, 0.9, (0.0, -0.02), "none",
         "Mean RankIC is 0.010 (t 0.90 on non-overlapping dates), not distinguishable from zero; "
         "it beats all 2 naive baselines."),
        (-0.03, -3.1, (0.01, -0.04), "bad",
         "Mean RankIC is −0.030 (t −3.10 on non-overlapping dates), below zero: names scored high earned less; "
         "it beats 1 of 2 naive baselines, not momentum (0.010)."),
    ],
)  # fmt: skip
def test_each_outcome_has_its_sentence(mean, t, others, tone, says):
    verdict = judge({"rank_ic": mean, "rank_ic_t": t}, against(mean, momentum=others[0], reversal=others[1]))
    assert (verdict.tone, verdict.signal) == (tone, says)


@pytest.mark.parametrize(("t", "tone"), [(1.99, "none"), (2.0, "good"), (-1.99, "none"), (-2.0, "bad")])
def test_a_mean_is_told_from_zero_by_its_t(t, tone):
    mean = 0.01 * np.sign(t)
    assert judge({"rank_ic": mean, "rank_ic_t": t}, against(mean, momentum=-1.0)).tone == tone


def test_an_equal_baseline_is_not_beaten():
    verdict = judge({"rank_ic": 0.04, "rank_ic_t": 5.0}, against(0.04, momentum=0.04))
    assert verdict.tone == "mixed"
    assert verdict.signal.endswith("it beats nothing, not even momentum (0.040).")


def test_an_undefined_baseline_is_neither_beaten_nor_beats():
    verdict = judge({"rank_ic": 0.04, "rank_ic_t": 5.0}, against(0.04, momentum=np.nan, reversal=0.01))
    assert verdict.tone == "good"
    assert verdict.signal.endswith("it beats the naive reversal.")


def test_without_a_baseline_none_is_claimed_to_be_beaten():
    verdict = judge({"rank_ic": 0.04, "rank_ic_t": 5.0}, against(0.04))
    assert verdict.tone == "mixed"
    assert verdict.signal.endswith("there is no naive baseline to hold it against.")


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ({}, "RankIC is undefined"),
        ({"rank_ic": np.nan, "rank_ic_t": np.nan}, "RankIC is undefined"),
        ({"rank_ic": 0.05, "rank_ic_t": np.nan}, "Mean RankIC is 0.050, on too few dates for a t"),
        ({"rank_ic": 0.05, "rank_ic_t": np.inf}, "Mean RankIC is 0.050, on too few dates for a t"),
    ],
)
def test_undefined_figures_give_no_verdict(metrics, says):
    verdict = judge(metrics, against(np.nan, momentum=0.01))
    assert (verdict.tone, verdict.headline) == ("none", "No verdict")
    assert verdict.signal.startswith(says)


def test_the_book_is_held_against_its_benchmarks():
    held = {"benchmark_sharpe": 0.5, "equal_weight_sharpe": np.nan}
    assert judge({**BOOK, **held}, against(0.0)).book == (
        "After costs the book's Sharpe ratio was 0.85, against 0.50 for the benchmark and – for equal weight; "
        "its deepest drawdown was −12.3%."
    )
    assert judge(BOOK, against(0.0)).book == (
        "After costs the book's Sharpe ratio was 0.85; its deepest drawdown was −12.3%."
    )
    assert judge({}, against(0.0)).book == ""
