"""Information coefficients: how well a signal ranks the returns that follow, date by date."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

MIN_NAMES = 10  # below, a cross-sectional correlation says nothing


@dataclass(frozen=True)
class ICSummary:
    """Of one signal against one label.

    Attributes:
        mean: average over defined dates.
        ir: mean / standard deviation (ddof 1) over dates, not annualised.
        t: of the mean, on every `horizon`-th date, so that overlapping labels count once.
        dates: dates with a defined coefficient.
        undefined: dates without: too few names, or a constant signal or label. Never counted as zero.
    """

    mean: float
    ir: float
    t: float
    dates: int
    undefined: int


def information_coefficient(
    signal: pd.Series, label: pd.Series, rank: bool = False, min_names: int = MIN_NAMES
) -> pd.Series:
    """Cross-sectional correlation of signal and label on each date.

    Args:
        signal: indexed (datetime, instrument), known at the close of its date.
        label: same index levels, the return that follows.
        rank: Spearman's, ranks averaged over ties and taken after names without both values are left out;
            else Pearson's.
        min_names: a date with fewer names is undefined.

    Returns:
        (dates,) float64 indexed by datetime; NaN where undefined (Grinold & Kahn 2000, chapter 6).

    Raises:
        ValueError: the two share no (datetime, instrument).
    """
    x, y = _wide(signal, label)
    both = x.notna() & y.notna()
    x, y = x.where(both), y.where(both)
    if rank:
        x, y = x.rank(axis=1), y.rank(axis=1)
    dx, dy = x.sub(x.mean(axis=1), axis=0), y.sub(y.mean(axis=1), axis=0)
    spread_x, spread_y = ((d**2).sum(axis=1) ** 0.5 for d in (dx, dy))
    # Rounding leaves a tiny spread behind in a constant row: compare with the values' own size.
    size_x, size_y = ((v**2).sum(axis=1) ** 0.5 for v in (x, y))
    varied = (spread_x > 1e-12 * size_x) & (spread_y > 1e-12 * size_y)
    defined = varied & (both.sum(axis=1) >= min_names)
    return ((dx * dy).sum(axis=1) / (spread_x * spread_y).where(defined)).rename("rank_ic" if rank else "ic")


def summarise(coefficients: pd.Series, horizon: int = 1) -> ICSummary:
    """Mean, ratio and t of per-date coefficients whose labels span `horizon` bars."""
    defined = coefficients.dropna()
    apart = coefficients.iloc[::horizon].dropna()
    t = _ratio(apart) * np.sqrt(len(apart)) if len(apart) > 2 else np.nan
    return ICSummary(
        mean=float(defined.mean()),
        ir=_ratio(defined),
        t=float(t),
        dates=len(defined),
        undefined=len(coefficients) - len(defined),
    )


def _ratio(values: pd.Series) -> float:
    """Mean / standard deviation; NaN where the deviation is of rounding only."""
    mean, spread = values.mean(), values.std(ddof=1)
    return float(mean / spread) if spread > 1e-12 * abs(mean) else np.nan


def _pairs(series: pd.Series) -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays(
        [series.index.get_level_values(name) for name in ("datetime", "instrument")]
    )


def _wide(signal: pd.Series, label: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame]:
    for name, series in (("signal", signal), ("label", label)):
        if series.index.has_duplicates:
            first = series.index[series.index.duplicated()][0]
            raise ValueError(f"The {name} has {first} twice. Keep one row of each (datetime, instrument).")
    # An infinite value is no value: one of them would take the whole date with it.
    x, y = (s.astype(float).replace([np.inf, -np.inf], np.nan).unstack("instrument") for s in (signal, label))
    x, y = x.align(y, join="inner")
    if not _pairs(signal).isin(_pairs(label)).any():
        raise ValueError(
            "Signal and label share no (datetime, instrument). Check dates and instrument names."
        )
    return x, y
