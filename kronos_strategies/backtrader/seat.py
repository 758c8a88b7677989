"""Seat: one asset of a group that is forecast together, and where its last forecast stands."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import backtrader as bt
import numpy as np

from kronos_strategies.backtrader.outlook import COLUMNS
from kronos_strategies.backtrader.tape import LoadedFeed, RunningFeed

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
