"""Metrics of each version by date, and tests of their differences from the reference, paired by date.

Means by year, by horizon and for the baselines; intervals, p-values and the model confidence set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from kronos.utils import MissingExtra
from kronos_strategies.evaluation.comparison.version import AlignedPanel
from kronos_strategies.evaluation.signal.metrics import (
    assign_quantiles,
    information_coefficients_wide,
    num_quantiles,
    quantile_means,
)
from kronos_strategies.evaluation.significance import (
    MeanTest,
    label_overlap,
    mean_test,
    minimum_detectable_effect,
)

try:
    from arch.bootstrap import MCS
except ImportError as error:
    raise MissingExtra(
        "Model confidence sets need arch: pip install 'kronos-strategies[evaluation]'"
    ) from error

SCORE_METRICS = ("ic", "rank_ic", "spread")
PORTFOLIO_METRICS = ("net_return", "sharpe")
TASK_METRICS = (
    "price_ic",
    "price_rank_ic",
    "volatility_r2",
    "tstr_rank_ic",
    "tstr_volatility_rank_ic",
)  # of `kronos benchmark`
# All other metrics are losses: lower is better.
HIGHER_IS_BETTER = (*SCORE_METRICS, *PORTFOLIO_METRICS, *TASK_METRICS)


def metrics_by_date(rows: AlignedPanel, label_horizon: int) -> dict[str, pd.DataFrame]:
    """Metric -> dates x versions: ic, rank_ic, spread, then the losses; NaN where undefined.

    Raises:
        ValueError: a loss has the name of a metric for which higher is better.
    """
    if taken := [loss for loss in rows.losses if loss in HIGHER_IS_BETTER]:
        raise ValueError(f"A loss is called '{taken[0]}', which is the name of a metric. Rename the loss.")
    gains = score_metrics_by_date(rows.scores, rows.labels[label_horizon], rows.dates)
    return gains | {loss: _means(of, rows.dates) for loss, of in rows.losses.items()}


def score_metrics_by_date(
    scores: Mapping[str, np.ndarray], label: np.ndarray, dates: pd.DatetimeIndex
) -> dict[str, pd.DataFrame]:
    """Each of SCORE_METRICS -> dates x scores.

    Args:
        scores: (dates, instruments) each.
        label: (dates, instruments), forward returns; the number of instruments per date decides whether the
            spread is between deciles or quintiles, the same for all scores and dates.
        dates: dates of the rows.
    """
    count = num_quantiles(label, label)
    figures = {name: _score_metrics(score, label, count) for name, score in scores.items()}
    return {
        metric: pd.DataFrame({name: of[i] for name, of in figures.items()}, index=dates)
        for i, metric in enumerate(SCORE_METRICS)
    }


def _score_metrics(score: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
    """Two (dates, instruments) arrays -> (3, dates), in the order of SCORE_METRICS."""
    returns = quantile_means(
        assign_quantiles(np.where(np.isfinite(label), score, np.nan), count), label, count
    )
    return np.vstack([information_coefficients_wide(score, label), returns[:, -1] - returns[:, 0]])


def _means(by_version: Mapping[str, np.ndarray], dates: pd.DatetimeIndex) -> pd.DataFrame:
    """Dates x versions: the mean over the rows of each date; NaN on a date without rows."""
    wide = {name: pd.DataFrame(values).mean(axis=1).to_numpy() for name, values in by_version.items()}
    return pd.DataFrame(wide, index=dates)


def difference(values: pd.Series, reference: pd.Series) -> pd.Series:
    """(dates,) values minus those of the reference; exactly 0 where they differ by rounding errors only."""
    apart = values - reference
    return apart.mask(apart.abs() <= 1e-12 * np.maximum(values.abs(), reference.abs()), 0.0)


def means_by_year(by_date: Mapping[str, pd.DataFrame], reference: str) -> pd.DataFrame:
    """Long: metric, year, version, mean, difference from the reference (paired by date, NaN in its own rows)."""
    parts = [_by_year(metric, figures, reference) for metric, figures in by_date.items()]
    return pd.concat(parts, ignore_index=True)


def _by_year(metric: str, figures: pd.DataFrame, reference: str) -> pd.DataFrame:
    apart = figures.apply(difference, reference=figures[reference])
    apart[reference] = np.nan
    years = pd.DatetimeIndex(figures.index).year
    long = {
        name: table.groupby(years)
        .mean()
        .rename_axis(index="year", columns="version")
        .stack(future_stack=True)
        for name, table in {"mean": figures, "difference": apart}.items()
    }
    table = pd.DataFrame(long).reset_index().assign(metric=metric)
    return table[["metric", "year", "version", "mean", "difference"]]


def rank_ic_decay_by_version(rows: AlignedPanel, bars_between: int) -> pd.DataFrame:
    """Long: version, horizon, rank_ic, low, high, dates; empty with a single label.

    All horizons use the dates on which the longest is defined for all versions, so that differences are never due
    to different dates. A horizon that is longer than the data has rows of NaN and does not restrict the others.
    """
    columns = ["version", "horizon", "rank_ic", "low", "high", "dates"]
    if len(rows.labels) < 2:
        return pd.DataFrame(columns=columns)
    found = {
        (name, label_horizon): information_coefficients_wide(score, label)[1]
        for name, score in rows.scores.items()
        for label_horizon, label in rows.labels.items()
    }
    on = {
        label_horizon: np.logical_and.reduce(
            [np.isfinite(found[name, label_horizon]) for name in rows.scores]
        )
        for label_horizon in rows.labels
    }
    defined = on[max((label_horizon for label_horizon in on if on[label_horizon].any()), default=max(on))]
    lines = []
    for (name, label_horizon), by_date in found.items():
        test = mean_test(by_date[defined], label_overlap(label_horizon, bars_between))
        lines.append((name, label_horizon, test.mean, test.low, test.high, test.dates))
    return pd.DataFrame(lines, columns=columns)


def baseline_means(rows: AlignedPanel, label_horizon: int, overlap: int) -> pd.DataFrame:
    """Long: version (name of the baseline), metric, mean, low, high, dates; without tests and losses."""
    columns = ["version", "metric", "mean", "low", "high", "dates"]
    by_date = score_metrics_by_date(rows.baselines, rows.labels[label_horizon], rows.dates)
    lines = []
    for metric, figures in by_date.items():
        for name in figures:
            test = mean_test(figures[name], overlap)
            lines.append((name, metric, test.mean, test.low, test.high, test.dates))
    return pd.DataFrame(lines, columns=columns)


CONSTANT = "the same on every date"


def paired_test(values: pd.Series, reference: pd.Series, overlap: int) -> MeanTest:
    """`mean_test` of the difference by date.

    A difference that is the same on every date needs no test: its interval is a point, and p is 1 if it is 0,
        else 0,
    provided there are enough dates for a test.
    """
    apart = difference(values, reference)
    test = mean_test(apart, overlap)
    identical = test.dates > 0 and bool((apart.dropna() == 0).all())  # on any number of dates
    if not identical and test.std_error != 0:
        return test
    return replace(test, low=test.mean, high=test.mean, p=float(test.mean == 0), method=CONSTANT)


def paired_table(
    by_date: Mapping[str, pd.DataFrame], reference: str, overlap: int, seed: int
) -> pd.DataFrame:
    """One row per (version, metric), columns as in `Comparison.table`."""
    return pd.concat(
        [_tests(metric, figures, reference, overlap, seed) for metric, figures in by_date.items()],
        ignore_index=True,
    )


def _tests(metric: str, figures: pd.DataFrame, reference: str, overlap: int, seed: int) -> pd.DataFrame:
    rows = [_row(str(name), metric, figures, reference, overlap) for name in figures]
    table = pd.DataFrame(rows)
    p = mcs_pvalues(-figures if metric in HIGHER_IS_BETTER else figures, overlap, seed)
    table["p_holm"] = holm(table["p"].to_numpy())
    table["mcs_p"] = p.to_numpy()
    table["in_mcs"] = pd.Series(
        [None if np.isnan(each) else bool(each > MCS_SIZE) for each in p], dtype=object
    )
    return table[COLUMNS]


def _row(version: str, metric: str, figures: pd.DataFrame, reference: str, overlap: int) -> dict[str, Any]:
    own = mean_test(figures[version], overlap)
    row: dict[str, Any] = {
        "version": version,
        "metric": metric,
        "mean": own.mean,
        "low": own.low,
        "high": own.high,
    }
    row |= {"dates": own.dates, "undefined": own.undefined}
    if version == reference:
        return row | dict.fromkeys(PAIRED, np.nan) | {"method": own.method}
    test = paired_test(figures[version], figures[reference], overlap)
    return row | {
        "difference": test.mean,
        "difference_low": test.low,
        "difference_high": test.high,
        "t": test.t,
        "p": test.p,
        "detectable": minimum_detectable_effect(test),
        "method": test.method,
    }


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) adjustment of the defined p-values; NaN stays NaN."""
    # Not by statsmodels, whose function collects all garbage of the process in each call.
    adjusted, defined = np.full(len(p), np.nan), np.flatnonzero(np.isfinite(p))
    ascending = defined[np.argsort(p[defined])]
    tests_left = np.arange(len(ascending), 0, -1)
    adjusted[ascending] = np.maximum.accumulate(np.minimum(tests_left * p[ascending], 1))
    return adjusted


