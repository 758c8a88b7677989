"""The account of a run: sizes and values of positions, and records of its value, costs and trades."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from math import isfinite

import backtrader as bt
import numpy as np
import pandas as pd

from kronos_strategies.backtrader.feeds import FeedActivity, FeedHistory
from kronos_strategies.evaluation.portfolio.returns import TRADE_COLUMNS


class LotSizeCommission(bt.CommissionInfo):
    """A commission scheme whose sizes are multiples of a lot: 100 for A-shares, 0.001 for a coin, 0 for any size.

    Params:
        lot_size: the smallest size; sizes are rounded toward 0.
    """

    params = (("lot_size", 0.0),)

    def getsize(self, price: float, cash: float) -> float:
        """The size that `cash` pays for at `price`, or whose margin it pays."""
        return self.round_down(self.p.leverage * cash / (price if self.stocklike else self.get_margin(price)))

    def round_down(self, size: float) -> float:
        """The largest multiple of the lot size up to `size`."""
        if not self.p.lot_size:
            return size
        return self.p.lot_size * float(np.floor(size / self.p.lot_size + 1e-9))


def contract_value(comminfo: bt.CommInfoBase, price: float) -> float:
    """Notional value of a size of 1: the price of a share, price times `mult` of a future."""
    return price if comminfo.stocklike else price * float(comminfo.p.mult)


def size_for_value(comminfo: bt.CommInfoBase, price: float, value: float) -> float:
    """The largest tradable size with a notional value of at most `value`.

    Args:
        comminfo: commission scheme of the feed. Shares are sized by its `getsize`, without its leverage; futures
            in whole contracts, or by its `round_down`, as of a `LotSizeCommission`.
        price: price of a size of 1.
        value: notional value, at least 0.
    """
    if comminfo.stocklike:
        return float(comminfo.getsize(price, value / comminfo.get_leverage()))
    size = value / contract_value(comminfo, price)
    round_down = getattr(comminfo, "round_down", None)
    return float(round_down(size) if round_down is not None else int(size + 1e-9))


def position_value(broker: bt.BrokerBase, data: bt.AbstractDataBase, price: float) -> float:
    """Contribution of a position at `price` to the value of the account, as computed by Backtrader's broker."""
    position, comminfo = broker.getposition(data), broker.getcommissioninfo(data)
    if not position.size:
        return 0.0
    value = comminfo.getvaluesize(position.size, price)
    profit = comminfo.profitandloss(position.size, position.price, price)
    return float((value - profit) / comminfo.get_leverage() + profit if value > 0 else value)


def executions(order: bt.Order) -> Iterator[bt.order.OrderExecutionBit]:
    """Executions of an order since its last notification."""
    if order.status in (bt.Order.Partial, bt.Order.Completed):
        yield from takewhile(lambda bit: bit is not None, order.executed.iterpending())


@dataclass
class _AccountBar:
    """The account at one close."""

    value_per_share: float = np.nan  # account value / shares in it, so that cash flows are not returns
    commission: float = 0.0  # commissions / shares
    traded: float = 0.0  # value of purchases and sales / shares
    weights: dict[str, float] = field(default_factory=dict)


class AccountRecorder:
    """Value, costs and weights of the account, bar by bar. It must belong to the strategy alone.

    Value is the broker's, per share of the account where cash was added or withdrawn (`broker.add_cash`), as in
    Backtrader's fund mode. Where a held feed has no price, the broker's own value is NaN: cash and positions at
    their last prices replace it. Orders without notifications to the strategy are not recorded.

    Args:
        strategy: the running strategy.
        feeds: feeds by name.

    Attributes:
        rejected: number of orders that the broker rejected.
        filled: number of orders, or parts of orders, that traded.
    """

    def __init__(self, strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase]) -> None:
        self._strategy, self._broker = strategy, strategy.broker
        self._names = {data: name for name, data in feeds.items()}
        self._activity = FeedActivity(strategy, feeds.values())
        self._prices: dict[bt.AbstractDataBase, float] = {}
        self._traded_feeds: dict[
            bt.AbstractDataBase, None
        ] = {}  # a broker creates positions of feeds asked for
        self._start = self._value() / self._broker.get_fundshares()
        self._bars: dict[int, _AccountBar] = {}
        self._commission = self._traded = 0.0  # since the last bar
        self.rejected = self.filled = 0

    def record_order(self, order: bt.Order) -> None:
        """Record what an order traded; the strategy is notified of it before `record` of that bar."""
        self.rejected += order.status in (bt.Order.Margin, bt.Order.Rejected)
        for bit in executions(order):
            self._commission += bit.closedcomm + bit.openedcomm
            self._traded += abs(bit.size) * bit.price * self._contract_size(order.data)
            self._traded_feeds[order.data] = None
            self._prices.setdefault(order.data, bit.price)
            self.filled += 1

    def record(self) -> None:
        """Record the account at the current bar of the strategy."""
        self._activity.update()
        current = (data for data in self._traded_feeds if self._activity.is_current(data))
        self._prices.update({data: data.close[0] for data in current})
        value, shares = self._value(), self._broker.get_fundshares()
        bar = self._bars.setdefault(len(self._strategy), _AccountBar())
        bar.value_per_share = value / shares
        bar.commission += self._commission / shares
        bar.traded += self._traded / shares
        self._commission = self._traded = 0.0
        sizes = {data: self._broker.getposition(data).size for data in self._traded_feeds}
        bar.weights = {
            self._names[data]: size * self._contract_size(data) * self._prices[data] / value
            for data, size in sizes.items()
            if size
        }

    def to_frames(self, dates: pd.Series) -> tuple[pd.DataFrame, pd.Series]:
        """Records of all bars.

        Args:
            dates: dates of the strategy's bars, by their number; bars of one date are taken together.

        Returns:
            DataFrame by datetime with columns net, gross, turnover and cost, all as shares of the value before; and
            the weights at each close, indexed (datetime, instrument).
        """
        rows = [
            (dates[number], bar.value_per_share, bar.commission, bar.traded)
            for number, bar in self._bars.items()
        ]
        table = pd.DataFrame(rows, columns=["datetime", "value", "commission", "traded"])
        days = table.groupby("datetime").agg({"value": "last", "commission": "sum", "traded": "sum"})
        before = days["value"].shift(fill_value=self._start)
        net, cost = days["value"] / before - 1, days["commission"] / before
        performance = {"net": net, "gross": net + cost, "turnover": days["traded"] / before, "cost": cost}
        weights = {dates[number]: bar.weights for number, bar in self._bars.items()}
        keys = [(date, name) for date, by_name in weights.items() for name in by_name]
        arrays = [
            pd.DatetimeIndex([key[0] for key in keys]),
            pd.Index([key[1] for key in keys], dtype=object),
        ]
        index = pd.MultiIndex.from_arrays(arrays, names=["datetime", "instrument"])
        values = [weight for by_name in weights.values() for weight in by_name.values()]
        series = pd.Series(values, index, dtype=float, name="weight").sort_index()
        return pd.DataFrame(performance), series

    def _contract_size(self, data: bt.AbstractDataBase) -> float:
        """Notional value of a size of 1 at a price of 1."""
        return contract_value(self._broker.getcommissioninfo(data), 1.0)

    def _value(self) -> float:
        value = float(self._broker.getvalue())
        if isfinite(value):
            return value
        positions = (position_value(self._broker, data, self._prices[data]) for data in self._traded_feeds)
        return float(self._broker.getcash()) + sum(positions)


