"""KronosRankStrategy: the rules of `kronos_strategies.portfolio` inside Backtrader, over all feeds of a cerebro."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from math import isfinite

import backtrader as bt
import numpy as np
import pandas as pd

from kronos_strategies.backtrader.indicator import PARAMS as FORECAST
from kronos_strategies.backtrader.indicator import KronosIndicator
from kronos_strategies.portfolio import PortfolioRules, target_weights

RULES = {field.name: field.default for field in fields(PortfolioRules)} | {
    "by": "score",
    "topk": 10,
}


class KronosRankStrategy(bt.Strategy):
    """Ranks all feeds by a forecast line every N bars and holds the target weights; a base to build on.

    Decides at a bar's close, sizes at that close and trades at each feed's next open: sales first, then purchases.
    An order that does not trade on the next bar is cancelled, and a purchase that the cash there cannot pay for,
    such as after a sale that did not trade, is cut to it. Rebalances on the first bar that forecasts anybody, and
    then every `every` bars.

    A feed that has no bar now, or one without a price, is suspended: it keeps its weight, valued at its last
    price. One that has had no bar for `ended_after` bars of its length is taken for ended, which no live market
    could tell sooner, and sold at its last close less `haircut`, since a feed without bars fills no other order.

    Sizes come from each feed's `CommissionInfo.getsize`: whole ones by default, parts of one or whole lots with
    `SteppedCommission`. The account is taken to be the strategy's own, and to hold shares or coins without
    leverage.

    Override `lines_of` for lines of another kind, `weights` to choose and to size otherwise, `next` to do more.

    Params:
        model, lookback, horizon, samples, ...: the parameters of each feed's `KronosIndicator`.
        every: one of them: bars from one forecast to the next, and from one rebalance to the next.
        ended_after: bars of other feeds of its length after which one without any counts as ended.
        haircut: part of the last close, in [0, 1), that is lost in selling an ended feed.
        by, topk, hysteresis, side, ...: the fields of `PortfolioRules`, here ranking by score.

    Raises:
        ValueError: rules that make no book, lines that they miss, or feeds without names of their own.
    """

    params = (
        *RULES.items(),
        *FORECAST,
        ("ended_after", 20),
        ("haircut", 0.0),
    )

    def __init__(self) -> None:
        self.rules = PortfolioRules(**{name: getattr(self.p, name) for name in RULES})
        lines = {data: self.lines_of(data) for data in self.datas}
        self.signal_lines = {data: own for data, own in lines.items() if own is not None}
        self._check()
        self._columns = list(
            dict.fromkeys(alias for own in self.signal_lines.values() for alias in own.getlinealiases())
        )
        self._seen: dict[bt.AbstractDataBase, tuple[int, float]] = {}  # bar and price of a feed's last one
        self._lengths = dict.fromkeys(self.datas, 0)  # of the feeds at this bar
        self._moved: set[bt.AbstractDataBase] = set()  # those that came to it with a bar of their own
        self._ticks: Counter[tuple[int, int]] = Counter()  # bars so far, by length of bar
        self._placed: dict[int, bt.Order] = {}  # by reference
        self._due = 0  # the bar to rebalance on

    def lines_of(self, data: bt.AbstractDataBase) -> bt.LineSeries | None:
        """What has a feed's signals as lines: the feed itself if it has a line to rank by, else a KronosIndicator.

        None leaves the feed out of the ranking, a benchmark for one.
        """
        if self.rules.by in data.getlinealiases():
            return data
        forecast = {name: getattr(self.p, name) for name, _ in FORECAST}
        return KronosIndicator(data, **forecast)  # type: ignore[call-arg]  # Backtrader's metaclass takes them

    def weights(self, signals: pd.DataFrame, previous: pd.Series, tradable: pd.Index) -> pd.Series:
        """The weights to hold from the next bar on.

        Args:
            signals: all signal lines at this bar, by name; NaN where a feed has no forecast.
            previous: weights held at this close, by name.
            tradable: names with a price at this bar.
        """
        return target_weights(signals, previous, self.rules, tradable)

    def start(self) -> None:
        """Fill orders by price and cash, unless the broker is a live one or has a filler of its own."""
        self._simulated = isinstance(self.broker, bt.brokers.BackBroker)
        self._fills = self._simulated and self.broker.p.filler is None
        if self._fills:
            self.broker.set_filler(self._filled)

    def stop(self) -> None:
        """Leave the broker as it was, for another run."""
        if self._fills:
            self.broker.set_filler(None)

    def prenext(self) -> None:
        """Trade those that are warm, whoever else is not."""
        self.next()

    def next(self) -> None:
        """Cancel what did not trade, sell what has ended, rebalance when it is time."""
        self._moved = {data for data, before in self._lengths.items() if len(data) > before}
        self._lengths = {data: len(data) for data in self.datas}
        self._ticks.update({_rhythm(data) for data in self._moved})
        waiting = {}
        for order in self._placed.values():
            if order.alive() and self._awaited(order.data):
                waiting[order.ref] = order
            elif order.alive():
                self.cancel(order)
        self._placed = waiting
        for data in self.signal_lines:
            if self.is_current(data):
                self._seen[data] = (self._ticks[_rhythm(data)], data.close[0])
        if self._simulated:
            self._liquidate_ended()
        if len(self) >= self._due:
            self._rebalance()

    def is_current(self, data: bt.AbstractDataBase) -> bool:
        """Whether a feed has a bar with a price now; before its first one Backtrader shows its last one instead.

        A resampled bar is dated with the end of its day, which need not be the time of the bar that completed it.
        """
        if not len(data):
            return False
        return (data in self._moved or data.datetime[0] == self.datetime[0]) and isfinite(data.close[0])

    def _awaited(self, data: bt.AbstractDataBase) -> bool:
        """Whether a feed of longer bars than the strategy's own has not come to its next one yet."""
        return _rhythm(data) > _rhythm(self.data) and data not in self._moved

    def _rebalance(self) -> None:
        signals, equity = self._signals(), self._equity()
        if not np.isfinite(signals[self.rules.by].to_numpy()).any() or equity <= 0:
            return
        self._due = len(self) + self.p.every
        held = {
            data: size * price / equity
            for data, (_, price) in self._seen.items()
            if (size := self.getposition(data).size)
        }
        previous = pd.Series({data._name: weight for data, weight in held.items()}, dtype=float)
        now = [data for data in self.signal_lines if self.is_current(data)]
        chosen = self.weights(signals, previous, pd.Index([data._name for data in now]))
        changes = []
        for data in now:
            weight = float(chosen.get(data._name, 0.0))
            if weight != held.get(data, 0.0):
                changes.append((data, self._size(data, weight * equity) - self.getposition(data).size))
        # Sales first: the broker takes orders one after the other, and their cash pays for the purchases.
        for data, change in sorted(changes, key=lambda item: item[1] > 0):
            if change:
                trade = self.buy if change > 0 else self.sell
                # Cash is asked for when the order fills, not before: then sales have brought in theirs.
                unchecked = {"_checksubmit": False} if self._fills else {}
                order = trade(data=data, size=abs(change), **unchecked)
                self._placed[order.ref] = order

    def _signals(self) -> pd.DataFrame:
        """All signal lines by name, NaN where a feed is not current or its lines are not warm."""
        table = np.full((len(self.signal_lines), len(self._columns)), np.nan)
        for row, (data, own) in zip(table, self.signal_lines.items(), strict=True):
            if self.is_current(data) and len(own) >= own._minperiod:
                aliases = own.getlinealiases()
                row[[self._columns.index(alias) for alias in aliases]] = [line[0] for line in own.lines]
        return pd.DataFrame(table, [data._name for data in self.signal_lines], self._columns)

    def _equity(self) -> float:
        """Cash and positions at their last prices; the broker's own value is NaN where a close is."""
        return self.broker.getcash() + sum(
            self.getposition(data).size * price for data, (_, price) in self._seen.items()
        )

    def _size(self, data: bt.AbstractDataBase, value: float) -> float:
        """The size that is worth a value at this close, negative if short."""
        size = self.broker.getcommissioninfo(data).getsize(data.close[0], abs(value))
        return size if value >= 0 else -size

    def _liquidate_ended(self) -> None:
        for data, (bar, price) in self._seen.items():
            size = self.getposition(data).size
            if size and self._ticks[_rhythm(data)] - bar >= self.p.ended_after:
                trade, lost = (self.sell, self.p.haircut) if size > 0 else (self.buy, -self.p.haircut)
                # Of all kinds only this one fills at its own price, without a bar of its feed.
                worth = {"price": price * (1 - lost), "exectype": bt.Order.Historical, "histnotify": True}
                trade(data=data, size=abs(size), **worth)

    def _filled(self, order: bt.Order, price: float, ago: int) -> float:
        """How much of an order fills: nothing without a price, of our purchases no more than the cash pays for.

        Backtrader itself would fill at a price of NaN, which makes the cash NaN for good, and refuse a purchase
        whole that is a cent too dear.
        """
        size = abs(order.executed.remsize)
        if not isfinite(price):
            return 0
        if not order.isbuy() or order.ref not in self._placed:
            return size
        comminfo, short = (
            self.broker.getcommissioninfo(order.data),
            max(-self.getposition(order.data).size, 0),
        )
        cash = max(self.broker.getcash() - short * price, 0.0) * (
            1 - 1e-9
        )  # what rounding may add to a price
        fee = comminfo.getcommission(comminfo.getsize(price, cash) + short, price)
        return min(size, short + comminfo.getsize(price, max(cash - fee, 0.0)))

    def _check(self) -> None:
        p, names = self.p, [data._name for data in self.signal_lines]
        unfit = next((name for name in names if not name or names.count(name) > 1), None)
        if unfit is not None:
            raise ValueError(
                f"A feed's name is {unfit!r}, which tells it from no other. Add each with a name of its own: "
                "cerebro.adddata(data, name='AAPL')."
            )
        for data, own in self.signal_lines.items():
            if self.rules.by not in own.getlinealiases():
                raise ValueError(
                    f"The signals of {data._name!r} have no line {self.rules.by!r} to rank by; they have "
                    f"{', '.join(own.getlinealiases())}."
                )
        if p.every < 1 or p.ended_after < 1:
            raise ValueError(f"every={p.every} and ended_after={p.ended_after} count bars. Give at least 1.")
        if not 0 <= p.haircut < 1:
            raise ValueError(f"haircut={p.haircut} is out of range. Give a part of the price in [0, 1).")


def _rhythm(data: bt.AbstractDataBase) -> tuple[int, int]:
    """How long a feed's bars are."""
    return data._timeframe, data._compression


class SteppedCommission(bt.CommissionInfo):
    """A commission whose sizes are multiples of a step: 100 for lots of an A-share, 0.001 for a coin, 0 for any.

    Params:
        step: the smallest size; sizes are rounded towards 0.
    """

    params = (("step", 0.0),)

    def getsize(self, price: float, cash: float) -> float:
        """The size that `cash` pays for at `price`."""
        size = self.p.leverage * cash / price
        if not self.p.step:
            return size
        return self.p.step * float(np.floor(size / self.p.step + 1e-9))
