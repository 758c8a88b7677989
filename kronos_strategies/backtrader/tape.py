"""A feed's traded bars in the order of time: all of a loaded feed, or the last ones of a running feed."""

from __future__ import annotations

import backtrader as bt
import numpy as np

from kronos.bars import FEATURES
from kronos_strategies.backtrader.ahead import TimesAhead
from kronos_strategies.backtrader.bars import EARLIEST, Bars, check_order, told_apart
from kronos_strategies.backtrader.zones import zone_of


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