@dataclass
class _Trade:
    """A position from its first purchase (or short sale) on."""

    side: int
    opened: float  # Backtrader's days
    first_bar: int
    size: float = 0.0  # total bought, or sold short
    entry_value: float = 0.0  # sum of size * price
    closed_size: float = 0.0
    exit_value: float = 0.0
    notional: float = 0.0  # of what was bought
    profit: float = 0.0
    cost: float = 0.0
    closed: float = np.nan
    last_bar: int = 0


class TradeRecorder:
    """Round trips of a run from its executions: a trade ends when its position is zero or changes sign.

    Args:
        strategy: the running strategy; its broker knows the value of a contract.
        feeds: feeds by name.
    """

    def __init__(self, strategy: bt.Strategy, feeds: Mapping[str, bt.AbstractDataBase]) -> None:
        self._broker = strategy.broker
        self._names = {data: name for name, data in feeds.items()}
        self._open: dict[bt.AbstractDataBase, _Trade] = {}
        self._closed: list[tuple[str, _Trade]] = []

    def record_execution(self, data: bt.AbstractDataBase, bit: bt.order.OrderExecutionBit) -> None:
        """Record one execution."""
        if data not in self._names:
            return
        trade, when = self._open.get(data), float(bit.dt)
        if trade is not None and bit.closed:
            trade.closed_size += abs(bit.closed)
            trade.exit_value += abs(bit.closed) * bit.price
            trade.profit += bit.pnl - bit.closedcomm
            trade.cost += bit.closedcomm
            trade.closed, trade.last_bar = when, len(data)
            if bit.opened or not bit.psize:
                self._closed.append((self._names[data], self._open.pop(data)))
                trade = None
        if bit.opened:
            if trade is None:
                trade = self._open[data] = _Trade(1 if bit.opened > 0 else -1, when, len(data))
            trade.size += abs(bit.opened)
            trade.entry_value += abs(bit.opened) * bit.price
            comminfo = self._broker.getcommissioninfo(data)
            trade.notional += abs(bit.opened) * contract_value(comminfo, bit.price)
            trade.profit -= bit.openedcomm
            trade.cost += bit.openedcomm

    def to_frame(self, history: FeedHistory) -> pd.DataFrame:
        """All trades in the order in which they were opened, see `TradeEvaluation.trades`."""
        still_open = [(self._names[data], trade) for data, trade in self._open.items()]
        rows = [*self._closed, *still_open]
        unfinished = {id(trade) for _, trade in still_open}
        found = []
        for name, trade in rows:
            opened, closed = history.to_dates(name, np.array([trade.opened, trade.closed]))
            is_open = id(trade) in unfinished
            found.append(
                (
                    name,
                    "long" if trade.side > 0 else "short",
                    opened,
                    pd.NaT if is_open else closed,
                    np.nan if is_open else trade.last_bar - trade.first_bar,
                    trade.size,
                    trade.entry_value / trade.size,
                    trade.exit_value / trade.closed_size if trade.closed_size else np.nan,
                    trade.profit,
                    trade.cost,
                    trade.profit / trade.notional,
                )
            )
        frame = pd.DataFrame(found, columns=list(TRADE_COLUMNS))
        frame[["opened", "closed"]] = frame[["opened", "closed"]].astype("datetime64[ns]")
        return frame.sort_values(["opened", "instrument"], kind="stable", ignore_index=True)
