"""Runs of planned orders with both analyzers, on random walks."""

from __future__ import annotations

import backtrader as bt
import numpy as np
import pandas as pd

from kronos_strategies.backtrader import InformationCoefficient, KronosTearSheet, LotSizeCommission

CASH, FEE = 10_000.0, 0.01
DAYS = pd.bdate_range("2024-01-01", periods=40)


class ScoreFeed(bt.feeds.PandasData):
    """Bars with a score."""

    lines = ("score",)
    params = (("score", "score"),)


class Orders(bt.Strategy):
    """Places planned orders at the closes of planned bars, and records the value of the account."""

    params = (("plan", {}),)  # bar -> name -> size, negative to sell

    def __init__(self):
        self.worth, self.cash, self.sizes = {}, {}, {}

    def prenext(self):
        self.next()

    def next(self):
        day = pd.Timestamp(self.datetime.date())
        self.worth[day], self.cash[day] = self.broker.getvalue(), self.broker.getcash()
        self.sizes[day] = {
            data._name: position.size for data, position in self.broker.positions.items() if position.size
        }
        for name, size in self.p.plan.get(len(self), {}).items():
            data = self.getdatabyname(name)
            (self.buy if size > 0 else self.sell)(data=data, size=abs(size))


def bars_of(names=("A", "B", "C"), days=DAYS, seed=0) -> dict[str, pd.DataFrame]:
    """Random walks with an independent score."""
    found = {}
    for i, name in enumerate(names):
        rng = np.random.default_rng([seed, i])
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, len(days))))
        opened = close * np.exp(rng.normal(0, 0.01, len(days)))
        high, low = np.maximum(opened, close) * 1.01, np.minimum(opened, close) * 0.99
        columns = {"open": opened, "high": high, "low": low, "close": close, "volume": 1e6}
        found[name] = pd.DataFrame(columns | {"score": rng.normal(size=len(days))}, index=days)
    return found


def run(bars, strategy=Orders, commission=None, prepare=None, sheet=None, ic=None, mode=None, **params):
    cerebro = bt.Cerebro(stdstats=False, **(mode or {}))
    for name, frame in bars.items():
        cerebro.adddata(ScoreFeed(dataname=frame), name=name)
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(commission or LotSizeCommission(commission=FEE))
    cerebro.addstrategy(strategy, **params)
    cerebro.addanalyzer(InformationCoefficient, _name="ic", **{"signal": "score"} | (ic or {}))
    cerebro.addanalyzer(KronosTearSheet, _name="sheet", **{"signal": "score"} | (sheet or {}))
    if prepare:
        prepare(cerebro)
    return cerebro.run()[0]


def result_of(*args, **kwargs):
    return run(*args, **kwargs).analyzers.sheet.result
