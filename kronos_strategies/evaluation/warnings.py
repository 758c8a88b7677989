"""All warnings that a reader of a report or a comparison has to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.comparison.align import AlignedPanel
from kronos_strategies.evaluation.comparison.paired import MIN_BLOCKS, block_length
from kronos_strategies.evaluation.distribution.evaluation import DistributionEvaluation
from kronos_strategies.evaluation.distribution.scores import MODEL
from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation
from kronos_strategies.evaluation.signal.evaluation import SignalEvaluation
from kronos_strategies.evaluation.signal.ic import MIN_INSTRUMENTS
from kronos_strategies.evaluation.significance import MIN_INDEPENDENT_LABELS, MeanTest
from kronos_strategies.evaluation.time_series import TimeSeriesEvaluation


def remarks(rows: AlignedPanel, horizon: int, overlap: int) -> tuple[str, ...]:
    """Sentences on undefined dates, short series and losses left out."""
    return (*_undefined(rows, horizon), *_short(rows, overlap), *_left_out(rows))


def uneven(by_date: Mapping[str, pd.DataFrame], baseline: str) -> tuple[str, ...]:
    """Sentences on metrics whose means are of other dates than the differences beside them.

    Args:
        by_date: metric -> dates x versions, NaN where undefined.
        baseline: name of the version that the others are held against.
    """
    metrics_of: dict[tuple[int, ...], list[str]] = {}
    for metric, values in by_date.items():
        metrics_of.setdefault(tuple(values.notna().sum()), []).append(metric)
    found = []
    for counts, metrics in metrics_of.items():
        values = by_date[metrics[0]]
        if len(set(counts)) > 1:
            own = ", ".join(f"'{name}' {count:,}" for name, count in zip(values, counts, strict=True))
            others = values.drop(columns=baseline).notna()
            shared = others.mul(values[baseline].notna(), axis=0).sum()
            paired = ", ".join(f"'{name}' {count:,}" for name, count in shared.items())
            found.append(
                f"{', '.join(metrics)}: a mean is of the dates when its version is defined ({own}), a difference "
                f"of those that a version shares with '{baseline}' ({paired}). So means need not differ by the "
                "difference."
            )
    return tuple(found)


def _undefined(rows: AlignedPanel, horizon: int) -> Iterator[str]:
    label, total = rows.labels[horizon], len(rows.dates)
    few = np.isfinite(label).sum(axis=1) < MIN_INSTRUMENTS
    if few.any():
        yield (
            f"{few.sum():,} of {total:,} dates have fewer than {MIN_INSTRUMENTS} names in common: "
            "IC, RankIC and spread are undefined there, and left out."
        )
    for what, values in {
        "The label": label,
        **{f"'{name}'": score for name, score in rows.scores.items()},
    }.items():
        if constant := int((_constant(values) & ~few).sum()):
            yield (
                f"{what} is constant on {constant:,} of {total:,} dates: it ranks nothing there, and these dates "
                "are left out."
            )


def _short(rows: AlignedPanel, overlap: int) -> Iterator[str]:
    total = len(rows.dates)
    if total < MIN_INDEPENDENT_LABELS * overlap:
        yield (
            f"{total:,} dates hold {total // overlap:,} labels that do not overlap, fewer than {MIN_INDEPENDENT_LABELS}: "
            "intervals are wide, and a p is only roughly right."
        )
    if total < MIN_BLOCKS * block_length(total, overlap):
        yield f"{total:,} dates are too few for a model confidence set of labels that span {overlap}."


def _left_out(rows: AlignedPanel) -> Iterator[str]:
    for loss, version in rows.lacking.items():
        yield f"The loss '{loss}' is left out: '{version}' does not have it."


def _constant(values: np.ndarray) -> np.ndarray:
    """(dates, names) -> (dates,): whether all values of a date are one; to RankIC rounding is a difference too."""
    return np.fmin.reduce(values, axis=1) == np.fmax.reduce(values, axis=1)


MANY_UNDEFINED = 0.1  # of dates
FAR = 0.05  # of coverage from nominal, in shares
FEW_ROWS = 0.8  # of those that there were
SHORT_BOOK = 0.9  # of a year
SURE = 0.95  # of a deflated Sharpe ratio


def of_ledger(ledger: Mapping[str, int]) -> Iterator[str]:
    """Rows that were lost between the first line and the last."""
    rows = list(ledger.values()) or [0]
    first, last = rows[0], rows[-1]
    if last < FEW_ROWS * first:
        yield (
            f"Only {last:,} of {first:,} rows ({last / first:.1%}) were compared: the ledger says "
            "why the others were not, and what holds for these need not hold for those."
        )


def of_signal(study: SignalEvaluation) -> Iterator[str]:
    """Short samples and undefined dates."""
    rank = study.rank_ic
    spans, dates = rank.dates // rank.overlap, rank.dates + rank.undefined
    if rank.dates > 0 and spans < MIN_INDEPENDENT_LABELS:
        yield (
            f"{rank.dates:,} dates hold {spans:,} labels that do not overlap, fewer than {MIN_INDEPENDENT_LABELS}: "
            "the interval of RankIC is wide, and still only roughly right."
        )
    if rank.undefined > MANY_UNDEFINED * dates:
        yield (
            f"RankIC is undefined on {rank.undefined:,} of {dates:,} dates, for too few names or a score "
            "that does not vary: these dates count for nothing."
        )


def of_time_series(study: TimeSeriesEvaluation) -> Iterator[str]:
    """Series that are too short to say much."""
    dates = max((each.correlation.dates for each in study.instruments), default=0)
    spans = dates // study.overlap
    if spans < MIN_INDEPENDENT_LABELS:
        yield (
            f"{dates:,} forecasts hold {spans:,} outcomes that do not overlap, fewer than {MIN_INDEPENDENT_LABELS}: "
            "intervals over time are wide and approximate."
        )


def of_distribution(study: DistributionEvaluation) -> Iterator[str]:
    """Bands that hold far from what they should, where chance does not explain it."""
    own = [score for score in study.distributions if score.name == MODEL]
    for what, sign in (("too narrow", -1), ("too wide", 1)):
        words = []
        for level in sorted({level for score in own for level in score.coverage}):
            held = [
                f"{test.mean:.1%} {_bars(score.horizon)} ahead"
                for score in own
                if (test := score.coverage.get(level)) is not None and _off(test, level, sign)
            ]
            if held:
                words.append(f"the {level:.0%} band held {_listing(held)}")
        if words:
            yield f"The paths are {what}: {'; '.join(words)}."


def _off(test: MeanTest, level: float, sign: int) -> bool:
    """Whether coverage is far from its level on that side, and its interval does not reach it."""
    end = test.high if sign < 0 else test.low
    return bool(sign * (test.mean - level) > FAR and sign * (end - level) > 0)


def of_portfolio(study: PortfolioEvaluation) -> Iterator[str]:
    """Short books, and Sharpe ratios that chance alone could have found."""
    size, sure = len(study.result.returns), study.sharpe
    if size < SHORT_BOOK * study.result.bars_per_year:
        yield f"The book is {_bars(size)} long, less than a year: its annual figures are extrapolated."
    if sure.trials > 1 and sure.dsr < SURE:
        yield (
            f"After {sure.trials:,} trials the deflated Sharpe ratio is {sure.dsr:.1%}: the best of as "
            "many books without skill could have looked like this."
        )


def _bars(number: int) -> str:
    return f"{number} bar{'s' * (number != 1)}"


def _listing(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
