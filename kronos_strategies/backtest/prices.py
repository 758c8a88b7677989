"""Bars of a backtest: a Qlib data directory, read without Qlib, or files of bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from kronos.bars import PRICES, adjust_bars
from kronos.io import read_bars as read_files
from kronos.training.sources import is_qlib_directory
from kronos_strategies.backtest.trading import TradingRules
from kronos_strategies.data.qlib_bins import bin_folder, read_bars
from kronos_strategies.data.qlib_store import guess_region, region_of_store
from kronos_strategies.evaluation.panel import PricePanel

LOTS = {"cn": 100, "tw": 1000, "us": 1}  # shares, by region


@dataclass(frozen=True)
class BacktestPrices:
    """Prices of a backtest.

    Attributes:
        panel: adjusted prices of the instruments.
        factors: bars x instruments, adjusted / unadjusted price; None where they are unknown.
        trading: usual execution and costs of the region, by `kronos_strategies.data.qlib_store`.
    """

    panel: PricePanel
    factors: pd.DataFrame | None
    trading: TradingRules


def read_prices(path: Path, instruments: Sequence[str], freq: str | None = None) -> BacktestPrices:
    """Read the bars of instruments; bars without four prices or with a volume of 0 are left out.

    Args:
        path: a Qlib data directory, a CSV or parquet file of bars, or a folder of such files.
        instruments: instruments to read.
        freq: Qlib's name of the bar frequency of a data directory; its own when omitted.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: an instrument has no bars, or a file cannot be read.
    """
    path = path.expanduser()
    region = region_of_store(path) if is_qlib_directory(path) else guess_region(instruments)
    raw = _of_qlib(path, instruments, freq) if is_qlib_directory(path) else _of_files(path, instruments)
    traded = raw[list(PRICES)].notna().all(axis=1)
    if raw["volume"].notna().any():  # otherwise the data have no volume, which does not mean no trade
        traded &= ~raw["volume"].eq(0)
    raw = raw[traded].set_index(["datetime", "instrument"]).sort_index()
    factors = raw["factor"].unstack("instrument") if "factor" in raw else None
    trading = TradingRules(
        open_cost=region.open_cost,
        close_cost=region.close_cost,
        min_cost=region.min_cost,
        limit=region.limit or 0.0,
        lot=LOTS[region.name] if factors is not None else 0,
    )
    bars = raw if factors is None else adjust_bars(raw)
    return BacktestPrices(PricePanel.from_bars(bars), factors, trading)


def read_benchmark(path: Path, instrument: str, freq: str | None = None) -> pd.Series:
    """Returns of an instrument from close to close, by datetime.

    Raises:
        ValueError: the data do not have it.
    """
    path = path.expanduser()
    if is_qlib_directory(path) and not bin_folder(path, instrument).is_dir():
        raise ValueError(f"{path} has no bars of '{instrument}'. Name a benchmark that it has.")
    closes = read_prices(path, [instrument], freq).panel.closes[instrument]
    return closes.pct_change(fill_method=None).rename(instrument)


def cut_prices(panel: PricePanel, start: pd.Timestamp, end: pd.Timestamp) -> PricePanel:
    """The bars of a panel from `start` to `end`."""
    frames = {name: frame.loc[start:end] for name, frame in vars(panel).items() if name in _FRAMES}
    return replace(panel, **frames)


_FRAMES = ("opens", "closes", "amounts", "range_variance")


def _of_qlib(path: Path, instruments: Sequence[str], freq: str | None) -> pd.DataFrame:
    return read_bars(path, list(instruments), freq=freq)


def _of_files(path: Path, instruments: Sequence[str]) -> pd.DataFrame:
    found = read_files(path, instruments=tuple(instruments)).bars
    frames = [
        bars.rename_axis("datetime").reset_index().assign(instrument=name) for name, bars in found.items()
    ]
    table = pd.concat(frames, ignore_index=True)
    if "volume" not in table:
        table["volume"] = float("nan")
    return table
