"""The time zone on whose clock a feed's bars are dated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timezone, tzinfo
from typing import NamedTuple

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.bars import FEATURES, PRICES, check_timestamps
from kronos_strategies.backtrader.future_timestamps import TimesAhead

log = logging.getLogger(__name__)


def zone_of(data: bt.AbstractDataBase) -> tzinfo | None:
    """That of `tz=`, else that of `tzinput=`, else that of the feed's frame; None leaves times as they are.

    Backtrader converts the stamps of a frame with a time zone to UTC and forgets the zone, unless it is told by
    `tz=`. Days that Backtrader makes itself without `tz=`, by resampling or replay, are days of UTC and dated so.
    """
    if data._tz is not None:
        return data._tz
    if (data.resampling or data.replaying) and data._timeframe >= bt.TimeFrame.Days:
        return None
    return _given(data)


def check_zone(data: bt.AbstractDataBase, name: str) -> None:
    """Say where the zone of a feed comes from if Backtrader does not know it.

    Raises:
        ValueError: the times are converted twice.
    """
    source = _source(data)
    frame = _zone_of_frame(source)
    if frame is not None and getattr(source, "_tzinput", None):
        raise ValueError(
            f"The frame of feed '{name}' has the time zone {frame}, and tzinput={source.p.tzinput!r} converts its "
            f"times once more. Leave tzinput out, and pass tz='{frame}'."
        )
    if data._tz is not None or _given(data) is None:
        return
    if zone_of(data) is None:
        log.warning(
            "Feed '%s' is made of bars in the time zone %s, which Backtrader does not know: its days begin at "
            "midnight of UTC. Pass tz='%s' to the feed that it is made of.",
            *(name, _given(data), _given(data)),
        )
    else:
        log.warning(
            "Feed '%s' has no tz=: forecasts date its bars on the clock of its data, %s, but Backtrader itself "
            "shows and compares them in UTC. Pass tz='%s' to the feed.",
            *(name, _given(data), _given(data)),
        )


def _given(data: bt.AbstractDataBase) -> tzinfo | None:
    """The zone of what a feed was made from, though it has no `tz=`."""
    source = _source(data)
    localizer = getattr(source, "_tzinput", None)
    return localizer if localizer is not None else _zone_of_frame(source)


def _source(data: bt.AbstractDataBase) -> bt.AbstractDataBase:
    while data._clone:
        data = data.data
    return data


def _zone_of_frame(data: bt.AbstractDataBase) -> tzinfo | None:
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


class FeedKind:
    """Whether a feed's bars are dated with a day or with a time of day, told from its first traded bars.

    It is intraday if its timeframe is below Days, or if two of these bars fall on one day: a DataFrame of
    five-minute bars is often fed without a timeframe. A bar of a day or more is dated with the day, whatever time
    it is stamped with, e.g. 23:59:59.999989 as Backtrader's own readers do.

    Args:
        data: the feed.
        times: (M,) local times of its first traded bars, as many as a window has.

    Attributes:
        step: between two bars, in nanoseconds, the lower median; None where they are dated with a day.
        one_day: whether a bar is a day, neither less nor more.
    """

    def __init__(self, data: bt.AbstractDataBase, times: np.ndarray) -> None:
        days = times.astype("datetime64[D]")
        daily = data._timeframe >= bt.TimeFrame.Days and (days[1:] != days[:-1]).all()
        steps = np.sort(np.diff(times).astype(np.int64))
        self.step = None if daily else int(steps[(len(steps) - 1) // 2])
        self.one_day = daily and (data._timeframe, data._compression) == (bt.TimeFrame.Days, 1)
        self._timeframe, self._compression, self._calendar = (
            data._timeframe,
            data._compression,
            data._calendar,
        )
        self._zone = zone_of(data)

    def ahead(self) -> TimesAhead:
        """The times of the feed's bars to come, of which no bar has been seen yet."""
        return TimesAhead(self._timeframe, self._compression, self.step, self._calendar, self._zone)

    def dated(self, times: np.ndarray) -> np.ndarray:
        """(M,) local times -> what windows are dated with."""
        return times if self.step is not None else times.astype("datetime64[D]").astype("datetime64[ns]")


