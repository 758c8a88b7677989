"""Versions held against a baseline on common dates and names. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kronos_strategies.evaluation.versions.version import Version


@dataclass(frozen=True)
class Comparison:
    """Of two or more versions, on rows that all of them and the label have.

    Attributes:
        baseline: name of the version that the others are held against.
        versions: names in the order given.
        horizon: bars that the label spans.
        overlap: successive dates that it spans.
        table: long, a row a (version, metric), versions in order; metrics are ic, rank_ic, spread (top less bottom
            decile's return), and the losses that all versions have. Columns version, metric, mean, low, high (95 %
            of the mean), dates, undefined; against the baseline, paired by date, NaN in its own row: difference,
            difference_low, difference_high, t, p, p_holm (over all versions of the metric), detectable (the
            smallest true difference found with 80 % power at 5 %), method; and mcs_p, in_mcs (model confidence
            set of the metric at 90 %, NaN and None where it could not be had).
        by_date: metric -> dates x versions.
        by_year: long: metric, year, version, mean, difference.
        decay: long: version, horizon, rank_ic, low, high, dates; empty with a single label.
        references: long as `table` without tests: naive scores on the same rows, columns version (its name),
            metric, mean, low, high, dates.
        ledger: rows by reason, from those of the first version to those compared.
        warnings: sentences that a reader must see.
        provenance: version -> label -> text.
    """

    baseline: str
    versions: tuple[str, ...]
    horizon: int
    overlap: int
    table: pd.DataFrame
    by_date: Mapping[str, pd.DataFrame]
    by_year: pd.DataFrame
    decay: pd.DataFrame
    references: pd.DataFrame
    ledger: Mapping[str, int]
    warnings: Sequence[str]
    provenance: Mapping[str, Mapping[str, str]]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without the series by date; what is undefined is null."""
        raise NotImplementedError


def compare_versions(
    versions: Sequence[Version],
    labels: pd.Series | pd.DataFrame,
    horizon: int,
    baseline: str | None = None,
    bars_between: int = 1,
    references: pd.DataFrame | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare versions on common dates and names.

    Args:
        versions: two or more of different names.
        labels: indexed (datetime, instrument): one series of returns over `horizon` bars, or a frame with horizons
            for columns, of which `horizon` is the headline and the others make the decay.
        horizon: bars that the label spans.
        baseline: name; the first version when omitted.
        bars_between: bars between successive dates.
        references: naive scores, a column each, shown beside but never tested.
        seed: of the bootstrap behind the model confidence set.

    Raises:
        ValueError: fewer than two versions, names that occur twice or are unknown, keys that occur twice, no
            common date or name, a version without a finite score.
    """
    raise NotImplementedError
