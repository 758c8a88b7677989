"""What positions are worth and how large they can be, of shares and of futures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from math import isfinite

import backtrader as bt
import numpy as np
import pandas as pd

from kronos_strategies.backtrader.feeds import Shown
from kronos_strategies.backtrader.score_recorder import is_current
from kronos_strategies.evaluation.portfolio.trades import COLUMNS


def contract_value(comminfo: bt.CommInfoBase, price: float) -> float:
    """Notional value of a size of 1: the price of a share, price times `mult` of a future."""
    return price if comminfo.stocklike else price * float(comminfo.p.mult)


def round_size(comminfo: bt.CommInfoBase, price: float, value: float) -> float:
    """The largest size that can be traded whose notional value is at most `value`.

    Args:
        comminfo: of the feed. Shares are sized by its `getsize`, without its leverage; futures by whole contracts,
            or by its own `rounded`, as a `SteppedCommission` has it.
        price: of one.
        value: 0 or more.
    """
    if comminfo.stocklike:
        return float(comminfo.getsize(price, value / comminfo.get_leverage()))
    size = value / contract_value(comminfo, price)
    rounded = getattr(comminfo, "rounded", None)
    return float(rounded(size) if rounded is not None else int(size + 1e-9))


def worth(broker: bt.BrokerBase, data: bt.AbstractDataBase, price: float) -> float:
    """What a position adds to the cash to make the value of the account, as Backtrader's broker has it."""
    position, comminfo = broker.getposition(data), broker.getcommissioninfo(data)
    if not position.size:
        return 0.0
    held = comminfo.getvaluesize(position.size, price)
    gained = comminfo.profitandloss(position.size, position.price, price)
    return float((held - gained) / comminfo.get_leverage() + gained if held > 0 else held)


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


@dataclass
class _Bar:
    """Of the account, at one close."""

    unit: float = np.nan  # value of the account / shares in it, so that cash paid in or out is no return
    paid: float = 0.0  # commissions / shares
    traded: float = 0.0  # value of what was bought and sold / shares
    weights: dict[str, float] = field(default_factory=dict)


class BookTape:
    """The account of a strategy, which is taken to be the strategy's own.

    Value is the broker's, of each share in it where cash was paid in or out (`broker.add_cash`), as in Backtrader's
    fund mode. Where a feed that is or was held shows no price, cash and positions at their last prices stand in,
    for the broker's own value is then NaN. Orders that the strategy is not notified of are not seen.

    Args:
        strategy: that runs.
        feeds: by name.

    Attributes:
        refused: orders that the broker refused.
        filled: orders, or parts of them, that traded.
    """

    def __init__(self, strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase]) -> None:
        self._strategy, self._broker = strategy, strategy.broker
        self._names = {data: name for name, data in feeds.items()}
        self._prices: dict[bt.AbstractDataBase, float] = {}
        self._held: dict[bt.AbstractDataBase, None] = {}  # asked for any other's position, a broker makes one
        self._start = self._value() / self._broker.get_fundshares()
        self._bars: dict[int, _Bar] = {}
        self._paid = self._traded = 0.0  # since the last look
        self.refused = self.filled = 0

    def notice(self, order: bt.Order) -> None:
        """Take what an order, or a part of it, traded, of which a strategy is told before `see` of that bar."""
        self.refused += order.status in (bt.Order.Margin, bt.Order.Rejected)
        for bit in executions(order):
            self._paid += bit.closedcomm + bit.openedcomm
            self._traded += abs(bit.size) * bit.price * self._notional(order.data)
            self._held[order.data] = None
            self._prices.setdefault(order.data, bit.price)
            self.filled += 1

    def see(self) -> None:
        """Read the account at the current bar of the strategy."""
        now = self._strategy.datetime[0]
        self._prices.update({data: data.close[0] for data in self._held if is_current(data, now)})
        value, shares = self._value(), self._broker.get_fundshares()
        bar = self._bars.setdefault(len(self._strategy), _Bar())
        bar.unit = value / shares
        bar.paid += self._paid / shares
        bar.traded += self._traded / shares
        self._paid = self._traded = 0.0
        sizes = {data: self._broker.getposition(data).size for data in self._held}
        bar.weights = {
            self._names[data]: size * self._notional(data) * self._prices[data] / value
            for data, size in sizes.items()
            if size
        }

    def frame(self, dates: pd.Series) -> tuple[pd.DataFrame, pd.Series]:
        """Of all bars: net, gross, turnover and cost by datetime; and weights by (datetime, instrument).

        Args:
            dates: of the strategy's bars, by their number; bars of one date are taken together.
        """
        rows = [(dates[number], bar.unit, bar.paid, bar.traded) for number, bar in self._bars.items()]
        table = pd.DataFrame(rows, columns=["datetime", "unit", "paid", "traded"])
        days = table.groupby("datetime").agg({"unit": "last", "paid": "sum", "traded": "sum"})
        before = days["unit"].shift(fill_value=self._start)
        net, cost = days["unit"] / before - 1, days["paid"] / before
        book = {"net": net, "gross": net + cost, "turnover": days["traded"] / before, "cost": cost}
        held = {dates[number]: bar.weights for number, bar in self._bars.items()}
        keys = [(date, name) for date, weights in held.items() for name in weights]
        arrays = [
            pd.DatetimeIndex([key[0] for key in keys]),
            pd.Index([key[1] for key in keys], dtype=object),
        ]
        index = pd.MultiIndex.from_arrays(arrays, names=["datetime", "instrument"])
        values = [weight for weights in held.values() for weight in weights.values()]
        return pd.DataFrame(book), pd.Series(values, index, dtype=float, name="weight").sort_index()

    def _notional(self, data: bt.AbstractDataBase) -> float:
        """What one of a feed is worth at a price of 1."""
        return contract_value(self._broker.getcommissioninfo(data), 1.0)

    def _value(self) -> float:
        value = float(self._broker.getvalue())
        if isfinite(value):
            return value
        return float(self._broker.getcash()) + sum(map(self._worth, self._held))

    def _worth(self, data: bt.AbstractDataBase) -> float:
        """Of a position at its last price."""
        return worth(self._broker, data, self._prices[data])


