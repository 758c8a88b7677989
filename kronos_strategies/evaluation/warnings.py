"""All warnings that the reader of a report or a comparison has to know, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kronos.forecast import UNTRAINED, Provenance

# A forecast needs `training_overlap_warnings` alone. Modules that load SciPy, statsmodels or arch, over a second
# of CPU, are imported by the functions that use them, after the evaluation has loaded them.
if TYPE_CHECKING:
    from kronos_strategies.evaluation.comparison.version import AlignedPanel
    from kronos_strategies.evaluation.distribution.evaluation import DistributionEvaluation
    from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation
    from kronos_strategies.evaluation.signal.evaluation import SignalEvaluation
    from kronos_strategies.evaluation.significance import MeanTest
    from kronos_strategies.evaluation.time_series import TimeSeriesEvaluation
    from kronos_strategies.portfolio import PortfolioRules

MANY_UNDEFINED = 0.1  # of the dates
FAR = 0.05  # of coverage from nominal, as a share
FEW_ROWS = 0.8  # of the initial rows
SHORT_BACKTEST = 0.9  # of a year
CONFIDENT = 0.95  # of a deflated Sharpe ratio
FEW_DATES = 100
MIN_SCENARIOS = 100  # the worst tenth of which are 10
STATIC_DATES = 120  # a membership that is constant over so many dates is probably today's list


def training_overlap_warnings(provenance: Provenance, first: pd.Timestamp) -> list[str]:
    """Whether the checkpoint may have been trained on the evaluated dates, the first of which is `first`."""
    if provenance.trained_until is None:
        return ["The checkpoint does not state its training cutoff: it may have seen the test dates."]
    if provenance.trained_until == UNTRAINED or pd.Timestamp(provenance.trained_until) < first.normalize():
        return []
    return [
        f"The checkpoint was trained on data until {provenance.trained_until}, after the first test dates. "
        "Its model card says which markets it saw until when."
    ]


def universe_warnings(members: pd.Index) -> list[str]:
    """Few dates, and a universe that never changes.

    Args:
        members: (datetime, instrument) of each bar of each member.
    """
    by_date = members.to_frame(index=False).groupby("datetime")["instrument"]
    dates, found = by_date.ngroups, []
    if dates < FEW_DATES:
        found.append(f"There are only {dates} dates, so intervals are wide.")
    if dates >= STATIC_DATES and len(set(by_date.agg(frozenset))) == 1:
        found.append(
            f"No instrument joined or left the universe on {dates} dates. If it is a list of today's members, "
            "those that failed since are missing (survivorship bias), which overstates every long portfolio."
        )
    return found


def crowded_portfolio_warnings(held: int, members: float, remedy: str) -> list[str]:
    """A portfolio that holds more than half of its universe has little to select from.

    Args:
        held: positions that the portfolio holds.
        members: instruments that it selects from.
        remedy: what to do about it.
    """
    if held <= members / 2:
        return []
    return [f"The portfolio holds up to {held} of {members:.0f} members: {remedy}."]


def unsolved_warnings(unsolved: Mapping[pd.Timestamp, str]) -> list[str]:
    """Rebalances that kept the weights because their optimization had no result.

    Args:
        unsolved: reason by date, ascending.
    """
    if not unsolved:
        return []
    first, reason = next(iter(unsolved.items()))
    count = "1 rebalance" if len(unsolved) == 1 else f"{len(unsolved)} rebalances"
    when = f"on {first:%Y-%m-%d}" if len(unsolved) == 1 else f"first on {first:%Y-%m-%d}"
    return [f"{count} kept the weights, because the optimization had no result, {when}: {reason}."]


def scenario_warnings(rules: PortfolioRules, samples: int) -> list[str]:
    """Weights that are optimized over too few scenarios, whose tail and covariance are mostly sampling noise.

    Args:
        rules: rules of the weights.
        samples: sampled paths of each instrument, which are its scenarios.
    """
    if not rules.uses_scenarios or samples >= MIN_SCENARIOS:
        return []
    count = "1 scenario" if samples == 1 else f"{samples} scenarios"
    return [
        f"The weights ({rules.weighting}) are optimized over {count}, so that they follow sampling noise: forecast "
        f"with {MIN_SCENARIOS} paths or more."
    ]


def sample_warnings(sample_counts: Mapping[str, int]) -> Iterator[str]:
    """Many rows lost between the first count and the last."""
    rows = list(sample_counts.values()) or [0]
    first, last = rows[0], rows[-1]
    if last < FEW_ROWS * first:
        yield (
            f"Only {last:,} of {first:,} rows ({last / first:.1%}) are evaluated, see the sample counts. "
            "Results may not hold for the other rows."
        )


def signal_warnings(signal: SignalEvaluation) -> Iterator[str]:
    """Short samples and undefined dates."""
    from kronos_strategies.evaluation.significance import MIN_INDEPENDENT_LABELS

    rank = signal.rank_ic
    labels, dates = rank.dates // rank.overlap, rank.dates + rank.undefined
    if rank.dates > 0 and labels < MIN_INDEPENDENT_LABELS:
        yield (
            f"{rank.dates:,} dates have {labels:,} non-overlapping labels, fewer than {MIN_INDEPENDENT_LABELS}: "
            "the interval of RankIC is wide and approximate."
        )
    if rank.undefined > MANY_UNDEFINED * dates:
        yield (
            f"RankIC is undefined on {rank.undefined:,} of {dates:,} dates, because there are too few instruments "
            "or the score is constant: these dates are excluded."
        )


def time_series_warnings(time_series: TimeSeriesEvaluation) -> Iterator[str]:
    """Short series."""
    from kronos_strategies.evaluation.significance import MIN_INDEPENDENT_LABELS

    dates = max((each.correlation.dates for each in time_series.instruments), default=0)
    labels = dates // time_series.overlap
    if labels < MIN_INDEPENDENT_LABELS:
        yield (
            f"{dates:,} forecasts have {labels:,} non-overlapping outcomes, fewer than {MIN_INDEPENDENT_LABELS}: "
            "intervals over time are wide and approximate."
        )


def distribution_warnings(distribution: DistributionEvaluation) -> Iterator[str]:
    """Coverage far from nominal, beyond what chance explains."""
    from kronos_strategies.evaluation.baselines import MODEL

    own = [score for score in distribution.distributions if score.name == MODEL]
    for what, sign in (("too narrow", -1), ("too wide", 1)):
        words = []
        for level in sorted({level for score in own for level in score.coverage}):
            covered = [
                f"{test.mean:.1%} {_bars(score.horizon)} ahead"
                for score in own
                if (test := score.coverage.get(level)) is not None and _is_far(test, level, sign)
            ]
            if covered:
                words.append(f"the {level:.0%} band covers {_listing(covered)}")
        if words:
            yield f"The paths are {what}: {'; '.join(words)}."


def _is_far(test: MeanTest, level: float, sign: int) -> bool:
    """Whether coverage is far from its level on that side, and its interval excludes the level."""
    end = test.high if sign < 0 else test.low
    return bool(sign * (test.mean - level) > FAR and sign * (end - level) > 0)


def portfolio_warnings(portfolio: PortfolioEvaluation) -> Iterator[str]:
    """Short backtests, and Sharpe ratios that the number of trials explains."""
    size, sharpe = len(portfolio.result.returns), portfolio.sharpe
    if size < SHORT_BACKTEST * portfolio.result.bars_per_year:
        yield f"The backtest has {_bars(size)}, less than a year: annual metrics are extrapolated."
    if sharpe.trials > 1 and sharpe.dsr < CONFIDENT:
        yield (
            f"The deflated Sharpe ratio is {sharpe.dsr:.1%}: a strategy without skill could reach this Sharpe "
            f"ratio after {sharpe.trials:,} trials."
        )


def comparison_warnings(
    rows: AlignedPanel, by_date: Mapping[str, pd.DataFrame], reference: str, label_horizon: int, overlap: int
) -> tuple[str, ...]:
    """Undefined dates, short series, missing losses, and means over different dates than the differences.

    Args:
        rows: common rows of the versions.
        by_date: metric -> dates x versions, NaN where undefined.
        reference: name of the version that the others are compared with.
        label_horizon: bars that the label spans.
        overlap: successive dates that the label spans.
    """
    missing = (
        f"The loss '{loss}' is left out: '{version}' does not have it."
        for loss, version in rows.missing_losses.items()
    )
    return (
        *_undefined_dates(rows, label_horizon),
        *_short_comparison(rows, overlap),
        *missing,
        *_uneven_dates(by_date, reference),
    )


def _undefined_dates(rows: AlignedPanel, label_horizon: int) -> Iterator[str]:
    from kronos_strategies.evaluation.signal.metrics import MIN_INSTRUMENTS

    label, total = rows.labels[label_horizon], len(rows.dates)
    few = np.isfinite(label).sum(axis=1) < MIN_INSTRUMENTS
    if few.any():
        yield (
            f"{few.sum():,} of {total:,} dates have fewer than {MIN_INSTRUMENTS} common instruments: "
            "IC, RankIC and spread are undefined there, and these dates are excluded."
        )
    scores = {f"'{name}'": score for name, score in rows.scores.items()}
    for what, values in {"The label": label, **scores}.items():
        if constant := int((_is_constant(values) & ~few).sum()):
            yield f"{what} is constant on {constant:,} of {total:,} dates, which are excluded."


def _short_comparison(rows: AlignedPanel, overlap: int) -> Iterator[str]:
    from kronos_strategies.evaluation.comparison.metrics import MIN_BLOCKS, mcs_block_length
    from kronos_strategies.evaluation.significance import MIN_INDEPENDENT_LABELS

    total = len(rows.dates)
    if total < MIN_INDEPENDENT_LABELS * overlap:
        yield (
            f"{total:,} dates have {total // overlap:,} non-overlapping labels, fewer than "
            f"{MIN_INDEPENDENT_LABELS}: intervals are wide, and p-values are approximate."
        )
    if total < MIN_BLOCKS * mcs_block_length(total, overlap):
        span = f"{overlap} date{'s' * (overlap != 1)}"
        yield f"{total:,} dates are too few for a model confidence set with labels that span {span}."


def _uneven_dates(by_date: Mapping[str, pd.DataFrame], reference: str) -> Iterator[str]:
    """Metrics whose means are over other dates than the differences next to them."""
    metrics_of: dict[tuple[int, ...], list[str]] = {}
    for metric, values in by_date.items():
        metrics_of.setdefault(tuple(values.notna().sum()), []).append(metric)
    for counts, metrics in metrics_of.items():
        values = by_date[metrics[0]]
        if len(set(counts)) > 1:
            own = ", ".join(f"'{name}' {count:,}" for name, count in zip(values, counts, strict=True))
            others = values.drop(columns=reference).notna()
            shared = others.mul(values[reference].notna(), axis=0).sum()
            paired = ", ".join(f"'{name}' {count:,}" for name, count in shared.items())
            yield (
                f"{', '.join(metrics)}: each mean is over the dates on which the version is defined ({own}), "
                f"each difference over those it shares with '{reference}' ({paired}). So the difference of two "
                "means may not equal the difference shown."
            )


def _is_constant(values: np.ndarray) -> np.ndarray:
    """(dates, instruments) -> (dates,): whether all values of a date are equal, without any tolerance."""
    return np.fmin.reduce(values, axis=1) == np.fmax.reduce(values, axis=1)


def _bars(number: int) -> str:
    return f"{number} bar{'s' * (number != 1)}"


def _listing(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
