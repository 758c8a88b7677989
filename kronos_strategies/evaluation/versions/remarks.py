"""What a reader of a comparison must be told. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kronos_strategies.evaluation.signal.ic import MIN_NAMES
from kronos_strategies.evaluation.significance import MIN_SPANS
from kronos_strategies.evaluation.versions.align import CommonRows
from kronos_strategies.evaluation.versions.mcs import MIN_BLOCKS, block_length


def remarks(rows: CommonRows, horizon: int, overlap: int) -> tuple[str, ...]:
    """Sentences on undefined dates, short series and losses left out."""
    return (*_undefined(rows, horizon), *_short(rows, overlap), *_left_out(rows))


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
