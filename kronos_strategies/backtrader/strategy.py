"""KronosRankStrategy: the rules of `kronos_strategies.portfolio` in Backtrader, over all feeds of a cerebro."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import isfinite

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.config import as_integer, as_number
from kronos.postprocessing import PathOptions
from kronos_strategies.backtrader.account import contract_value, position_value, size_for_value
from kronos_strategies.backtrader.feeds import BarLength, FeedActivity
from kronos_strategies.backtrader.indicators import PARAMS as FORECAST_PARAMS
from kronos_strategies.backtrader.indicators import KronosIndicator
from kronos_strategies.backtrader.market_inputs import FeedMarket
from kronos_strategies.portfolio import PortfolioRules, UnsolvedError, target_weights

logger = logging.getLogger(__name__)

RULES = {each.name: each.default for each in fields(PortfolioRules)} | {"rank_by": "score", "topk": 10}


@dataclass
class _PendingOrder:
    """An order that waits for a bar of its feed."""

    order: bt.Order
    bars: int  # of its feed; the order is for the next one
    sales: Sequence[bt.Order] = field(default_factory=list)  # of the same rebalance, which pay for a purchase


class KronosRankStrategy(bt.Strategy):
    """Ranks all feeds by a forecast line every N bars and holds the target weights; can be subclassed.

    Decides at the close of a bar, sizes orders at that close and trades at each feed's next open: sales first, then
    purchases. An order waits for the next bar of its own feed, however many bars other exchanges have in between.
    It is canceled if it does not trade there, or if feeds that shared the feed's last bar have their next one
    without it. A purchase is reduced to what the cash pays for. If sales of the same rebalance are still to come,
    because their exchange opens later, the rest of the purchase waits for them and trades at its feed's following
    open.

    Rebalances on the first bar at which any feed has a forecast, and then every `every` bars. Where feeds of
    several exchanges have their bars at different times, one bar of each counts as one, and all of them are ranked
    by their latest forecasts.

    A feed that has missed a bar of its peers (see `FeedActivity`), or whose last bar has no price, is suspended: it
    keeps its weight, valued at its last price. A feed whose peers have had `delisted_after` bars since its last one
    counts as delisted, which no live market could tell sooner. It is sold at its last close less `haircut`, since
    no other order fills for a feed without bars.

    A weight is a share of equity in notional value, price times `mult`, regardless of leverage or margin of the
    feed's `CommissionInfo`: a portfolio with weights up to 1 owes nothing. Shares are sized by its `getsize`: whole
    ones by default, fractions or whole lots with `LotSizeCommission`; futures in whole contracts, or by its lot
    size, and no more than the cash pays the margin of. The account must belong to the strategy alone.

    Correlations and the dependence of joint scenarios come from the bars that the feeds have delivered so far; the
    paths of a feed with lines of its own come from `store`. A rebalance whose optimization has no result trades
    nothing; `unsolved` has the reason by date.

    Override `signal_lines_for` for other signals, `weights` for another selection and sizing, `next` to do more.

    Params:
        model, lookback, horizon, samples, ...: the parameters of each feed's `KronosIndicator`.
        every: one of them: bars between forecasts, and between rebalances.
        delisted_after: bars of its peers after which a feed without bars counts as delisted. A feed without peers
            is delisted after as many bars of any feeds of its length, but not before that many days, at most 14.
        haircut: share of the last close, in [0, 1), that is lost in the sale of a delisted feed.
        by, topk, rank_buffer, side, ...: the fields of `PortfolioRules`, ranking by score by default.

    Raises:
        ValueError: a rule is out of range, its lines are missing, or feeds have no unique names.
    """

    params = (
        *RULES.items(),
        *FORECAST_PARAMS,
        ("delisted_after", 20),
        ("haircut", 0.0),
    )

    def __init__(self) -> None:
        self.rules = PortfolioRules(**{name: getattr(self.p, name) for name in RULES})
        lines = {data: self.signal_lines_for(data) for data in self.datas}
        self.signal_lines = {data: own for data, own in lines.items() if own is not None}
        self._check()
        options = PathOptions(self.p.calibration, self.p.candles, self.p.limits)
        self.market = FeedMarket(self.rules, self.signal_lines, self.p.store, options)
        self.unsolved: dict[pd.Timestamp, str] = {}
        self._columns = list(
            dict.fromkeys(alias for own in self.signal_lines.values() for alias in own.getlinealiases())
        )
        self._last_bars: dict[
            bt.AbstractDataBase, tuple[float, float]
        ] = {}  # day and price of a feed's last bar
        self._activity = FeedActivity(self, self.signal_lines)
        self._pending: dict[int, _PendingOrder] = {}  # by reference of the order
        self._last_rounds: dict[BarLength, int] | None = None  # rounds at the last rebalance

    def signal_lines_for(self, data: bt.AbstractDataBase) -> bt.LineSeries | None:
        """The signals of a feed, as lines: the feed itself if it has a line to rank by, else a KronosIndicator.

        None excludes the feed from the ranking, e.g. a benchmark.
        """
        if self.rules.rank_by in data.getlinealiases():
            return data
        forecast = {name: getattr(self.p, name) for name, _ in FORECAST_PARAMS}
        return KronosIndicator(data, **forecast)  # type: ignore[call-arg]  # Backtrader's metaclass takes them

    def weights(self, signals: pd.DataFrame, previous: pd.Series, tradable: pd.Index) -> pd.Series:
        """Target weights from the next bar on.

        Args:
            signals: all signal lines at this bar, by instrument; NaN where a feed has no forecast.
            previous: weights held at this close, by instrument.
            tradable: instruments with a price at this bar, or at their last one if it is of the same round.
        """
        return target_weights(signals, previous, self.rules, tradable, self.market.inputs())

    def start(self) -> None:
        """Limit fills to prices and cash, unless the broker is live or has a filler of its own."""
        self._is_simulated = isinstance(self.broker, bt.brokers.BackBroker)
        self._limits_fills = self._is_simulated and self.broker.p.filler is None
        if self._limits_fills:
            self.broker.set_filler(self._fill_size)
        if len(self.cerebro.runningstrats) > 1:
            logger.warning(
                "%d strategies share one broker, but %s needs the account for itself: each sells what the other "
                "has bought. Run each in its own cerebro.",
                len(self.cerebro.runningstrats),
                type(self).__name__,
            )

    def stop(self) -> None:
        """Restore the broker for another run."""
        if self._limits_fills:
            self.broker.set_filler(None)

    def prenext(self) -> None:
        """Trade the feeds whose lines are warm while others are not."""
        self.next()

    def next(self) -> None:
        """Cancel orders that did not trade, sell delisted feeds, rebalance when due."""
        self._activity.update()
        self._update_pending()
        for data in self.signal_lines:
            if self.is_current(data):
                self._last_bars[data] = (data.datetime[0], data.close[0])
        if self._is_simulated:
            self._liquidate_delisted()
        rounds, before = self._activity.rounds, self._last_rounds
        if before is None or any(count - before[key] >= self.p.every for key, count in rounds.items()):
            self._rebalance()

    def is_current(self, data: bt.AbstractDataBase) -> bool:
        """Whether a feed has a bar with a price now; see `FeedActivity.is_current`."""
        return self._activity.is_current(data)

    def is_tradable(self, data: bt.AbstractDataBase) -> bool:
        """Whether a feed can be traded: it is current, or its exchange had its bar of this round before."""
        return self._activity.is_tradable(data)

    def _update_pending(self) -> None:
        """Cancel orders whose bar has passed; a purchase waits on while sales that pay for it are still to come."""
        self._pending = {ref: each for ref, each in self._pending.items() if each.order.alive()}
        passed = [
            each
            for each in self._pending.values()
            if len(each.order.data) != each.bars or self._activity.missed_bars(each.order.data)
        ]
        for each in sorted(passed, key=lambda each: each.order.isbuy()):
            if any(sale.alive() for sale in each.sales) and not self._activity.missed_bars(each.order.data):
                each.bars = len(each.order.data)
            else:
                self._cancel(each.order)

    def _cancel(self, order: bt.Order) -> None:
        self.cancel(order)
        del self._pending[order.ref]

    def _rebalance(self) -> None:
        signals, equity = self._signals(), self._equity()
        if not np.isfinite(signals[self.rules.rank_by].to_numpy()).any() or equity <= 0:
            return
        self._last_rounds = dict(self._activity.rounds)
        held = {
            data: size * contract_value(self.broker.getcommissioninfo(data), price) / equity
            for data, (_, price) in self._last_bars.items()
            if (size := self.getposition(data).size)
        }
        previous = pd.Series({data._name: weight for data, weight in held.items()}, dtype=float)
        tradable = [data for data in self.signal_lines if self.is_tradable(data)]
        for order in [each.order for each in self._pending.values() if each.order.data in tradable]:
            self._cancel(order)
        try:
            weights = self.weights(signals, previous, pd.Index([data._name for data in tradable]))
        except UnsolvedError as error:
            date = pd.Timestamp(self.datetime.datetime())
            self.unsolved[date] = str(error)
            logger.warning("%s: the weights stay, because %s", date, error)
            return
        changes = []
        for data in tradable:
            weight = float(weights.get(data._name, 0.0))
            if weight != held.get(data, 0.0):
                changes.append((data, self._target_size(data, weight * equity) - self.getposition(data).size))
        self._place_orders([(data, change) for data, change in changes if change])

    def _place_orders(self, changes: Sequence[tuple[bt.AbstractDataBase, float]]) -> None:
        """Place sales first: the broker executes orders in sequence, and their cash pays for the purchases."""
        # Cash is checked when an order fills, not when it is placed: by then the sales have been paid.
        unchecked = {"_checksubmit": False} if self._limits_fills else {}
        sales = [self.sell(data=data, size=-change, **unchecked) for data, change in changes if change < 0]
        purchases = [self.buy(data=data, size=change, **unchecked) for data, change in changes if change > 0]
        for order in [*sales, *purchases]:
            paid_by = sales if order.isbuy() else []
            self._pending[order.ref] = _PendingOrder(order, len(order.data), paid_by)

    def _signals(self) -> pd.DataFrame:
        """All signal lines by instrument, NaN where a feed is suspended or its lines are not warm."""
        table = np.full((len(self.signal_lines), len(self._columns)), np.nan)
        for row, (data, own) in zip(table, self.signal_lines.items(), strict=True):
            if self.is_tradable(data) and len(own) >= own._minperiod:
                aliases = own.getlinealiases()
                row[[self._columns.index(alias) for alias in aliases]] = [line[0] for line in own.lines]
        return pd.DataFrame(table, [data._name for data in self.signal_lines], self._columns)

    def _equity(self) -> float:
        """Cash and positions at their last prices; the broker's own value is NaN where a close is NaN."""
        return self.broker.getcash() + sum(
            position_value(self.broker, data, price) for data, (_, price) in self._last_bars.items()
        )

    def _target_size(self, data: bt.AbstractDataBase, value: float) -> float:
        """Size with the notional value `value` at this close, negative if short."""
        size = size_for_value(self.broker.getcommissioninfo(data), data.close[0], abs(value))
        return size if value >= 0 else -size

    def _liquidate_delisted(self) -> None:
        for data, (day, price) in self._last_bars.items():
            size = self.getposition(data).size
            if size and self._activity.is_delisted(data, self.p.delisted_after, self.datetime[0] - day):
                trade, loss = (self.sell, self.p.haircut) if size > 0 else (self.buy, -self.p.haircut)
                # The only type of order that fills at its own price, without a bar of its feed.
                fill = {"price": price * (1 - loss), "exectype": bt.Order.Historical, "histnotify": True}
                trade(data=data, size=abs(size), **fill)

    def _fill_size(self, order: bt.Order, price: float, ago: int) -> float:
        """How much of an order fills: nothing without a price, and no more than cash and margin pay for.

        Backtrader itself would fill at a price of NaN, which makes the cash NaN for good, and would reject a whole
        purchase that costs a cent too much.
        """
        size, pending = abs(order.executed.remsize), self._pending.get(order.ref)
        if not isfinite(price) or (pending is not None and len(order.data) == pending.bars):
            return 0  # without a price, or before the bar that the order waits for
        comminfo, position = self.broker.getcommissioninfo(order.data), self.getposition(order.data)
        held = position.size
        if pending is None or (comminfo.stocklike and not order.isbuy()):
            return size
        closes = max(-held if order.isbuy() else held, 0)  # of the position that the order closes or reverses
        if comminfo.stocklike:
            cash = self.broker.getcash() - closes * price
        else:
            closed = min(closes, size)
            cash = self.broker.getcash() + closed * comminfo.get_margin(price)
            if closed:  # its profit since the last close is paid now
                cash += comminfo.cashadjust(np.sign(held) * closed, position.adjbase, price)
        cash = max(cash, 0.0) * (1 - 1e-9)  # margin for rounding of the price
        fee = comminfo.getcommission(comminfo.getsize(price, cash) + closes, price)
        return min(size, closes + comminfo.getsize(price, max(cash - fee, 0.0)))

    def _check(self) -> None:
        p, names = self.p, [data._name for data in self.signal_lines]
        unfit = next((name for name in names if not name or names.count(name) > 1), None)
        if unfit is not None:
            raise ValueError(
                f"Every feed needs a unique name, got {unfit!r}. Name each feed: "
                "cerebro.adddata(data, name='AAPL')."
            )
        for data, own in self.signal_lines.items():
            if self.rules.rank_by not in own.getlinealiases():
                raise ValueError(
                    f"The signals of {data._name!r} have no line {self.rules.rank_by!r} to rank by; they have "
                    f"{', '.join(own.getlinealiases())}. Rank by one of these."
                )
        for name in ("every", "delisted_after"):
            if as_integer(name, getattr(p, name)) < 1:
                raise ValueError(f"{name}={getattr(p, name)} is not a number of bars. Pass at least 1.")
        if not 0 <= as_number("haircut", p.haircut) < 1:
            raise ValueError(f"haircut={p.haircut} is out of range. Pass a share of the price in [0, 1).")
