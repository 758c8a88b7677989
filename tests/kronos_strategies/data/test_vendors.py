"""Bars of data vendors: the libraries' own parsing of answers that were written by hand, and our reader."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos.io.rows import ReadOptions
from kronos.utils import MissingExtra
from kronos_strategies.data.importer import import_bars
from kronos_strategies.data.vendors import RECORD, Request, fetch

WEEK = Request(pd.Timestamp("2024-03-04"), pd.Timestamp("2024-03-08"))


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


# yfinance


def chart(
    symbol: str, times: pd.DatetimeIndex, zone: str, close: float, adjusted: float | None
) -> dict[str, Any]:
    """An answer of Yahoo's chart service."""
    count = len(times)
    quote = {
        "open": [close - 1] * count,
        "high": [close + 1] * count,
        "low": [close - 2] * count,
        "close": [close] * count,
        "volume": list(range(1000, 1000 + count)),
    }
    meta = {
        "currency": "USD",
        "symbol": symbol,
        "exchangeName": "NMS",
        "instrumentType": "EQUITY",
        "exchangeTimezoneName": zone,
        "timezone": "EST",
        "gmtoffset": -18000,
        "regularMarketTime": int(times[-1].timestamp()) + 10**6,
        "regularMarketPrice": close,
        "chartPreviousClose": close,
        "priceHint": 2,
        "dataGranularity": "1d",
        "range": "",
        "firstTradeDate": 345479400,
        "validRanges": ["1d", "max"],
        "currentTradingPeriod": {
            part: {"timezone": "EST", "start": 0, "end": 2 * 10**9, "gmtoffset": -18000}
            for part in ("pre", "regular", "post")
        },
    }
    indicators: dict[str, Any] = {"quote": [quote]}
    if adjusted is not None:
        indicators["adjclose"] = [{"adjclose": [adjusted] * count}]
    stamps = [int(time.timestamp()) for time in times]
    return {
        "chart": {"result": [{"meta": meta, "timestamp": stamps, "indicators": indicators}], "error": None}
    }


NOTHING = {"chart": {"result": None, "error": {"code": "Not Found", "description": "No data found"}}}


@pytest.fixture
def yahoo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """Make yfinance's transport give these answers by symbol; returns the parameters of its requests."""
    library = pytest.importorskip("yfinance")
    library.set_tz_cache_location(str(tmp_path / "zones"))

    def answer(charts: dict[str, Any]) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def get(self: object, url: str, params: Any = None, timeout: Any = None) -> SimpleNamespace:
            symbol = url.rpartition("/")[2]
            asked.append({"symbol": symbol, **(params or {})})
            content = charts.get(symbol, NOTHING)
            return SimpleNamespace(
                url=url, status_code=200, text=json.dumps(content), json=lambda: content, ok=True,
                raise_for_status=lambda: None,
            )  # fmt: skip

        for name in ("get", "cache_get"):
            monkeypatch.setattr(f"yfinance.data.YfData.{name}", get)
        return asked

    return answer


def test_days_of_yahoo_are_imported_raw_with_a_factor_and_dates_of_the_exchange(
    yahoo, tmp_path: Path
) -> None:
    opens = pd.date_range("2024-03-04 09:30", periods=5, freq="B", tz="America/New_York")
    asked = yahoo({"AAPL": chart("AAPL", opens, "America/New_York", 175.0, 87.5)})
    got = fetch("yfinance", ["AAPL"], WEEK, tmp_path / "bars")
    assert got.rows == {"AAPL": 5}
    span = next(each for each in asked if "period1" in each)
    midnight = pd.Timestamp("2024-03-09", tz="America/New_York")
    assert int(span["period2"]) == int(midnight.timestamp())  # the last date is included
    bars, report = import_bars([tmp_path / "bars"])
    assert bars["datetime"].tolist() == list(pd.bdate_range("2024-03-04", "2024-03-08"))
    assert set(bars["close"]) == {175.0}
    assert set(bars["factor"]) == {0.5}
    assert bars["volume"].tolist() == [1000, 1001, 1002, 1003, 1004]
    assert report.dropped == ()


