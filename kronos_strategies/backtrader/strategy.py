"""KronosRankStrategy: the rules of `kronos_strategies.portfolio` inside Backtrader, over all feeds of a cerebro."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import fields
from math import isfinite

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.config import as_integer, as_number
from kronos_strategies.backtrader.account import contract_value, round_size, worth
from kronos_strategies.backtrader.activity import FeedActivity, Rhythm
from kronos_strategies.backtrader.indicator import PARAMS as FORECAST
from kronos_strategies.backtrader.indicator import KronosIndicator
from kronos_strategies.portfolio import PortfolioRules, target_weights

log = logging.getLogger(__name__)

RULES = {field.name: field.default for field in fields(PortfolioRules)} | {
    "by": "score",
    "topk": 10,
}


class KronosRankStrategy(bt.Strategy):
    """Ranks all feeds by a forecast line every N bars and holds the target weights; a base to build on.

    Decides at a bar's close, sizes at that close and trades at each feed's next open: sales first, then purchases.
    An order waits for the next bar of its own feed, however many bars other exchanges have in between. It is
    cancelled if it does not trade there, or if feeds that shared the feed's last bar have their next one without
    it. A purchase that the cash cannot pay for, such as after a sale that did not trade, is cut to it.

    Rebalances on the first bar that forecasts any feed, and then every `every` bars. Where feeds of several
    exchanges have their bars at different times, one bar of each counts as one, and all of them are ranked by
    their latest forecasts.

    A feed that has missed a bar which its peers had (see `FeedActivity`), or whose last bar has no price, is
    suspended: it keeps its weight, valued at its last price. One whose peers have had `ended_after` bars since its
    last one is taken for ended, which no live market could tell sooner, and sold at its last close less
    `haircut`, since a feed without bars fills no other order.

    A weight is a share of equity in notional value, price times `mult`, whatever the leverage or the margin of the
    feed's `CommissionInfo`: a book of weights up to 1 owes nothing. Shares are sized by its `getsize`: whole ones
    by default, parts of one or whole lots with `SteppedCommission`; futures by whole contracts, or by its step, and
    no more than the cash pays the margin of. The account is taken to be the strategy's own.

    Override `lines_of` for lines of another kind, `weights` to choose and to size otherwise, `next` to do more.

    Params:
        model, lookback, horizon, samples, ...: the parameters of each feed's `KronosIndicator`.
        every: one of them: bars from one forecast to the next, and from one rebalance to the next.
        ended_after: bars of its peers after which a feed without any counts as ended. One without peers ends after
            as many bars of any feeds of its length, but not before that many days, 14 at most.
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
        self._seen: dict[bt.AbstractDataBase, tuple[float, float]] = {}  # day and price of a feed's last bar
        self._activity = FeedActivity(self.signal_lines)
        self._placed: dict[int, tuple[bt.Order, int]] = {}  # by reference: the order, bars of its feed then
        self._rebalanced: dict[Rhythm, int] | None = None  # rounds so far at the last rebalance

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
            tradable: names with a price at this bar, or at their last one where it is of the same round.
        """
        return target_weights(signals, previous, self.rules, tradable)

    def start(self) -> None:
        """Fill orders by price and cash, unless the broker is a live one or has a filler of its own."""
        self._simulated = isinstance(self.broker, bt.brokers.BackBroker)
        self._fills = self._simulated and self.broker.p.filler is None
        if self._fills:
            self.broker.set_filler(self._filled)
        if len(self.cerebro.runningstrats) > 1:
            log.warning(
                "%d strategies share one broker, but %s takes the account to be its own: each sells what the other "
                "has bought. Run each in a cerebro of its own.",
                len(self.cerebro.runningstrats),
                type(self).__name__,
            )

    def stop(self) -> None:
        """Leave the broker as it was, for another run."""
        if self._fills:
            self.broker.set_filler(None)

    def prenext(self) -> None:
        """Trade those that are warm, whoever else is not."""
        self.next()

    def next(self) -> None:
        """Cancel what did not trade, sell what has ended, rebalance when it is time."""
        self._activity.update()
        self._placed = {ref: (order, bars) for ref, (order, bars) in self._placed.items() if order.alive()}
        self._cancel(order for order, bars in self._placed.values() if not self._awaits(order, bars))
        for data in self.signal_lines:
            if self.is_current(data):
                self._seen[data] = (data.datetime[0], data.close[0])
        if self._simulated:
            self._liquidate_ended()
        rounds, before = self._activity.rounds, self._rebalanced
        if before is None or any(count - before[key] >= self.p.every for key, count in rounds.items()):
            self._rebalance()

    def is_current(self, data: bt.AbstractDataBase) -> bool:
        """Whether a feed has a bar with a price now; before its first one Backtrader shows its last one instead.

        A resampled bar is dated with the end of its day, which need not be the time of the bar that completed it.
        """
        if not len(data):
            return False
        moved = data in self._activity.moved or data.datetime[0] == self.datetime[0]
        return moved and isfinite(data.close[0])

    def is_live(self, data: bt.AbstractDataBase) -> bool:
        """Whether a feed can be decided on: it is current, or its exchange has had its bar of this round before."""
        return self.is_current(data) or (self._activity.is_live(data) and isfinite(data.close[0]))

    def _awaits(self, order: bt.Order, bars: int) -> bool:
        """Whether the bar that an order was placed for, the next after so many of its feed, is still to come."""
        return len(order.data) == bars and not self._activity.missed(order.data)

    def _cancel(self, orders: Iterable[bt.Order]) -> None:
        for order in list(orders):
            self.cancel(order)
            del self._placed[order.ref]

    def _rebalance(self) -> None:
        signals, equity = self._signals(), self._equity()
        if not np.isfinite(signals[self.rules.by].to_numpy()).any() or equity <= 0:
            return
        self._rebalanced = dict(self._activity.rounds)
        held = {
            data: size * self._value_of_one(data, price) / equity
            for data, (_, price) in self._seen.items()
            if (size := self.getposition(data).size)
        }
        previous = pd.Series({data._name: weight for data, weight in held.items()}, dtype=float)
        now = [data for data in self.signal_lines if self.is_live(data)]
        self._cancel(order for order, _ in self._placed.values() if order.data in now)
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
                self._placed[order.ref] = (order, len(data))

    def _signals(self) -> pd.DataFrame:
        """All signal lines by name, NaN where a feed is suspended or its lines are not warm."""
        table = np.full((len(self.signal_lines), len(self._columns)), np.nan)
        for row, (data, own) in zip(table, self.signal_lines.items(), strict=True):
            if self.is_live(data) and len(own) >= own._minperiod:
                aliases = own.getlinealiases()
                row[[self._columns.index(alias) for alias in aliases]] = [line[0] for line in own.lines]
        return pd.DataFrame(table, [data._name for data in self.signal_lines], self._columns)

    def _equity(self) -> float:
        """Cash and positions at their last prices; the broker's own value is NaN where a close is."""
        return self.broker.getcash() + sum(
            worth(self.broker, data, price) for data, (_, price) in self._seen.items()
        )

    def _value_of_one(self, data: bt.AbstractDataBase, price: float) -> float:
        return contract_value(self.broker.getcommissioninfo(data), price)

    def _size(self, data: bt.AbstractDataBase, value: float) -> float:
        """The size whose notional value is `value` at this close, negative if short."""
        size = round_size(self.broker.getcommissioninfo(data), data.close[0], abs(value))
        return size if value >= 0 else -size

    def _liquidate_ended(self) -> None:
        for data, (day, price) in self._seen.items():
            size = self.getposition(data).size
            if size and self._activity.has_ended(data, self.p.ended_after, self.datetime[0] - day):
                trade, lost = (self.sell, self.p.haircut) if size > 0 else (self.buy, -self.p.haircut)
                # Of all kinds only this one fills at its own price, without a bar of its feed.
                worth = {"price": price * (1 - lost), "exectype": bt.Order.Historical, "histnotify": True}
                trade(data=data, size=abs(size), **worth)

    def _filled(self, order: bt.Order, price: float, ago: int) -> float:
        """How much of an order fills: nothing without a price, of ours no more than cash and margin allow.

        Backtrader itself would fill at a price of NaN, which makes the cash NaN for good, and refuse a purchase
        whole that is a cent too dear.
        """
        size = abs(order.executed.remsize)
        if not isfinite(price):
            return 0
        comminfo, position = self.broker.getcommissioninfo(order.data), self.getposition(order.data)
        held = position.size
        if order.ref not in self._placed or (comminfo.stocklike and not order.isbuy()):
            return size
        closes = max(-held if order.isbuy() else held, 0)  # of the position that the order closes or turns
        if comminfo.stocklike:
            cash = self.broker.getcash() - closes * price
        else:
            closed = min(closes, size)
            cash = self.broker.getcash() + closed * comminfo.get_margin(price)
            if closed:  # what it has gained since the last close is paid now
                cash += comminfo.cashadjust(np.sign(held) * closed, position.adjbase, price)
        cash = max(cash, 0.0) * (1 - 1e-9)  # what rounding may add to a price
        fee = comminfo.getcommission(comminfo.getsize(price, cash) + closes, price)
        return min(size, closes + comminfo.getsize(price, max(cash - fee, 0.0)))

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
        for name in ("every", "ended_after"):
            if as_integer(name, getattr(p, name)) < 1:
                raise ValueError(f"{name}={getattr(p, name)} counts bars. Give at least 1.")
        if not 0 <= as_number("haircut", p.haircut) < 1:
            raise ValueError(f"haircut={p.haircut} is out of range. Give a part of the price in [0, 1).")


class SteppedCommission(bt.CommissionInfo):
    """A commission whose sizes are multiples of a step: 100 for lots of an A-share, 0.001 for a coin, 0 for any.

    Params:
        step: the smallest size; sizes are rounded towards 0.
    """

    params = (("step", 0.0),)

    def getsize(self, price: float, cash: float) -> float:
        """The size that `cash` pays for at `price`, or pays the margin of."""
        return self.rounded(self.p.leverage * cash / (price if self.stocklike else self.get_margin(price)))

    def rounded(self, size: float) -> float:
        """The largest multiple of the step up to `size`."""
        if not self.p.step:
            return size
        return self.p.step * float(np.floor(size / self.p.step + 1e-9))
