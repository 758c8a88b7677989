"""Seat: one asset of a group that is forecast together, and where its last forecast stands."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.bars import stamps
from kronos.windows import KEYS, Windows
from kronos_strategies.backtrader.feed_bars import LoadedFeed, RunningFeed, check_zone
from kronos_strategies.backtrader.forecasts import COLUMNS, ENDS, LINES, ForecastSettings, lines
from kronos_strategies.progress import ProgressReport, progress_bar, silent

_BAR = ("datetime", "open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Schedule:
    """When forecasts are made.

    Each feed's own bars are counted in spans of `every`, of which one begins with bar number `lookback`; an asset
    is forecast on its first bar of a span on which it is traded and has a full window. So when it is forecast
    depends on no other feed, and not on when a live feed delivers its bars. Feeds with the same bars are forecast
    together.

    Attributes:
        lookback: traded bars of a window.
        every: bars of a span.
    """

    lookback: int
    every: int

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not isinstance(self.every, Integral) or self.every < 1:
            raise ValueError(f"every={self.every!r} is no number of bars. Pass a whole one, 1 or more.")

    def span(self, bar: int) -> int:
        """Of the feed's bar number `bar`, the first of which is 1."""
        return (bar - self.lookback) // self.every

    def ends(self, bars: np.ndarray) -> np.ndarray:
        """Which of an asset's traded bars end a window, where bar i of them is the feed's bar number `bars[i]`."""
        spans = (bars[self.lookback - 1 :] - self.lookback) // self.every
        return np.flatnonzero(np.diff(spans, prepend=spans[:1] - 1)) + self.lookback - 1


class Seat:
    """One asset.

    Args:
        data: the feed.
        name: of the instrument.
        schedule: of the group.

    Attributes:
        running: the feed bar by bar.
    """

    def __init__(self, data: bt.AbstractDataBase, name: str, schedule: Schedule) -> None:
        self.data, self.name, self.schedule = data, name, schedule
        self.running = RunningFeed(data, name, schedule.lookback)
        self._looked: tuple[float, ...] = (0,)  # what `_look` returned the last time
        self._span = 0  # of the current bar
        self._done: int | None = None  # span of the last forecast
        self._made = 0  # bars that the feed had then
        self._found: dict[float, np.ndarray] = {}  # by level
        self._table: dict[float, np.ndarray] = {}

    def table(self, level: float) -> np.ndarray:
        """(K, 9) COLUMNS at each of the feed's bars, once `fill` has been called."""
        return self._table[level]

    def fill(self, feed: LoadedFeed, ends: np.ndarray, found: dict[float, np.ndarray]) -> None:
        """Take the forecasts of all bars.

        Args:
            feed: the feed, loaded whole.
            ends: (N,) which of its traded bars have a forecast, ascending.
            found: (N, 8) LINES by level.
        """
        made = feed.rows[ends]
        latest = np.searchsorted(made, feed.rows, side="right") - 1  # -1: none yet
        known = latest >= 0
        rows, latest = feed.rows[known], latest[known]
        for level, values in found.items():
            table = np.full((self.data.buflen(), len(COLUMNS)), np.nan)
            table[rows, :-1] = values[latest]
            table[rows, -1] = rows - made[latest]
            self._table[level] = table

    def moved(self) -> bool:
        """Whether the feed has come to another bar, or under replay to another state of it, since `due`."""
        return self._look() != self._looked

    def due(self) -> bool:
        """Whether a forecast is to be made at the feed's current bar.

        Under replay a forecast that is due on a bar is made anew on each of its ticks, of the bar as it then is.
        """
        look = self._look()
        if look == self._looked:
            return False
        again = look[0] == self._looked[0] == self._made
        if look[0] > self._looked[0]:
            self._span = self.schedule.span(int(look[0]))
        self._looked = look
        if len(self.data) < self.schedule.lookback or not (
            again or self._done is None or self._span > self._done
        ):
            return False
        return self.running.advance()

    def take(self, found: dict[float, np.ndarray]) -> None:
        """Take the forecast of the current bar, (8,) LINES by level."""
        self._found = found
        self._done, self._made = self._span, len(self.data)

    def now(self, level: float) -> np.ndarray:
        """(9,) COLUMNS at the current bar."""
        row = np.full(len(COLUMNS), np.nan)
        if self._found and self._traded():
            row[:-1], row[-1] = self._found[level], len(self.data) - self._made
        return row

    def _look(self) -> tuple[float, ...]:
        if not self.data.replaying:
            return (len(self.data),)
        return (len(self.data), *(getattr(self.data.lines, name)[0] for name in _BAR))

    def _traded(self) -> bool:
        data = self.data
        return all(0 < line[0] < np.inf for line in (data.open, data.high, data.low, data.close))


