"""What a reader sees first: the verdict on a report in a few sentences, and its warnings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.baselines import MODEL
from kronos_strategies.evaluation.comparison.comparison import Comparison
from kronos_strategies.evaluation.comparison.metrics import HIGHER_IS_BETTER
from kronos_strategies.evaluation.distribution.evaluation import DistributionEvaluation
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
    Show,
    bars,
    count,
    decimals,
    decimals_2,
    decimals_4,
    interval,
    listing,
    percent,
    percent_2,
    probability,
    signed,
    signed_percent,
)
from kronos_strategies.report.layout import Record
from kronos_strategies.report.report import Report

ALPHA = 0.05


@dataclass(frozen=True)
class Verdict:
    """Verdict on one report.

    Attributes:
        status: "good", "mixed", "none" or "bad".
        headline: the status in a few words.
        sentences: the first is on the score, or on the versions where nothing else was evaluated.
    """

    status: str
    headline: str
    sentences: tuple[str, ...]


def summarize(report: Report) -> Verdict:
    """The verdict from the evaluations that the report has."""
    found = []
    if report.signal is not None and report.is_cross_sectional:
        found.append(summarize_signal(report.signal))
    if report.time_series is not None and not report.is_cross_sectional:
        found.append(summarize_time_series(report.time_series))
    if report.versions is not None:
        found.append(summarize_comparison(report.versions))
    more = [] if report.portfolio is None else [portfolio_sentence(report.portfolio)]
    more += [] if report.distribution is None else coverage_sentences(report.distribution)
    if not found:
        return Verdict("none", "No score was evaluated", tuple(more) or ("The report is empty.",))
    first, *others = found
    further = [sentence for verdict in others for sentence in verdict.sentences]
    return Verdict(first.status, first.headline, (*first.sentences, *more, *further))


def report_warnings(report: Report) -> list[str]:
    """All warnings of a report, each once."""
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


def summarize_signal(signal: SignalEvaluation) -> Verdict:
    """Whether the score ranks, and ranks better than the baselines, by intervals paired by date."""
    rank = signal.rank_ic
    if not np.isfinite(rank.mean):
        sentence = "RankIC is undefined: on no date did enough instruments have both a score and a return."
        return Verdict("none", "No verdict", (sentence,))
    if not np.isfinite(rank.low):
        sentence = f"Mean RankIC is {decimals(rank.mean)}; there are too few dates for an interval."
        return Verdict("none", "No verdict", (sentence,))
    baselines = signal.table.iloc[1:]
    baselines = baselines[baselines["rank_ic_difference"].notna()]
    beaten = baselines["rank_ic_difference_low"] > 0
    if rank.high < 0:
        status, headline = "bad", "Negative rank IC"
        claim = "significantly below zero: instruments with high scores had lower returns"
    elif rank.low <= 0:
        status, headline, claim = "none", "No evidence of skill", "not significantly different from zero"
    elif not len(baselines):
        status, headline, claim = "mixed", "Better than chance", "significantly above zero"
    elif beaten.all():
        status, headline, claim = "good", "Better than chance and all baselines", "significantly above zero"
    elif beaten.any():
        status, headline, claim = "mixed", "Better than chance and some baselines", "significantly above zero"
    else:
        status, headline = "mixed", "Not significantly better than the baselines"
        claim = "significantly above zero"
    ends = interval(rank.low, rank.high, decimals)
    measured = (
        f"Mean RankIC is {decimals(rank.mean)} (95% {ends}; t {decimals_2(rank.t)}, {rank.method}), {claim}"
    )
    return Verdict(status, headline, (f"{measured}; {_compared_with(baselines)}.",))


def summarize_time_series(time_series: TimeSeriesEvaluation) -> Verdict:
    """Whether scores predict outcomes over time, by the interval of their correlation."""
    single = len(time_series.instruments) == 1
    tests = {each.name: each.correlation for each in time_series.instruments}
    known = {name: test for name, test in tests.items() if np.isfinite(test.low)}
    if not known:
        sentence = "Too few forecasts have an outcome for an interval of their correlation."
        return Verdict("none", "No verdict", (sentence,))
    level = ALPHA / len(known)  # Bonferroni: of many instruments some are significant by chance
    above = [name for name, test in known.items() if test.p < level and test.mean > 0]
    below = [name for name, test in known.items() if test.p < level and test.mean < 0]
    if above and below:
        status, headline = "mixed", "Positive correlation for some instruments, negative for others"
    elif above:
        status, headline = "mixed", "Forecasts correlate with outcomes over time"
    elif below:
        status, headline = "bad", "Negative correlation of forecasts and outcomes"
    else:
        status, headline = "none", "No evidence of skill over time"
    if single:
        ((_, test),) = known.items()
        claim = (
            "significantly above zero" if above else
            "significantly below zero" if below else
            "not significantly different from zero"
        )  # fmt: skip
        sentence = (
            f"The correlation of forecast and outcome over {count(test.dates)} dates is {decimals(test.mean)} "
            f"(95% {interval(test.low, test.high, decimals)}; t {decimals_2(test.t)}, {test.method}), {claim}."
        )
    else:
        sentence = (
            f"Of {count(len(known))} instruments, the correlation of forecast and outcome over time is "
            f"significantly above zero for {count(len(above))} and below zero for {count(len(below))}, at 5% for "
            "all of them together (Bonferroni)."
        )
    more = [_over_time(each) for each in time_series.instruments if single]
    return Verdict(status, headline, (sentence, *more))


def _over_time(instrument: InstrumentEvaluation) -> str:
    """Hit rate, coverage and CRPS of one instrument."""
    parts = []
    if instrument.hit_rate is not None and np.isfinite(instrument.hit_rate.mean):
        always = max(instrument.share_up, 1 - instrument.share_up)
        parts.append(
            f"the hit rate of the sign is {percent(instrument.hit_rate.mean)}, compared with {percent(always)} for "
            "always betting on the more frequent direction"
        )
    if instrument.coverage is not None and np.isfinite(instrument.coverage.mean):
        parts.append(
            f"the {instrument.level:.0%} band covers {percent(instrument.coverage.mean)} of the outcomes"
        )
    if instrument.crps_reduction is not None:
        parts.append(f"CRPS skill against a random walk is {percent(instrument.crps_skill)}")
    sentence = listing(parts) if parts else "neither signs nor bands were forecast"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _compared_with(baselines: pd.DataFrame) -> str:
    """The baselines that are beaten, those that are better, and those without a significant difference."""
    if not len(baselines):
        return "there is no baseline to compare with"
    beaten, better = baselines["rank_ic_difference_low"] > 0, baselines["rank_ic_difference_high"] < 0
    parts = []
    if beaten.any():
        parts.append(f"significantly better than {listing(_names(baselines[beaten]))}")
    if better.any():
        parts.append(f"significantly worse than {listing(_names(baselines[better]))}")
    same = baselines[~beaten & ~better]
    if len(same):
        differences = zip(_names(same), same["rank_ic_difference"], strict=True)
        named = [f"{name} ({signed(difference)})" for name, difference in differences]
        parts.append(f"not significantly different from {listing(named)}")
    return f"paired by date it is {listing(parts)}"


def _names(baselines: pd.DataFrame) -> list[str]:
    return [str(name) for name in baselines.index]


def portfolio_sentence(portfolio: PortfolioEvaluation) -> str:
    """Net Sharpe ratio with its interval, PSR and DSR, compared with the benchmarks."""
    sharpe, net = portfolio.sharpe, portfolio.performance.to_dict("index")["net"]
    others = [
        f"{decimals_2(row['sharpe'])} ({name})" for name, row in portfolio.performance.iloc[2:].iterrows()
    ]
    against = f", compared with {listing(others)}" if others else ""
    if not np.isfinite(sharpe.sharpe):
        return "The Sharpe ratio of the portfolio is undefined: it has too few bars or constant returns."
    trials = f" after {count(sharpe.trials)} trials" if sharpe.trials > 1 else ""
    ends = interval(sharpe.low, sharpe.high, decimals_2)
    return (
        f"The Sharpe ratio of the portfolio after costs is {decimals_2(sharpe.sharpe)} (95% {ends}; "
        f"PSR {percent(sharpe.psr)}, DSR {percent(sharpe.dsr)}{trials}){against}; "
        f"the maximum drawdown is {percent(net['max_drawdown'])}."
    )


def coverage_sentences(distribution: DistributionEvaluation) -> list[str]:
    """Coverage of the widest band at the shortest and the longest horizon; none without a band."""
    found = []
    for score in distribution.distributions:
        reached = {level: test for level, test in score.coverage.items() if test is not None}
        if score.name == MODEL and reached and np.isfinite(reached[max(reached)].mean):
            found.append((max(reached), score.horizon, reached[max(reached)].mean))
    if not found:
        return []
    ends = [
        f"{percent(mean)} of the outcomes {bars(horizon)} ahead"
        for _, horizon, mean in dict.fromkeys((found[0], found[-1]))
    ]
    return [f"The {found[0][0]:.0%} band of the paths covers {listing(ends)}."]


def summarize_comparison(comparison: Comparison) -> Verdict:
    """Which versions differ significantly from the reference, by Holm's p, and which do not; the headline first."""
    table, reference = comparison.table, comparison.reference
    rows = table[(table["version"] != reference) & table["difference"].notna()]
    words = PORTFOLIOS if comparison.headline == "net_return" else SCORES
    more, less = words.ways
    rank = rows[rows["metric"] == comparison.headline]
    if not len(rank):
        sentence = (
            f"On no date is the {words.metric} of both a version and the reference {reference} defined."
        )
        return Verdict("none", "No verdict", (sentence,))
    significant = rank["p_holm"] < ALPHA
    better, worse = (rank[significant & (sign * rank["difference"] > 0)] for sign in (1, -1))
    status, headline = (
        ("good", f"A version {words.verb}s {more} than the reference") if len(better) else
        ("bad", f"A version {words.verb}s {less} than the reference") if len(worse) else
        ("none", "No significant difference from the reference")
    )  # fmt: skip
    if len(better) and len(worse):
        status, headline = "mixed", f"Some versions {words.verb} {more}, some {less}"
    own = (table["version"] == reference) & (table["metric"] == comparison.headline)
    level = words.show(table.loc[own, "mean"].iloc[0])
    compared = f"Compared with {reference}, whose mean {words.metric} is {level}"
    clear = [
        f"{row['version']} {words.verb}s significantly {more if row['difference'] > 0 else less}, by "
        f"{_difference(row, words)}; Holm p {probability(row['p_holm'])})"
        for row in (*better.to_dict("records"), *worse.to_dict("records"))
    ]
    others = rank[~significant].to_dict("records")
    unclear = [f"{row['version']}, {_difference(row, words)}{_detectable(row, words)})" for row in others]
    sentences = [f"{compared}, {'; '.join(clear)}."] if clear else []
    if unclear:
        opening = "No significant difference" if clear else f"{compared}, no version differs significantly"
        sentences.append(f"{opening}: {listing(unclear)}.")
    return Verdict(status, headline, (*sentences, *_other_metrics(rows, comparison.headline)))


