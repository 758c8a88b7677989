"""The verdict: what the studies of one report say, in a few plain sentences that claim no more than they do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.comparison.comparison import Comparison
from kronos_strategies.evaluation.comparison.metrics import HIGHER_IS_BETTER
from kronos_strategies.evaluation.distribution.evaluation import DistributionEvaluation
from kronos_strategies.evaluation.distribution.scores import MODEL
from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation
from kronos_strategies.evaluation.signal.evaluation import SignalEvaluation
from kronos_strategies.evaluation.time_series import InstrumentEvaluation, TimeSeriesEvaluation
from kronos_strategies.evaluation.warnings import (
    distribution_warnings,
    portfolio_warnings,
    sample_warnings,
    signal_warnings,
    time_series_warnings,
)
from kronos_strategies.report.formatting import (
    bars,
    count,
    decimals,
    decimals_2,
    decimals_4,
    interval,
    listing,
    percent,
    probability,
    signed,
)  # fmt: skip
from kronos_strategies.report.report import Report
from kronos_strategies.report.tables import Record

ALPHA = 0.05


@dataclass(frozen=True)
class Verdict:
    """Of one report.

    Attributes:
        tone: "good", "mixed", "none" or "bad".
        headline: the tone in a few words.
        sentences: the first is on the score, or on the versions where nothing else was studied.
    """

    status: str
    headline: str
    sentences: tuple[str, ...]


def summarize(report: Report) -> Verdict:
    """Read the verdict from the studies that there are."""
    found = (
        [summarize_signal(report.signal)] if report.signal is not None and report.is_cross_sectional else []
    )
    if report.time_series is not None and not report.is_cross_sectional:
        found.append(summarize_time_series(report.time_series))
    if report.versions is not None:
        found.append(summarize_comparison(report.versions))
    more = [] if report.portfolio is None else [portfolio_sentence(report.portfolio)]
    more += [] if report.distribution is None else coverage_sentences(report.distribution)
    if not found:
        return Verdict("none", "No score was studied", tuple(more) or ("There is nothing to judge.",))
    first, *others = found
    said = [sentence for verdict in others for sentence in verdict.sentences]
    return Verdict(first.status, first.headline, (*first.sentences, *more, *said))


def report_warnings(report: Report) -> list[str]:
    """Sentences, each once."""
    found = [*report.warnings, *sample_warnings(report.sample_counts)]
    if report.signal is not None and report.is_cross_sectional:
        found += signal_warnings(report.signal)
    if report.time_series is not None:
        found += time_series_warnings(report.time_series)
    if report.distribution is not None:
        found += distribution_warnings(report.distribution)
    if report.portfolio is not None:
        found += portfolio_warnings(report.portfolio)
    if report.versions is not None:
        found += list(report.versions.warnings)
    return list(dict.fromkeys(found))


def summarize_signal(study: SignalEvaluation) -> Verdict:
    """Whether the score ranks, and whether it ranks better than naive ones: by intervals, paired by date."""
    rank = study.rank_ic
    if not np.isfinite(rank.mean):
        sentence = "RankIC is undefined: on no date did enough names have both a score and a return."
        return Verdict("none", "No verdict", (sentence,))
    if not np.isfinite(rank.low):
        sentence = (
            f"Mean RankIC is {decimals(rank.mean)}, on too few dates for an interval: they say nothing yet."
        )
        return Verdict("none", "No verdict", (sentence,))
    naive = study.table.iloc[1:]
    naive = naive[naive["rank_ic_difference"].notna()]
    beaten = naive["rank_ic_difference_low"] > 0
    if rank.high < 0:
        status, headline = "bad", "Ranks the wrong way round"
        claim = "below zero: names scored high earned less"
    elif rank.low <= 0:
        status, headline, claim = "none", "No evidence of skill", "not distinguishable from zero"
    elif not len(naive):
        status, headline, claim = "mixed", "Better than chance", "above zero"
    elif beaten.all():
        status, headline, claim = "good", "Better than chance and naive signals", "above zero"
    elif beaten.any():
        status, headline, claim = "mixed", "Better than chance and some naive signals", "above zero"
    else:
        status, headline, claim = "mixed", "Not surely better than a naive signal", "above zero"
    ends = interval(rank.low, rank.high, decimals)
    measured = (
        f"Mean RankIC is {decimals(rank.mean)} (95% {ends}; t {decimals_2(rank.t)}, {rank.method}), {claim}"
    )
    return Verdict(status, headline, (f"{measured}; paired by date {_against(naive)}.",))


def summarize_time_series(study: TimeSeriesEvaluation) -> Verdict:
    """Whether forecasts go with outcomes over time: by the interval of their correlation."""
    single = len(study.instruments) == 1
    tests = {each.name: each.correlation for each in study.instruments}
    sure = {name: test for name, test in tests.items() if np.isfinite(test.low)}
    if not sure:
        sentence = (
            "Too few forecasts have an outcome for an interval of their correlation: they say nothing yet."
        )
        return Verdict("none", "No verdict", (sentence,))
    level = ALPHA / len(sure)  # Bonferroni: of many instruments one looks skilled by chance
    above = [name for name, test in sure.items() if test.p < level and test.mean > 0]
    below = [name for name, test in sure.items() if test.p < level and test.mean < 0]
    if above and below:
        status, headline = "mixed", "Skill in some instruments, the reverse in others"
    elif above:
        status, headline = "mixed", "Forecasts go with outcomes over time"
    elif below:
        status, headline = "bad", "Forecasts go against outcomes over time"
    else:
        status, headline = "none", "No evidence of skill over time"
    if single:
        ((_, test),) = sure.items()
        claim = "above zero" if above else "below zero" if below else "not distinguishable from zero"
        sentence = (
            f"The correlation of forecast and outcome over {count(test.dates)} dates is {decimals(test.mean)} "
            f"(95% {interval(test.low, test.high, decimals)}; t {decimals_2(test.t)}, {test.method}), {claim}."
        )
    else:
        sentence = (
            f"Of {count(len(sure))} instruments the correlation of forecast and outcome over time is above zero in "
            f"{count(len(above))} and below it in {count(len(below))}, at 5% for all of them together (Bonferroni)."
        )
    return Verdict(status, headline, (sentence, *(_over_time(each) for each in study.instruments if single)))


def _over_time(study: InstrumentEvaluation) -> str:
    """Hit rate, band and CRPS of one instrument."""
    said = []
    if study.hits is not None and np.isfinite(study.hits.mean):
        said.append(
            f"the sign was right on {percent(study.hits.mean)} of the dates, where always betting on the more "
            f"frequent direction would have been on {percent(max(study.rises, 1 - study.rises))}"
        )
    if study.coverage is not None and np.isfinite(study.coverage.mean):
        said.append(f"the {study.level:.0%} band held {percent(study.coverage.mean)} of the outcomes")
    if study.crps_lead is not None:
        said.append(f"CRPS skill against a random walk is {percent(study.crps_skill)}")
    sentence = listing(said) if said else "neither signs nor bands were forecast"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _against(naive: pd.DataFrame) -> str:
    """Which naive scores are beaten, which beat it, and which of the leads may be chance."""
    if not len(naive):
        return "there is no naive signal to hold it against"
    beaten, lost = naive["rank_ic_difference_low"] > 0, naive["rank_ic_difference_high"] < 0
    open_ = naive[~beaten & ~lost]
    said = []
    if beaten.any():
        said.append(f"it beats {listing(_names(naive[beaten]))}")
    if lost.any():
        said.append(f"it falls behind {listing(_names(naive[lost]))}")
    if len(open_):
        leads = [
            f"{name} ({signed(lead)})"
            for name, lead in zip(_names(open_), open_["rank_ic_difference"], strict=True)
        ]
        said.append(f"its difference from {listing(leads)} may be chance")
    return listing(said)


def _names(naive: pd.DataFrame) -> list[str]:
    return [str(name) for name in naive.index]


def portfolio_sentence(study: PortfolioEvaluation) -> str:
    """Net Sharpe with its interval, PSR and DSR, beside the benchmarks."""
    sure, net = study.sharpe, study.performance.to_dict("index")["net"]
    held = [f"{decimals_2(row['sharpe'])} ({name})" for name, row in study.performance.iloc[2:].iterrows()]
    against = f", against {listing(held)}" if held else ""
    if not np.isfinite(sure.sharpe):
        return "The book's Sharpe ratio is undefined: it has too few bars, or its returns are constant."
    trials = f" after {count(sure.trials)} trials" if sure.trials > 1 else ""
    return (
        f"After costs the book's Sharpe ratio was {decimals_2(sure.sharpe)} (95% {interval(sure.low, sure.high, decimals_2)}; "
        f"PSR {percent(sure.psr)}, DSR {percent(sure.dsr)}{trials}){against}; "
        f"its deepest drawdown was {percent(net['max_drawdown'])}."
    )


def coverage_sentences(study: DistributionEvaluation) -> list[str]:
    """How many outcomes the widest band held, at the shortest and the longest horizon; none without a band."""
    said = []
    for score in study.distributions:
        reached = {level: test for level, test in score.coverage.items() if test is not None}
        if score.name == MODEL and reached and np.isfinite(reached[max(reached)].mean):
            said.append((max(reached), score.horizon, reached[max(reached)].mean))
    if not said:
        return []
    ends = [
        f"{percent(mean)} {bars(horizon)} ahead" for _, horizon, mean in dict.fromkeys((said[0], said[-1]))
    ]
    return [f"The {said[0][0]:.0%} band of its paths held {listing(ends)}."]


def summarize_comparison(comparison: Comparison) -> Verdict:
    """Which versions differ from the baseline for sure, by Holm's p, and which do not; RankIC first."""
    table = comparison.table
    rows = table[(table["version"] != comparison.reference) & table["difference"].notna()]
    rank = rows[rows["metric"] == "rank_ic"]
    if not len(rank):
        sentence = f"On no date can a version's RankIC be held against that of {comparison.reference}."
        return Verdict("none", "No verdict", (sentence,))
    sure = rank["p_holm"] < ALPHA
    better, worse = rank[sure & (rank["difference"] > 0)], rank[sure & (rank["difference"] < 0)]
    status, headline = (
        ("good", "A version ranks better than the baseline") if len(better) else
        ("bad", "A version ranks worse than the baseline") if len(worse) else
        ("none", "No version differs from the baseline for sure")
    )  # fmt: skip
    if len(better) and len(worse):
        status, headline = "mixed", "Some versions rank better, some worse"
    mean = table.loc[
        (table["version"] == comparison.reference) & (table["metric"] == "rank_ic"), "mean"
    ].iloc[0]
    against = f"Against {comparison.reference}, whose mean RankIC is {decimals_4(mean)}"
    said = [
        f"{row['version']} ranks {'better' if row['difference'] > 0 else 'worse'} for sure, by "
        f"{_difference(row)}; Holm p {probability(row['p_holm'])})"
        for row in (*better.to_dict("records"), *worse.to_dict("records"))
    ]
    unsure = [f"{row['version']}, {_difference(row)}{_found(row)})" for row in rank[~sure].to_dict("records")]
    sentences = [f"{against}, {'; '.join(said)}."] if said else []
    if unsure:
        opening = "Not different for sure" if said else f"{against}, no version differs for sure"
        sentences.append(f"{opening}: {listing(unsure)}.")
    return Verdict(status, headline, (*sentences, *_other_metrics(rows)))


def _difference(row: Record) -> str:
    return (
        f"{signed(row['difference'])} (95% {interval(row['difference_low'], row['difference_high'], signed)}"
    )


def _found(row: Record) -> str:
    """What dates like these would have found."""
    return (
        f"; ±{decimals_4(row['detectable'])} would have been found" if np.isfinite(row["detectable"]) else ""
    )


def _other_metrics(rows: pd.DataFrame) -> list[str]:
    """Sure differences in what is not RankIC, version by version."""
    others = rows[(rows["metric"] != "rank_ic") & (rows["p_holm"] < ALPHA)]
    gain = others["metric"].isin(HIGHER_IS_BETTER)
    better = (others["difference"] > 0) == gain
    said = []
    for version in others["version"].unique():
        own = others["version"] == version
        ways = {"better": others.loc[own & better, "metric"], "worse": others.loc[own & ~better, "metric"]}
        words = [
            f"{how} by {listing([str(each) for each in metrics])}"
            for how, metrics in ways.items()
            if len(metrics)
        ]
        said.append(f"{version} is {listing(words)}")
    return [f"In other metrics, for sure: {'; '.join(said)}."] if said else []
