"""Functions of both Backtrader scripts: load feeds, run, report, plot."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import backtrader as bt
import pandas as pd
from rich.console import Console

from kronos.bars import PRICES, adjust_bars
from kronos.training.config import Source
from kronos.training.sources import is_qlib_directory, open_reader
from kronos_strategies.backtrader import (
    InformationCoefficient,
    KronosBand,
    KronosRankStrategy,
    KronosTearSheet,
    LotSizeCommission,
    save_plot,
)
from kronos_strategies.backtrader.indicators import PARAMS
from kronos_strategies.data.qlib_bins import read_bars
from kronos_strategies.data.training import QlibBars
from kronos_strategies.report.export import show_report

FEW_INSTRUMENTS = 5  # an IC of fewer instruments is undefined
Panel = dict[str, pd.DataFrame]


class Account(bt.observers.Value):
    """The account, without its parameters in the picture."""

    plotinfo = (("plotname", "account"),)

    def _plotlabel(self) -> list[object]:
        return []


class Trades(bt.observers.BuySell):
    """Purchases and sales, without their parameters in the picture."""

    plotinfo = (("plotname", "trades"),)

    def _plotlabel(self) -> list[object]:
        return []


class TopK(KronosRankStrategy):
    """Leaves the benchmark out of the ranking, and draws the forecasts of one feed over its price.

    Params:
        benchmark: name of a feed that is never traded; "" for none.
        drawn: name of the feed to draw.
    """

    params = (("benchmark", ""), ("drawn", ""))

    def __init__(self) -> None:
        super().__init__()
        for data in self.datas:
            data.plotinfo.plot = data._name == self.p.drawn
            if data.plotinfo.plot:
                KronosBand(data, **{name: getattr(self.p, name) for name, _ in PARAMS})
        for own in self.signal_lines.values():
            own.plotinfo.plot = own.data.plotinfo.plot

    def signal_lines_for(self, data: bt.AbstractDataBase) -> bt.LineSeries | None:
        """None for the benchmark."""
        return None if data._name == self.p.benchmark else super().signal_lines_for(data)


def read_panel(
    bars: Path,
    market: str,
    instruments: tuple[str, ...],
    benchmark: str,
    start: datetime | None,
    end: datetime | None,
) -> Panel:
    """Adjusted bars by instrument, without bars that have no price; includes the benchmark's.

    Args:
        bars: Qlib data directory, CSV or parquet file, or folder of such files.
        market: universe of a Qlib data directory.
        instruments: those to load; all when empty.
        benchmark: instrument to load in addition; "" for none.
        start, end: first and last time.

    Raises:
        ValueError: no bars are left.
    """
    among = bool(instruments and benchmark) and not is_qlib_directory(bars)
    wanted = (*instruments, benchmark) if among else instruments
    reader = open_reader(Source(bars, market=market, instruments=wanted), QlibBars)
    panel = {each.instrument: each.bars for each in reader.series()}
    if benchmark and benchmark not in panel:
        panel[benchmark] = _index(bars, benchmark)
    cut = {name: frame.dropna(subset=list(PRICES)).loc[start:end] for name, frame in panel.items()}
    cut = {name: frame for name, frame in cut.items() if len(frame)}
    if not cut:
        raise ValueError(
            f"{bars} has no bar from {start or 'the first'} to {end or 'the last'}. Widen the span."
        )
    return cut


def _index(bars: Path, benchmark: str) -> pd.DataFrame:
    """Bars of a benchmark that is not a member of its market."""
    if not is_qlib_directory(bars):
        raise ValueError(f"{bars} has no benchmark {benchmark!r}. Name one of its instruments.")
    return adjust_bars(read_bars(bars, [benchmark]).set_index("datetime").drop(columns="instrument"))


def run(
    panel: Mapping[str, pd.DataFrame],
    strategy: type[TopK],
    settings: Mapping[str, Any],
    sheet: Mapping[str, Any],
    cash: float,
    fee: float,
    minutes: int = 0,
) -> bt.Strategy:
    """Trade a panel.

    Args:
        panel: bars by name.
        strategy: strategy class to run.
        settings: parameters of the strategy.
        sheet: parameters of the KronosTearSheet.
        cash: initial cash.
        fee: commission as a fraction of the value traded.
        minutes: minutes per bar; 0 for daily bars.
    """
    if settings["drawn"] not in panel:
        raise ValueError(
            f"There is no {settings['drawn']!r} to draw. Choose one of {', '.join(list(panel)[:10])}."
        )
    cerebro = bt.Cerebro(stdstats=False)
    frame = {"timeframe": bt.TimeFrame.Minutes, "compression": minutes} if minutes else {}
    for name, bars in panel.items():
        cerebro.adddata(bt.feeds.PandasData(dataname=bars, **frame), name=name)
    cerebro.broker.setcash(cash)
    cerebro.broker.addcommissioninfo(LotSizeCommission(commission=fee))
    cerebro.addstrategy(strategy, **settings)
    cerebro.addobserver(Account)
    cerebro.addobservermulti(Trades, barplot=True)
    cerebro.addanalyzer(KronosTearSheet, _name="sheet", min_instruments=FEW_INSTRUMENTS, **sheet)
    cerebro.addanalyzer(
        InformationCoefficient, _name="ic", signal=sheet["signal"], min_instruments=FEW_INSTRUMENTS
    )
    return cerebro.run()[0]


def finish(strategy: bt.Strategy, output: Path) -> None:
    """Write the report and the plot, and print the main metrics."""
    sheet = strategy.analyzers.sheet
    page = sheet.save_report(output)[0]
    picture = save_plot(strategy, output / "run.png")
    show_report(sheet.build_report(), [page, picture])
    found = strategy.analyzers.ic.get_analysis()
    rank = found["rank_ic_test"]
    Console().print(
        f"RankIC across {FEW_INSTRUMENTS} or more instruments, {found['label']}: {rank['mean']:+.4f} (95 % "
        f"{rank['low']:+.4f} to {rank['high']:+.4f}, t {rank['t']:+.2f}) on {rank['dates']} dates.",
        soft_wrap=True,
        highlight=False,
    )


def most_traded(panel: Mapping[str, pd.DataFrame], without: str) -> str:
    """Name of the feed to plot: the one with the highest value traded among those with the most bars."""
    longest = max(len(bars) for name, bars in panel.items() if name != without)
    worth = {
        name: float((bars["close"] * bars["volume"]).mean()) if "volume" in bars else 0.0
        for name, bars in panel.items()
        if name != without and len(bars) > 0.99 * longest
    }
    return max(sorted(worth), key=lambda name: worth[name])