logger = logging.getLogger(__name__)

_HUB = "_kronos_hub"  # of a strategy


class Hub:
    """The groups of one strategy's assets; a second run has strategies, and so a hub, of its own.

    Args:
        strategy: whose assets are forecast.
    """

    def __init__(self, strategy: bt.Strategy) -> None:
        self.strategy = strategy
        self._groups: dict[tuple[ForecastSettings, int], Group] = {}
        self._names: dict[int, str] = {}
        self._checked: set[int] = set()
        for i, data in enumerate(strategy.datas):
            name = data._name or f"data{i}"
            # Resampled feeds often share the name of what they are made of.
            self._names[id(data)] = name if name not in self._names.values() else f"{name}#{i}"

    @classmethod
    def of(cls, indicator: bt.Indicator) -> Hub:
        """That of the strategy that an indicator belongs to.

        Raises:
            ValueError: it belongs to none, or the strategy runs with exactbars=1.
        """
        owner = indicator._owner
        while owner is not None and not isinstance(owner, bt.Strategy):
            owner = owner._owner
        if owner is None:
            raise ValueError(
                f"{type(indicator).__name__} belongs to no strategy. Make it in the __init__ of one, or pass it to "
                "cerebro.addindicator."
            )
        if owner.cerebro._exactbars > 0:
            raise ValueError(
                "exactbars=1 keeps so few bars that Backtrader itself fails on feeds of different lengths. "
                "Run with exactbars=-1 or -2, which save memory too."
            )
        return owner.__dict__.setdefault(_HUB, cls(owner))

    def ends(self, settings: ForecastSettings, every: int) -> dict[tuple[pd.Timestamp, str], np.ndarray]:
        """(S,) closes of the paths at the horizon, by (datetime, instrument) of each forecast so far."""
        return self._groups[settings, every].ends

    def chair(self, data: bt.AbstractDataBase, settings: ForecastSettings, every: int, level: float) -> Chair:
        """Have a feed forecast together with all others of the same settings.

        Raises:
            ValueError: a setting is out of range, or there is no such model.
        """
        if not 0 < level < 1:
            raise ValueError(
                f"level={level} is no share of the paths. Pass a number between 0 and 1, such as 0.9."
            )
        choice = settings.choice()  # loads the model, so that a wrong name fails before anything is run
        settings.sampling()
        settings.postprocessing()
        if (settings, every) not in self._groups:
            self._groups[settings, every] = Group(settings, every)
            logger.info("Scores of daily bars come from %s", choice.described)
            for warning in choice.warnings:
                logger.warning(warning)
        group = self._groups[settings, every]
        group.levels.add(level)
        if id(data) not in self._checked:
            self._checked.add(id(data))
            check_zone(data, self._names[id(data)])
        seat = group.seats.setdefault(id(data), Seat(data, self._names[id(data)], group.schedule))
        return Chair(group, seat, level)


class Chair:
    """What an indicator reads its lines from: one asset at one level of the band."""

    def __init__(self, group: Group, seat: Seat, level: float) -> None:
        self._group, self._seat, self._level = group, seat, level
        self.lookback = group.settings.lookback

    def table(self) -> np.ndarray:
        """(K, 9) `outlook.COLUMNS` at all bars of the feed, which is loaded whole."""
        self._group.load()
        return self._seat.table(self._level)

    def now(self) -> np.ndarray:
        """(9,) `outlook.COLUMNS` at the current bar of the feed."""
        if self._seat.moved():
            self._group.move()
        return self._seat.now(self._level)


