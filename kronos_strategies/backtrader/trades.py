"""The round trips of a run, put together from what its orders traded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import backtrader as bt
import numpy as np
import pandas as pd

from kronos_strategies.backtrader.account import contract_value
from kronos_strategies.backtrader.shown import Shown
from kronos_strategies.evaluation.portfolio.trades import COLUMNS


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
        """All trades in the order in which they opened, see `TradeEvaluation.trades`."""
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
