from __future__ import annotations

import pandas as pd
import pytest

from kronos.io.units import describe_absent, find_scales, hide_zeros

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
def test_lots_and_thousands_are_told_by_heads_and_amounts(
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
    assert describe_absent(frame, {"volume": {"A"}}) == ["volume is 0 throughout A and counts as absent"]
    assert hide_zeros(flat) == {}
