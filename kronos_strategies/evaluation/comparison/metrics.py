"""Metrics of each version by date, and their means by year, by horizon and for the baselines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.comparison.align import AlignedPanel
from kronos_strategies.evaluation.signal.ic import information_coefficients_wide
from kronos_strategies.evaluation.signal.quantiles import assign_quantiles, num_quantiles, quantile_means
from kronos_strategies.evaluation.significance import label_overlap, mean_test

HIGHER_IS_BETTER = ("ic", "rank_ic", "spread")  # more is better; of all others, which are losses, less is


def metrics_by_date(rows: AlignedPanel, horizon: int) -> dict[str, pd.DataFrame]:
    """Metric -> dates x versions: ic, rank_ic, spread, then the losses; NaN where undefined.

    Raises:
        ValueError: a loss that is called like one of the first three.
    """
    if taken := [loss for loss in rows.losses if loss in HIGHER_IS_BETTER]:
        raise ValueError(f"A loss is called '{taken[0]}', as is a figure of the score. Give it another name.")
    gains = score_metrics_by_date(rows.scores, rows.labels[horizon], rows.dates)
    return gains | {loss: _means(of, rows.dates) for loss, of in rows.losses.items()}


def score_metrics_by_date(
    scores: Mapping[str, np.ndarray], label: np.ndarray, dates: pd.DatetimeIndex
) -> dict[str, pd.DataFrame]:
    """Each of GAINS -> dates x scores.

    Args:
        scores: (dates, names) each.
        label: (dates, names), the return that follows; its names a date say whether a spread is of deciles or of
            quintiles, the same for all scores and dates.
        dates: of the rows.
    """
    count = num_quantiles(label, label)
    figures = {name: _gains(score, label, count) for name, score in scores.items()}
    return {
        metric: pd.DataFrame({name: of[i] for name, of in figures.items()}, index=dates)
        for i, metric in enumerate(HIGHER_IS_BETTER)
    }


def _gains(score: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
    """(dates, names) twice -> (3, dates), in the order of GAINS."""
    earned = quantile_means(
        assign_quantiles(np.where(np.isfinite(label), score, np.nan), count), label, count
    )
    return np.vstack([information_coefficients_wide(score, label), earned[:, -1] - earned[:, 0]])


def _means(by_version: Mapping[str, np.ndarray], dates: pd.DatetimeIndex) -> pd.DataFrame:
    """Dates x versions: the mean over the rows of each date; NaN on a date without one."""
    wide = {name: pd.DataFrame(values).mean(axis=1).to_numpy() for name, values in by_version.items()}
    return pd.DataFrame(wide, index=dates)


def difference(values: pd.Series, baseline: pd.Series) -> pd.Series:
    """(dates,) values less those of the baseline; exactly 0 where they differ by rounding only."""
    apart = values - baseline
    return apart.mask(apart.abs() <= 1e-12 * np.maximum(values.abs(), baseline.abs()), 0.0)


def means_by_year(by_date: Mapping[str, pd.DataFrame], baseline: str) -> pd.DataFrame:
    """Long: metric, year, version, mean, difference: from the baseline, paired by date, NaN in its own rows."""
    parts = [_by_year(metric, figures, baseline) for metric, figures in by_date.items()]
    return pd.concat(parts, ignore_index=True)


def _by_year(metric: str, figures: pd.DataFrame, baseline: str) -> pd.DataFrame:
    apart = figures.apply(difference, baseline=figures[baseline])
    apart[baseline] = np.nan
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

    Dates are those that the longest horizon leaves defined for all versions, so that a longer label does not mean
    other dates. A horizon that leaves none, longer than the data, has rows of NaN and does not shorten the others.
    """
    columns = ["version", "horizon", "rank_ic", "low", "high", "dates"]
    if len(rows.labels) < 2:
        return pd.DataFrame(columns=columns)
    found = {
        (name, horizon): information_coefficients_wide(score, label)[1]
        for name, score in rows.scores.items()
        for horizon, label in rows.labels.items()
    }
    on = {
        horizon: np.logical_and.reduce([np.isfinite(found[name, horizon]) for name in rows.scores])
        for horizon in rows.labels
    }
    defined = on[max((horizon for horizon in on if on[horizon].any()), default=max(on))]
    lines = []
    for (name, horizon), by_date in found.items():
        test = mean_test(by_date[defined], label_overlap(horizon, bars_between))
        lines.append((name, horizon, test.mean, test.low, test.high, test.dates))
    return pd.DataFrame(lines, columns=columns)


def baseline_means(rows: AlignedPanel, horizon: int, overlap: int) -> pd.DataFrame:
    """Long: version (a naive score's name), metric, mean, low, high, dates; no test, and no losses."""
    columns = ["version", "metric", "mean", "low", "high", "dates"]
    by_date = score_metrics_by_date(rows.references, rows.labels[horizon], rows.dates)
    lines = []
    for metric, figures in by_date.items():
        for name in figures:
            test = mean_test(figures[name], overlap)
            lines.append((name, metric, test.mean, test.low, test.high, test.dates))
    return pd.DataFrame(lines, columns=columns)
