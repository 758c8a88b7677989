"""KronosSizer: sizes the orders of any strategy by its forecasts."""

from __future__ import annotations

from math import isfinite

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.postprocessing import PathOptions
from kronos_strategies.backtrader.account import contract_value, size_for_value
from kronos_strategies.backtrader.indicators import PARAMS as FORECAST_PARAMS
from kronos_strategies.backtrader.indicators import KronosIndicator
from kronos_strategies.backtrader.lines import ALL_LINES
from kronos_strategies.backtrader.market_inputs import FeedMarket
from kronos_strategies.portfolio import PortfolioRules, UnsolvedError, parse_rules, target_weights

RULES = "rules"
METHODS = ("volatility", "conviction", RULES)


class KronosSizer(bt.Sizer):
    """Sizes the buy() and sell() of any strategy by sampled volatility, conviction, or portfolio rules.

        cerebro.addsizer(KronosSizer, by="volatility", target_volatility=0.1, max_weight=0.25, samples=20)

    An order that opens or adds to a position brings it to a weight, a share of equity in notional value at the
    current close, and nothing is added once it has that weight. By

    - "volatility": target_volatility / (volatility * sqrt(bars_per_year)), so that each position alone has the
      target volatility per year;
    - "conviction": max_weight * conviction / full_conviction, at most max_weight;
    - "rules": the weight that `kronos_strategies.portfolio.target_weights` gives the feed among all feeds, with
      what is held as previous weights; 0 for a feed that the rules do not choose, or on the other side.

    No weight exceeds `max_weight`, and no purchase what the cash pays for. An order against a position closes it as
    a whole. Without a forecast, or without a result of an optimization, an order that opens a position has the size
    0: Backtrader then places none.

    The sizer creates a `KronosIndicator` for each feed, so the strategy's `next` begins once they are warm. With
    the parameters of the strategy's own indicators it shares their forecasts.

    Params:
        by: "volatility", "conviction" or "rules".
        rules: fields of `PortfolioRules`, e.g. "topk=5,weighting=min_cvar"; of "rules" only.
        target_volatility: per year, of a single position.
        bars_per_year: bars per year, used to annualize volatility.
        full_conviction: conviction from which on a position has max_weight.
        max_weight: largest weight, in (0, 1].
        model, lookback, horizon, samples, ...: the parameters of `KronosIndicator`.

    Raises:
        ValueError: a parameter is out of range; raised when the run starts.
    """

    params = (
        ("by", "volatility"),
        (RULES, ""),
        ("target_volatility", 0.15),
        ("bars_per_year", 252),
        ("full_conviction", 4.0),
        ("max_weight", 1.0),
        *FORECAST_PARAMS,
    )

    def set(self, strategy: bt.Strategy, broker: bt.BrokerBase) -> None:
        """Create the indicators; Backtrader calls this before the run."""
        super().set(strategy, broker)
        self._check()
        self.lines = {data: self._indicator(data) for data in strategy.datas}
        self.portfolio_rules = parse_rules(self.p.rules) if self.p.by == RULES else PortfolioRules()
        options = PathOptions(self.p.calibration, self.p.candles, self.p.limits)
        self.market = FeedMarket(self.portfolio_rules, self.lines, self.p.store, options)

    def weight(self, data: bt.AbstractDataBase) -> float:
        """Weight of a position in a feed now, negative for a short one by "rules"; 0 without a forecast."""
        lines = self.lines[data]
        if not len(lines) or not isfinite(lines.score[0]):
            return 0.0
        if self.p.by == RULES:
            weight = float(self._rule_weights().get(data._name, 0.0))
        elif self.p.by == "conviction":
            weight = self.p.max_weight * lines.conviction[0] / self.p.full_conviction
        else:
            yearly = lines.volatility[0] * self.p.bars_per_year**0.5
            weight = self.p.target_volatility / yearly if yearly > 0 else 0.0
        weight = weight if isfinite(weight) else 0.0
        return float(np.clip(weight, -self.p.max_weight, self.p.max_weight))

    def _getsizing(
        self, comminfo: bt.CommInfoBase, cash: float, data: bt.AbstractDataBase, isbuy: bool
    ) -> float:
        held, side = float(self.broker.getposition(data).size), 1 if isbuy else -1
        if side * held < 0:
            return abs(held)
        price, equity, weight = data.close[0], self.broker.getvalue(), self.weight(data)
        if self.p.by != RULES:
            weight *= side
        if weight * side <= 0 or not isfinite(price) or not isfinite(equity) or equity <= 0:
            return 0
        size = size_for_value(comminfo, price, abs(weight) * equity) - abs(held)
        if isbuy:
            fee = comminfo.getcommission(size, price)
            size = min(size, float(comminfo.getsize(price, max(cash - fee, 0.0))))
        return max(size, 0)

    def _rule_weights(self) -> pd.Series:
        """Target weights of all feeds; empty if an optimization has no result."""
        feeds, equity = self.lines, self.broker.getvalue()
        names = [data._name for data in feeds]
        missing = [np.nan] * len(ALL_LINES)
        rows = [[line[0] for line in own.lines] if len(own) else missing for own in feeds.values()]
        previous = {
            data._name: size * contract_value(self.broker.getcommissioninfo(data), data.close[0]) / equity
            for data in feeds
            if (size := self.broker.getposition(data).size) and isfinite(data.close[0])
        }
        try:
            return target_weights(
                pd.DataFrame(rows, names, list(ALL_LINES), dtype=float),
                pd.Series(previous, dtype=float),
                self.portfolio_rules,
                market=self.market.inputs(),
            )
        except UnsolvedError:
            return pd.Series(dtype=float)

    def _indicator(self, data: bt.AbstractDataBase) -> bt.Indicator:
        forecast = {name: getattr(self.p, name) for name, _ in FORECAST_PARAMS}
        known = len(self.strategy.getindicators())
        self.strategy._addindicator(KronosIndicator, data, **forecast)
        return self.strategy.getindicators()[known]

    def _check(self) -> None:
        if self.p.by not in METHODS:
            raise ValueError(f"by={self.p.by!r} is unknown. Size by one of {', '.join(METHODS)}.")
        if self.p.rules and self.p.by != RULES:
            raise ValueError(
                f"rules={self.p.rules!r} sizes nothing with by={self.p.by!r}. Pass by='rules' as well."
            )
        for name in ("target_volatility", "bars_per_year", "full_conviction"):
            if not getattr(self.p, name) > 0:
                raise ValueError(f"{name}={getattr(self.p, name)} is out of range. Pass a number above 0.")
        if not 0 < self.p.max_weight <= 1:
            raise ValueError(f"max_weight={self.p.max_weight} is out of range. Pass a number in (0, 1].")
        names = [data._name for data in self.strategy.datas]
        unfit = next((name for name in names if not name or names.count(name) > 1), None)
        if self.p.by == RULES and unfit is not None:
            raise ValueError(
                f"Rules need a unique name of every feed, got {unfit!r}. Name each feed: "
                "cerebro.adddata(data, name='AAPL')."
            )
