"""What a reader of a comparison must be told. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.signal.ic import MIN_NAMES
from kronos_strategies.evaluation.significance import MIN_SPANS
from kronos_strategies.evaluation.versions.align import CommonRows
from kronos_strategies.evaluation.versions.mcs import MIN_BLOCKS, block_length


def remarks(rows: CommonRows, horizon: int, overlap: int) -> tuple[str, ...]:
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


def _undefined(rows: CommonRows, horizon: int) -> Iterator[str]:
    label, total = rows.labels[horizon], len(rows.dates)
    few = np.isfinite(label).sum(axis=1) < MIN_NAMES
    if few.any():
        yield (
            f"{few.sum():,} of {total:,} dates have fewer than {MIN_NAMES} names in common: "
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


def _short(rows: CommonRows, overlap: int) -> Iterator[str]:
    total = len(rows.dates)
    if total < MIN_SPANS * overlap:
        yield (
            f"{total:,} dates hold {total // overlap:,} labels that do not overlap, fewer than {MIN_SPANS}: "
            "intervals are wide, and a p is only roughly right."
        )
    if total < MIN_BLOCKS * block_length(total, overlap):
        yield f"{total:,} dates are too few for a model confidence set of labels that span {overlap}."


def _left_out(rows: CommonRows) -> Iterator[str]:
    for loss, version in rows.lacking.items():
        yield f"The loss '{loss}' is left out: '{version}' does not have it."


def _constant(values: np.ndarray) -> np.ndarray:
    """(dates, names) -> (dates,): whether all values of a date are one; to RankIC rounding is a difference too."""
    return np.fmin.reduce(values, axis=1) == np.fmax.reduce(values, axis=1)
