"""What Qlib's exchange lets trade on a bar: suspensions and closes at a price limit."""

from __future__ import annotations

import pandas as pd
from qlib.backtest.decision import OrderDir
from qlib.backtest.exchange import Exchange

from kronos_strategies.data.qlib_bins import DAY

Span = tuple[pd.Timestamp, pd.Timestamp]  # start and end of a bar


def tradable_instruments(exchange: Exchange, scored: pd.Index, held: pd.Index, span: Span) -> pd.Index:
    """Instruments that may be traded after a signal; those not held must not have closed at a limit.

    Args:
        exchange: quotes and price limit.
        scored: instruments with a signal.
        held: instruments in the portfolio.
        span: the bar of the signal.
    """
    bought = [name for name in scored.difference(held) if exchange.is_stock_tradable(name, *span)]
    kept = [name for name in held if not exchange.check_stock_suspended(name, *span)]
    return pd.Index(bought + kept)


def trading_state(exchange: Exchange, name: str, span: Span) -> str:
    """Why an instrument cannot be bought: "suspended", "limit up" or "limit down"; empty if it can."""
    if exchange.check_stock_suspended(name, *span):
        return "suspended"
    if exchange.check_stock_limit(name, *span, direction=OrderDir.BUY):
        return "limit up"
    return "limit down" if exchange.check_stock_limit(name, *span, direction=OrderDir.SELL) else ""


def day_exchange(
    instruments: pd.Index, date: pd.Timestamp, deal_price: str, limit: float | None
) -> tuple[Exchange, Span]:
    """Quotes of one day, and its span as in Qlib's executors.

    Args:
        instruments: instruments to quote.
        date: a trading day.
        deal_price: price at which trades execute.
        limit: daily price limit as a return; that of Qlib's region when None.
    """
    exchange = Exchange(
        freq=DAY,
        start_time=date,
        end_time=date,
        codes=list(instruments),
        deal_price=deal_price,
        limit_threshold=limit,
    )
    return exchange, (date, date + pd.Timedelta(days=1) - pd.Timedelta(seconds=1))
