"""Bars of a feed as the model reads them: the time zone they are dated in, their six features, their timestamps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timezone, tzinfo
from typing import NamedTuple

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.bars import FEATURES, PRICES, check_timestamps
from kronos_strategies.backtrader.future_timestamps import FutureTimestamps

logger = logging.getLogger(__name__)

_EPOCH = 719163  # 1970-01-01 in Backtrader's days
_TICKS_PER_DAY = 864_000_000  # ticks of 0.1 ms
# A float of days is at most 5.02 us off a second; 10 us before midnight, the end of a day, stays in its day.
_SLACK = 0.0506  # ticks
_TICK = np.timedelta64(100_000, "ns")
EARLIEST = np.datetime64(-(2**63) + 1, "ns")


def time_zone_of(data: bt.AbstractDataBase) -> tzinfo | None:
    """Time zone in which bars of a feed are dated: `tz=`, else `tzinput=`, else that of the feed's DataFrame.

    None leaves times as they are. Backtrader converts the index of a DataFrame with a time zone to UTC and does not
    keep the zone unless `tz=` is given. Days that Backtrader makes without `tz=`, by resampling or replay, are days
    of UTC and are dated as such.
    """
    if data._tz is not None:
        return data._tz
    if (data.resampling or data.replaying) and data._timeframe >= bt.TimeFrame.Days:
        return None
    return _source_time_zone(data)


def check_time_zone(data: bt.AbstractDataBase, name: str) -> None:
    """Warn if Backtrader does not know the time zone of a feed.

    Args:
        data: the feed.
        name: its name in messages.

    Raises:
        ValueError: the times would be converted twice.
    """
    source = _source_feed(data)
    frame_zone = _frame_time_zone(source)
    if frame_zone is not None and getattr(source, "_tzinput", None):
        raise ValueError(
            f"The DataFrame of feed '{name}' has the time zone {frame_zone}, and tzinput={source.p.tzinput!r} "
            f"would convert its times a second time. Remove tzinput and pass tz='{frame_zone}'."
        )
    zone = _source_time_zone(data)
    if data._tz is not None or zone is None:
        return
    if time_zone_of(data) is None:
        logger.warning(
            "Feed '%s' is made from bars in the time zone %s, which Backtrader does not know, so its days begin at "
            "midnight UTC. Pass tz='%s' to the original feed.",
            *(name, zone, zone),
        )
    else:
        logger.warning(
            "Feed '%s' has no tz=: forecasts use the time zone of its data, %s, but Backtrader shows and compares "
            "its times in UTC. Pass tz='%s' to the feed.",
            *(name, zone, zone),
        )


def _source_time_zone(data: bt.AbstractDataBase) -> tzinfo | None:
    """Time zone of the original data of a feed that has no `tz=`."""
    source = _source_feed(data)
    localizer = getattr(source, "_tzinput", None)
    return localizer if localizer is not None else _frame_time_zone(source)


def _source_feed(data: bt.AbstractDataBase) -> bt.AbstractDataBase:
    while data._clone:
        data = data.data
    return data


def _frame_time_zone(data: bt.AbstractDataBase) -> tzinfo | None:
    frame = getattr(data.p, "dataname", None)
    if not isinstance(frame, pd.DataFrame):
        return None
    if isinstance(data, bt.feeds.PandasDirectData):
        times = frame.index if data.p.datetime == 0 else frame.iloc[:, data.p.datetime - 1]
    else:
        column = getattr(data, "_colmapping", {}).get("datetime", data.p.datetime)
        if column is None:
            times = frame.index
        else:
            times = frame.iloc[:, column] if isinstance(column, int) else frame[column]
    zone = getattr(times.dtype, "tz", None)
    if zone is None and times.dtype == object and len(times):
        zone = getattr(times[0] if isinstance(times, pd.Index) else times.iloc[0], "tzinfo", None)
    return zone


class FeedBars(NamedTuple):
    """K bars of a feed, of which M are traded: they have four finite, positive prices.

    Volume that is missing or negative is set to 0. Feeds have no amount: it is volume times the mean of the four
    prices. A high or low that does not contain open and close is widened to contain them.
    """

    utc: np.ndarray  # (K,) datetime64[ns], to a tenth of a millisecond
    traded: np.ndarray  # (K,) bool
    values: np.ndarray  # (M, 6) float32 FEATURES
    times: np.ndarray  # (M,) datetime64[ns] in the time zone of the feed, see `time_zone_of`

    @classmethod
    def read(cls, data: bt.AbstractDataBase, select: Callable[[bt.LineBuffer], Sequence[float]]) -> FeedBars:
        """Read bars of a feed.

        Args:
            data: the feed.
            select: takes the values to read from one line. They are copied, since Backtrader cannot extend a line
                while an array views it.
        """
        raw = np.array([select(getattr(data.lines, name)) for name in (*PRICES, "volume")], float)  # (5, K)
        utc = to_utc(np.array(select(data.lines.datetime), float))
        prices, volume = raw[:4], raw[4]
        traded = (np.isfinite(prices) & (prices > 0)).all(axis=0)
        prices, volume = prices[:, traded], volume[traded]
        values = np.empty((len(FEATURES), len(volume)))
        values[:4] = prices
        values[1], values[2] = prices.max(axis=0), prices.min(axis=0)
        values[4] = np.where(np.isfinite(volume) & (volume > 0), volume, 0.0)
        values[5] = values[4] * prices.mean(axis=0)
        return cls(utc, traded, values.T.astype(np.float32), to_local(utc[traded], data))


def check_order(times: np.ndarray, name: str) -> None:
    """Check that times of the feed `name` are ascending and unique.

    Raises:
        ValueError: names the first offending time and the remedy.
    """
    if (np.diff(times) <= np.timedelta64(0)).any():
        check_timestamps(pd.DatetimeIndex(times), f"feed '{name}'")


def disambiguate_dst(times: np.ndarray, latest: np.datetime64) -> np.ndarray:
    """Shift local times by one tick where an hour repeats because clocks are set back.

    Args:
        times: (M,) datetime64[ns] of bars in their order.
        latest: latest time of all earlier bars, EARLIEST without any.

    Returns:
        (M,) datetime64[ns].
    """
    peaks = np.maximum.accumulate(np.concatenate([[latest], times]))[:-1]
    return np.where(times <= peaks, times + _TICK, times)


def to_utc(numbers: np.ndarray) -> np.ndarray:
    """Backtrader's days -> datetime64[ns] in UTC."""
    days = np.floor(numbers)
    ticks = (days - _EPOCH) * _TICKS_PER_DAY + np.floor((numbers - days) * _TICKS_PER_DAY + _SLACK)
    return (ticks.astype(np.int64) * _TICK.astype(np.int64)).astype("datetime64[ns]")


