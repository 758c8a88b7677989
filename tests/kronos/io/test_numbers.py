from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos.io.numbers import describe_absent, find_scales, hide_zeros, to_numbers

FILE = Path("a.csv")


def numbers(separator: str = ",", **columns: list[object]) -> pd.DataFrame:
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    return to_numbers(frame.infer_objects(), frozenset({"volume"}), separator, FILE).frame


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234,567", 1234567),
        ("1,234", 1234),
        ("-1,234.5", -1234.5),
        ("1'234'567", 1234567),
        ("1 234 567", 1234567),
        ("1\u202f234", 1234),
        (" 20.5 ", 20.5),
        ("1e5", 1e5),
        (Decimal("20.5"), 20.5),
        ("12.3M", 12.3e6),
        ("1,234.5k", 1234500),
        ("2B", 2e9),
    ],
)
def test_numbers_are_read_as_people_write_them(text: object, value: float) -> None:
    assert numbers(volume=[text, "7"])["volume"].tolist() == [value, 7]


@pytest.mark.parametrize("mark", ["", "-", "--", "null", "NULL", "N/A", "n/a", "NaN", "None", "—", None])
def test_marks_for_missing_values_are_missing(mark: object) -> None:
    got = numbers(close=["1,000.5", mark])["close"]
    assert got[0] == 1000.5
    assert np.isnan(got[1])


def test_commas_are_decimal_where_they_can_be_nothing_else() -> None:
    got = numbers(";", close=["20,5", "1.020,25"], volume=["1.234.567", "84.810"])
    assert got["close"].tolist() == [20.5, 1020.25]
    assert got["volume"].tolist() == [1234567, 84810]


@pytest.mark.parametrize(
    ("separator", "columns"),
    [
        (";", {"close": ["20,123"], "volume": ["1234"]}),
        (",", {"close": ["20,5", "1,234.5"]}),
        (";", {"close": ["20,5"], "open": ["20.55"]}),
    ],
)
def test_commas_of_unclear_meaning_are_refused(separator: str, columns: dict[str, list[object]]) -> None:
    with pytest.raises(ValueError, match=r"a\.csv has numbers such as '20,\d+' whose comma may separate"):
        numbers(separator, **columns)


@pytest.mark.parametrize("text", ["$20.5", "20.5%", "¥20", "20.5 USD", "halted", "12.3M", "1,23,4", "True"])
def test_values_that_are_not_numbers_are_refused_with_file_column_row_and_value(text: str) -> None:
    says = f"a.csv has 1 values in 'close' that are not numbers, the first '{text}' in row 2."
    with pytest.raises(ValueError, match=re.escape(says)):
        numbers(close=["1.5", text])


TUSHARE = ["ts_code", "trade_date", "open", "high", "low", "close", "vol", "amount"]
CHINESE = ["日期", "开盘", "收盘", "最高", "最低", "成交量", "成交额"]


def scales(heads: list[str], volume: str, amount: str | None, ratio: float) -> dict[str, float]:
    days = pd.date_range("2024-01-01", periods=30)
    bars = pd.DataFrame({"datetime": days, "close": [20.0] * 30, "volume": 1000.0})
    found = {"volume": volume}
    if amount is not None:
        found["amount"], bars["amount"] = amount, 20.0 * 1000 * ratio
    return find_scales(heads, found, bars).factors


LOTS = {"volume": 100.0, "amount": 1000.0}


@pytest.mark.parametrize(
    ("heads", "volume", "amount", "ratio", "factors"),
    [
        (TUSHARE, "vol", "amount", 0.1, LOTS),
        (TUSHARE, "vol", "amount", 1.0, {}),
        (TUSHARE, "vol", None, 1.0, LOTS),
        (["ts_code", "trade_time", "vol", "amount"], "vol", "amount", 1.0, {}),
        (CHINESE, "成交量", "成交额", 100.0, {"volume": 100.0}),
        (CHINESE, "成交量", "成交额", 1.0, {}),
        (CHINESE, "成交量", None, 1.0, {}),
        (["日期"], "成交量(手)", "成交额（万元）", 0.01, {"volume": 100.0, "amount": 1e4}),
        (["date", "volume"], "volume", "amount", 100.0, {}),
    ],
)
def test_lots_and_thousands_are_detected_by_column_names_and_amounts(
    heads: list[str], volume: str, amount: str | None, ratio: float, factors: dict[str, float]
) -> None:
    assert scales(heads, volume, amount, ratio) == factors


def test_zeros_throughout_an_instrument_whose_price_moves_are_hidden() -> None:
    frame = pd.DataFrame(
        {"instrument": list("AABB"), "high": [2.0, 2, 2, 2], "low": 1.0, "volume": [0.0, 0, 0, 5]}
    )
    flat = frame.assign(low=2.0)
    assert hide_zeros(frame) == {"volume": {"A"}}
    assert frame["volume"].isna().tolist() == [True, True, False, False]
    assert describe_absent(frame, {"volume": {"A"}}) == ["volume is always 0 for A and ignored"]
    assert hide_zeros(flat) == {}
