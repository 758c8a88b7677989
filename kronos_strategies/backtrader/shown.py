"""What the feeds of a run have shown, as frames that know no engine: their bars, dated as their forecasts are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.bars import PRICES
from kronos.calendar import typical_step
from kronos_strategies.backtrader.bars import EARLIEST, Bars, local_times, told_apart, utc_times
from kronos_strategies.backtrader.tape import FeedKind

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
