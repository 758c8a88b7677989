"""Which feeds of a strategy have a bar now, which are about to have one, and which have missed theirs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.bars import PRICES
from kronos.frequency import typical_step
from kronos_strategies.backtrader.feed_bars import (
    EARLIEST,
    Bars,
    FeedKind,
    local_times,
    told_apart,
    utc_times,
)

Rhythm = tuple[int, int]
SILENT_DAYS = 14  # longer than any exchange closes for holidays


def rhythm_of(data: bt.AbstractDataBase) -> Rhythm:
    """How long a feed's bars are."""
    return data._timeframe, data._compression


class FeedActivity:
    """Counts each feed's own bars, whatever the order in which feeds of several exchanges deliver theirs.

    Bars of one length come in rounds: a round ends when a feed delivers its second bar of it. Where all feeds share
    their times each bar is a round; where one exchange closes after another, a round is a bar of each.

    The peers of a feed are those that had a bar together with its last one. Their next bar without it means that
    it was suspended; the bars of other feeds mean nothing: their exchange may be open while its own is closed.

    Args:
        feeds: to watch.

    Attributes:
        moved: feeds whose bar is new at the strategy's current bar.
        rounds: so far, by length of bar.
    """

    def __init__(self, feeds: Iterable[bt.AbstractDataBase]) -> None:
        self._bars = dict.fromkeys(feeds, 0)
        self.moved: set[bt.AbstractDataBase] = set()
        self.rounds: dict[Rhythm, int] = {rhythm_of(data): 0 for data in self._bars}
        self._round: dict[bt.AbstractDataBase, int] = {}  # of a feed's last bar
        self._steps = 0  # calls of `update` at which a feed had a new bar
        self._last: dict[bt.AbstractDataBase, int] = {}  # step of a feed's last bar
        self._together: dict[
            int, dict[bt.AbstractDataBase, int]
        ] = {}  # who had a bar at a step: bars by feed
        self._second_last: dict[Rhythm, int] = {}  # the latest step that is the last but one of any feed

    def update(self) -> None:
        """Look at the strategy's current bar; to be called once at each."""
        self.moved = {data for data, bars in self._bars.items() if len(data) > bars}
        if not self.moved:
            return
        self._steps += 1
        for rhythm in {rhythm_of(data) for data in self.moved}:
            again = (self._round.get(data) for data in self.moved if rhythm_of(data) == rhythm)
            if self.rounds[rhythm] in again or not self.rounds[rhythm]:
                self.rounds[rhythm] += 1
        for data in self.moved:
            rhythm, before = rhythm_of(data), self._last.get(data, 0)
            self._second_last[rhythm] = max(self._second_last.get(rhythm, 0), before)
            self._bars[data], self._last[data] = len(data), self._steps
            self._round[data] = self.rounds[rhythm]
        self._together[self._steps] = {data: self._bars[data] for data in self.moved}
        wanted = set(self._last.values())
        for step in [step for step in self._together if step not in wanted]:
            del self._together[step]

    def bars(self, data: bt.AbstractDataBase) -> int:
        """How many a feed has had."""
        return self._bars[data]

    def missed(self, data: bt.AbstractDataBase) -> int:
        """Bars that a peer has had since the feed's last one."""
        if data not in self._last:
            return 0
        rhythm, together = rhythm_of(data), self._together[self._last[data]]
        return max(self._bars[peer] - bars for peer, bars in together.items() if rhythm_of(peer) == rhythm)

    def is_live(self, data: bt.AbstractDataBase) -> bool:
        """Whether a feed has a bar now, or had one in the current or last round and has missed none."""
        last = self._last.get(data)
        if last is None:
            return False
        return last == self._steps or (
            not self.missed(data) and self._second_last.get(rhythm_of(data), 0) <= last
        )

    def has_ended(self, data: bt.AbstractDataBase, after: int, days: float) -> bool:
        """Whether peers have had `after` bars since the feed's last one, or others so many over a long time.

        Args:
            data: the feed.
            after: bars.
            days: from its last bar to now.
        """
        if self.missed(data) >= after:
            return True
        others = self.rounds[rhythm_of(data)] - self._round.get(data, 0)
        return others >= after and days >= min(SILENT_DAYS, after)


COLUMNS = (*PRICES, "volume")
KEYS = ("instrument", "datetime")
_PERIODS = [(pd.Timedelta(days=days), period) for days, period in ((360, "Y"), (27, "M"), (5, "W"), (1, "D"))]
_MOMENT = pd.Timedelta(seconds=1)  # a day's last bar may be stamped a moment after the day


def name_feeds(datas: Sequence[bt.AbstractDataBase]) -> dict[str, bt.AbstractDataBase]:
    """Feeds by name, in their order; one without is data0, data1, ..., and a name of two feeds is numbered."""
    named: dict[str, bt.AbstractDataBase] = {}
    for i, data in enumerate(datas):
        name = data._name or f"data{i}"
        named[name if name not in named else f"{name}#{i}"] = data
    return named


class Clock:
    """When the strategy's bars were, and which feed told so.

    Args:
        strategy: that runs.
        feeds: by name.

    Attributes:
        bars: Backtrader's time and the name of a feed that has a bar then, by the strategy's number of bars.
    """

    def __init__(self, strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase]) -> None:
        self._strategy, self._feeds = strategy, feeds
        self.bars: dict[int, tuple[float, str]] = {}

    def see(self) -> None:
        """Read the current bar of the strategy."""
        now = self._strategy.datetime[0]
        current = (name for name, data in self._feeds.items() if len(data) and data.datetime[0] == now)
        self.bars[len(self._strategy)] = (now, next(current, next(iter(self._feeds))))