def test_a_symbol_of_which_yahoo_has_nothing_is_named(yahoo, tmp_path: Path) -> None:
    opens = pd.date_range("2024-03-04 09:00", periods=5, freq="B", tz="Asia/Hong_Kong")
    yahoo({"0700.HK": chart("0700.HK", opens, "Asia/Hong_Kong", 300.0, 300.0)})
    got = fetch("yfinance", ["GONE", "0700.HK"], WEEK, tmp_path)
    assert list(got.rows) == ["0700.HK"]
    assert list(got.missing) == ["GONE"]
    assert json.loads((tmp_path / RECORD).read_text())["missing"] == got.missing
    with pytest.raises(ValueError, match=r"yfinance has no bars of 2 symbols, the first GONE"):
        fetch("yfinance", ["GONE", "LOST"], WEEK, tmp_path)


def test_bars_within_the_day_keep_the_clock_of_the_exchange(yahoo, tmp_path: Path) -> None:
    hours = pd.date_range("2024-03-08 09:30", periods=7, freq="h", tz="America/New_York")
    later = pd.date_range(
        "2024-03-11 09:30", periods=7, freq="h", tz="America/New_York"
    )  # clocks have changed
    given = chart("AAPL", hours.append(later), "America/New_York", 175.0, None)
    sessions = [(day[0], day[0] + pd.Timedelta(hours=6.5)) for day in (hours, later)]
    given["chart"]["result"][0]["meta"]["tradingPeriods"] = [
        [{"timezone": "EST", "gmtoffset": -18000, "start": int(a.timestamp()), "end": int(b.timestamp())}]
        for a, b in sessions
    ]
    yahoo({"AAPL": given})
    request = Request(pd.Timestamp("2024-03-08"), pd.Timestamp("2024-03-11"), "1h")
    fetch("yfinance", ["AAPL"], request, tmp_path)
    bars, report = import_bars([tmp_path])
    assert report.frequency == "60min"
    assert set(bars["datetime"].dt.strftime("%H:%M")) == {f"{hour:02}:30" for hour in range(9, 16)}


# akshare