class _Words(NamedTuple):
    """How a verdict speaks of its headline metric."""

    metric: str
    show: Show
    signed: Show
    verb: str
    ways: tuple[str, str]  # of a positive and of a negative difference


SCORES = _Words("RankIC", decimals_4, signed, "rank", ("better", "worse"))
PORTFOLIOS = _Words("net return per year", percent_2, signed_percent, "earn", ("more", "less"))


def _difference(row: Record, words: _Words) -> str:
    ends = interval(row["difference_low"], row["difference_high"], words.signed)
    return f"{words.signed(row['difference'])} (95% {ends}"


def _detectable(row: Record, words: _Words) -> str:
    """The difference that dates like these detect."""
    detectable = row["detectable"]
    return f"; ±{words.show(detectable)} is detectable" if np.isfinite(detectable) else ""


def _other_metrics(rows: pd.DataFrame, headline: str) -> list[str]:
    """Significant differences in metrics other than the headline, version by version."""
    others = rows[(rows["metric"] != headline) & (rows["p_holm"] < ALPHA)]
    better = (others["difference"] > 0) == others["metric"].isin(HIGHER_IS_BETTER)
    parts = []
    for version in others["version"].unique():
        own = others["version"] == version
        ways = {"better": others.loc[own & better, "metric"], "worse": others.loc[own & ~better, "metric"]}
        words = [
            f"{how} in {listing([str(each) for each in metrics])}"
            for how, metrics in ways.items()
            if len(metrics)
        ]
        parts.append(f"{version} is {listing(words)}")
    return [f"Significant differences in other metrics: {'; '.join(parts)}."] if parts else []
