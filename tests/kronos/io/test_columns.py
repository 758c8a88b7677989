from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from kronos.io.columns import Columns, find_columns, name_unnamed, parse_columns, plain_name

FILE = Path("a.csv")
BARS = ["open", "high", "low", "close"]


def found(*heads: str, **columns: str) -> Columns:
    return find_columns([*heads], columns, FILE)


@pytest.mark.parametrize(
    ("head", "plain"),
    [
        ("<Adj Close>", "adjclose"),
        (" adj_close ", "adjclose"),
        ("成交量(手)", "成交量"),
        ("\ufeffDate", "date"),
    ],
)
def test_names_are_compared_without_case_signs_and_units(head: str, plain: str) -> None:
    assert plain_name(head) == plain


def test_a_column_under_its_own_name_comes_before_an_alias() -> None:
    columns = found("date", *BARS, "Vol", "Volume", "ticker", "Name")
    assert (columns.heads["volume"], columns.heads["instrument"]) == ("Volume", "ticker")


def test_of_two_factors_the_exact_one_counts() -> None:
    assert found("date", *BARS, "factor_est", "factor").heads["factor"] == "factor"
    assert found("date", *BARS, "factor_est").heads["factor"] == "factor_est"


def test_a_column_named_by_the_user_is_the_only_one_used_for_its_field() -> None:
    columns = found(
        "date", "open", "high", "low", "Last", "Close", "Turnover", close="Last", volume="turnover "
    )
    assert (columns.heads["close"], columns.heads["volume"]) == ("Last", "Turnover")


@pytest.mark.parametrize(
    ("heads", "columns", "says"),
    [
        (
            ["date", "open", "high", "low", "Last"],
            {},
            r"lacks the columns \['close'\]; .*'Last'\].*--columns close=COLUMN",
        ),
        (["when", *BARS], {}, r"lacks the columns \['datetime'\]; .*--columns datetime=COLUMN"),
        (["date", *BARS], {"amount": "money"}, r"lacks the columns \['money'\]; it has \['date'"),
        (["date", *BARS], {"time": "clock"}, r"lacks the columns \['clock'\]"),
        (
            ["date", *BARS, "ticker", "code"],
            {},
            r"\['ticker', 'code'\], which are all candidates for 'instrument'",
        ),
        (["date", *BARS, "close"], {}, r"\['close', 'close'\], which are all candidates for 'close'"),
        (["date", "日期", *BARS], {}, r"\['date', '日期'\], which are all candidates for 'datetime'"),
    ],
)
def test_missing_and_repeated_columns_are_refused(
    heads: list[str], columns: dict[str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        find_columns(heads, columns, FILE)


@pytest.mark.parametrize(
    ("heads", "times"),
    [
        (["Date", "Time"], ("Date", "Time")),
        (["<TIME>", "<DATE>"], ("<DATE>", "<TIME>")),
        (["time"], ("time",)),
        (["timestamps"], ("timestamps",)),
        (["unix", "date"], ("date", "unix")),
        (["open_time", "close_time"], ("open_time",)),
        (["datetime", "date"], ("datetime",)),
        (["Unnamed: 0"], ("Unnamed: 0",)),
        (["时间"], ("时间",)),
    ],
)
def test_columns_of_times_are_found(heads: list[str], times: tuple[str, ...]) -> None:
    assert found(*heads, *BARS).times == times


def test_a_date_by_name_still_has_its_column_of_times() -> None:
    assert found("day of trade", "time", *BARS, datetime="day of trade").times == ("day of trade", "time")


def test_volume_in_the_quote_currency_is_the_amount() -> None:
    columns = found("date", "symbol", *BARS, "Volume USDT", "Volume BTC").heads
    assert (columns["volume"], columns["amount"]) == ("Volume BTC", "Volume USDT")


def test_bars_without_a_header_are_named_by_their_values() -> None:
    rows = pd.DataFrame([[1704153600000, 20.0, 21.0, 19.0, 20.5, 7.0, 1704157199999, 140.0, 1, 1, 1, 0]])
    named, layout = name_unnamed(rows, FILE)
    assert (named["amount"][0], layout) == (140.0, "Binance klines, no header")
    named, _ = name_unnamed(pd.DataFrame([["2024.01.02", "09:35", 20.0, 21.0, 19.0, 20.5, 7]]), FILE)
    assert named.loc[0, ["date", "time", "open", "volume"]].tolist() == ["2024.01.02", "09:35", 20.0, 7]


def test_numbers_in_another_order_are_not_bars() -> None:
    with pytest.raises(ValueError, match=r"a\.csv has no header, and its 5 columns are not time, open"):
        name_unnamed(pd.DataFrame([[20240102, 20.0, 20.5, 21.0, 19.0]]), FILE)


def test_columns_of_a_command_line_are_pairs() -> None:
    assert parse_columns(["close=Last", "time=a = b"]) == {"close": "Last", "time": "a = b"}
    with pytest.raises(ValueError, match=r"columns=close is not a column"):
        parse_columns(["close"])
