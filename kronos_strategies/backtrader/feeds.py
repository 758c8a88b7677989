"""Feeds of a run: their names, which have a bar now, and, after the run, all bars that they delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.bars import PRICES
from kronos.calendar import typical_step
from kronos_strategies.backtrader.feed_bars import (
    EARLIEST,
    FeedBars,
    FeedFrequency,
    disambiguate_dst,
    to_local,
    to_utc,
)

BarLength = tuple[int, int]
COLUMNS = (*PRICES, "volume")
KEYS = ("instrument", "datetime")
MAX_HOLIDAY_DAYS = 14  # longer than any exchange closes
_PERIODS = [(pd.Timedelta(days=days), period) for days, period in ((360, "Y"), (27, "M"), (5, "W"), (1, "D"))]
_TOLERANCE = pd.Timedelta(seconds=1)  # the last bar of a day may be stamped just after the day


def name_feeds(datas: Sequence[bt.AbstractDataBase]) -> dict[str, bt.AbstractDataBase]:
    """Feeds by name, in their order. Feeds without a name are data0, data1, ...; a repeated name gets a number."""
    named: dict[str, bt.AbstractDataBase] = {}
    for i, data in enumerate(datas):
        name = data._name or f"data{i}"  # a resampled feed often has the name of its source
        named[name if name not in named else f"{name}#{i}"] = data
    return named


def bar_length(data: bt.AbstractDataBase) -> BarLength:
    """Timeframe and compression of a feed."""
    return data._timeframe, data._compression


class FeedActivity:
    """Which feeds have a bar now, which are about to have one, and which have missed theirs.

    Counts the bars of each feed, in whatever order feeds of several exchanges deliver them. Bars of one length come
    in rounds: a round ends when a feed delivers its second bar of it. If all feeds share their times, each bar is a
    round; if one exchange closes after another, a round has one bar of each.

    The peers of a feed are the feeds that had a bar together with its last one. If they have their next bar without
    it, it is suspended. Bars of other feeds say nothing: their exchange may be open while its own is closed.

    Args:
        strategy: the running strategy.
        feeds: feeds to watch.

    Attributes:
        new_bars: feeds whose bar is new at the current bar of the strategy.
        rounds: number of rounds so far by length of bar.
    """

    def __init__(self, strategy: bt.Strategy, feeds: Iterable[bt.AbstractDataBase]) -> None:
        self._strategy = strategy
        self._bars = dict.fromkeys(feeds, 0)
        self.new_bars: set[bt.AbstractDataBase] = set()
        self.rounds: dict[BarLength, int] = {bar_length(data): 0 for data in self._bars}
        self._round: dict[bt.AbstractDataBase, int] = {}  # of a feed's last bar
        self._steps = 0  # calls of `update` at which a feed had a new bar
        self._last_step: dict[bt.AbstractDataBase, int] = {}  # of a feed's last bar
        self._together: dict[int, dict[bt.AbstractDataBase, int]] = {}  # by step: number of bars by feed
        self._second_last: dict[BarLength, int] = {}  # latest step of the second last bar of any feed

    def update(self) -> None:
        """Read the current bar of the strategy; call once per bar."""
        self.new_bars = {data for data, bars in self._bars.items() if len(data) > bars}
        if not self.new_bars:
            return
        self._steps += 1
        for length in {bar_length(data) for data in self.new_bars}:
            again = (self._round.get(data) for data in self.new_bars if bar_length(data) == length)
            if self.rounds[length] in again or not self.rounds[length]:
                self.rounds[length] += 1
        for data in self.new_bars:
            length, before = bar_length(data), self._last_step.get(data, 0)
            self._second_last[length] = max(self._second_last.get(length, 0), before)
            self._bars[data], self._last_step[data] = len(data), self._steps
            self._round[data] = self.rounds[length]
        self._together[self._steps] = {data: self._bars[data] for data in self.new_bars}
        needed = set(self._last_step.values())
        for step in [step for step in self._together if step not in needed]:
            del self._together[step]

    def has_bar(self, data: bt.AbstractDataBase) -> bool:
        """Whether a feed has a bar now.

        Before the first bar of a feed, Backtrader shows its last one. A resampled bar is dated with the end of its
        period, which need not be the time of the bar that completed it.
        """
        return len(data) > 0 and (data in self.new_bars or data.datetime[0] == self._strategy.datetime[0])

    def is_current(self, data: bt.AbstractDataBase) -> bool:
        """Whether a feed has a bar with a price now."""
        return self.has_bar(data) and isfinite(data.close[0])

    def is_tradable(self, data: bt.AbstractDataBase) -> bool:
        """Whether a feed has a price now, or had one in the current or last round and has missed no bar since."""
        return (self.has_bar(data) or self._is_on_time(data)) and isfinite(data.close[0])

    def missed_bars(self, data: bt.AbstractDataBase) -> int:
        """Number of bars that a peer has had since the last bar of the feed."""
        if data not in self._last_step:
            return 0
        length, together = bar_length(data), self._together[self._last_step[data]]
        return max(self._bars[peer] - bars for peer, bars in together.items() if bar_length(peer) == length)

    def is_delisted(self, data: bt.AbstractDataBase, after: int, days: float) -> bool:
        """Whether a feed has ended.

        It has if its peers have had `after` bars since its last one, or others have over a long time.

        Args:
            data: the feed.
            after: number of bars.
            days: days from its last bar to now.
        """
        if self.missed_bars(data) >= after:
            return True
        others = self.rounds[bar_length(data)] - self._round.get(data, 0)
        return others >= after and days >= min(MAX_HOLIDAY_DAYS, after)

    def _is_on_time(self, data: bt.AbstractDataBase) -> bool:
        last = self._last_step.get(data)
        if last is None:
            return False
        return last == self._steps or (
            not self.missed_bars(data) and self._second_last.get(bar_length(data), 0) <= last
        )


class BarClock:
    """Times of the strategy's bars, and the feeds that they are from.

    Args:
        strategy: the running strategy.
        feeds: feeds by name.

    Attributes:
        bars: Backtrader's time and the name of a feed with a bar at that time, by number of the strategy's bar.
    """

    def __init__(self, strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase]) -> None:
        self._strategy, self._feeds = strategy, feeds
        self.bars: dict[int, tuple[float, str]] = {}

    def record(self) -> None:
        """Record the current bar of the strategy."""
        now = self._strategy.datetime[0]
        current = (name for name, data in self._feeds.items() if len(data) and data.datetime[0] == now)
        self.bars[len(self._strategy)] = (now, next(current, next(iter(self._feeds))))


class FeedHistory:
    """Bars that the feeds have delivered, up to where the run has come; created when it stops.

    Bars are dated in the time zone of their feed, see `feed_bars.time_zone_of`: with the day if all feeds are daily
    or longer, else with the time, where an hour that repeats because clocks are set back is shifted by one tick.

    Args:
        feeds: feeds by name.

    Attributes:
        daily: whether dates are days.
        first, last: date of each feed's first and last bar, by name; NaT of a feed without bars.
    """

    def __init__(self, feeds: Mapping[str, bt.AbstractDataBase]) -> None:
        self._feeds = dict(feeds)
        self._bars = {name: FeedBars.read(data, _delivered(data)) for name, data in self._feeds.items()}
        self.daily = all(_is_dated_by_day(data, self._bars[name].times) for name, data in self._feeds.items())
        self._dates = {
            name: self._to_dates(to_local(self._bars[name].utc, data)) for name, data in self._feeds.items()
        }
        self.first = {name: dates[0] if len(dates) else pd.NaT for name, dates in self._dates.items()}
        self.last = {name: dates[-1] if len(dates) else pd.NaT for name, dates in self._dates.items()}

    def strategy_dates(self, clock: BarClock) -> pd.Series:
        """Dates of the strategy's bars by their number, ascending; several bars may have the same date."""
        local = np.empty(len(clock.bars), "datetime64[ns]")
        numbers, names = (np.array(column) for column in zip(*clock.bars.values(), strict=True))
        utc = to_utc(numbers.astype(float))
        for name in np.unique(names):
            local[names == name] = to_local(utc[names == name], self._feeds[name])
        return pd.Series(self._to_dates(local), index=list(clock.bars))

    def bar_date(self, name: str, number: int) -> pd.Timestamp:
        """Date of a feed's bar number `number`, counted from 1."""
        return self._dates[name][number - 1]

    def to_dates(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """Backtrader's times of a feed's bars, of any shape, as datetime64[ns] dates; NaN becomes NaT."""
        found = np.full(numbers.shape, np.datetime64("NaT", "ns"))
        known = np.isfinite(numbers)
        local = to_local(to_utc(numbers[known]), self._feeds[name])
        found[known] = local.astype("datetime64[D]") if self.daily else local
        return found

    def panel(self, names: Sequence[str]) -> pd.DataFrame:
        """Traded bars of some feeds: those with four finite, positive prices.

        Returns:
            DataFrame indexed (datetime, instrument), sorted, columns COLUMNS. A high or low that does not contain
            open and close is widened to contain them; volume that is missing or negative is 0.
        """
        parts = {name: self._traded_bars(name) for name in names}
        return pd.concat(parts, names=list(KEYS)).swaplevel().sort_index()

    def premature_feeds(self) -> Iterator[tuple[str, str]]:
        """Feeds of days or longer whose bars are visible before they are complete.

        Yields:
            Such a feed, and one of shorter bars that has bars of the same calendar period after the stamp, e.g.
            where a day is stamped with its midnight and trades from 9:35 on.
        """
        steps = {name: typical_step(pd.DatetimeIndex(bars.utc)) for name, bars in self._bars.items()}
        for name, data in self._feeds.items():
            step = steps[name]
            period = next((period for least, period in _PERIODS if step is not None and step >= least), None)
            if step is None or period is None:
                continue
            stamped = _last_per_period(self._bars[name].utc, data, period)
            for finer in (other for other, least in steps.items() if least is not None and least < step):
                last = _last_per_period(self._bars[finer].utc, data, period)
                both = stamped.to_frame("own").join(last.rename("finer"), how="inner")
                if len(both) and (both["own"] + _TOLERANCE < both["finer"]).mean() > 0.5:
                    yield name, finer
                    break

    def _traded_bars(self, name: str) -> pd.DataFrame:
        data, bars = self._feeds[name], self._bars[name]
        columns = {each: _delivered(data)(getattr(data.lines, each)) for each in COLUMNS}
        frame = pd.DataFrame({each: np.array(values, float)[bars.traded] for each, values in columns.items()})
        prices = frame[list(PRICES)]
        frame["high"], frame["low"] = prices.max(axis=1), prices.min(axis=1)
        frame["volume"] = frame["volume"].where(np.isfinite(frame["volume"]), 0.0).clip(lower=0.0)
        frame = frame.set_axis(self._to_dates(bars.times).rename("datetime"))
        return frame[~frame.index.duplicated(keep="last")]  # two bars of one day, in a feed that is not daily

    def _to_dates(self, local: np.ndarray) -> pd.DatetimeIndex:
        if self.daily:
            return pd.DatetimeIndex(local.astype("datetime64[D]").astype("datetime64[ns]"))
        return pd.DatetimeIndex(disambiguate_dst(local, EARLIEST))


def _last_per_period(utc: np.ndarray, data: bt.AbstractDataBase, period: str) -> pd.Series:
    """Last of (K,) UTC times in each calendar period in the time zone of a feed."""
    return pd.Series(utc, pd.DatetimeIndex(to_local(utc, data)).to_period(period)).groupby(level=0).max()


def _delivered(data: bt.AbstractDataBase) -> Callable[[bt.LineBuffer], Sequence[float]]:
    """Selects what a run has delivered of a feed's line, which may hold bars that the run has not reached."""
    count = len(data)
    return lambda line: line.get(size=count) if count else []


def _is_dated_by_day(data: bt.AbstractDataBase, times: np.ndarray) -> bool:
    if len(times) < 2:
        return bool(data._timeframe >= bt.TimeFrame.Days)
    return FeedFrequency(data, times).step is None
