"""Jumps that no market makes: unadjusted splits and bad prints, which make forecasts meaningless."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from kronos.frequency import FREQUENCIES, typical_step

# |open / previous close - 1| beyond which a series counts as broken (Kronos, appendix on data).
MAX_GAP = {
    "1min": 0.10,
    "5min": 0.15,
    "15min": 0.15,
    "30min": 0.20,
    "60min": 0.20,
    "4h": 0.25,
    "1day": 0.30,
    "1week": 0.50,
}
MAX_RANGE = 3.0  # high / low: a print of several times the price within one bar


class BarsWarning(UserWarning):
    """Bars can be read, but what is forecast from them is probably meaningless."""


def warn_of_jumps(bars: pd.DataFrame, name: str, frequency: str | None = None) -> None:
    """Emit one `BarsWarning` that names the first jump, if there is any.

    Args:
        bars: one instrument, DatetimeIndex, positive open, high, low and close, adjusted for splits.
        name: what to call the bars, e.g. "bars of AAA".
        frequency: of the bars, one of MAX_GAP; inferred from their timestamps when omitted.
    """
    limit = MAX_GAP[frequency] if frequency else _limit(pd.DatetimeIndex(bars.index))
    prices = [bars[column].to_numpy(float) for column in ("open", "high", "low", "close")]
    open_, high, low, close = prices
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.r_[0.0, open_[1:] / close[:-1] - 1]
        found = (np.abs(gap) > limit) | (high / low > MAX_RANGE)
    found &= np.all([price > 0 for price in prices], axis=0)
    if not found.any():
        return
    row, count = int(np.argmax(found)), int(found.sum())
    what = (
        f"open {abs(gap[row]):.0%} {'above' if gap[row] > 0 else 'below'} the previous close"
        if abs(gap[row]) > limit
        else f"reach from {low[row]:g} to {high[row]:g} within one bar"
    )
    when = str(bars.index[row]).removesuffix(" 00:00:00")
    more = f" ({count - 1} more such {'bar' if count == 2 else 'bars'})" if count > 1 else ""
    warnings.warn(
        f"{name} {what} at {when}{more}: forecasts are meaningless across an unadjusted split or a bad "
        "print. Adjust prices, e.g. with adjust_bars(), or drop the bad bars.",
        BarsWarning,
        stacklevel=3,
    )


def _limit(index: pd.DatetimeIndex) -> float:
    """The limit of the nearest frequency that is not shorter than the bars."""
    step = typical_step(index)
    if step is None:
        return np.inf
    limits = [MAX_GAP[name] for name, minutes in FREQUENCIES.items() if pd.Timedelta(minutes=minutes) >= step]
    return limits[0] if limits else max(MAX_GAP.values())