PAIRED = ("difference", "difference_low", "difference_high", "t", "p", "detectable")
COLUMNS = [
    *("version", "metric", "mean", "low", "high"),
    *("difference", "difference_low", "difference_high", "t", "p", "p_holm", "detectable"),
    *("mcs_p", "in_mcs", "dates", "undefined", "method"),
]


MCS_SIZE = 0.1  # of the model confidence set: it holds the best version with 90 % probability
MCS_REPETITIONS = 1000
MIN_BLOCKS = 10


def mcs_pvalues(losses: pd.DataFrame, overlap: int, seed: int) -> pd.Series:
    """P-values of the model confidence set (Hansen, Lunde & Nason 2011); above .1 a version is in the 90 % set.

    Range statistic, 1,000 stationary bootstraps with a mean block length of 2 * overlap dates, or T^(1/3) where
    that is larger. Versions that are equal on every date share one p-value, since their difference has no
    variance.

    The set excludes too many versions on short series. In simulations of versions without a true difference, at
    least one was excluded, which should happen in 10 %, in 12 % (four versions, 1,000 dates, labels of 1 date),
    19 % (two, 500 dates, 10), 23 % (four, 250 dates, 5) and 37 % (four, 100 dates, 5); blocks twice as long were
    no better. Holm's p-values keep their size: treat an exclusion as weak evidence unless they agree.

    Args:
        losses: dates x versions, lower is better; a date on which one of them is missing is left out.
        overlap: successive dates that one label spans.
        seed: seed of the bootstrap.

    Returns:
        By version; NaN with fewer than MIN_BLOCKS blocks of dates.
    """
    defined = losses.to_numpy()[np.isfinite(losses).all(axis=1)]  # (T, versions)
    block = mcs_block_length(len(defined), overlap)
    if len(defined) < MIN_BLOCKS * block:
        return pd.Series(np.nan, index=losses.columns)
    first = _first_equal(defined)
    apart = sorted(set(first))
    if len(apart) == 1:
        return pd.Series(1.0, index=losses.columns)
    test = MCS(defined[:, apart], MCS_SIZE, MCS_REPETITIONS, block, "R", "stationary", seed=seed)
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # a constant difference has an infinite t, so that p is 0
        test.compute()
    found = test.pvalues["Pvalue"]  # by position in `apart`
    return pd.Series([float(found[apart.index(i)]) for i in first], index=losses.columns)


def mcs_block_length(dates: int, overlap: int) -> int:
    """Mean block length: twice the label's, or dates^(1/3) where that is larger."""
    return max(2 * overlap, math.ceil(dates ** (1 / 3)))


def _first_equal(values: np.ndarray) -> list[int]:
    """For each column, the first column that it equals up to rounding."""
    size = 1e-12 * np.abs(values).max()
    return [int(np.argmax(np.abs(values - column[:, None]).max(axis=0) <= size)) for column in values.T]
