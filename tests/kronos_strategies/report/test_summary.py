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
    """A function: the study with another RankIC, and with naive scores of given leads (mean, low, high)."""

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
    ("interval", "leads", "tone", "says"),
    [
        ((0.04, 0.02, 0.06), {"momentum": SURE, "reversal": SURE}, "good",
         "Mean RankIC is 0.040 (95% 0.020 to 0.060; t 3.00, EWC, B=40), above zero; "
         "paired by date it beats momentum and reversal."),
        ((0.04, 0.02, 0.06), {"momentum": SURE, "reversal": OPEN}, "mixed",
         "above zero; paired by date it beats momentum and its difference from reversal (+0.0100) may be chance."),
        ((0.04, 0.02, 0.06), {"momentum": LOST, "reversal": OPEN}, "mixed",
         "paired by date it falls behind momentum and its difference from reversal (+0.0100) may be chance."),
        ((0.01, -0.01, 0.03), {"momentum": SURE}, "none",
         "not distinguishable from zero; paired by date it beats momentum."),
        ((-0.03, -0.05, -0.01), {"momentum": LOST}, "bad",
         "below zero: names scored high earned less; paired by date it falls behind momentum."),
        ((0.04, 0.02, 0.06), {}, "mixed",
         "above zero; paired by date there is no naive signal to hold it against."),
        ((0.04, 0.02, 0.06), {"momentum": (NAN, NAN, NAN)}, "mixed",
         "there is no naive signal to hold it against."),
    ],
)  # fmt: skip
def test_each_outcome_has_its_sentence(measured, interval, leads, status, says):
    verdict = summarize_signal(measured(*interval, **leads))
    assert verdict.status == status
    assert verdict.sentences[0].endswith(says)


@pytest.mark.parametrize(("low", "tone"), [(0.001, "good"), (0.0, "none"), (-0.001, "none")])
def test_a_mean_is_told_from_zero_by_its_interval(measured, low, status):
    assert summarize_signal(measured(0.02, low, 0.04, momentum=SURE)).status == status


@pytest.mark.parametrize(
    ("interval", "says"),
    [
        ((NAN, NAN, NAN), "RankIC is undefined"),
        ((0.05, NAN, NAN), "Mean RankIC is 0.050, on too few dates for an interval"),
    ],
)
def test_undefined_figures_give_no_verdict(measured, interval, says):
    verdict = summarize_signal(measured(*interval, t=NAN, momentum=SURE))
    assert (verdict.status, verdict.headline) == ("none", "No verdict")
    assert verdict.sentences[0].startswith(says)


def test_the_book_is_held_against_its_benchmarks_with_its_interval_and_its_trials(report):
    study = report.portfolio
    sure = dataclasses.replace(study.sharpe, sharpe=0.85, low=-0.1, high=1.8, psr=0.96, dsr=0.4, trials=12)
    books = study.performance.assign(sharpe=[0.85, 1.0, 0.5, NAN], max_drawdown=-0.1234)
    assert portfolio_sentence(dataclasses.replace(study, sharpe=sure, books=books)) == (
        "After costs the book's Sharpe ratio was 0.85 (95% −0.10 to 1.80; PSR 96.0%, DSR 40.0% after 12 trials), "
        "against 0.50 (benchmark) and – (equal weight); its deepest drawdown was −12.3%."
    )
    alone = dataclasses.replace(study, sharpe=dataclasses.replace(sure, sharpe=NAN))
    assert "undefined" in portfolio_sentence(alone)


def test_bands_are_told_at_the_shortest_and_the_longest_horizon(report):
    (sentence,) = coverage_sentences(report.distribution)
    own = [score for score in report.distribution.distributions if score.name == MODEL]
    first, last = own[0].coverage[0.9].mean, own[-1].coverage[0.9].mean
    assert sentence == f"The 90% band of its paths held {first:.1%} 1 bar ahead and {last:.1%} 10 bars ahead."


def versions_of(report, **figures):
    """The comparison, its RankIC rows by version: difference, p by Holm."""
    comparison = report.versions
    table = comparison.table.copy()
    table["p_holm"] = table["p_holm"].where(table["metric"] == "rank_ic", 1.0)
    for name, (difference, p) in figures.items():
        row = (table["version"] == name) & (table["metric"] == "rank_ic")
        table.loc[row, ["difference", "p_holm"]] = difference, p
    return dataclasses.replace(comparison, table=table)


def test_a_version_that_differs_for_sure_is_told_from_those_that_do_not(report):
    few = versions_of(report, **{"fine-tuned": (0.02, 0.01), "seed 2": (0.01, 0.4), "small": (-0.01, 0.2)})
    verdict = summarize_comparison(few)
    assert verdict.status == "good"
    first, second = verdict.sentences
    assert "fine-tuned ranks better for sure, by +0.0200" in first
    assert second.startswith("Not different for sure: seed 2, +0.0100")
    assert "small, −0.0100" in second
    assert "would have been found" in second


@pytest.mark.parametrize(
    ("figures", "tone"),
    [
        ({"fine-tuned": (0.02, 0.2), "seed 2": (0.01, 0.4), "small": (-0.01, 0.2)}, "none"),
        ({"fine-tuned": (0.02, 0.2), "seed 2": (0.01, 0.4), "small": (-0.01, 0.001)}, "bad"),
        ({"fine-tuned": (0.02, 0.01), "seed 2": (0.01, 0.4), "small": (-0.01, 0.001)}, "mixed"),
    ],
)
def test_versions_set_the_tone_where_nothing_else_does(report, figures, status):
    alone = dataclasses.replace(
        report, signal=None, distribution=None, portfolio=None, versions=versions_of(report, **figures)
    )
    verdict = summarize(alone)
    assert verdict.status == status
    assert verdict.sentences[0].startswith("Against base, whose mean RankIC is")


def test_less_of_a_loss_is_better(report):
    table = report.versions.table.copy()
    row = (table["version"] == "small") & (table["metric"] == "crps_h5")
    table.loc[row, ["difference", "p_holm"]] = -0.01, 0.001
    verdict = summarize_comparison(dataclasses.replace(report.versions, table=table))
    assert "small is better by crps_h5" in verdict.sentences[-1]


def test_the_score_speaks_first_and_the_others_after_it(report):
    verdict = summarize(report)
    assert verdict.sentences[0].startswith("Mean RankIC is")
    assert verdict.sentences[1].startswith("After costs")
    assert verdict.sentences[2].startswith("The 90% band")
    assert verdict.sentences[3].startswith("Against base")
    assert np.isfinite(report.signal.rank_ic.mean)


def test_the_reports_own_come_first_and_each_is_told_once(report):
    again = dataclasses.replace(report, warnings=["a", "b", "a"], versions=None)
    told = report_warnings(again)
    assert told[:2] == ["a", "b"]
    assert len(told) == len(set(told))


def test_those_of_the_comparison_are_told_too(report):
    few = dataclasses.replace(report.versions, warnings=("no date in common",))
    assert "no date in common" in report_warnings(dataclasses.replace(report, versions=few))