class LoadedFeed:
    """All traded bars of a feed that is loaded whole.

    Args:
        data: the feed.
        name: what to call it in errors.
        lookback: bars of a window.

    Attributes:
        values: (M, 6) float32 FEATURES.
        times: (M,) datetime64[ns] that windows are dated with.
        rows: (M,) int64, which of the feed's bars these are.
        daily: whether a bar is a day.

    Raises:
        ValueError: bars out of order, or two of one time.
    """

    def __init__(self, data: bt.AbstractDataBase, name: str, lookback: int) -> None:
        count = data.buflen()
        bars = Bars.read(data, lambda line: line.array[:count])
        check_order(bars.utc, name)
        self.values, self.rows = bars.values, np.flatnonzero(bars.traded)
        self.times = told_apart(bars.times, EARLIEST)
        self.daily = False
        if len(self.times) >= lookback:
            kind = FeedKind(data, self.times[:lookback])
            self.times, self._ahead, self.daily = kind.dated(self.times), kind.ahead(), kind.one_day
            if kind.step is None:
                check_order(self.times, name)

    def futures(self, ends: np.ndarray, horizon: int) -> np.ndarray:
        """(N, H) datetime64[ns], the times after each of N bars, ascending; none looks at a later bar."""
        rows, seen = np.empty((len(ends), horizon), "datetime64[ns]"), 0
        for i, end in enumerate(ends.tolist()):
            self._ahead.see(self.times[seen:end])
            rows[i], seen = self._ahead.after(self.times[end], horizon), end
        return rows


class RunningFeed:
    """The last traded bars of a feed that goes on bar by bar; the current one may change until the next begins.

    Args:
        data: the feed.
        name: what to call it in errors.
        lookback: bars of a window.

    Attributes:
        values: (M, 6) float32 FEATURES, the last `lookback` at most.
        times: (M,) datetime64[ns] that windows are dated with.
    """

    def __init__(self, data: bt.AbstractDataBase, name: str, lookback: int) -> None:
        self.data, self.name, self.lookback = data, name, lookback
        self.values = np.empty((0, len(FEATURES)), np.float32)
        self.times = np.empty(0, "datetime64[ns]")
        self._read = self._kept = 0  # bars that will not change any more: of the feed, and of `values`
        self._last = np.empty(0, "datetime64[ns]")  # UTC of the last of them
        self._latest = EARLIEST  # local
        self._kind: FeedKind | None = None  # until a window is full
        self._ahead: TimesAhead | None = None

    @property
    def daily(self) -> bool:
        """Whether a bar is a day; known once a window is full."""
        return self._kind is not None and self._kind.one_day

    def advance(self) -> bool:
        """Read up to the feed's current bar.

        Returns:
            Whether it is traded and ends a full window.

        Raises:
            ValueError: bars out of order, or two of one time.
        """
        new = len(self.data) - self._read
        bars = Bars.read(self.data, lambda line: line.get(size=new))
        check_order(np.concatenate([self._last, bars.utc]), self.name)
        times = told_apart(bars.times, self._latest)
        settled = len(times) - int(bars.traded[-1])
        self._latest = max([self._latest, *times[:settled]])
        self._last = np.concatenate([self._last, bars.utc[:-1]])[-1:]
        self._read = len(self.data) - 1
        self._append(bars.values, times, settled)
        return bool(bars.traded[-1]) and len(self.values) == self.lookback

    def future(self, horizon: int) -> np.ndarray:
        """(1, H) datetime64[ns], the times after the current bar."""
        assert self._ahead is not None
        return self._ahead.after(self.times[-1], horizon)[None]

    def _append(self, values: np.ndarray, times: np.ndarray, settled: int) -> None:
        """Put traded bars after those that will not change any more; `settled` of them are such bars too."""
        before = self._kept
        if self._kind is not None:
            times = self._kind.dated(times)
        self.values = np.concatenate([self.values[:before], values])
        self.times = np.concatenate([self.times[:before], times])
        self._kept += settled
        if self._kind is None and len(self.times) >= self.lookback:
            self._kind, before = FeedKind(self.data, self.times[: self.lookback]), 0
            self.times, self._ahead = self._kind.dated(self.times), self._kind.ahead()
        if self._kind is not None and self._ahead is not None:
            if self._kind.step is None:
                check_order(self.times, self.name)
            self._ahead.see(self.times[before : self._kept])
            surplus = max(0, len(self.times) - self.lookback)
            self.values, self.times, self._kept = (
                self.values[surplus:],
                self.times[surplus:],
                self._kept - surplus,
            )
