"""What a line said of each feed at each rebalance: read bar by bar, as a strategy could, and never ahead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite, nan

import backtrader as bt
import pandas as pd

from kronos_strategies.backtrader.shown import Shown


class ScoreTape:
    """The values of one line, feed by feed, at each rebalance.

    A feed's line is its own of that name, else that of the first indicator of the strategy on that feed that has
    one; a feed without is not ranked. The first bar on which any feed has a value is the first rebalance, and every
    `every` bars another follows, as `KronosRankStrategy` trades.

    Args:
        strategy: that runs.
        feeds: by name.
        line: to read.
        every: strategy bars between rebalances; 0 takes the strategy's parameter `every`, else the indicator's,
            else 1.

    Attributes:
        sources: what has the line, by name of the feed.
        every: strategy bars between rebalances.

    Raises:
        ValueError: no feed has the line.
    """

    def __init__(
        self, strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase], line: str, every: int
    ) -> None:
        if every < 0:
            raise ValueError(f"every={every} counts bars. Give 1 or more, or 0 for the strategy's own.")
        self._strategy, self._line = strategy, line
        self.sources = _sources(strategy, feeds, line)
        self._feeds = {name: feeds[name] for name in self.sources}
        self._aged = {name: own for name, own in self.sources.items() if "age" in own.getlinealiases()}
        first = next(iter(self.sources.values()))
        self.every: int = every or getattr(strategy.p, "every", 0) or _own_every(first) or 1
        self._bars: dict[int, tuple[list[float], list[bool]]] = {}  # by the strategy's number of bars
        self._made: dict[int, list[str]] = {}  # who was forecast at that bar
        self._due = 0

    def see(self) -> None:
        """Read the current bar of the strategy; again on another tick of it, under replay."""
        bar, now = len(self._strategy), self._strategy.datetime[0]
        if made := [name for name, own in self._aged.items() if self._reads(name, own, "age", now) == 0]:
            self._made[bar] = made
        if bar < self._due and bar not in self._bars:
            return
        values = [self._reads(name, own, self._line, now) for name, own in self.sources.items()]
        if any(map(isfinite, values)):
            self._bars[bar] = (values, [len(data) > 0 for data in self._feeds.values()])
            self._due = bar + self.every

    def frame(self, shown: Shown, dates: pd.Series) -> pd.DataFrame:
        """A row a (datetime, instrument) of a feed that had begun and not ended, at each rebalance.

        Args:
            shown: of the run.
            dates: of the strategy's bars, by their number.

        Returns:
            Frame indexed (datetime, instrument), sorted, column score: NaN where there was none.
        """
        rows = {}
        for bar, (values, begun) in self._bars.items():
            for name, value, there in zip(self.sources, values, begun, strict=True):
                if there and dates[bar] <= shown.last[name]:
                    rows[dates[bar], name] = value
        index = pd.MultiIndex.from_tuples(rows, names=["datetime", "instrument"])
        return pd.DataFrame({"score": list(rows.values())}, index).sort_index()

    def made(self, dates: pd.Series) -> pd.MultiIndex:
        """(datetime, instrument) of every forecast behind the line, sorted; empty if the line does not tell."""
        keys = [(dates[bar], name) for bar, names in self._made.items() for name in names]
        arrays = [
            pd.DatetimeIndex([key[0] for key in keys]),
            pd.Index([key[1] for key in keys], dtype=object),
        ]
        return pd.MultiIndex.from_arrays(arrays, names=["datetime", "instrument"]).sort_values()

    def _reads(self, name: str, own: bt.LineSeries, line: str, now: float) -> float:
        """What a line says of a feed; NaN where the feed has no bar or the line is not warm."""
        if not is_current(self._feeds[name], now) or len(own) < own._minperiod:
            return nan
        return float(getattr(own.lines, line)[0])


def is_current(data: bt.AbstractDataBase, now: float) -> bool:
    """Whether a feed has a bar with a price at the time `now`; before its first one Backtrader shows its last."""
    return len(data) > 0 and data.datetime[0] == now and isfinite(data.close[0])


def _own_every(own: bt.LineSeries) -> int:
    return int(getattr(own.p, "every", 0))


def _sources(
    strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase], line: str
) -> dict[str, bt.LineSeries]:
    made = list(indicators_of(strategy))
    found = {}
    for name, data in feeds.items():
        several = (each for each in made if each.data is data and line in each.getlinealiases())
        own = data if line in data.getlinealiases() else next(several, None)
        if own is not None:
            found[name] = own
    if not found:
        known = {alias for each in made for alias in each.getlinealiases()}
        raise ValueError(
            f"Neither a feed nor an indicator on one has a line {line!r} to rank by; the indicators have "
            f"{', '.join(sorted(known)) or 'none'}. Name one of these as signal."
        )
    return found


def indicators_of(owner: bt.LineIterator) -> Iterator[bt.LineIterator]:
    """All of an owner, those that others are made of included, each behind its owner.

    Sums, delays and the like of lines stand among them, but have neither names of lines nor indicators below them.
    """
    for indicator in owner._lineiterators[bt.LineIterator.IndType]:
        if isinstance(indicator, bt.LineIterator):
            yield indicator
            yield from indicators_of(indicator)
