"""The comparison by year, by horizon, and naive scores beside it. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.signal.ic import coefficients_of_grid
from kronos_strategies.evaluation.significance import mean_test, overlap_of
from kronos_strategies.evaluation.versions.align import CommonRows
from kronos_strategies.evaluation.versions.measures import gains_by_date
from kronos_strategies.evaluation.versions.paired import difference


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


def decay_of(rows: CommonRows, bars_between: int) -> pd.DataFrame:
    """Long: version, horizon, rank_ic, low, high, dates; empty with a single label.

    Dates are those that the longest horizon leaves defined for all versions, so that a longer label does not mean
    other dates. A horizon that leaves none, longer than the data, has rows of NaN and does not shorten the others.
    """
    columns = ["version", "horizon", "rank_ic", "low", "high", "dates"]
    if len(rows.labels) < 2:
        return pd.DataFrame(columns=columns)
    found = {
        (name, horizon): coefficients_of_grid(score, label)[1]
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
        test = mean_test(by_date[defined], overlap_of(horizon, bars_between))
        lines.append((name, horizon, test.mean, test.low, test.high, test.dates))
    return pd.DataFrame(lines, columns=columns)


def naive_means(rows: CommonRows, horizon: int, overlap: int) -> pd.DataFrame:
    """Long: version (a naive score's name), metric, mean, low, high, dates; no test, and no losses."""
    columns = ["version", "metric", "mean", "low", "high", "dates"]
    by_date = gains_by_date(rows.references, rows.labels[horizon], rows.dates)
    lines = []
    for metric, figures in by_date.items():
        for name in figures:
            test = mean_test(figures[name], overlap)
            lines.append((name, metric, test.mean, test.low, test.high, test.dates))
    return pd.DataFrame(lines, columns=columns)