class Cut(NamedTuple):
    """Windows of one asset."""

    name: str
    values: np.ndarray  # (M, 6) float32
    times: np.ndarray  # (M,) datetime64[ns]
    ends: np.ndarray  # (N,) int64, each window's last bar
    future: np.ndarray  # (N, H) datetime64[ns]
    daily: bool


class Group:
    """Assets that are forecast together, with the same settings and on the same schedule.

    Args:
        settings: of the forecasts.
        every: bars of each feed between them.

    Attributes:
        seats: by id of the feed.
        levels: of the bands that are asked for.
        ends: (S,) closes of the paths at the horizon, by (datetime, instrument) of each forecast.
    """

    def __init__(self, settings: ForecastSettings, every: int) -> None:
        self.settings = settings
        self.schedule = Schedule(settings.lookback, every)
        self.seats: dict[int, Seat] = {}
        self.levels: set[float] = set()
        self.ends: dict[tuple[pd.Timestamp, str], np.ndarray] = {}
        self._loaded = False

    def load(self) -> None:
        """Forecast all bars of all feeds, which are loaded whole; later calls do nothing."""
        if self._loaded:
            return
        self._loaded = True
        seats = list(self.seats.values())
        feeds = [LoadedFeed(seat.data, seat.name, self.settings.lookback) for seat in seats]
        cuts = []
        for seat, feed in zip(seats, feeds, strict=True):
            ends = self.schedule.ends(feed.rows + 1)
            future = feed.futures(ends, self.settings.horizon)
            cuts.append(Cut(seat.name, feed.values, feed.times, ends, future, feed.daily))
        with progress_bar("forecast", "windows") as progress:
            found = self._forecast(cuts, progress)
        for seat, feed, cut, own in zip(seats, feeds, cuts, found, strict=True):
            seat.fill(feed, cut.ends, own)

    def move(self) -> None:
        """Forecast what is due at the current bar of all feeds."""
        due = [seat for seat in self.seats.values() if seat.due()]
        last = np.array([self.settings.lookback - 1])
        cuts = []
        for seat in due:
            feed = seat.running
            future = feed.future(self.settings.horizon)
            cuts.append(Cut(seat.name, feed.values, feed.times, last, future, feed.daily))
        for seat, own in zip(due, self._forecast(cuts, silent), strict=True):
            seat.take({level: values[0] for level, values in own.items()})

    def _forecast(self, cuts: Sequence[Cut], progress: ProgressReport) -> Iterator[dict[float, np.ndarray]]:
        """(N, 8) LINES by level of each asset's windows."""
        counts = [len(cut.ends) for cut in cuts]
        if not sum(counts):
            yield from ({level: np.empty((0, len(LINES))) for level in self.levels} for _ in cuts)
            return
        windows = _windows(cuts, self.settings.lookback)
        dates, names = (windows.keys.get_level_values(key) for key in KEYS)
        order = np.lexsort([names, dates])
        every_name = tuple(sorted(seat.name for seat in self.seats.values()))
        daily = np.repeat([cut.daily for cut in cuts], counts)[order]
        found = self.settings.outlooks(windows[order], every_name, progress, daily)[np.argsort(order)]
        self.ends.update(zip(windows.keys, found[:, ENDS:], strict=True))
        tables = {
            level: lines(found, level, self.settings.band_factors(windows, level)) for level in self.levels
        }
        for stop, count in zip(np.cumsum(counts), counts, strict=True):
            yield {level: table[stop - count : stop] for level, table in tables.items()}


def _windows(cuts: Sequence[Cut], lookback: int) -> Windows:
    times = np.concatenate([cut.times for cut in cuts])
    starts = np.cumsum([0, *(len(cut.times) for cut in cuts[:-1])])
    ends = np.concatenate([cut.ends + start for cut, start in zip(cuts, starts, strict=True)])
    names = np.repeat([cut.name for cut in cuts], [len(cut.ends) for cut in cuts])
    return Windows(
        tape=np.concatenate([cut.values for cut in cuts]),
        tape_stamps=stamps(pd.DatetimeIndex(times)),
        ends=ends,
        lengths=np.full(len(ends), lookback, np.int64),
        future=np.concatenate([cut.future for cut in cuts]),
        keys=pd.MultiIndex.from_arrays([pd.DatetimeIndex(times[ends]), names], names=KEYS),
    )
