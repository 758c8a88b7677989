"""Meaning of the columns of a table: names by vendor and language, and tables without a header."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from kronos.bars import PRICES

# For each column, tuples of names of equal rank, better ones first; compared by `plain_name`.
ALIASES: dict[str, tuple[tuple[str, ...], ...]] = {
    "instrument": (
        ("instrument",),
        (
            *(
                "symbol",
                "ticker",
                "code",
                "tscode",
                "stockcode",
                "secucode",
                "seccode",
                "windcode",
                "orderbookid",
            ),
            *("tic", "ric", "contract", "instrumentid", "pair"),
            *("股票代码", "证券代码", "代码", "基金代码", "指数代码", "合约代码", "合约", "品种代码"),
        ),
        ("name", "stock"),
    ),
    "open": (("open",), ("开盘", "开盘价", "今开", "openprice", "priceopen"), ("o",)),
    "high": (("high",), ("最高", "最高价", "highprice", "pricehigh"), ("h",)),
    "low": (("low",), ("最低", "最低价", "lowprice", "pricelow"), ("l",)),
    "close": (("close",), ("收盘", "收盘价", "closeprice", "priceclose", "closelast"), ("price", "c")),
    "volume": (
        ("volume",),
        ("vol", "成交量", "成交股数", "basevolume", "volumebase"),
        ("tickvol", "tickvolume", "v"),
    ),
    "amount": (
        ("amount",),
        (
            *(
                "成交额",
                "成交金额",
                "quotevolume",
                "quoteassetvolume",
                "volumequote",
                "quotevol",
                "volccyquote",
            ),
            *("money", "totalturnover"),
        ),
    ),
    "factor": (("factor",), ("adjfactor", "复权因子"), ("factorest",)),
    "adj_close": (("adjclose", "adjustedclose", "closeadj"),),
    "time": (("time", "tradetime", "clock", "时间", "交易时间"),),
}
_DATES = ("date", "tradedate", "tradingdate", "tradingday", "day", "日期", "交易日期", "交易日")
_STAMPS = (
    *(
        "timestamp",
        "timestamps",
        "opentime",
        "opentimestamp",
        "starttime",
        "unix",
        "unixtime",
        "unixtimestamp",
    ),
    *("candlebegintime", "ts", "t", "日期时间"),
)
TIME_NAMES = frozenset({"", "datetime", *_DATES, *_STAMPS})  # also an index without a name
_QUOTES = {"usd", "usdt", "usdc", "busd", "fdusd", "tusd", "dai", "eur", "gbp", "jpy", "krw", "try", "cny"}
NAMES = ("instrument", "datetime", *(name for name in ALIASES if name != "instrument"))
# Words in names of prices and volumes that are not in ALIASES.
_FIELD = re.compile(
    "open|high|low|clos|ending|last|price|vol|settle|turnover|amount|adj|bid|ask|vwap|return|开|高|低|收|成交|价|额|量"
)
_BINANCE = (
    *("datetime", *PRICES, "volume", "close_time", "amount", "trades"),
    *("taker_base", "taker_quote", "ignore"),
)


class Columns(NamedTuple):
    """The columns of a table.

    Attributes:
        heads: column name in the file by name in NAMES, except "datetime" and "time".
        times: columns that may contain dates or times: one, or several to choose from by their values.
    """

    heads: dict[str, str]
    times: tuple[str, ...]


def plain_name(head: object) -> str:
    """A column name without case, blanks, signs and unit: "<Adj Close>" and "adj_close" are "adjclose"."""
    text = re.sub(r"[(（\[].*?[)）\]]\s*$", "", str(head).replace("\ufeff", ""))
    return re.sub(r"[\W_]+", "", text.lower())


def parse_columns(texts: Sequence[str]) -> dict[str, str]:
    """Command-line arguments such as `close=Last` -> {"close": "Last"}.

    Raises:
        ValueError: a text without `=`.
    """
    pairs = [text.partition("=") for text in texts]
    if bad := [text for text, pair in zip(texts, pairs, strict=True) if not (pair[0] and pair[2])]:
        raise ValueError(f"columns={bad[0]} is not a column. Write NAME=COLUMN, e.g. close=Last.")
    return {name.strip(): head.strip() for name, _, head in pairs}


def is_code_head(head: object, columns: Mapping[str, str]) -> bool:
    """Whether a column contains instruments, whose leading zeros matter."""
    if (named := columns.get("instrument")) is not None:
        return _same(head, named)
    return any(plain_name(head) in names for names in ALIASES["instrument"])


def wide_columns(heads: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """The columns of a wide table: a column of times, then one of closes for each instrument.

    There is none if the table has a column of instruments, or if more than a third of the columns may be prices or
    volumes of one instrument.

    Args:
        heads: column names of the file.
        columns: column name in the file by name in NAMES; of a wide table only that of the times is given.
    """
    instruments = list(heads[1:])
    timed = bool(heads) and (
        heads[0] in _find_times(heads[:1], {}, Path()) or _same(heads[0], columns.get("datetime", ""))
    )
    if not timed or len(instruments) < 2 or not set(columns) <= {"datetime"}:
        return []
    fields = {name for name in ALIASES if name != "instrument"}
    known = {alias for name in fields for names in ALIASES[name] for alias in names}
    alike = [head for head in instruments if plain_name(head) in known or _FIELD.search(plain_name(head))]
    if any(is_code_head(head, {}) for head in instruments) or 3 * len(alike) > len(instruments):
        return []
    return instruments


def find_columns(heads: Sequence[str], columns: Mapping[str, str], file: Path) -> Columns:
    """Find the known columns among those of a file.

    Open, high and low may be missing together if no column is left that could be one of them.

    Args:
        heads: column names of the file.
        columns: column name in the file by name in NAMES; must exist.
        file: for messages.

    Raises:
        ValueError: a column is missing or ambiguous.
    """
    found = {}
    for name in ALIASES:
        if name == "time":
            continue
        if (head := _find(name, heads, columns, file)) is not None:
            found[name] = head
    if "volume" not in found:
        found |= _volume_by_currency(heads, found)
    times = _find_times(heads, columns, file)
    named = [name for name in columns if name not in ("datetime", "time", "date")]
    missing = [] if times else [columns.get("datetime", "datetime")]
    others = set(heads) - {*found.values(), *times}
    prices = ("close",) if not {"open", "high", "low"} & {*found, *columns} and not others else PRICES
    missing += [columns.get(name, name) for name in dict.fromkeys((*prices, *named)) if name not in found]
    if missing:
        wanted = [*(() if times else ("datetime",)), *(name for name in PRICES if name not in found)]
        example = next((name for name in wanted if name not in columns), "close")
        raise ValueError(
            f"{file} lacks the columns {missing}; it has {list(heads)}. Rename yours, or pass "
            f"--columns {example}=COLUMN (in training YAML fields: {{{example}: COLUMN}})."
        )
    return Columns(found, times)


def name_unnamed(frame: pd.DataFrame, file: Path) -> tuple[pd.DataFrame, str]:
    """Name the columns of a table without a header, by their number and values.

    Returns:
        The renamed frame, and the recognized layout.

    Raises:
        ValueError: no known layout matches the values.
    """
    columns = frame.shape[1]
    names: tuple[str, ...]
    clock = columns > 5 and frame.iloc[:, 1].astype(str).str.fullmatch(r"\s*\d{1,2}:\d{2}(:\d{2})?\s*").all()
    if clock:
        names, layout = ("date", "time", *PRICES, "volume"), "like MetaTrader, no header"
    elif columns == len(_BINANCE):
        names, layout = _BINANCE, "Binance klines, no header"
    else:
        names, layout = ("datetime", *PRICES, "volume"), "no header"
    names = names[:columns] + tuple(f"column {i + 1}" for i in range(len(names), columns))
    named = frame.set_axis(list(names), axis=1)
    if columns < 5 or not _are_bars(named):
        raise ValueError(
            f"{file} has no header, and its {columns} columns are not time, open, high, low, close, volume in that "
            f"order. Add a header, or pass columns by position, e.g. --columns datetime=1 close=5."
        )
    return named, layout


def _are_bars(frame: pd.DataFrame) -> bool:
    prices = frame[list(PRICES)].apply(pd.to_numeric, errors="coerce").dropna()
    slack = 1e-4 * prices["high"].abs()
    inside = (prices[["open", "close"]].max(axis=1) <= prices["high"] + slack) & (
        prices[["open", "close"]].min(axis=1) >= prices["low"] - slack
    )
    return len(prices) > 0 and bool(inside.mean() > 0.9)


def _same(head: object, named: str) -> bool:
    return str(head).strip().lower() == named.strip().lower()


def _find(name: str, heads: Sequence[str], columns: Mapping[str, str], file: Path) -> str | None:
    if name in columns:
        matches = [head for head in heads if _same(head, columns[name])]
        return _one(matches, name, file)
    taken = {named.strip().lower() for named in columns.values()}
    free = [head for head in heads if str(head).strip().lower() not in taken]
    for names in ALIASES[name]:
        if matches := [head for head in free if plain_name(head) in names]:
            return _one(matches, name, file)
    return None


def _one(matches: list[str], name: str, file: Path) -> str | None:
    if len(matches) > 1:
        raise ValueError(
            f"{file} has {matches}, which are all candidates for '{name}'. Keep one, or pass "
            f"--columns {name}=COLUMN."
        )
    return matches[0] if matches else None


def _volume_by_currency(heads: Sequence[str], found: Mapping[str, str]) -> dict[str, str]:
    """`Volume BTC` and `Volume USDT` of crypto vendors: that of the quote currency is the amount."""
    matches = [(re.fullmatch(r"volume([a-z]{2,6})", plain_name(head)), head) for head in heads]
    by_currency = {match[1]: head for match, head in matches if match}
    quoted = [head for currency, head in by_currency.items() if currency in _QUOTES]
    based = [head for currency, head in by_currency.items() if currency not in _QUOTES]
    volumes = {} if len(based) != 1 else {"volume": based[0]}
    return volumes | ({"amount": quoted[0]} if len(quoted) == 1 and "amount" not in found else {})


def _find_times(heads: Sequence[str], columns: Mapping[str, str], file: Path) -> tuple[str, ...]:
    """Candidates in order of preference."""
    clocks = [head for head in heads if plain_name(head) in ALIASES["time"][0]]
    if "time" in columns:
        clocks = [head for head in heads if _same(head, columns["time"])]
        if not clocks:
            raise ValueError(
                f"{file} lacks the columns {[columns['time']]}; it has {list(heads)}. Rename it."
            )
    if (named := columns.get("datetime", columns.get("date"))) is not None:
        matches = [head for head in heads if _same(head, named)]
        return tuple(dict.fromkeys((*matches, *clocks))) if matches else ()
    if exact := [head for head in heads if plain_name(head) == "datetime"]:
        return (str(_one(exact, "datetime", file)), *(clocks if len(clocks) == 1 else ()))
    groups = [[head for head in heads if plain_name(head) in names] for names in (_DATES, _STAMPS)]
    candidates = [_one(group, "datetime", file) for group in (*groups, clocks)]
    found = tuple(str(head) for head in candidates if head is not None)
    if not found and heads and (not str(heads[0]).strip() or str(heads[0]).startswith("Unnamed: 0")):
        return (str(heads[0]),)  # the index of a DataFrame, written by to_csv without a name
    return found
