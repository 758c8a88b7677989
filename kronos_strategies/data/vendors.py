"""Bars from the libraries of data vendors, written as files that `kronos data import` reads.

| source | prices and factor | dates and times |
|---|---|---|
| yfinance | adjusted for splits; Adj Close, also adjusted for dividends, becomes a factor | of the exchange |
| akshare | as traded; factor from the closes adjusted backward (hfq) | of Shanghai |
| ccxt | as traded, no factor | UTC, start of the bar |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from kronos.hub import OFFLINE, is_offline
from kronos.utils import MissingExtra, csv_text, explain_write_errors, write_atomic
from kronos_strategies.data.validation import check_symbols
from kronos_strategies.progress import ProgressReport, no_progress

Source = Literal["yfinance", "akshare", "ccxt"]
Interval = Literal["1d", "1h", "30m", "15m", "5m", "1m"]
RECORD = "fetched.json"  # what was asked of whom, next to the files
_PAGE = 1000  # bars of a request to an exchange

CONVENTIONS: dict[Source, str] = {
    "yfinance": "prices adjusted for splits; Adj Close, also adjusted for dividends, becomes a factor on import; "
    "dates and times of the exchange",
    "akshare": "prices as traded, with a factor from the closes adjusted backward; dates of Shanghai",
    "ccxt": "prices as traded, without a factor; times in UTC, of the start of each bar",
}


@dataclass(frozen=True)
class Request:
    """A request to a vendor.

    Attributes:
        start: first date.
        end: last date, included.
        interval: step of the bars.
        exchange: name of an exchange as ccxt calls it; other sources have none.
    """

    start: pd.Timestamp
    end: pd.Timestamp
    interval: Interval = "1d"
    exchange: str = "binance"

    def __post_init__(self) -> None:
        if not self.start <= self.end:
            raise ValueError(f"--start {self.start:%Y-%m-%d} is after --end {self.end:%Y-%m-%d}. Swap them.")

    @property
    def after(self) -> pd.Timestamp:
        """The first moment that is not included."""
        return self.end.normalize() + pd.Timedelta(days=1)


@dataclass(frozen=True)
class Fetched:
    """The answer of a vendor.

    Attributes:
        files: one for each symbol that has bars.
        rows: bars of each of these symbols.
        missing: why there is nothing, by symbol.
    """

    files: tuple[Path, ...]
    rows: dict[str, int]
    missing: dict[str, str]


def fetch(
    source: Source, symbols: Sequence[str], request: Request, to: Path, progress: ProgressReport = no_progress
) -> Fetched:
    """Ask a vendor for bars, and write one CSV file for each symbol.

    Args:
        source: the vendor's library.
        symbols: as the vendor writes them, such as AAPL, 600519 or BTC/USDT.
        request: span and step.
        to: folder of the files; files of the same symbols are replaced.
        progress: called as progress(done, total) after each symbol.

    Raises:
        MissingExtra: the library is not installed.
        ValueError: no symbol has a bar; gives the first reason.
        OSError: downloads are forbidden, or the folder cannot be written.
    """
    if is_offline():
        raise OSError(f"Nothing is fetched, because --offline or {OFFLINE} forbids downloads. Unset it.")
    names = {symbol: file_name(symbol) for symbol in dict.fromkeys(symbols)}
    check_symbols(names.values())
    ask = _ASK[source](_library(source), request)
    files, rows, missing = [], {}, {}
    for done, (symbol, name) in enumerate(names.items(), start=1):
        try:
            bars = ask(symbol)
        except Exception as error:  # the libraries and their HTTP clients share no base class
            missing[symbol] = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        else:
            if len(bars):
                files.append(_write(bars, to, name))
                rows[symbol] = len(bars)
            else:
                missing[symbol] = "no bars in the span"
        progress(done, len(names))
    if not files:
        symbol, reason = next(iter(missing.items()))
        raise ValueError(
            f"{source} has no bars of {len(missing)} symbols, the first {symbol} ({reason}). Check the symbols, "
            "the span and the connection."
        )
    _record(source, request, rows, missing, to)
    return Fetched(tuple(files), rows, missing)


def file_name(symbol: str) -> str:
    """The instrument of a symbol: pairs such as BTC/USDT:USDT lose the signs that a folder cannot have."""
    return symbol.replace("/", "").replace(":", "-")


def _library(source: Source) -> Any:
    try:
        return import_module(source)
    except ImportError as error:
        raise MissingExtra(
            f"--source {source} needs its library: pip install 'kronos-strategies[{source}]'"
        ) from error


def _yfinance(library: Any, request: Request) -> Callable[[str], pd.DataFrame]:
    def ask(symbol: str) -> pd.DataFrame:
        bars = library.Ticker(symbol).history(
            start=f"{request.start:%Y-%m-%d}",
            end=f"{request.after:%Y-%m-%d}",  # which it leaves out
            interval=request.interval,
            auto_adjust=False,
            actions=False,
        )
        if bars.empty:  # its index has no times then
            return bars
        # Days as dates of the exchange; within the day with the offset, which shows a change of clocks.
        times = bars.index.strftime("%Y-%m-%d" if request.interval == "1d" else "%Y-%m-%d %H:%M:%S%z")
        return bars.reset_index(drop=True).assign(Datetime=times)

    return ask


def _akshare(library: Any, request: Request) -> Callable[[str], pd.DataFrame]:
    if request.interval != "1d":
        raise ValueError(f"akshare is asked for days only, not for --interval {request.interval}. Omit it.")

    def ask(symbol: str) -> pd.DataFrame:
        code = "".join(letter for letter in symbol if letter.isdigit())  # SH600519 and 600519.SH are 600519
        raw, adjusted = (
            library.stock_zh_a_hist(
                code, "daily", f"{request.start:%Y%m%d}", f"{request.end:%Y%m%d}", adjust=adjust
            )
            for adjust in ("", "hfq")
        )
        if raw.empty or adjusted.empty:
            return raw.iloc[:0]
        factor = adjusted.set_index("日期")["收盘"] / raw.set_index("日期")["收盘"]
        return raw.drop(columns="股票代码").assign(factor=raw["日期"].map(factor))

    return ask


def _ccxt(library: Any, request: Request) -> Callable[[str], pd.DataFrame]:
    if request.exchange not in library.exchanges:
        raise ValueError(
            f"ccxt knows no exchange '{request.exchange}'. Pass --exchange, such as binance or kraken."
        )
    exchange = getattr(library, request.exchange)({"enableRateLimit": True})

    def ask(symbol: str) -> pd.DataFrame:
        rows = list(_pages(exchange, symbol, request))
        return pd.DataFrame(rows, columns=["timestamp", "open", "high", "low", "close", "volume"])

    return ask


def _pages(exchange: Any, symbol: str, request: Request) -> Iterable[list[float]]:
    """Complete bars from the start on, page by page."""
    step = exchange.parse_timeframe(request.interval) * 1000
    since, after = (int(time.timestamp() * 1000) for time in (request.start.normalize(), request.after))
    after = min(after, exchange.milliseconds() - step + 1)  # the bar of this moment is still being traded
    while since < after:
        page = exchange.fetch_ohlcv(symbol, request.interval, since=since, limit=_PAGE)
        rows = [row for row in page if since <= row[0] < after]
        yield from rows
        if not rows:
            return
        since = int(rows[-1][0]) + step


_ASK: dict[Source, Callable[[Any, Request], Callable[[str], pd.DataFrame]]] = {
    "yfinance": _yfinance,
    "akshare": _akshare,
    "ccxt": _ccxt,
}


def _write(bars: pd.DataFrame, to: Path, name: str) -> Path:
    with explain_write_errors(to, "Choose another folder, with --to."):
        to.mkdir(parents=True, exist_ok=True)
        return write_atomic(to / f"{name}.csv", csv_text(bars.assign(instrument=name)))


def _record(
    source: Source, request: Request, rows: dict[str, int], missing: dict[str, str], to: Path
) -> None:
    record = {
        "source": source,
        "version": version(source),
        "exchange": request.exchange if source == "ccxt" else None,
        "start": f"{request.start:%Y-%m-%d}",
        "end": f"{request.end:%Y-%m-%d}",
        "interval": request.interval,
        "fetched": pd.Timestamp.now("UTC").isoformat(timespec="seconds"),
        "conventions": CONVENTIONS[source],
        "bars": rows,
        "missing": missing,
    }
    write_atomic(to / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
