"""What positions are worth and how large they can be, of shares and of futures."""

from __future__ import annotations

import backtrader as bt


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
