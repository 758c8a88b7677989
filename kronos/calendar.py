"""The times to forecast: from a trading calendar or a frequency, never from data. Knows no torch."""

from __future__ import annotations

import numpy as np
import pandas as pd


def future_timestamps(asof: pd.DatetimeIndex, calendar: pd.DatetimeIndex | str, horizon: int) -> np.ndarray:
    """(N, H) datetime64[ns]: the next `horizon` trading times after each of N timestamps.

    A calendar that ends too soon is continued, daily ones by business days and others by their smallest
    step, so that the last dates have a forecast too.
    """
    dates, inverse = np.unique(asof, return_inverse=True)
    if isinstance(calendar, str):
        rows = [pd.date_range(date, periods=horizon + 1, freq=calendar) for date in pd.DatetimeIndex(dates)]
        # A frequency that does not contain the start has moved it forward: that is the first step already.
        table = np.stack(
            [r[r > d][:horizon] if r[0] > d else r[1:] for r, d in zip(rows, dates, strict=True)]
        )
    else:
        if len(calendar) == 0:
            raise ValueError(
                "The calendar is empty. Pass trading timestamps, or a pandas frequency such as 'B'."
            )
        calendar = pd.DatetimeIndex(calendar)
        if calendar.tz is not None:
            raise ValueError(f"The calendar is in the time zone {calendar.tz}. Use .tz_localize(None).")
        times = np.unique(calendar)
        times = np.concatenate([times, _continuation(times, dates[-1], horizon)])
        table = times[np.searchsorted(times, dates, side="right")[:, None] + np.arange(horizon)]
    return table.astype("datetime64[ns]")[inverse]


def _continuation(times: np.ndarray, asof: np.datetime64, horizon: int) -> np.ndarray:
    """Timestamps behind the calendar's last, `horizon` of them behind `asof`; they depend on the calendar only."""
    last, reach = pd.Timestamp(times[-1]), max(pd.Timestamp(asof), pd.Timestamp(times[-1]))
    step = pd.Timedelta(np.diff(times).min()) if len(times) > 1 else pd.Timedelta(days=1)
    if step >= pd.Timedelta(days=1):
        more = pd.date_range(last, periods=(reach - last).days + horizon + 2, freq="B")  # at the same hour
    else:
        more = pd.date_range(last, periods=(reach - last) // step + horizon + 2, freq=step)
    return more[more > last].to_numpy(times.dtype)
