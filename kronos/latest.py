"""Bars in any form -> the window that ends at the last bar of each instrument, with the timestamps to forecast."""

from __future__ import annotations

import pandas as pd

from kronos.bars import check_bars, check_timestamps, unique_wall_clock
from kronos.config import as_integer
from kronos.future import future_timestamps
from kronos.panels import UNNAMED, Bars, iter_instruments
from kronos.windows import MIN_BARS, Windows

LOOKBACK = 90  # bars that the model reads by default; fewer where an instrument has fewer


def as_windows(
    bars: Windows | Bars,
    horizon: int | None = None,
    lookback: int | None = None,
    calendar: pd.DatetimeIndex | str | None = None,
) -> Windows:
    """Windows as they are, and bars as the window that ends at the last bar of each instrument.

    Args:
        bars: windows; or a frame of one instrument indexed by datetime, a frame indexed (datetime,
            instrument), a frame with columns by price and instrument, as yfinance returns it, or a mapping
            instrument -> frame.
        horizon: number of bars to forecast; needed for bars.
        lookback: number of bars per window; LOOKBACK when omitted, or fewer where an instrument has fewer.
        calendar: exchange ("XSHG", "XNYS", "24/7") or trading timestamps, see `kronos.future_timestamps`; the
            sessions are inferred from the bars when omitted.

    Raises:
        TypeError: neither windows nor bars.
        ValueError: a setting of windows that have it already, a missing horizon, invalid bars, or fewer bars than
            the lookback.
    """
    if isinstance(bars, Windows):
        given = {"horizon": horizon, "lookback": lookback, "calendar": calendar}
        if named := [name for name, value in given.items() if value is not None]:
            raise ValueError(
                f"Windows have their own lookback and future timestamps, so {named[0]}= does not apply. Pass it "
                "with bars, or to Windows.rolling()."
            )
        return bars
    if horizon is None:
        raise ValueError("A forecast of bars needs horizon=, the number of bars to forecast, such as 24.")
    return latest_windows(bars, horizon, lookback, calendar)


def latest_windows(
    bars: Bars,
    horizon: int,
    lookback: int | None = None,
    calendar: pd.DatetimeIndex | str | None = None,
) -> Windows:
    """The window that ends at the last bar of each instrument; arguments and errors as in `as_windows`."""
    if (horizon := as_integer("horizon", horizon)) < 1:
        raise ValueError(f"horizon={horizon} is too short. Pass at least 1.")
    if lookback is not None and (lookback := as_integer("lookback", lookback)) < MIN_BARS:
        raise ValueError(f"lookback={lookback} is too short. Pass at least {MIN_BARS}.")
    parts = []
    for name, frame in iter_instruments(bars):
        what = UNNAMED if name == UNNAMED else f"bars of {name}"
        index = _checked_index(frame, what)
        if len(index) < (lookback or MIN_BARS):
            needed = f"lookback={MIN_BARS}, the least" if lookback is None else f"lookback={lookback}"
            raise ValueError(
                f"{what} have {len(index)} rows, fewer than {needed}. Pass earlier bars or a shorter lookback."
            )
        unique_wall_clock(index, name)
        recent = frame.iloc[-(lookback or LOOKBACK) :]  # the others are not read
        future = future_timestamps(index, horizon, calendar)
        parts.append(Windows.single(name, check_bars(recent, what), future))
    if not parts:
        raise ValueError("There are no bars to forecast. Pass at least one instrument.")
    return Windows.stack(parts).sorted()


def _checked_index(frame: pd.DataFrame, what: str) -> pd.DatetimeIndex:
    if not isinstance(frame, pd.DataFrame) or frame.empty:
        check_bars(frame, what)  # raises
    if not isinstance(frame.index, pd.DatetimeIndex):
        raise ValueError(
            f"{what} have no DatetimeIndex. Use bars.set_index('datetime'), with your column of timestamps."
        )
    check_timestamps(frame.index, what)
    return frame.index
