"""Metrics of each version by date, and their means by year, by horizon and for the baselines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.comparison.align import AlignedPanel
from kronos_strategies.evaluation.signal.ic import information_coefficients_wide
from kronos_strategies.evaluation.signal.quantiles import assign_quantiles, num_quantiles, quantile_means
from kronos_strategies.evaluation.significance import label_overlap, mean_test

HIGHER_IS_BETTER = ("ic", "rank_ic", "spread")  # all other metrics are losses, for which lower is better


def metrics_by_date(rows: AlignedPanel, label_horizon: int) -> dict[str, pd.DataFrame]:
    """Metric -> dates x versions: ic, rank_ic, spread, then the losses; NaN where undefined.

    Raises:
        ValueError: a loss has the name of one of the first three.
    """
    if taken := [loss for loss in rows.losses if loss in HIGHER_IS_BETTER]:
        raise ValueError(f"A loss is called '{taken[0]}', which is a metric of the score. Rename the loss.")
    gains = score_metrics_by_date(rows.scores, rows.labels[label_horizon], rows.dates)
    return gains | {loss: _means(of, rows.dates) for loss, of in rows.losses.items()}


def score_metrics_by_date(
    scores: Mapping[str, np.ndarray], label: np.ndarray, dates: pd.DatetimeIndex
) -> dict[str, pd.DataFrame]:
    """Each of GAINS -> dates x scores.

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
        for i, metric in enumerate(HIGHER_IS_BETTER)
    }


def _score_metrics(score: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
    """Two (dates, instruments) arrays -> (3, dates), in the order of HIGHER_IS_BETTER."""
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
