"""What a strategy can be ranked by: any line of a feed, of an indicator, or kept by the strategy itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import backtrader as bt
from backtrader.linebuffer import LineActions
from backtrader.lineseries import LineSeriesStub

from kronos_strategies.backtrader.outlook import COLUMNS


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