class Shown:
    """Bars of feeds, as far as a run has come; read when it stops.

    Bars are dated in their feed's own zone, `zones.zone_of`: with the day where all feeds are daily or longer, else
    with the time, of which an hour that clocks repeat is passed a tick later the second time.

    Args:
        feeds: by name.

    Attributes:
        daily: whether dates are days.
        last: date of each feed's last bar, by name; NaT of a feed without any.
        first: of each feed's first bar.
    """

    def __init__(self, feeds: Mapping[str, bt.AbstractDataBase]) -> None:
        self._feeds = dict(feeds)
        self._read = {name: Bars.read(data, _so_far(data)) for name, data in self._feeds.items()}
        self.daily = all(_daily(data, self._read[name].times) for name, data in self._feeds.items())
        spans = {
            name: self._dated(local_times(self._read[name].utc, data)) for name, data in self._feeds.items()
        }
        self._dates = spans
        self.first = {name: dates[0] if len(dates) else pd.NaT for name, dates in spans.items()}
        self.last = {name: dates[-1] if len(dates) else pd.NaT for name, dates in spans.items()}

    def dates(self, clock: Clock) -> pd.Series:
        """Of the strategy's bars, by their number; ascending, but two bars may have one date."""
        local = np.empty(len(clock.bars), "datetime64[ns]")
        stamps, told_by = (np.array(column) for column in zip(*clock.bars.values(), strict=True))
        utc = utc_times(stamps.astype(float))
        for name in np.unique(told_by):
            local[told_by == name] = local_times(utc[told_by == name], self._feeds[name])
        return pd.Series(self._dated(local), index=list(clock.bars))

    def date(self, name: str, count: int) -> pd.Timestamp:
        """Of a feed's bar number `count`, the first of which is 1."""
        return self._dates[name][count - 1]

    def dated(self, name: str, stamps: np.ndarray) -> np.ndarray:
        """Backtrader's times of a feed's bars, of any shape, as their dates, datetime64[ns]; NaT for NaN."""
        found = np.full(stamps.shape, np.datetime64("NaT", "ns"))
        known = np.isfinite(stamps)
        local = local_times(utc_times(stamps[known]), self._feeds[name])
        found[known] = local.astype("datetime64[D]") if self.daily else local
        return found

    def panel(self, names: Sequence[str]) -> pd.DataFrame:
        """Traded bars, those with four finite and positive prices, of some feeds.

        Returns:
            Frame indexed (datetime, instrument), sorted, columns COLUMNS; a high or low that does not contain open
            and close is stretched to them, and volume that is missing or negative is 0.
        """
        parts = {name: self._bars(name) for name in names}
        return pd.concat(parts, names=list(KEYS)).swaplevel().sort_index()

    def early(self) -> Iterator[tuple[str, str]]:
        """Feeds of days or longer whose bars are shown before they are over.

        Yields:
            Such a feed, and one of shorter bars that has bars of the same calendar period later than the stamp, as
            where a day is stamped with its midnight and trades from 9:35 on.
        """
        steps = {name: typical_step(pd.DatetimeIndex(bars.utc)) for name, bars in self._read.items()}
        for name, data in self._feeds.items():
            step = steps[name]
            period = next((period for least, period in _PERIODS if step is not None and step >= least), None)
            if step is None or period is None:
                continue
            stamped = _last_of(self._read[name].utc, data, period)
            for fine in (other for other, least in steps.items() if least is not None and least < step):
                both = stamped.to_frame("own").join(
                    _last_of(self._read[fine].utc, data, period).rename("fine"), how="inner"
                )
                if len(both) and (both["own"] + _MOMENT < both["fine"]).mean() > 0.5:
                    yield name, fine
                    break

    def _bars(self, name: str) -> pd.DataFrame:
        data, bars = self._feeds[name], self._read[name]
        columns = {each: _so_far(data)(getattr(data.lines, each)) for each in COLUMNS}
        frame = pd.DataFrame({each: np.array(values, float)[bars.traded] for each, values in columns.items()})
        prices = frame[list(PRICES)]
        frame["high"], frame["low"] = prices.max(axis=1), prices.min(axis=1)
        frame["volume"] = frame["volume"].where(np.isfinite(frame["volume"]), 0.0).clip(lower=0.0)
        frame = frame.set_axis(self._dated(bars.times).rename("datetime"))
        return frame[~frame.index.duplicated(keep="last")]  # two bars of one day, of a feed that is not daily

    def _dated(self, local: np.ndarray) -> pd.DatetimeIndex:
        if self.daily:
            return pd.DatetimeIndex(local.astype("datetime64[D]").astype("datetime64[ns]"))
        return pd.DatetimeIndex(told_apart(local, EARLIEST))


def _last_of(utc: np.ndarray, data: bt.AbstractDataBase, period: str) -> pd.Series:
    """The last of (K,) times in each calendar period on the clock of a feed."""
    return pd.Series(utc, pd.DatetimeIndex(local_times(utc, data)).to_period(period)).groupby(level=0).max()


class _so_far:
    """Cuts what a run has shown out of a feed's line, which may hold bars that the run never reached."""

    def __init__(self, data: bt.AbstractDataBase) -> None:
        self.count = len(data)

    def __call__(self, line: bt.LineBuffer) -> Sequence[float]:
        return line.get(size=self.count) if self.count else []


def _daily(data: bt.AbstractDataBase, times: np.ndarray) -> bool:
    if len(times) < 2:
        return bool(data._timeframe >= bt.TimeFrame.Days)
    return FeedKind(data, times).step is None
