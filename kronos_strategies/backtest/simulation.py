"""The account, bar by bar: execution of the last decision, equity at the close, the next decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos_strategies.backtest.trading import TradingRules, execute
from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.evaluation.panel import PricePanel

Decide = Callable[[int, np.ndarray, float], np.ndarray | None]
SAME = 1e-12  # changes of a weight up to this are rounding errors, and not traded


@dataclass(frozen=True)
class PriceArrays:
    """Adjusted prices as arrays of T bars x n instruments, instruments ascending.

    Attributes:
        dates: (T,) times of the bars.
        instruments: (n,) instruments.
        price: (T, n) execution prices; NaN without a bar.
        last_close: (T, n) close of the last bar so far; NaN before the first.
        trades: (T, n) bool, instruments with a bar and an execution price that is not at its limit.
        has_bar: (T, n) bool.
        at_limit: (T, n) bool, bars that close at the price limit.
        idle: (T, n) bars since the last one of the instrument.
        factor: (T, n) unadjusted shares per adjusted share.
    """

    dates: pd.DatetimeIndex
    instruments: pd.Index
    price: np.ndarray
    last_close: np.ndarray
    trades: np.ndarray
    has_bar: np.ndarray
    at_limit: np.ndarray
    idle: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(
        cls, prices: PricePanel, instruments: pd.Index, trading: TradingRules, factors: pd.DataFrame | None
    ) -> PriceArrays:
        """Arrays of some instruments of a panel.

        Raises:
            ValueError: the panel lacks an instrument, or lots are traded without factors.
        """
        if missing := sorted(set(instruments) - set(prices.closes.columns)):
            raise ValueError(
                f"{len(missing)} instruments have no prices, the first is {missing[0]!r}. Pass the bars of all."
            )
        closes = prices.closes[instruments]
        executed = closes if trading.price == "close" else prices.opens[instruments]
        close, price = closes.to_numpy(np.float64), executed.to_numpy(np.float64)
        last = closes.ffill().to_numpy(np.float64)
        before = np.vstack([np.full((1, close.shape[1]), np.nan), last[:-1]])
        has_bar = np.isfinite(close) & np.isfinite(price)
        threshold = trading.limit or np.inf
        with np.errstate(invalid="ignore"):
            locked = np.abs(price / before - 1) >= threshold
            at_limit = np.abs(close / before - 1) >= threshold
        rows = np.arange(len(close))[:, None]
        seen = np.maximum.accumulate(np.where(has_bar, rows, -1), axis=0)
        return cls(
            dates=pd.DatetimeIndex(closes.index),
            instruments=pd.Index(instruments),
            price=price,
            last_close=last,
            trades=has_bar & ~locked,
            has_bar=has_bar,
            at_limit=at_limit,
            idle=np.where(seen >= 0, rows - seen, 0),
            factor=_factors(factors, closes, trading),
        )

    def tradable(self, bar: int, held: np.ndarray) -> np.ndarray:
        """(n,) bool, instruments that a decision at the close of a bar may trade.

        Those with a bar; an instrument that is not held must not have closed at its limit.
        """
        able: np.ndarray = self.has_bar[bar] & ((held != 0) | ~self.at_limit[bar])
        return able


def _factors(factors: pd.DataFrame | None, closes: pd.DataFrame, trading: TradingRules) -> np.ndarray:
    if factors is None:
        if trading.lot:
            raise ValueError(
                f"lot={trading.lot:g} needs the adjustment factors of the bars, and none are given. Pass factors, "
                "or lot=0 for fractions of shares."
            )
        return np.ones(closes.shape)
    return factors.reindex(index=closes.index, columns=closes.columns).to_numpy(np.float64)


@dataclass(frozen=True)
class Account:
    """Outcome of a simulation over T bars and n instruments; money in currency.

    Attributes:
        equity: (T,) at each close.
        traded: (T,) value of purchases and sales.
        cost: (T,) costs.
        weights: (T, n) held at each close.
    """

    equity: np.ndarray
    traded: np.ndarray
    cost: np.ndarray
    weights: np.ndarray


def simulate(arrays: PriceArrays, trading: TradingRules, decide: Decide, bars_per_year: int) -> Account:
    """Run an account over all bars.

    Orders are sized at the close of the decision's bar and trade on the next one; what does not trade there
    expires. Once the equity is not positive, everything is closed and nothing is traded any more.

    Up to a bar, a delisted instrument and one that is suspended for long look the same. Both are paid out at their
    last close after `trading.delisted_after` bars. Where a later bar shows that the instrument was only suspended,
    that bar takes the payment back and returns the shares, so the move since its last close is never avoided.

    Args:
        arrays: prices.
        trading: execution and costs.
        decide: function of bar, (n,) weights held at its close, and equity -> (n,) target weights; None to trade
            nothing.
        bars_per_year: bars per year, over which the yearly cost of short positions is spread.
    """
    bars, count = arrays.price.shape
    account = Account(np.zeros(bars), np.zeros(bars), np.zeros(bars), np.zeros((bars, count)))
    shares, cash, target = np.zeros(count), float(trading.cash), None
    value = np.zeros(count)  # of the positions at the last close
    paid_out = _PaidOut(np.zeros(count), np.zeros(count))
    for bar in range(bars):
        cost = trading.borrow_cost / bars_per_year * float(-np.minimum(value, 0.0).sum())
        cash -= cost
        if trading.delisted_after:
            returned, cash = paid_out.update(arrays, bar, shares, cash, trading.delisted_after)
            target = None if target is None else target + returned
        change = np.zeros(count) if target is None else np.where(arrays.trades[bar], target - shares, 0.0)
        if change.any():
            fill = execute(shares, cash, change, arrays.price[bar], arrays.factor[bar], trading)
            shares, cash = fill.shares, fill.cash
            account.traded[bar], cost = fill.value, cost + fill.cost
        value = np.where(shares != 0, shares * arrays.last_close[bar], 0.0)
        equity = cash + float(value.sum())
        account.equity[bar], account.cost[bar] = max(equity, 0.0), cost
        if equity <= 0:
            break
        account.weights[bar] = held = value / equity
        target = _target_shares(arrays, bar, shares, held, equity, decide(bar, held, equity))
    return account


@dataclass(frozen=True)
class _PaidOut:
    """Positions in instruments that count as delisted.

    Attributes:
        shares: (n,) shares that were paid out.
        value: (n,) money that was paid for them.
    """

    shares: np.ndarray
    value: np.ndarray

    def update(
        self, arrays: PriceArrays, bar: int, shares: np.ndarray, cash: float, delisted_after: int
    ) -> tuple[np.ndarray, float]:
        """Pay out what is idle for long, and take back what trades again; changes `shares` in place.

        Returns:
            (n,) shares that returned to the account; cash afterwards.
        """
        back = arrays.has_bar[bar] & (self.shares != 0)
        returned = np.where(back, self.shares, 0.0)
        cash -= float(self.value[back].sum())
        shares += returned
        self.shares[back] = self.value[back] = 0.0
        gone = (shares != 0) & (arrays.idle[bar] >= delisted_after)
        self.shares[gone] = shares[gone]
        self.value[gone] = shares[gone] * arrays.last_close[bar][gone]
        shares[gone] = 0.0
        return returned, cash + float(self.value[gone].sum())


def _target_shares(
    arrays: PriceArrays,
    bar: int,
    shares: np.ndarray,
    held: np.ndarray,
    equity: float,
    weights: np.ndarray | None,
) -> np.ndarray | None:
    """(n,) shares of target weights at the close of a bar; those of instruments that cannot be traded stay."""
    if weights is None:
        return None
    moves = arrays.tradable(bar, held) & (np.abs(weights - held) > SAME)
    sized = shares.copy()
    np.divide(weights * equity, arrays.last_close[bar], where=moves, out=sized)
    return sized


def to_result(
    account: Account,
    arrays: PriceArrays,
    trading: TradingRules,
    benchmarks: pd.DataFrame,
    bars_per_year: int,
) -> BacktestResult:
    """The outcome from the bar of the first trade on; turnover counts purchases and sales.

    Args:
        account: outcome of the simulation.
        arrays: prices it ran on.
        trading: execution and costs.
        benchmarks: simple returns by datetime, one column each. On the first bar they are 0 if orders trade at
            the close, since the portfolio earns nothing before.
        bars_per_year: bars per year.

    Raises:
        ValueError: nothing was traded.
    """
    if not account.traded.any():
        raise ValueError("No order was executed. Check that signals and prices have dates in common.")
    first = int(np.argmax(account.traded > 0))
    before = np.concatenate([[trading.cash], account.equity[:-1]])
    solvent, before = before > 0, np.where(before > 0, before, 1.0)
    net = np.where(solvent, account.equity / before - 1, 0.0)[first:]
    dates = arrays.dates[first:].rename("datetime")
    cost, turnover = ((each / before)[first:] for each in (account.cost, account.traded))
    shown = benchmarks.reindex(dates)
    if trading.price == "close":
        shown.iloc[0] = 0.0
    return BacktestResult(
        returns=pd.DataFrame({"gross": net + cost, "net": net}, dates),
        benchmarks=shown,
        turnover=pd.Series(turnover, dates, name="turnover"),
        cost=pd.Series(cost, dates, name="cost"),
        weights=_long_weights(account, arrays),
        bars_per_year=bars_per_year,
    )


def _long_weights(account: Account, arrays: PriceArrays) -> pd.Series:
    """Weights held at each close, indexed (datetime, instrument), without zeros."""
    bar, column = np.nonzero(account.weights)
    keys = [arrays.dates[bar], pd.Index(arrays.instruments, dtype=object)[column]]
    index = pd.MultiIndex.from_arrays(keys, names=["datetime", "instrument"])
    return pd.Series(account.weights[bar, column], index, name="weight")
