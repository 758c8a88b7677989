"""The verdict claims no more than the studies do."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.baselines import MODEL
from kronos_strategies.report.summary import (
    coverage_sentences,
    portfolio_sentence,
    report_warnings,
    summarize,
    summarize_comparison,
    summarize_signal,
)

NAN = float("nan")


@pytest.fixture
def measured(report):
    """A function: the study with another RankIC, and with baselines of given differences (mean, low, high)."""

    def change(mean, low, high, t=3.0, **leads):
        study = report.signal
        table = study.table.iloc[:1]
        for name, (lead, lead_low, lead_high) in leads.items():
            row = table.iloc[0].copy()
            row[["rank_ic_difference", "rank_ic_difference_low", "rank_ic_difference_high"]] = (
                lead,
                lead_low,
                lead_high,
            )
            table = pd.concat([table, row.rename(name.replace("_", " ")).to_frame().T])
        rank = dataclasses.replace(study.rank_ic, mean=mean, low=low, high=high, t=t, method="EWC, B=40")
        return dataclasses.replace(study, rank_ic=rank, table=table.astype(float))

    return change


SURE, OPEN, LOST = (0.02, 0.01, 0.03), (0.01, -0.01, 0.03), (-0.02, -0.03, -0.01)


@pytest.mark.parametrize(
    ("interval", "leads", "status", "ending"),
    [
        ((0.04, 0.02, 0.06), {"momentum": SURE, "reversal": SURE}, "good",
         "Mean RankIC is 0.040 (95% 0.020 to 0.060; t 3.00, EWC, B=40), significantly above zero; "
         "paired by date it is significantly better than momentum and reversal."),
        ((0.04, 0.02, 0.06), {"momentum": SURE, "reversal": OPEN}, "mixed",
         "significantly above zero; paired by date it is significantly better than momentum and not significantly "
         "different from reversal (+0.0100)."),
        ((0.04, 0.02, 0.06), {"momentum": LOST, "reversal": OPEN}, "mixed",
         "it is significantly worse than momentum and not significantly different from reversal (+0.0100)."),
        ((0.01, -0.01, 0.03), {"momentum": SURE}, "none",
         "not significantly different from zero; paired by date it is significantly better than momentum."),
        ((-0.03, -0.05, -0.01), {"momentum": LOST}, "bad",
         "significantly below zero: instruments with high scores had lower returns; paired by date it is "
         "significantly worse than momentum."),
        ((0.04, 0.02, 0.06), {}, "mixed",
         "significantly above zero; there is no baseline to compare with."),
        ((0.04, 0.02, 0.06), {"momentum": (NAN, NAN, NAN)}, "mixed",
         "there is no baseline to compare with."),
    ],
)  # fmt: skip
def test_each_outcome_has_its_sentence(measured, interval, leads, status, ending):
    verdict = summarize_signal(measured(*interval, **leads))
    assert verdict.status == status
    assert verdict.sentences[0].endswith(ending)


@pytest.mark.parametrize(("low", "status"), [(0.001, "good"), (0.0, "none"), (-0.001, "none")])
def test_the_interval_decides_whether_a_mean_differs_from_zero(measured, low, status):
    assert summarize_signal(measured(0.02, low, 0.04, momentum=SURE)).status == status


@pytest.mark.parametrize(
    ("interval", "beginning"),
    [
        ((NAN, NAN, NAN), "RankIC is undefined"),
        ((0.05, NAN, NAN), "Mean RankIC is 0.050; there are too few dates for an interval"),
    ],
)
def test_undefined_metrics_give_no_verdict(measured, interval, beginning):
    verdict = summarize_signal(measured(*interval, t=NAN, momentum=SURE))
    assert (verdict.status, verdict.headline) == ("none", "No verdict")
    assert verdict.sentences[0].startswith(beginning)


def test_the_portfolio_is_compared_with_its_benchmarks_with_its_interval_and_its_trials(report):
    study = report.portfolio
    sure = dataclasses.replace(study.sharpe, sharpe=0.85, low=-0.1, high=1.8, psr=0.96, dsr=0.4, trials=12)
    performance = study.performance.assign(sharpe=[0.85, 1.0, 0.5, NAN], max_drawdown=-0.1234)
    assert portfolio_sentence(dataclasses.replace(study, sharpe=sure, performance=performance)) == (
        "The Sharpe ratio of the portfolio after costs is 0.85 (95% −0.10 to 1.80; PSR 96.0%, DSR 40.0% after 12 "
        "trials), compared with 0.50 (benchmark) and – (equal weight); the maximum drawdown is −12.3%."
    )
    alone = dataclasses.replace(study, sharpe=dataclasses.replace(sure, sharpe=NAN))
    assert "undefined" in portfolio_sentence(alone)


def test_coverage_is_stated_at_the_shortest_and_the_longest_horizon(report):
    (sentence,) = coverage_sentences(report.distribution)
    own = [score for score in report.distribution.distributions if score.name == MODEL]
    first, last = own[0].coverage[0.9].mean, own[-1].coverage[0.9].mean
    assert sentence == (
        f"The 90% band of the paths covers {first:.1%} of the outcomes 1 bar ahead and {last:.1%} of the outcomes "
        "10 bars ahead."
    )


def versions_of(report, **figures):
    """The comparison, its RankIC rows by version: difference, p by Holm."""
    comparison = report.versions
    table = comparison.table.copy()
    table["p_holm"] = table["p_holm"].where(table["metric"] == "rank_ic", 1.0)
    for name, (difference, p) in figures.items():
        row = (table["version"] == name) & (table["metric"] == "rank_ic")
        table.loc[row, ["difference", "p_holm"]] = difference, p
    return dataclasses.replace(comparison, table=table)


def test_versions_that_differ_significantly_are_separated_from_those_that_do_not(report):
    few = versions_of(report, **{"fine-tuned": (0.02, 0.01), "seed 2": (0.01, 0.4), "small": (-0.01, 0.2)})
    verdict = summarize_comparison(few)
    assert verdict.status == "good"
    first, second = verdict.sentences
    assert "fine-tuned ranks significantly better, by +0.0200" in first
    assert second.startswith("No significant difference: seed 2, +0.0100")
    assert "small, −0.0100" in second
    assert "is detectable" in second


@pytest.mark.parametrize(
    ("figures", "status"),
    [
        ({"fine-tuned": (0.02, 0.2), "seed 2": (0.01, 0.4), "small": (-0.01, 0.2)}, "none"),
        ({"fine-tuned": (0.02, 0.2), "seed 2": (0.01, 0.4), "small": (-0.01, 0.001)}, "bad"),
        ({"fine-tuned": (0.02, 0.01), "seed 2": (0.01, 0.4), "small": (-0.01, 0.001)}, "mixed"),
    ],
)
def test_versions_decide_the_status_where_nothing_else_does(report, figures, status):
    alone = dataclasses.replace(
        report, signal=None, distribution=None, portfolio=None, versions=versions_of(report, **figures)
    )
    verdict = summarize(alone)
    assert verdict.status == status
    assert verdict.sentences[0].startswith("Compared with base, whose mean RankIC is")


def test_a_lower_loss_is_better(report):
    table = report.versions.table.copy()
    row = (table["version"] == "small") & (table["metric"] == "crps_h5")
    table.loc[row, ["difference", "p_holm"]] = -0.01, 0.001
    verdict = summarize_comparison(dataclasses.replace(report.versions, table=table))
    assert "small is better in crps_h5" in verdict.sentences[-1]


def test_the_score_comes_first_and_the_other_parts_follow(report):
    verdict = summarize(report)
    assert verdict.sentences[0].startswith("Mean RankIC is")
    assert verdict.sentences[1].startswith("The Sharpe ratio of the portfolio")
    assert verdict.sentences[2].startswith("The 90% band")
    assert verdict.sentences[3].startswith("Compared with base")
    assert np.isfinite(report.signal.rank_ic.mean)


def test_warnings_of_the_run_come_first_and_each_is_given_once(report):
    again = dataclasses.replace(report, warnings=["a", "b", "a"], versions=None)
    found = report_warnings(again)
    assert found[:2] == ["a", "b"]
    assert len(found) == len(set(found))


def test_warnings_of_the_comparison_are_included(report):
    few = dataclasses.replace(report.versions, warnings=("no date in common",))
    assert "no date in common" in report_warnings(dataclasses.replace(report, versions=few))