def to_local(utc: np.ndarray, data: bt.AbstractDataBase) -> np.ndarray:
    """(K,) datetime64[ns] in UTC -> in the time zone of the feed; unchanged if it has none, see `time_zone_of`."""
    zone = time_zone_of(data)
    if zone is None:
        return utc
    seconds = (utc.astype(np.int64) / 1e9).tolist()
    local = [
        datetime.fromtimestamp(second, timezone.utc).astimezone(zone).replace(tzinfo=None)
        for second in seconds
    ]
    return np.array(local, "datetime64[us]").astype("datetime64[ns]")


class FeedFrequency:
    """Whether bars of a feed are dated with a day or with a time of day, inferred from its first traded bars.

    A feed is intraday if its timeframe is below Days, or if two of these bars fall on one day: a DataFrame of
    five-minute bars is often fed without a timeframe. A bar of a day or longer is dated with the day, ignoring its
    time of day: Backtrader's own readers use 23:59:59.999989.

    Args:
        data: the feed.
        times: (M,) local times of its first traded bars, as many as a window has.

    Attributes:
        step: nanoseconds between two bars (lower median); None where bars are dated with a day.
        is_daily: whether a bar is exactly one day.
    """

    def __init__(self, data: bt.AbstractDataBase, times: np.ndarray) -> None:
        days = times.astype("datetime64[D]")
        dated_by_day = data._timeframe >= bt.TimeFrame.Days and (days[1:] != days[:-1]).all()
        steps = np.sort(np.diff(times).astype(np.int64))
        self.step = None if dated_by_day else int(steps[(len(steps) - 1) // 2])
        self.is_daily = dated_by_day and (data._timeframe, data._compression) == (bt.TimeFrame.Days, 1)
        self._period = data._timeframe, data._compression
        self._calendar, self._zone = data._calendar, time_zone_of(data)

    def future_timestamps(self) -> FutureTimestamps:
        """A `FutureTimestamps` for the feed that has not seen any bar yet."""
        return FutureTimestamps(*self._period, self.step, self._calendar, self._zone)

    def to_timestamp(self, times: np.ndarray) -> np.ndarray:
        """(M,) local times -> timestamps of windows, datetime64[ns]."""
        return times if self.step is not None else times.astype("datetime64[D]").astype("datetime64[ns]")


class PreloadedBars:
    """All traded bars of a feed that Backtrader has loaded completely.

    Args:
        data: the feed.
        name: its name in errors.
        lookback: bars per window.

    Attributes:
        values: (M, 6) float32 FEATURES.
        times: (M,) datetime64[ns], timestamps of windows.
        rows: (M,) int64, positions of these bars among all bars of the feed.
        is_daily: whether a bar is exactly one day.

    Raises:
        ValueError: bars are not in order, or two have the same time.
    """

    def __init__(self, data: bt.AbstractDataBase, name: str, lookback: int) -> None:
        count = data.buflen()
        bars = FeedBars.read(data, lambda line: line.array[:count])
        check_order(bars.utc, name)
        self.values, self.rows = bars.values, np.flatnonzero(bars.traded)
        self.times = disambiguate_dst(bars.times, EARLIEST)
        self.is_daily = False
        if len(self.times) >= lookback:
            frequency = FeedFrequency(data, self.times[:lookback])
            self.times, self.is_daily = frequency.to_timestamp(self.times), frequency.is_daily
            self._future = frequency.future_timestamps()
            if frequency.step is None:
                check_order(self.times, name)

    def future_timestamps(self, end_positions: np.ndarray, horizon: int) -> np.ndarray:
        """(N, H) datetime64[ns] after each of N bars, ascending; each row depends on earlier bars only."""
        rows, seen = np.empty((len(end_positions), horizon), "datetime64[ns]"), 0
        for i, end in enumerate(end_positions.tolist()):
            self._future.update(self.times[seen:end])
            rows[i], seen = self._future.predict(self.times[end], horizon), end
        return rows


class StreamingBars:
    """Last traded bars of a feed that arrives bar by bar; the current bar may change until the next one begins.

    Args:
        data: the feed.
        name: its name in errors.
        lookback: bars per window.

    Attributes:
        values: (M, 6) float32 FEATURES, at most the last `lookback` bars.
        times: (M,) datetime64[ns], timestamps of windows.
    """

    def __init__(self, data: bt.AbstractDataBase, name: str, lookback: int) -> None:
        self.data, self.name, self.lookback = data, name, lookback
        self.values = np.empty((0, len(FEATURES)), np.float32)
        self.times = np.empty(0, "datetime64[ns]")
        self._read = self._final = 0  # bars that cannot change any more: of the feed, and of `values`
        self._last_utc = np.empty(0, "datetime64[ns]")  # of the last of them
        self._latest = EARLIEST  # local
        self._frequency: FeedFrequency | None = None  # until a window is full
        self._future: FutureTimestamps | None = None

    @property
    def is_daily(self) -> bool:
        """Whether a bar is exactly one day; False until a window is full."""
        return self._frequency is not None and self._frequency.is_daily

    def advance(self) -> bool:
        """Read up to the current bar of the feed.

        Returns:
            Whether this bar is traded and completes a full window.

        Raises:
            ValueError: bars are not in order, or two have the same time.
        """
        new = len(self.data) - self._read
        bars = FeedBars.read(self.data, lambda line: line.get(size=new))
        check_order(np.concatenate([self._last_utc, bars.utc]), self.name)
        times = disambiguate_dst(bars.times, self._latest)
        final = len(times) - int(bars.traded[-1])
        self._latest = max([self._latest, *times[:final]])
        self._last_utc = np.concatenate([self._last_utc, bars.utc[:-1]])[-1:]
        self._read = len(self.data) - 1
        self._append(bars.values, times, final)
        return bool(bars.traded[-1]) and len(self.values) == self.lookback

    def future_timestamps(self, horizon: int) -> np.ndarray:
        """(1, H) datetime64[ns] after the current bar."""
        assert self._future is not None
        return self._future.predict(self.times[-1], horizon)[None]

    def _append(self, values: np.ndarray, times: np.ndarray, final: int) -> None:
        """Put traded bars after those that cannot change any more; the first `final` of them are final as well."""
        learned = self._final
        if self._frequency is not None:
            times = self._frequency.to_timestamp(times)
        self.values = np.concatenate([self.values[: self._final], values])
        self.times = np.concatenate([self.times[: self._final], times])
        self._final += final
        if self._frequency is None and len(self.times) >= self.lookback:
            self._frequency, learned = FeedFrequency(self.data, self.times[: self.lookback]), 0
            self.times = self._frequency.to_timestamp(self.times)
            self._future = self._frequency.future_timestamps()
        if self._frequency is None or self._future is None:
            return
        if self._frequency.step is None:
            check_order(self.times, self.name)
        self._future.update(self.times[learned : self._final])
        surplus = max(0, len(self.times) - self.lookback)
        self.values, self.times = self.values[surplus:], self.times[surplus:]
        self._final -= surplus
