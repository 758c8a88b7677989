"""Runs of the real engine on small panels, and the lines that they produce."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd

from kronos_strategies.backtrader import forecasts
from kronos_strategies.backtrader.indicators import KronosIndicator
from tests.kronos.builders import make_bars, make_panel

SETTINGS: dict[str, Any] = {"lookback": 20, "horizon": 3, "samples": 4, "every": 5, "device": "cpu"}
MODES: dict[str, dict[str, Any]] = {
    "runonce=False": {"runonce": False},
    "preload=False": {"preload": False},
    "exactbars=-1": {"exactbars": -1},
    "exactbars=-2": {"exactbars": -2},
    "live": {"live": True},
}
FIVE = {"timeframe": bt.TimeFrame.Minutes, "compression": 5}
Make = Callable[[bt.AbstractDataBase], bt.Indicator]


def kronos(**settings: Any) -> Make:
    """A function that creates the indicator of a feed, with small settings."""
    return lambda data: KronosIndicator(data, **SETTINGS | settings)


class Recorder(bt.Strategy):
    """Records the lines of one indicator per feed at each of its bars, under replay at each tick."""

    params = (("make", None),)

    def __init__(self) -> None:
        self.made = {data: self.p.make(data) for data in self.datas}
        self.rows: list[tuple[Any, ...]] = []
        self.bars = dict.fromkeys(self.datas, 0)

    def prenext(self) -> None:
        self.next()

    def next(self) -> None:
        for data, own in self.made.items():
            if len(data) > self.bars[data] or (data.replaying and len(data)):
                self.bars[data] = len(data)
                values = [line[0] for line in own.lines]
                self.rows.append((data.datetime.datetime(0), data._name, *values))

    def frame(self) -> pd.DataFrame:
        """Lines by (datetime, instrument)."""
        names = next(iter(self.made.values())).getlinealiases()
        table = pd.DataFrame(self.rows, columns=["datetime", "instrument", *names])
        return table.set_index(["datetime", "instrument"]).astype(float)


def pandas_feeds(panel: Mapping[str, pd.DataFrame], **options: Any) -> dict[str, bt.AbstractDataBase]:
    return {name: bt.feeds.PandasData(dataname=bars, **options) for name, bars in panel.items()}


def cerebro_of(feeds: Mapping[str, bt.AbstractDataBase]) -> bt.Cerebro:
    cerebro = bt.Cerebro(stdstats=False)
    for name, feed in feeds.items():
        cerebro.adddata(feed, name=name)
    return cerebro


def record(cerebro: bt.Cerebro, make: Make | None = None, **mode: Any) -> pd.DataFrame:
    """The lines of a run with an empty cache."""
    forecasts._CACHE.clear()
    cerebro.addstrategy(Recorder, make=make or kronos())
    return cerebro.run(**mode)[0].frame()


def run(panel: Mapping[str, pd.DataFrame], make: Make | None = None, **mode: Any) -> pd.DataFrame:
    """The lines over daily bars."""
    return record(cerebro_of(pandas_feeds(panel)), make, **mode)


def awkward_panel() -> dict[str, pd.DataFrame]:
    """Feeds that all trade differently: whole, late, with gaps, ended early, with missing prices, and too short."""
    full = make_panel(80, "WHOLE", "LATE", "GAPS", "OVER", "HOLES", "SHORT")
    full["LATE"] = full["LATE"].iloc[17:]
    full["GAPS"] = full["GAPS"].drop(full["GAPS"].index[[24, 25, 26, 44, 45, 46, 47, 48, 49, 50, 61]])
    full["OVER"] = full["OVER"].iloc[:58]
    full["HOLES"].iloc[[5, 30, 40, 41], :4] = np.nan
    full["HOLES"].iloc[[33, 50], 4] = [0.0, np.nan]
    full["SHORT"] = full["SHORT"].iloc[10:25]
    return full


def session_bars(days: int, per_day: int, seed: int = 0) -> pd.DataFrame:
    """Five-minute bars of business days from 09:35."""
    first = pd.bdate_range("2024-03-04", periods=days)
    index = pd.DatetimeIndex(
        [day + pd.Timedelta(minutes=575 + 5 * i) for day in first for i in range(per_day)]
    )
    return make_bars(len(index), seed).set_axis(index)
