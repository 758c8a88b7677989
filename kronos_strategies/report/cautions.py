"""What a reader must be told before believing the figures: warnings of the run, and of the studies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from kronos_strategies.evaluation.distribution.study import DistributionStudy
from kronos_strategies.evaluation.portfolio.study import PortfolioStudy
from kronos_strategies.evaluation.scorecard.rows import MODEL
from kronos_strategies.evaluation.signal.study import SignalStudy
from kronos_strategies.evaluation.significance import MIN_SPANS, MeanTest
from kronos_strategies.evaluation.timeseries import TimeSeriesStudy
from kronos_strategies.report.formats import bars, count, listing, percent

if TYPE_CHECKING:
    from kronos_strategies.report.report import Report

MANY_UNDEFINED = 0.1  # of dates
FAR = 0.05  # of coverage from nominal, in shares
FEW_ROWS = 0.8  # of those that there were
SHORT_BOOK = 0.9  # of a year
SURE = 0.95  # of a deflated Sharpe ratio


def cautions(report: Report) -> list[str]:
    """Sentences, each once."""
    found = [*report.warnings, *of_ledger(report.ledger)]
    if report.signal is not None and report.ranks:
        found += of_signal(report.signal)
    if report.time_series is not None:
        found += of_time_series(report.time_series)
    if report.distribution is not None:
        found += of_distribution(report.distribution)
    if report.portfolio is not None:
        found += of_portfolio(report.portfolio)
    if report.versions is not None:
        found += list(report.versions.warnings)
    return list(dict.fromkeys(found))


def of_ledger(ledger: Mapping[str, int]) -> Iterator[str]:
    """Rows that were lost between the first line and the last."""
    rows = list(ledger.values()) or [0]
    first, last = rows[0], rows[-1]
    if last < FEW_ROWS * first:
        yield (
            f"Only {count(last)} of {count(first)} rows ({percent(last / first)}) were compared: the ledger says "
            "why the others were not, and what holds for these need not hold for those."
        )


def of_signal(study: SignalStudy) -> Iterator[str]:
    """Short samples and undefined dates."""
    rank = study.rank_ic
    spans, dates = rank.dates // rank.overlap, rank.dates + rank.undefined
    if rank.dates > 0 and spans < MIN_SPANS:
        yield (
            f"{count(rank.dates)} dates hold {count(spans)} labels that do not overlap, fewer than {MIN_SPANS}: "
            "the interval of RankIC is wide, and still only roughly right."
        )
    if rank.undefined > MANY_UNDEFINED * dates:
        yield (
            f"RankIC is undefined on {count(rank.undefined)} of {count(dates)} dates, for too few names or a score "
            "that does not vary: these dates count for nothing."
        )


def of_time_series(study: TimeSeriesStudy) -> Iterator[str]:
    """Series that are too short to say much."""
    dates = max((each.correlation.dates for each in study.instruments), default=0)
    spans = dates // study.overlap
    if spans < MIN_SPANS:
        yield (
            f"{count(dates)} forecasts hold {count(spans)} outcomes that do not overlap, fewer than {MIN_SPANS}: "
            "intervals over time are wide and approximate."
        )


def of_distribution(study: DistributionStudy) -> Iterator[str]:
    """Bands that hold far from what they should, where chance does not explain it."""
    own = [score for score in study.distributions if score.name == MODEL]
    for what, sign in (("too narrow", -1), ("too wide", 1)):
        words = []
        for level in sorted({level for score in own for level in score.coverage}):
            held = [
                f"{percent(test.mean)} {bars(score.horizon)} ahead"
                for score in own
                if (test := score.coverage.get(level)) is not None and _off(test, level, sign)
            ]
            if held:
                words.append(f"the {level:.0%} band held {listing(held)}")
        if words:
            yield f"The paths are {what}: {'; '.join(words)}."


def _off(test: MeanTest, level: float, sign: int) -> bool:
    """Whether coverage is far from its level on that side, and its interval does not reach it."""
    end = test.high if sign < 0 else test.low
    return bool(sign * (test.mean - level) > FAR and sign * (end - level) > 0)


def of_portfolio(study: PortfolioStudy) -> Iterator[str]:
    """Short books, and Sharpe ratios that chance alone could have found."""
    size, sure = len(study.result.returns), study.sharpe
    if size < SHORT_BOOK * study.result.bars_per_year:
        yield f"The book is {bars(size)} long, less than a year: its annual figures are extrapolated."
    if sure.trials > 1 and sure.dsr < SURE:
        yield (
            f"After {count(sure.trials)} trials the deflated Sharpe ratio is {percent(sure.dsr)}: the best of as "
            "many books without skill could have looked like this."
        )
