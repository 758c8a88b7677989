"""Versions paired by date with the baseline: difference, interval, p, and who may be the best. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from kronos.utils import MissingExtra
from kronos_strategies.evaluation.significance import MeanTest, detectable, mean_test
from kronos_strategies.evaluation.versions.mcs import SIZE, confidence_p
from kronos_strategies.evaluation.versions.measures import GAINS

try:
    from statsmodels.stats.multitest import multipletests
except ImportError as error:
    raise MissingExtra("Holm's p needs statsmodels: pip install 'kronos-strategies[evaluation]'") from error

CONSTANT = "the same on every date"


def difference(values: pd.Series, baseline: pd.Series) -> pd.Series:
    """(dates,) values less those of the baseline; exactly 0 where they differ by rounding only."""
    apart = values - baseline
    return apart.mask(apart.abs() <= 1e-12 * np.maximum(values.abs(), baseline.abs()), 0.0)


def paired_test(values: pd.Series, baseline: pd.Series, overlap: int) -> MeanTest:
    """`mean_test` of the difference by date.

    A difference that is the same on every date needs no test: its interval is a point, and p is 1 where it is 0,
    else 0, given dates enough for a test.
    """
    apart = difference(values, baseline)
    test = mean_test(apart, overlap)
    identical = test.dates > 0 and bool((apart.dropna() == 0).all())  # on however few dates
    if not identical and test.error != 0:
        return test
    return replace(test, low=test.mean, high=test.mean, p=float(test.mean == 0), method=CONSTANT)


def paired_table(by_date: Mapping[str, pd.DataFrame], baseline: str, overlap: int, seed: int) -> pd.DataFrame:
    """A row a (version, metric), columns as of `Comparison.table`."""
    return pd.concat(
        [_tests(metric, figures, baseline, overlap, seed) for metric, figures in by_date.items()],
        ignore_index=True,
    )


def _tests(metric: str, figures: pd.DataFrame, baseline: str, overlap: int, seed: int) -> pd.DataFrame:
    rows = [_row(str(name), metric, figures, baseline, overlap) for name in figures]
    table = pd.DataFrame(rows)
    p = confidence_p(-figures if metric in GAINS else figures, overlap, seed)
    table["p_holm"] = holm(table["p"].to_numpy())
    table["mcs_p"] = p.to_numpy()
    table["in_mcs"] = pd.Series([None if np.isnan(each) else bool(each > SIZE) for each in p], dtype=object)
    return table[COLUMNS]


def _row(version: str, metric: str, figures: pd.DataFrame, baseline: str, overlap: int) -> dict[str, Any]:
    own = mean_test(figures[version], overlap)
    row: dict[str, Any] = {
        "version": version,
        "metric": metric,
        "mean": own.mean,
        "low": own.low,
        "high": own.high,
    }
    row |= {"dates": own.dates, "undefined": own.undefined}
    if version == baseline:
        return row | dict.fromkeys(PAIRED, np.nan) | {"method": own.method}
    test = paired_test(figures[version], figures[baseline], overlap)
    return row | {
        "difference": test.mean,
        "difference_low": test.low,
        "difference_high": test.high,
        "t": test.t,
        "p": test.p,
        "detectable": detectable(test),
        "method": test.method,
    }


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) adjustment over the p that are defined; NaN stays NaN."""
    adjusted, defined = np.full(len(p), np.nan), np.isfinite(p)
    if defined.any():
        adjusted[defined] = multipletests(p[defined], method="holm")[1]
    return adjusted


PAIRED = ("difference", "difference_low", "difference_high", "t", "p", "detectable")
COLUMNS = [
    *("version", "metric", "mean", "low", "high"),
    *("difference", "difference_low", "difference_high", "t", "p", "p_holm", "detectable"),
    *("mcs_p", "in_mcs", "dates", "undefined", "method"),
]
