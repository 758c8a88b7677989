"""Execution of orders: costs, lots, and purchases within the cash. Arrays over n instruments, money in currency."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, get_args

import numpy as np

from kronos.config import as_number

Price = Literal["open", "close"]
_HALVINGS = 60  # of the share of purchases that the cash pays for
_ROUNDING = 0.1  # shares: those of a lot are counted with it, since adjusted prices are of single precision


@dataclass(frozen=True)
class TradingRules:
    """Execution and costs; every field is a plain string or number.

    Attributes:
        price: orders decided at the close of a bar trade at the "close" or the "open" of the next one.
        open_cost: cost of a purchase, as a fraction of its value.
        close_cost: cost of a sale, as a fraction of its value.
        stamp_duty: tax on a sale, as a fraction of its value, in addition to its cost.
        min_cost: minimum cost of a trade before stamp duty and fixed cost, in currency.
        fixed_cost: fixed cost of a trade, in currency.
        borrow_cost: yearly cost of a short position, as a fraction of its value.
        limit: price limit as a return. An instrument whose execution price is at least this far from its last
            close does not trade on that bar, in either direction; 0 for no limit.
        lot: lot size in unadjusted shares; 0 for fractions of shares. A position is sold as a whole, whatever
            its size.
        cash: equity at the start, in currency.
        delisted_after: bars without a bar of its own after which an instrument counts as delisted: its position is
            paid out at its last close, without costs. If it trades again, because it was only suspended, the
            payment is taken back and the position returns. 0 for never.

    Raises:
        ValueError: a field is out of range.
    """

    price: Price = "close"
    open_cost: float = 0.0005
    close_cost: float = 0.0005
    stamp_duty: float = 0.0
    min_cost: float = 0.0
    fixed_cost: float = 0.0
    borrow_cost: float = 0.0
    limit: float = 0.0
    lot: float = 0.0
    cash: float = 1e8
    delisted_after: int = 20

    def __post_init__(self) -> None:
        if self.price not in get_args(Price):
            raise ValueError(f"price={self.price!r} is unknown. Trade at the open or at the close.")
        for field in fields(self):
            if field.name == "price":
                continue
            value = as_number(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            if not 0 <= value < np.inf:
                raise ValueError(f"{field.name}={value} is out of range. Pass a number of at least 0.")
        for name in ("open_cost", "close_cost", "stamp_duty", "limit"):
            if getattr(self, name) >= 1:
                raise ValueError(
                    f"{name}={getattr(self, name)} is out of range. Pass a fraction below 1, such as 0.001."
                )
        if self.cash == 0:
            raise ValueError("cash=0 buys nothing. Pass the equity at the start, e.g. 1e8.")

    def costs(self, value: np.ndarray, sale: bool) -> np.ndarray:
        """(n,) costs of trades of this value, each at least 0; nothing where nothing is traded."""
        rate = self.close_cost if sale else self.open_cost
        cost = np.maximum(value * rate, self.min_cost) + self.fixed_cost
        if sale:
            cost = cost + self.stamp_duty * value
        return np.where(value > 0, cost, 0.0)


class Fill(NamedTuple):
    """Result of the orders of one bar."""

    shares: np.ndarray  # (n,) afterwards
    cash: float  # afterwards
    value: float  # traded, purchases and sales
    cost: float


def execute(
    shares: np.ndarray,
    cash: float,
    change: np.ndarray,
    price: np.ndarray,
    factor: np.ndarray,
    trading: TradingRules,
) -> Fill:
    """Sell, then buy what the cash pays for, in whole lots.

    If the cash does not pay for all purchases, all are lowered in proportion.

    Args:
        shares: (n,) adjusted shares before, negative if short.
        cash: cash before.
        change: (n,) shares to trade, 0 where an instrument does not trade.
        price: (n,) execution prices; any value where nothing is traded.
        factor: (n,) unadjusted shares per adjusted share.
        trading: costs and lots.
    """
    change = round_lots(change, shares, factor, trading.lot)
    value = np.where(change != 0, change * price, 0.0)
    sold, bought = np.maximum(-value, 0.0), np.maximum(value, 0.0)
    cost = float(trading.costs(sold, sale=True).sum())
    cash += float(sold.sum()) - cost
    share = _affordable(bought, cash, trading)
    if share < 1:
        lowered = round_lots(change * share, shares, factor, trading.lot)
        change = np.where(value > 0, lowered, change)
        bought = np.where(value > 0, change * price, 0.0)
    paid = float(trading.costs(bought, sale=False).sum())
    return Fill(
        shares + change,
        cash - float(bought.sum()) - paid,
        float(sold.sum() + bought.sum()),
        cost + paid,
    )


def round_lots(change: np.ndarray, shares: np.ndarray, factor: np.ndarray, lot: float) -> np.ndarray:
    """(n,) changes in whole lots toward 0; a position that is closed is closed as a whole.

    Args:
        change: (n,) adjusted shares to trade.
        shares: (n,) adjusted shares held.
        factor: (n,) unadjusted shares per adjusted share; NaN where there is no bar.
        lot: lot size in unadjusted shares; 0 for fractions.
    """
    if lot == 0:
        return change
    whole = np.floor((np.abs(change) * factor + _ROUNDING) / lot) * lot / factor
    closes = (shares != 0) & (np.abs(shares + change) <= 1e-12 * np.abs(shares))
    return np.where(closes, change, np.sign(change) * np.nan_to_num(whole))


def _affordable(bought: np.ndarray, cash: float, trading: TradingRules) -> float:
    """Share of the purchases that the cash pays for, costs included."""

    def needed(share: float) -> float:
        value = share * bought
        return float(value.sum() + trading.costs(value, sale=False).sum())

    if not bought.any() or needed(1.0) <= cash:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if needed(middle) <= cash else (low, middle)
    return low
