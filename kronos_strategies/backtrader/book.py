"""What a run's account was worth, paid and held, bar by bar; and the result of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from math import isfinite

import backtrader as bt
import numpy as np
import pandas as pd

from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.backtrader.account import contract_value, worth
from kronos_strategies.backtrader.scores import is_current

EQUAL = "equal weight"


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


def book_result(
    book: pd.DataFrame,
    weights: pd.Series,
    closes: pd.DataFrame,
    benchmark: pd.Series | None,
    bars_per_year: int,
) -> BacktestResult:
    """A run's result, from the bar of the first purchase on.

    The book holds only cash before and buys at that bar's price, so the benchmarks earn nothing up to its close.

    Args:
        book: by datetime, columns net, gross, turnover, cost.
        weights: by (datetime, instrument), at each close.
        closes: of the feeds, dates x instruments, NaN where there was no trade.
        benchmark: closes of what else the book is held against, named.
        bars_per_year: that annualise it.
    """
    held = weights.index.get_level_values("datetime")
    traded = book.index[book["turnover"] > 0]
    first = min([*held[:1], *traded[:1]], default=book.index[0])
    benchmarks = {EQUAL: equal_weight(closes, book.index)}
    if benchmark is not None:
        named = benchmark.to_frame()
        benchmarks = {str(benchmark.name): equal_weight(named, book.index)} | benchmarks
    whole = book[["net"]].join(pd.DataFrame(benchmarks))
    streams = pd.DataFrame(benchmarks).loc[first:]
    streams.loc[first] = 0.0
    kept = book.loc[first:]
    return BacktestResult(
        returns=kept[["gross", "net"]],
        benchmarks=streams,
        turnover=kept["turnover"],
        cost=kept["cost"],
        weights=weights.loc[first:] if len(weights) else weights,
        bars_per_year=bars_per_year,
        whole=whole,
    )


def equal_weight(closes: pd.DataFrame, dates: pd.Index) -> pd.Series:
    """Return of each bar of all feeds at equal weights, rebalanced on each bar, without costs.

    A feed takes part from its second bar to its last; on a bar without a trade it earns 0, and then the whole move
    since its last close.
    """
    wide = closes.reindex(closes.index.union(dates))
    known = wide.ffill().reindex(dates)
    listed = wide.bfill().notna().reindex(dates).to_numpy()
    return known.pct_change(fill_method=None).where(listed).mean(axis=1).fillna(0.0)
