"""Which feeds of a strategy have a bar now, which are about to have one, and which have missed theirs."""

from __future__ import annotations

from collections.abc import Iterable

import backtrader as bt

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
