"""Hub: what batches the forecasts of all assets of one strategy.

Backtrader has loaded every feed, or has moved every feed to the current bar, before it asks any indicator. So the
first indicator that is asked computes for all: once for all bars, or bar by bar for all assets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.bars import stamps
from kronos.windows import KEYS, Windows
from kronos_strategies.backtrader.forecasts import ForecastSettings
from kronos_strategies.backtrader.outlook import ENDS, LINES, lines
from kronos_strategies.backtrader.seat import Schedule, Seat
from kronos_strategies.backtrader.tape import LoadedFeed
from kronos_strategies.backtrader.zones import check_zone
from kronos_strategies.progress import ProgressReport, progress_bar, silent

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
        dates, names = (windows.index.get_level_values(key) for key in KEYS)
        order = np.lexsort([names, dates])
        every_name = tuple(sorted(seat.name for seat in self.seats.values()))
        daily = np.repeat([cut.daily for cut in cuts], counts)[order]
        found = self.settings.outlooks(windows[order], every_name, progress, daily)[np.argsort(order)]
        self.ends.update(zip(windows.index, found[:, ENDS:], strict=True))
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
        bars=np.concatenate([cut.values for cut in cuts]),
        bar_stamps=stamps(pd.DatetimeIndex(times)),
        end_positions=ends,
        lengths=np.full(len(ends), lookback, np.int64),
        future=np.concatenate([cut.future for cut in cuts]),
        index=pd.MultiIndex.from_arrays([pd.DatetimeIndex(times[ends]), names], names=KEYS),
    )
