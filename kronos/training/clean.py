"""The paper's cleaning rules (appendix on data): cut where a series breaks, drop dead stretches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from kronos.bars import FEATURES, PRICES, check_bars, repair_bars
from kronos.jumps import MAX_GAP


class CleaningRule(NamedTuple):
    """Limits of one bar frequency.

    Attributes:
        max_gap: cut before a bar whose |open / previous close - 1| exceeds it.
        max_illiquid: longest run of bars without volume that stays.
        max_stagnant: longest run of bars with an unchanged close that stays.
    """

    max_gap: float
    max_illiquid: int
    max_stagnant: int


# The paper gives no runs for 30 minutes, 4 hours and weeks: those of its neighbours stand in.
RULES = {
    "1min": CleaningRule(MAX_GAP["1min"], 15, 45),
    "5min": CleaningRule(MAX_GAP["5min"], 3, 10),
    "15min": CleaningRule(MAX_GAP["15min"], 2, 5),
    "30min": CleaningRule(MAX_GAP["30min"], 1, 3),
    "60min": CleaningRule(MAX_GAP["60min"], 1, 3),
    "4h": CleaningRule(MAX_GAP["4h"], 1, 3),
    "1day": CleaningRule(MAX_GAP["1day"], 1, 3),
    "1week": CleaningRule(MAX_GAP["1week"], 1, 3),
}


# Of days without a bar; the longest exchange holidays take 11. Behind a longer pause, a suspension or an exit from
# the data, a series begins anew: its bars are no neighbours.
MAX_PAUSE = pd.Timedelta(days=15)


def clean_segments(bars: pd.DataFrame, rule: CleaningRule, min_bars: int) -> list[pd.DataFrame]:
    """Continuous stretches of at least `min_bars` bars, each fit to learn from.

    A missing price cuts hard; missing volume or amount counts as 0, as in the paper. Suspended days may be absent
    instead of empty: MAX_PAUSE cuts there.

    Args:
        bars: one instrument, DatetimeIndex; columns as `check_bars` wants them, prices may be NaN.
        rule: one of RULES.
        min_bars: shorter stretches are dropped.
    """
    bars = bars.sort_index()
    finite = np.isfinite(bars[list(PRICES)].to_numpy(float)).all(axis=1)
    positive = (bars[list(PRICES)] > 0).all(axis=1).to_numpy()
    priced = finite & positive
    gap = (bars["open"] / bars["close"].shift().where(lambda close: close > 0) - 1).abs()
    pause = bars.index.to_series().diff().gt(MAX_PAUSE).to_numpy()
    cut = ~priced | (gap > rule.max_gap).to_numpy() | pause
    dead = ~priced | _long_runs(bars["close"].diff().eq(0).to_numpy(), rule.max_stagnant)
    if "volume" in bars:
        dead |= _long_runs(bars["volume"].fillna(0).eq(0).to_numpy(), rule.max_illiquid)
    # A dropped stretch ends the segment before it and starts a new one behind it.
    segment = np.cumsum(cut | dead)
    alive = bars[~dead]
    parts = [part for _, part in alive.groupby(segment[~dead]) if len(part) >= min_bars]
    return [check_bars(repair_bars(part))[list(FEATURES)] for part in parts]


def _long_runs(flags: np.ndarray, limit: int) -> np.ndarray:
    """(T,) True where a run of True is longer than `limit`."""
    run = np.cumsum(np.r_[True, flags[1:] != flags[:-1]])
    length = np.bincount(run)[run]
    return flags & (length > limit)
