"""Files that failed once, as they were: what each must give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos.io import BarsOfFiles, read_bars
from tests.conftest import SHARED_DATA

FORMATS = SHARED_DATA.parent / "cases" / "formats"
DAYS = pd.bdate_range("2024-01-02", periods=12)
HOURS = pd.date_range("2024-01-02", periods=12, freq="h")


@pytest.fixture
def formats() -> Path:
    if not FORMATS.is_dir():
        pytest.skip(f"no case files in {FORMATS}; set KRONOS_SHARED_DATA to the folder next to them")
    return FORMATS


def one(read: BarsOfFiles, instrument: str, index: pd.DatetimeIndex = DAYS) -> pd.DataFrame:
    assert list(read.bars) == [instrument]
    bars = read.bars[instrument]
    assert bars.index.tolist() == index.tolist()
    assert bars["open"].iloc[0] == 20.0
    return bars


def test_yahoo(formats: Path) -> None:
    read = read_bars(formats / "yahoo")
    assert list(read.bars) == ["AAA", "BBB"]
    for name, bars in read.bars.items():
        raw = pd.read_csv(formats / "yahoo" / f"{name}.csv")
        np.testing.assert_allclose(bars["factor"], 0.97, rtol=1e-9)
        np.testing.assert_allclose(bars["close"] * bars["factor"], raw["Adj Close"], rtol=1e-12)
        assert bars["close"].tolist() == raw["Close"].tolist()


@pytest.mark.parametrize("name", ["akshare_utf8_bom.csv", "akshare_gbk.csv"])
def test_akshare(name: str, formats: Path) -> None:
    bars = one(read_bars(formats / name), "600519")
    assert bars[["close", "volume", "amount"]].iloc[0].tolist() == [20.27, 634080, 12852802]


def test_tushare(formats: Path) -> None:
    bars = one(read_bars(formats / "tushare_lots_thousands_descending.csv"), "600519.SH")
    np.testing.assert_allclose(bars[["close", "volume", "amount"]].iloc[-1], [17.98, 973502, 17503566])


def test_binance(formats: Path) -> None:
    dump = read_bars(formats / "BTCUSDT-1h-2024-01.csv")
    assert one(dump, "BTCUSDT", HOURS)["amount"].iloc[0] == 12104254.8
    named = read_bars(formats / "binance_named_ms.csv")
    assert one(named, "BTCUSDT", HOURS)["volume"].iloc[0] == 611326
    assert (dump.frequency, named.frequency) == ("60min", "60min")


@pytest.mark.parametrize("zone", [None, "Asia/Shanghai"])
def test_shanghai(zone: str | None, formats: Path) -> None:
    read = read_bars(formats / "shanghai_days_as_utc.csv", timezone=zone)
    one(read, "A")
    assert ("converted to Asia/Shanghai" if zone else "2024-01-01 16:00 is assigned to 2024-01-02") in str(
        read.files[0]
    )


def test_new_york(formats: Path) -> None:
    one(read_bars(formats / "new_york_two_offsets.csv"), "A", pd.bdate_range("2024-02-20", periods=60))


def test_thousands(formats: Path) -> None:
    assert one(read_bars(formats / "thousands_separators.csv"), "A")["volume"].iloc[0] == 368800


def test_integer_codes(formats: Path) -> None:
    with pytest.raises(ValueError, match=r"has the code 1 in 'code'.*--pad-codes 6 to read it as 000001"):
        read_bars(formats / "integer_codes.parquet")
    one(read_bars(formats / "integer_codes.parquet", pad_codes=6), "000001")


def test_zero_volume(formats: Path) -> None:
    read = read_bars(formats / "all_zero_volume.csv")
    assert "volume" not in one(read, "EURUSD")
    assert "volume is always 0 and ignored" in str(read.files[0])
