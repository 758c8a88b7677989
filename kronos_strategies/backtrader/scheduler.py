"""When each feed of a strategy is forecast, and that all feeds due at the same bar are forecast in one batch.

Backtrader loads every feed, or moves every feed to the current bar, before it asks any indicator. So the first
indicator that asks computes for all: once for all bars (runonce), or bar by bar for all assets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.bars import CLOSE
from kronos.panels import KEYS
from kronos.sessions import exchange_sessions
from kronos_strategies.backtrader.feed_bars import PreloadedBars, StreamingBars, check_time_zone
from kronos_strategies.backtrader.feeds import name_feeds
from kronos_strategies.backtrader.forecasts import AssetWindows, ForecastSettings, join_windows
from kronos_strategies.backtrader.lines import (
    ALL_LINES,
    FINAL_CLOSES,
    LINES,
    indicator_lines,
    split_closes,
)
from kronos_strategies.progress import ProgressReport, no_progress, progress_bar

logger = logging.getLogger(__name__)

_ATTRIBUTE = "_kronos_coordinator"  # of a strategy
_BAR = ("datetime", "open", "high", "low", "close", "volume")


class ForecastCoordinator:
    """Forecast groups of one strategy; each run of a cerebro has new strategies, and so a new coordinator.

    Args:
        strategy: whose feeds are forecast.
    """

    def __init__(self, strategy: bt.Strategy) -> None:
        self._groups: dict[ForecastSettings, ForecastGroup] = {}
        self._names = {id(data): name for name, data in name_feeds(strategy.datas).items()}
        self._checked: set[int] = set()

    @classmethod
    def of(cls, indicator: bt.Indicator) -> ForecastCoordinator:
        """The coordinator of the strategy that an indicator belongs to.

        Raises:
            ValueError: the indicator belongs to no strategy, or the strategy runs with exactbars=1.
        """
        owner = indicator._owner
        while owner is not None and not isinstance(owner, bt.Strategy):
            owner = owner._owner
        if owner is None:
            raise ValueError(
                f"{type(indicator).__name__} does not belong to a strategy. Create it in the __init__ of a "
                "strategy, or pass it to cerebro.addindicator."
            )
        if owner.cerebro._exactbars > 0:
            raise ValueError(
                "exactbars=1 keeps so few bars that Backtrader itself fails on feeds of different lengths. "
                "Run with exactbars=-1 or -2, which also save memory."
            )
        if _ATTRIBUTE not in owner.__dict__:
            setattr(owner, _ATTRIBUTE, cls(owner))
        coordinator: ForecastCoordinator = owner.__dict__[_ATTRIBUTE]
        return coordinator

    def group(self, settings: ForecastSettings) -> ForecastGroup:
        """The feeds that are forecast with some settings."""
        return self._groups[settings]

    def register(
        self, data: bt.AbstractDataBase, settings: ForecastSettings, level: float
    ) -> IndicatorHandle:
        """Forecast a feed together with all others of the same settings.

        Args:
            data: the feed.
            settings: settings of its forecasts.
            level: share of the paths between lower and upper.

        Raises:
            MissingExtra: an exchange is named and exchange_calendars is not installed.
            ValueError: a setting is out of range, or the model or the exchange does not exist.
        """
        if not 0 < level < 1:
            raise ValueError(
                f"level={level} is not a share of the paths. Pass a number between 0 and 1, such as 0.9."
            )
        if settings.calendar is not None:
            exchange_sessions(settings.calendar)  # so that a wrong name fails before the run
        choice = settings.score_choice()  # loads the model, so that a wrong name fails before the run
        settings.sampling()
        settings.postprocessing()
        if settings not in self._groups:
            self._groups[settings] = ForecastGroup(settings)
            logger.info("Scores of daily bars come from %s", choice.described)
            for warning in choice.warnings:
                logger.warning(warning)
        group = self._groups[settings]
        group.levels.add(level)
        name = self._names[id(data)]
        if id(data) not in self._checked:
            self._checked.add(id(data))
            check_time_zone(data, name)
        asset = group.assets.setdefault(id(data), AssetState(data, name, group.schedule, settings.calendar))
        return IndicatorHandle(group, asset, level)


class IndicatorHandle:
    """Access of one indicator to its lines: one asset at one level of the band."""

    def __init__(self, group: ForecastGroup, asset: AssetState, level: float) -> None:
        self._group, self._asset, self._level = group, asset, level
        self.lookback = group.settings.lookback

    def all_bars(self) -> np.ndarray:
        """(K, L) ALL_LINES at all bars of the feed, which Backtrader has loaded completely."""
        self._group.forecast_all_bars()
        return self._asset.all_bars(self._level)

    def current_bar(self) -> np.ndarray:
        """(L,) ALL_LINES at the current bar of the feed."""
        if self._asset.has_new_bar():
            self._group.forecast_current_bar()
        return self._asset.current_bar(self._level)


class ForecastGroup:
    """Assets that are forecast together, with the same settings and schedule.

    Args:
        settings: settings of the forecasts.

    Attributes:
        assets: assets by id of the feed.
        levels: levels of the bands that indicators ask for.
        final_closes: (S,) closes of the paths at the horizon by (datetime, instrument) of each forecast.
        path_bars: last bars of the paths that are kept; 1, or the horizon to fill `path_returns`.
        path_returns: (S, H) returns of the paths from the last close on, likewise.
    """

    def __init__(self, settings: ForecastSettings) -> None:
        self.settings = settings
        self.schedule = Schedule(settings.lookback, settings.every)
        self.assets: dict[int, AssetState] = {}
        self.levels: set[float] = set()
        self.final_closes: dict[tuple[pd.Timestamp, str], np.ndarray] = {}
        self.path_bars = 1
        self.path_returns: dict[tuple[pd.Timestamp, str], np.ndarray] = {}
        self._is_complete = False

    def forecast_all_bars(self) -> None:
        """Forecast all bars of all feeds, which Backtrader has loaded completely; only the first call does work."""
        if self._is_complete:
            return
        self._is_complete = True
        assets = list(self.assets.values())
        lookback, calendar = self.settings.lookback, self.settings.calendar
        feeds = [PreloadedBars(asset.data, asset.name, lookback, calendar) for asset in assets]
        parts = []
        for asset, feed in zip(assets, feeds, strict=True):
            ends = self.schedule.window_ends(feed.rows + 1)
            future = feed.future_timestamps(ends, self.settings.horizon)
            parts.append(AssetWindows(asset.name, feed.values, feed.times, ends, future, feed.is_daily))
        with progress_bar("forecast", "windows") as progress:
            results = self._forecast(parts, progress)
        for asset, feed, part, values in zip(assets, feeds, parts, results, strict=True):
            asset.set_all_forecasts(feed, part.end_positions, values)

    def forecast_current_bar(self) -> None:
        """Forecast the assets that are due at the current bar of their feeds."""
        due = [asset for asset in self.assets.values() if asset.is_due()]
        last = np.array([self.settings.lookback - 1])
        parts = []
        for asset in due:
            feed = asset.bars
            future = feed.future_timestamps(self.settings.horizon)
            parts.append(AssetWindows(asset.name, feed.values, feed.times, last, future, feed.is_daily))
        for asset, values in zip(due, self._forecast(parts, no_progress), strict=True):
            asset.set_forecast({level: rows[0] for level, rows in values.items()})

    def _forecast(
        self, parts: Sequence[AssetWindows], progress: ProgressReport
    ) -> Iterator[dict[float, np.ndarray]]:
        """(N, L) LINES by level for the windows of each asset."""
        counts = [len(part.end_positions) for part in parts]
        if not sum(counts):
            yield from ({level: np.empty((0, len(LINES))) for level in self.levels} for _ in parts)
            return
        windows = join_windows(parts, self.settings.lookback)
        dates, instruments = (windows.index.get_level_values(key) for key in KEYS)
        order = np.lexsort([instruments, dates])
        everyone = tuple(sorted(asset.name for asset in self.assets.values()))
        daily = np.repeat([part.is_daily for part in parts], counts)[order]
        bars = self.path_bars
        found = self.settings.path_statistics(windows[order], everyone, progress, daily, bars)
        statistics, closes = split_closes(found[np.argsort(order)], bars)
        self.final_closes.update(zip(windows.index, statistics[:, FINAL_CLOSES:], strict=True))
        if bars == self.settings.horizon:
            returns = closes / windows.last_bar[:, CLOSE].astype(np.float64)[:, None, None] - 1
            self.path_returns.update(zip(windows.index, returns, strict=True))
        tables = {
            level: indicator_lines(statistics, level, self.settings.band_factors(windows, level))
            for level in self.levels
        }
        for stop, count in zip(np.cumsum(counts), counts, strict=True):
            yield {level: table[stop - count : stop] for level, table in tables.items()}


@dataclass(frozen=True)
class Schedule:
    """Which bars of a feed are forecast.

    The bars of each feed are counted in periods of `every` bars, one of which begins with bar number `lookback`. An
    asset is forecast on the first traded bar of each period at which its window is full. This depends neither on
    other feeds nor on when a live feed delivers its bars. Feeds with the same bars are forecast together.

    Attributes:
        lookback: traded bars per window.
        every: bars per period.
    """

    lookback: int
    every: int

    def period(self, bar: int) -> int:
        """Number of the period of a feed's bar number `bar`, counted from 1."""
        return (bar - self.lookback) // self.every

    def window_ends(self, bars: np.ndarray) -> np.ndarray:
        """(N,) positions of the traded bars that end a window; traded bar i is the feed's bar number `bars[i]`."""
        periods = (bars[self.lookback - 1 :] - self.lookback) // self.every
        return np.flatnonzero(np.diff(periods, prepend=periods[:1] - 1)) + self.lookback - 1


