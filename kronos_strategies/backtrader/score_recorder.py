"""What a strategy can be ranked by: any line of a feed, of an indicator, or kept by the strategy itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, nan
from typing import cast

import backtrader as bt
import pandas as pd
from backtrader.linebuffer import LineActions
from backtrader.lineseries import LineSeriesStub

from kronos_strategies.backtrader.feeds import FeedActivity, Rhythm, Shown
from kronos_strategies.backtrader.forecasts import COLUMNS


def find_sources(
    strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase], line: str
) -> dict[str, bt.LineRoot]:
    """What has the line, by name of the feed that it is computed from.

    A feed's own line comes first, then that of the first indicator that is computed from the feed, directly or from
    other lines and indicators; then an attribute of the strategy of that name: a line, or a list or dict of them.
    What is computed from several feeds belongs to the first of them.

    Raises:
        ValueError: there is no such line.
    """
    made = list(indicators_of(strategy))
    found: dict[str, bt.LineRoot] = {}
    for name, data in feeds.items():
        if line in data.getlinealiases():
            found[name] = data
    named = [each for each in made if line in each.getlinealiases()]
    names = {id(data): name for name, data in feeds.items()}
    for own in [*named, *_kept(strategy, line)]:
        if (known := names.get(id(feed_of(own)))) is not None:
            found.setdefault(known, own)
    if not found:
        lines = {alias for each in made for alias in each.getlinealiases()}
        raise ValueError(
            f"Neither a feed nor an indicator on one has a line {line!r} to rank by; the indicators have "
            f"{', '.join(sorted(lines)) or 'none'}. Name one of these as signal."
        )
    return {name: found[name] for name in feeds if name in found}


def feed_of(own: bt.LineRoot) -> bt.AbstractDataBase | None:
    """The first feed that a line or an indicator is computed from."""
    return next((each for each in _behind(own) if isinstance(each, bt.AbstractDataBase)), None)


def forecast_behind(own: bt.LineRoot) -> bt.LineSeries | None:
    """The lines of Kronos that a line or an indicator is computed from; None where it is not.

    They are a `KronosIndicator`, one that is derived from it, or a feed that brought its forecasts along.
    """
    if isinstance(own, bt.AbstractDataBase):
        return own if "age" in own.getlinealiases() else None
    for each in _behind(own):
        if isinstance(each, bt.AbstractDataBase):
            continue
        if isinstance(each, bt.LineSeries) and set(COLUMNS) <= set(each.getlinealiases()):
            return each
        feed = _owner(each)
        if not isinstance(feed, bt.AbstractDataBase) or "age" not in feed.getlinealiases():
            continue
        if any(getattr(feed.lines, alias) is each for alias in COLUMNS):
            return feed
    return None


def read(own: bt.LineRoot, line: str) -> float:
    """The current value of a line of that name, or of a line without a name."""
    if isinstance(own, bt.LineSeries) and line in own.getlinealiases():
        return float(getattr(own.lines, line)[0])
    return float(own[0])


def indicators_of(owner: bt.LineIterator) -> Iterator[bt.LineIterator]:
    """All of an owner, those that others are made of included, each after its owner.

    Sums, delays and the like of lines stand among them, but have neither names of lines nor indicators below them.
    """
    for indicator in owner._lineiterators[bt.LineIterator.IndType]:
        if isinstance(indicator, bt.LineIterator):
            yield indicator
            yield from indicators_of(indicator)


def _behind(own: bt.LineRoot) -> Iterator[bt.LineRoot]:
    """A line or indicator, what it is made of and what it reads, down to the feeds; nearest first."""
    queue, seen = [own], set()
    while queue:
        each = queue.pop(0)
        if each is None or id(each) in seen or isinstance(each, bt.Strategy):
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, bt.AbstractDataBase):
            continue
        if isinstance(each, LineSeriesStub):  # stands for a line
            queue.append(each.lines[0])
        elif isinstance(each, LineActions):
            queue += each._datas
        elif isinstance(each, bt.LineIterator):
            queue += [*each._lineiterators[bt.LineIterator.IndType], *each.datas]
        else:
            queue.append(_owner(each))


def _owner(line: bt.LineRoot) -> bt.LineRoot | None:
    return getattr(line, "_owner", None)


def _kept(strategy: bt.Strategy, line: str) -> list[bt.LineRoot]:
    """Lines in an attribute of the strategy."""
    kept = strategy.__dict__.get(line)
    several = kept.values() if isinstance(kept, Mapping) else kept if isinstance(kept, Sequence) else [kept]
    return [each for each in several if isinstance(each, bt.LineRoot)]


class ScoreTape:
    """The values of one line, feed by feed, at each rebalance.

    A feed's line is what `sources.find_sources` finds; a feed without is not ranked. The first bar on which any
    feed has a value is the first rebalance, and every `every` rounds of bars another follows, as
    `KronosRankStrategy` trades: where all feeds have their bars at the same times each bar is a round, see
    `FeedActivity`.

    Args:
        strategy: that runs.
        feeds: by name.
        line: to read.
        every: bars between rebalances; 0 takes the strategy's parameter `every`, else the indicator's,
            else 1.

    Attributes:
        sources: what has the line, by name of the feed.
        forecasts: the lines of Kronos that it is computed from, by name of the feed.
        every: bars between rebalances.

    Raises:
        ValueError: no feed has the line.
    """

    def __init__(
        self, strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase], line: str, every: int
    ) -> None:
        if every < 0:
            raise ValueError(f"every={every} counts bars. Give 1 or more, or 0 for the strategy's own.")
        self._strategy, self._line = strategy, line
        self.sources = find_sources(strategy, feeds, line)
        self._feeds = {name: feeds[name] for name in self.sources}
        behind = {name: forecast_behind(own) for name, own in self.sources.items()}
        self.forecasts = {name: own for name, own in behind.items() if own is not None}
        first = next(iter([*self.forecasts.values(), *self.sources.values()]))
        self.every = int(every or getattr(strategy.p, "every", 0) or _own_every(first) or 1)
        self._activity = FeedActivity(self._feeds.values())
        self._bars: dict[
            int, tuple[list[float], list[tuple[int, bool]]]
        ] = {}  # by the strategy's number of bars
        # By the strategy's number of bars: who was forecast, the bars that its feed had then, lower, upper.
        self._made: dict[int, dict[str, tuple[int, float, float]]] = {}
        self._rebalanced: dict[Rhythm, int] | None = None  # rounds so far at the last rebalance

    def see(self) -> None:
        """Read the current bar of the strategy; again on another tick of it, under replay."""
        self._activity.update()
        bar = len(self._strategy)
        for name, own in self.forecasts.items():
            if self._is_current(name) and self._reads(name, own, "age") == 0:
                band = (self._reads(name, own, "lower"), self._reads(name, own, "upper"))
                self._made.setdefault(bar, {})[name] = (len(self._feeds[name]), *band)
        rounds = self._activity.rounds
        if bar not in self._bars and self._rebalanced is not None:
            since = max(count - self._rebalanced[rhythm] for rhythm, count in rounds.items())
            if since < self.every:
                return
        values = [self._reads(name, own, self._line) for name, own in self.sources.items()]
        if any(map(isfinite, values)):
            self._bars[bar] = (values, [self._dated_by(name) for name in self._feeds])
            self._rebalanced = dict(rounds)

    def frame(self, shown: Shown, dates: pd.Series) -> pd.DataFrame:
        """A row a (datetime, instrument) of a feed that had begun and not ended, at each rebalance.

        A row is dated with the feed's own bar. Where a daily feed had none at that bar of the strategy, since it
        was suspended or its exchange closes at another time, with the strategy's date.

        Args:
            shown: of the run.
            dates: of the strategy's bars, by their number.

        Returns:
            Frame indexed (datetime, instrument), sorted, column score: NaN where there was none.
        """
        rows = {}
        for bar, (values, bars) in self._bars.items():
            for name, value, (count, own) in zip(self.sources, values, bars, strict=True):
                date = shown.date(name, count) if count and (own or not shown.daily) else dates[bar]
                if count and date <= shown.last[name]:
                    rows[date, name] = value
        index = pd.MultiIndex.from_tuples(rows, names=["datetime", "instrument"])
        return pd.DataFrame({"score": list(rows.values())}, index).sort_index()

    def made(self, shown: Shown) -> pd.MultiIndex:
        """(datetime, instrument) of every forecast behind the line, sorted; empty if the line does not tell."""
        return cast(pd.MultiIndex, self.bands(shown).index)

    def bands(self, shown: Shown) -> pd.DataFrame:
        """The band of every forecast behind the line: lower and upper, prices, by (datetime, instrument)."""
        rows = [
            (shown.date(name, count), name, *band)
            for made in self._made.values()
            for name, (count, *band) in made.items()
        ]
        frame = pd.DataFrame(rows, columns=["datetime", "instrument", "lower", "upper"])
        frame["datetime"] = frame["datetime"].astype("datetime64[ns]")
        frame["instrument"] = frame["instrument"].astype(object)
        return frame.set_index(["datetime", "instrument"]).astype(float).sort_index()

    def _dated_by(self, name: str) -> tuple[int, bool]:
        """How many bars a feed has had, and whether the last one is of this bar of the strategy."""
        return len(self._feeds[name]), self._is_current(name)

    def _is_current(self, name: str) -> bool:
        data = self._feeds[name]
        return data in self._activity.moved or is_current(data, self._strategy.datetime[0])

    def _reads(self, name: str, own: bt.LineRoot, line: str) -> float:
        """The value of a feed's line; NaN where the feed is suspended or the line is not warm."""
        data = self._feeds[name]
        live = self._is_current(name) or self._activity.is_live(data)
        if not live or not isfinite(data.close[0]) or len(own) < own._minperiod:
            return nan
        return read(own, line)


def is_current(data: bt.AbstractDataBase, now: float) -> bool:
    """Whether a feed has a bar with a price at the time `now`; before its first one Backtrader shows its last."""
    return len(data) > 0 and data.datetime[0] == now and isfinite(data.close[0])


def _own_every(own: bt.LineRoot) -> int:
    return int(getattr(getattr(own, "p", None), "every", 0))