@pytest.fixture
def eastmoney(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Answers of the service that akshare asks; returns the parameters of its requests."""
    pytest.importorskip("akshare")
    asked = []

    def get(url: str, params: dict[str, str], **_: Any) -> SimpleNamespace:
        asked.append(params)
        if not params["secid"].endswith(("600519", "000001")):
            return SimpleNamespace(json=lambda: {"data": None})
        ratio = {"0": 1, "2": 4}[params["fqt"]]
        rows = [
            ",".join([f"2024-03-{day:02}", *(str(price * ratio) for price in (1700, 1710, 1720, 1690))])
            + f",20000,{3.42e9},1.7,.5,8,.1"
            for day in range(4, 9)
        ]
        return SimpleNamespace(json=lambda: {"data": {"code": "600519", "klines": rows}})

    monkeypatch.setattr("akshare.stock_feature.stock_hist_em.requests.get", get)
    return asked


@pytest.mark.parametrize("symbol", ["600519", "SH600519", "600519.SH"])
def test_days_of_akshare_have_shares_and_a_factor(symbol: str, eastmoney, tmp_path: Path) -> None:
    fetch("akshare", [symbol], WEEK, tmp_path)
    assert {(each["beg"], each["end"]) for each in eastmoney} == {("20240304", "20240308")}
    assert [each["fqt"] for each in eastmoney] == ["0", "2"]
    bars, report = import_bars([tmp_path])
    assert set(bars["instrument"]) == {symbol}
    assert set(bars["close"]) == {1710.0}
    assert set(bars["factor"]) == {4.0}
    assert set(bars["volume"]) == {2_000_000.0}  # lots of 100, which amount / close shows
    assert set(bars["amount"]) == {3.42e9}
    assert report.rows_kept == 5


def test_akshare_names_a_code_without_bars_and_has_days_only(eastmoney, tmp_path: Path) -> None:
    assert list(fetch("akshare", ["600519", "999999"], WEEK, tmp_path).missing) == ["999999"]
    hours = Request(WEEK.start, WEEK.end, "1h")
    with pytest.raises(ValueError, match="days only"):
        fetch("akshare", ["600519"], hours, tmp_path)


# ccxt


@pytest.fixture
def binance(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answers of an exchange, which has hourly bars of one pair since 2024-03-04; returns the addresses asked."""
    pytest.importorskip("ccxt")
    asked = []
    first = pd.Timestamp("2024-03-04", tz="UTC")

    def send(self: Any, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        asked.append(url)
        if "exchangeInfo" in url:
            spot = "api.binance.com" in url
            return {"symbols": [MARKET] if spot else [], "timezone": "UTC", "rateLimits": []}
        assert "klines" in url, url
        query = dict(part.split("=") for part in url.partition("?")[2].split("&"))
        start = int(query["startTime"])
        hours = pd.date_range(first, periods=3000, freq="h").as_unit("ms").asi8
        return [
            [int(t), "100", "102", "99", "101", f"{i + 1}", int(t) + 3_599_999, "1e5", 9, "1", "1", "0"]
            for i, t in enumerate(hours)
            if t >= start
        ][: int(query["limit"])]

    monkeypatch.setattr("ccxt.binance.fetch", send)
    return asked


MARKET = {
    "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "baseAssetPrecision": 8,
    "quotePrecision": 8, "quoteAssetPrecision": 8, "isSpotTradingAllowed": True, "isMarginTradingAllowed": False,
    "orderTypes": ["LIMIT"], "permissions": ["SPOT"], "permissionSets": [["SPOT"]],
    "filters": [{"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"}],
}  # fmt: skip


def test_hours_of_an_exchange_are_read_page_by_page_in_utc(binance, tmp_path: Path) -> None:
    request = Request(pd.Timestamp("2024-03-04"), pd.Timestamp("2024-06-05"), "1h")
    got = fetch("ccxt", ["BTC/USDT"], request, tmp_path)
    assert got.rows == {"BTC/USDT": 94 * 24}
    assert sum("klines" in url for url in binance) == 3
    bars, report = import_bars([tmp_path], ReadOptions())
    assert set(bars["instrument"]) == {"BTCUSDT"}
    assert report.frequency == "60min"
    assert bars["datetime"].tolist() == list(pd.date_range("2024-03-04", periods=94 * 24, freq="h"))
    assert bars["volume"].tolist() == np.arange(1, 94 * 24 + 1).tolist()
    assert set(bars["factor"]) == {1.0}


def test_a_bar_that_is_still_being_traded_is_left_out(binance, tmp_path: Path, monkeypatch) -> None:
    now = pd.Timestamp("2024-03-05 10:30", tz="UTC").value // 10**6
    monkeypatch.setattr("ccxt.binance.milliseconds", lambda self: now)
    request = Request(pd.Timestamp("2024-03-05"), pd.Timestamp("2024-03-06"), "1h")
    fetch("ccxt", ["BTC/USDT"], request, tmp_path)
    assert import_bars([tmp_path]).bars["datetime"].max() == pd.Timestamp("2024-03-05 09:00")


def test_an_unknown_pair_or_exchange_is_named(binance, tmp_path: Path) -> None:
    assert list(fetch("ccxt", ["BTC/USDT", "NO/PAIR"], WEEK, tmp_path).missing) == ["NO/PAIR"]
    elsewhere = Request(WEEK.start, WEEK.end, exchange="nowhere")
    with pytest.raises(ValueError, match="no exchange 'nowhere'"):
        fetch("ccxt", ["BTC/USDT"], elsewhere, tmp_path)


# All sources


@pytest.mark.parametrize("source", ["yfinance", "akshare", "ccxt"])
def test_a_library_that_is_not_installed_is_one_sentence(source, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, source, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'kronos-strategies\[{source}\]'"):
        fetch(source, ["AAPL"], WEEK, tmp_path)


def test_offline_asks_no_vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match="forbids downloads"):
        fetch("yfinance", ["AAPL"], WEEK, tmp_path)


@pytest.mark.parametrize("symbol", ["../../etc/passwd", "..", "a b", "C:\\x", ""])
def test_a_symbol_cannot_name_a_file_elsewhere(symbol: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot name a folder"):
        fetch("yfinance", [symbol], WEEK, tmp_path / "bars")
    assert list(tmp_path.iterdir()) == []


def test_a_span_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="is after --end"):
        Request(WEEK.end, WEEK.start)