class AssetState:
    """One asset of a group: its bars and its last forecast.

    Args:
        data: the feed.
        name: name of the instrument.
        schedule: schedule of the group.
        calendar: an exchange whose sessions the bars follow; None for the feed's own calendar, if it has one.

    Attributes:
        bars: the feed bar by bar.
    """

    def __init__(
        self, data: bt.AbstractDataBase, name: str, schedule: Schedule, calendar: str | None
    ) -> None:
        self.data, self.name, self.schedule = data, name, schedule
        self.bars = StreamingBars(data, name, schedule.lookback, calendar)
        self._last_state: tuple[float, ...] = (0,)  # `_state` at the last call of `is_due`
        self._period = 0  # of the current bar
        self._forecast_period: int | None = None  # of the last forecast
        self._forecast_bar = 0  # bars of the feed at the last forecast
        self._forecast: dict[float, np.ndarray] = {}  # by level
        self._table: dict[float, np.ndarray] = {}  # by level

    def all_bars(self, level: float) -> np.ndarray:
        """(K, L) ALL_LINES at each bar of the feed, after `set_all_forecasts`."""
        return self._table[level]

    def set_all_forecasts(
        self, feed: PreloadedBars, end_positions: np.ndarray, values: dict[float, np.ndarray]
    ) -> None:
        """Set the forecasts of all bars.

        Args:
            feed: the feed, loaded completely.
            end_positions: (N,) positions of its traded bars that have a forecast, ascending.
            values: (N, L) LINES by level.
        """
        made = feed.rows[end_positions]
        latest = np.searchsorted(made, feed.rows, side="right") - 1  # -1: none yet
        known = latest >= 0
        rows, latest = feed.rows[known], latest[known]
        for level, lines in values.items():
            table = np.full((self.data.buflen(), len(ALL_LINES)), np.nan)
            table[rows, :-1] = lines[latest]
            table[rows, -1] = rows - made[latest]
            self._table[level] = table

    def has_new_bar(self) -> bool:
        """Whether the feed has a new bar, or under replay a changed one, since the last call of `is_due`."""
        return self._state() != self._last_state

    def is_due(self) -> bool:
        """Whether a forecast is due at the current bar of the feed.

        Under replay, a bar that is forecast is forecast again at each of its ticks.
        """
        state = self._state()
        if state == self._last_state:
            return False
        again = state[0] == self._last_state[0] == self._forecast_bar
        if state[0] > self._last_state[0]:
            self._period = self.schedule.period(int(state[0]))
        self._last_state = state
        new_period = self._forecast_period is None or self._period > self._forecast_period
        if len(self.data) < self.schedule.lookback or not (again or new_period):
            return False
        return self.bars.advance()

    def set_forecast(self, values: dict[float, np.ndarray]) -> None:
        """Set the forecast of the current bar, (L,) LINES by level."""
        self._forecast = values
        self._forecast_period, self._forecast_bar = self._period, len(self.data)

    def current_bar(self, level: float) -> np.ndarray:
        """(L,) ALL_LINES at the current bar."""
        row = np.full(len(ALL_LINES), np.nan)
        if self._forecast and self._is_traded():
            row[:-1], row[-1] = self._forecast[level], len(self.data) - self._forecast_bar
        return row

    def _state(self) -> tuple[float, ...]:
        if not self.data.replaying:
            return (len(self.data),)
        return (len(self.data), *(getattr(self.data.lines, name)[0] for name in _BAR))

    def _is_traded(self) -> bool:
        data = self.data
        return all(0 < line[0] < np.inf for line in (data.open, data.high, data.low, data.close))