def executions(order: bt.Order) -> Iterator[bt.order.OrderExecutionBit]:
    """What an order has traded since its last notification."""
    if order.status in (bt.Order.Partial, bt.Order.Completed):
        yield from takewhile(lambda bit: bit is not None, order.executed.iterpending())


@dataclass
class _Trade:
    """A position from its first purchase (or short sale) on."""

    side: int
    opened: float  # Backtrader's days
    first_bar: int
    size: float = 0.0  # bought, or sold short
    paid: float = 0.0  # sum of size * price
    left: float = 0.0  # closed so far
    received: float = 0.0
    value: float = 0.0  # notional, of what was bought
    profit: float = 0.0
    cost: float = 0.0
    closed: float = np.nan
    last_bar: int = 0


class TradeTape:
    """Puts executions together: a trade ends when its position is zero, or turns.

    Args:
        strategy: that runs; its broker knows what a contract is worth.
        feeds: by name.
    """

    def __init__(self, strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase]) -> None:
        self._broker = strategy.broker
        self._names = {data: name for name, data in feeds.items()}
        self._open: dict[bt.AbstractDataBase, _Trade] = {}
        self._done: list[tuple[str, _Trade]] = []

    def notice(self, data: bt.AbstractDataBase, bit: bt.order.OrderExecutionBit) -> None:
        """Take one execution."""
        if data not in self._names:
            return
        trade, when = self._open.get(data), float(bit.dt)
        if trade is not None and bit.closed:
            trade.left += abs(bit.closed)
            trade.received += abs(bit.closed) * bit.price
            trade.profit += bit.pnl - bit.closedcomm
            trade.cost += bit.closedcomm
            trade.closed, trade.last_bar = when, len(data)
            if bit.opened or not bit.psize:
                self._done.append((self._names[data], self._open.pop(data)))
                trade = None
        if bit.opened:
            if trade is None:
                trade = self._open[data] = _Trade(1 if bit.opened > 0 else -1, when, len(data))
            trade.size += abs(bit.opened)
            trade.paid += abs(bit.opened) * bit.price
            trade.value += abs(bit.opened) * contract_value(self._broker.getcommissioninfo(data), bit.price)
            trade.profit -= bit.openedcomm
            trade.cost += bit.openedcomm

    def frame(self, shown: Shown) -> pd.DataFrame:
        """All trades in the order in which they opened, see `TradeStudy.trades`."""
        rows = [*self._done, *((self._names[data], trade) for data, trade in self._open.items())]
        still = {id(trade) for trade in self._open.values()}
        dated = {
            name: shown.dated(
                name, np.array([[trade.opened, trade.closed] for own, trade in rows if own == name])
            )
            for name in {name for name, _ in rows}
        }
        place = dict.fromkeys(dated, 0)
        found = []
        for name, trade in rows:
            opened, closed = dated[name][place[name]]
            place[name] += 1
            is_open = id(trade) in still
            found.append(
                (
                    name,
                    "long" if trade.side > 0 else "short",
                    opened,
                    pd.NaT if is_open else closed,
                    np.nan if is_open else trade.last_bar - trade.first_bar,
                    trade.size,
                    trade.paid / trade.size,
                    trade.received / trade.left if trade.left else np.nan,
                    trade.profit,
                    trade.cost,
                    trade.profit / trade.value,
                )
            )
        frame = pd.DataFrame(found, columns=list(COLUMNS))
        frame[["opened", "closed"]] = frame[["opened", "closed"]].astype("datetime64[ns]")
        return frame.sort_values(["opened", "instrument"], kind="stable", ignore_index=True)
