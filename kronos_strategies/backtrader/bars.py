"""A feed's bars as the model reads them: which are traded, their six features, their local times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.bars import FEATURES, PRICES, check_timestamps
from kronos_strategies.backtrader.zones import zone_of

_EPOCH = 719163  # 1970-01-01 in Backtrader's days
_TICKS = 864_000_000  # of 0.1 ms in a day
# A float of days is 5.02 us off a second at most; and a day's last moment, 10 us before midnight, stays in its day.
_SLACK = 0.0506  # ticks
_TICK = np.timedelta64(100_000, "ns")
EARLIEST = np.datetime64(-(2**63) + 1, "ns")


class Bars(NamedTuple):
    """K bars of a feed, M of them traded: with four finite, positive prices.

    Volume that is missing or negative counts as 0; amount, which no feed has, is volume times the mean of the four
    prices; a high or low that does not contain open and close is stretched to them.
    """

    utc: np.ndarray  # (K,) datetime64[ns], to a tenth of a millisecond
    traded: np.ndarray  # (K,) bool
    values: np.ndarray  # (M, 6) float32 FEATURES
    times: np.ndarray  # (M,) datetime64[ns], in the feed's own zone, `zones.zone_of`

    @classmethod
    def read(cls, data: bt.AbstractDataBase, cut: Callable[[bt.LineBuffer], Sequence[float]]) -> Bars:
        """What `cut` takes of each of the feed's lines; copied, since a line that is looked into cannot grow."""
        raw = np.array([cut(getattr(data.lines, name)) for name in (*PRICES, "volume")], float)  # (5, K)
        utc = utc_times(np.array(cut(data.lines.datetime), float))
        prices, volume = raw[:4], raw[4]
        traded = (np.isfinite(prices) & (prices > 0)).all(axis=0)
        prices, volume = prices[:, traded], volume[traded]
        values = np.empty((len(FEATURES), len(volume)))
        values[:4] = prices
        values[1], values[2] = prices.max(axis=0), prices.min(axis=0)
        values[4] = np.where(np.isfinite(volume) & (volume > 0), volume, 0.0)
        values[5] = values[4] * prices.mean(axis=0)
        return cls(utc, traded, values.T.astype(np.float32), local_times(utc[traded], data))


def check_order(times: np.ndarray, name: str) -> None:
    """Demand ascending, unique times of the feed `name`.

    Raises:
        ValueError: names the first offender and the remedy.
    """
    if (np.diff(times) <= np.timedelta64(0)).any():
        check_timestamps(pd.DatetimeIndex(times), f"feed '{name}'")


def told_apart(times: np.ndarray, latest: np.datetime64) -> np.ndarray:
    """Local times, of which an hour that clocks set back repeat is passed a tick later the second time.

    Args:
        times: (M,) of bars in their order.
        latest: of all bars before.
    """
    peaks = np.maximum.accumulate(np.concatenate([[latest], times]))[:-1]
    return np.where(times <= peaks, times + _TICK, times)


def utc_times(stamps: np.ndarray) -> np.ndarray:
    """Backtrader's days as datetime64[ns]."""
    days = np.floor(stamps)
    ticks = (days - _EPOCH) * _TICKS + np.floor((stamps - days) * _TICKS + _SLACK)
    return (ticks.astype(np.int64) * _TICK.astype(np.int64)).astype("datetime64[ns]")


def local_times(utc: np.ndarray, data: bt.AbstractDataBase) -> np.ndarray:
    """(K,) datetime64[ns] on the clock of the feed's own zone, `zones.zone_of`; as they are where it has none."""
    zone = zone_of(data)
    if zone is None:
        return utc
    seconds = (utc.astype(np.int64) / 1e9).tolist()
    local = [
        datetime.fromtimestamp(second, timezone.utc).astimezone(zone).replace(tzinfo=None)
        for second in seconds
    ]
    return np.array(local, "datetime64[us]").astype("datetime64[ns]")
