"""ScoreRecorder: values of a signal line at each rebalance, read bar by bar as a strategy could, never ahead.

The line may belong to a feed, to an indicator, or to the strategy itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, nan
from typing import cast

import backtrader as bt
import pandas as pd
from backtrader.linebuffer import LineActions
from backtrader.lineseries import LineSeriesStub

from kronos_strategies.backtrader.feeds import BarLength, FeedActivity, FeedHistory
from kronos_strategies.backtrader.lines import ALL_LINES


def find_signal_lines(
    strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase], line: str
) -> dict[str, bt.LineRoot]:
    """Owners of a line, by name of the feed that it is computed from.

    A feed's own line comes first, then that of the first indicator that is computed from the feed, directly or from
    other lines and indicators; then an attribute of the strategy of that name: a line, or a list or dict of lines.
    A line that is computed from several feeds belongs to the first of them.

    Raises:
        ValueError: there is no such line.
    """
    indicators = list(iter_indicators(strategy))
    found: dict[str, bt.LineRoot] = {}
    for name, data in feeds.items():
        if line in data.getlinealiases():
            found[name] = data
    with_line = [each for each in indicators if line in each.getlinealiases()]
    names = {id(data): name for name, data in feeds.items()}
    for owner in [*with_line, *_attribute_lines(strategy, line)]:
        if (name_of_feed := names.get(id(feed_of(owner)))) is not None:
            found.setdefault(name_of_feed, owner)
    if not found:
        lines = {alias for each in indicators for alias in each.getlinealiases()}
        raise ValueError(
            f"Neither a feed nor an indicator on a feed has a line {line!r} to rank by; the indicators have "
            f"{', '.join(sorted(lines)) or 'none'}. Pass one of these as signal."
        )
    return {name: found[name] for name in feeds if name in found}


def feed_of(owner: bt.LineRoot) -> bt.AbstractDataBase | None:
    """The first feed that a line or an indicator is computed from."""
    return next((each for each in _iter_inputs(owner) if isinstance(each, bt.AbstractDataBase)), None)


def find_forecast_lines(owner: bt.LineRoot) -> bt.LineSeries | None:
    """The forecast lines that a line or an indicator is computed from; None where it uses no forecast.

    They belong to a `KronosIndicator`, to a subclass of it, or to a feed with stored forecasts.
    """
    if isinstance(owner, bt.AbstractDataBase):
        return owner if "age" in owner.getlinealiases() else None
    for each in _iter_inputs(owner):
        if isinstance(each, bt.AbstractDataBase):
            continue
        if isinstance(each, bt.LineSeries) and set(ALL_LINES) <= set(each.getlinealiases()):
            return each
        feed = _owner(each)
        if not isinstance(feed, bt.AbstractDataBase) or "age" not in feed.getlinealiases():
            continue
        if any(getattr(feed.lines, alias) is each for alias in ALL_LINES):
            return feed
    return None


def read_line(owner: bt.LineRoot, line: str) -> float:
    """Current value of the line of that name, or of a line without a name."""
    if isinstance(owner, bt.LineSeries) and line in owner.getlinealiases():
        return float(getattr(owner.lines, line)[0])
    return float(owner[0])


def iter_indicators(owner: bt.LineIterator) -> Iterator[bt.LineIterator]:
    """All indicators of an owner, including those that others are made of, each after its owner.

    Sums, delays and similar operations on lines are among them, but have neither names of lines nor indicators.
    """
    for indicator in owner._lineiterators[bt.LineIterator.IndType]:
        if isinstance(indicator, bt.LineIterator):
            yield indicator
            yield from iter_indicators(indicator)


def _iter_inputs(owner: bt.LineRoot) -> Iterator[bt.LineRoot]:
    """A line or indicator, its parts and its inputs, down to the feeds; nearest first."""
    queue, seen = [owner], set()
    while queue:
        each = queue.pop(0)
        if each is None or id(each) in seen or isinstance(each, bt.Strategy):
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, bt.AbstractDataBase):
            continue
        if isinstance(each, LineSeriesStub):  # wraps a line
            queue.append(each.lines[0])
        elif isinstance(each, LineActions):
            queue += each._datas
        elif isinstance(each, bt.LineIterator):
            queue += [*each._lineiterators[bt.LineIterator.IndType], *each.datas]
        else:
            queue.append(_owner(each))


def _owner(line: bt.LineRoot) -> bt.LineRoot | None:
    return getattr(line, "_owner", None)


def _attribute_lines(strategy: bt.Strategy, name: str) -> list[bt.LineRoot]:
    """Lines in an attribute of the strategy."""
    value = strategy.__dict__.get(name)
    if isinstance(value, Mapping):
        value = list(value.values())
    return [
        each for each in (value if isinstance(value, Sequence) else [value]) if isinstance(each, bt.LineRoot)
    ]


class ScoreRecorder:
    """Values of one line, feed by feed, at each rebalance.

    The line of a feed is found by `find_signal_lines`; a feed without one is not ranked. The first bar at which any
    feed has a value is the first rebalance, and another follows every `every` rounds of bars, as
    `KronosRankStrategy` trades: if all feeds have their bars at the same times, each bar is a round, see
    `FeedActivity`.

    Args:
        strategy: the running strategy.
        feeds: feeds by name.
        line: line to read.
        every: bars between rebalances; 0 for the strategy's parameter `every`, else the indicator's, else 1.

    Attributes:
        sources: owners of the line, by name of the feed.
        forecasts: the forecast lines that it is computed from, by name of the feed.
        every: bars between rebalances.

    Raises:
        ValueError: no feed has the line, or `every` is negative.
    """

    def __init__(
        self, strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase], line: str, every: int
    ) -> None:
        if every < 0:
            raise ValueError(f"every={every} is negative. Pass 1 or more, or 0 for the strategy's own.")
        self._strategy, self._line = strategy, line
        self.sources = find_signal_lines(strategy, feeds, line)
        self._feeds = {name: feeds[name] for name in self.sources}
        found = {name: find_forecast_lines(owner) for name, owner in self.sources.items()}
        self.forecasts = {name: owner for name, owner in found.items() if owner is not None}
        first = next(iter([*self.forecasts.values(), *self.sources.values()]))
        indicator_every = int(getattr(getattr(first, "p", None), "every", 0))
        self.every = int(every or getattr(strategy.p, "every", 0) or indicator_every or 1)
        self._activity = FeedActivity(strategy, self._feeds.values())
        # By number of the strategy's bar: values; number of bars of each feed, and whether the last one is new.
        self._rebalances: dict[int, tuple[list[float], list[tuple[int, bool]]]] = {}
        # By number of the strategy's bar, for each feed that was forecast: its number of bars, lower, upper.
        self._forecasts: dict[int, dict[str, tuple[int, float, float]]] = {}
        self._last_rounds: dict[BarLength, int] | None = None  # rounds at the last rebalance

    def record(self) -> None:
        """Read the current bar of the strategy; under replay again at another tick of it."""
        self._activity.update()
        bar = len(self._strategy)
        for name, owner in self.forecasts.items():
            if self._activity.has_bar(self._feeds[name]) and self._read(name, owner, "age") == 0:
                band = (self._read(name, owner, "lower"), self._read(name, owner, "upper"))
                self._forecasts.setdefault(bar, {})[name] = (len(self._feeds[name]), *band)
        rounds = self._activity.rounds
        if bar not in self._rebalances and self._last_rounds is not None:
            since = max(count - self._last_rounds[length] for length, count in rounds.items())
            if since < self.every:
                return
        values = [self._read(name, owner, self._line) for name, owner in self.sources.items()]
        if any(map(isfinite, values)):
            bars = [(len(data), self._activity.has_bar(data)) for data in self._feeds.values()]
            self._rebalances[bar] = (values, bars)
            self._last_rounds = dict(rounds)

    def to_frame(self, history: FeedHistory, dates: pd.Series) -> pd.DataFrame:
        """Scores of every feed that has started and not ended, at each rebalance.

        A row is dated with the feed's own bar. Where a daily feed has none at that bar of the strategy, because it
        is suspended or its exchange closes at another time, it is dated with the date of the strategy's bar.

        Args:
            history: history of the run.
            dates: dates of the strategy's bars, by their number.

        Returns:
            DataFrame indexed (datetime, instrument), sorted, column score: NaN without a value.
        """
        rows = {}
        for bar, (values, bars) in self._rebalances.items():
            for name, value, (count, is_new) in zip(self.sources, values, bars, strict=True):
                own = count and (is_new or not history.daily)
                date = history.bar_date(name, count) if own else dates[bar]
                if count and date <= history.last[name]:
                    rows[date, name] = value
        index = pd.MultiIndex.from_tuples(rows, names=["datetime", "instrument"])
        return pd.DataFrame({"score": list(rows.values())}, index).sort_index()

    def forecast_index(self, history: FeedHistory) -> pd.MultiIndex:
        """(datetime, instrument) of every forecast that the line uses, sorted; empty if that is unknown."""
        return cast(pd.MultiIndex, self.bands(history).index)

    def bands(self, history: FeedHistory) -> pd.DataFrame:
        """Band of every forecast that the line uses: lower and upper, prices, by (datetime, instrument)."""
        rows = [
            (history.bar_date(name, count), name, *band)
            for forecasts in self._forecasts.values()
            for name, (count, *band) in forecasts.items()
        ]
        frame = pd.DataFrame(rows, columns=["datetime", "instrument", "lower", "upper"])
        frame["datetime"] = frame["datetime"].astype("datetime64[ns]")
        frame["instrument"] = frame["instrument"].astype(object)
        return frame.set_index(["datetime", "instrument"]).astype(float).sort_index()

    def _read(self, name: str, owner: bt.LineRoot, line: str) -> float:
        """Value of a feed's line; NaN where the feed is suspended or the line is not warm."""
        if not self._activity.is_tradable(self._feeds[name]) or len(owner) < owner._minperiod:
            return nan
        return read_line(owner, line)
