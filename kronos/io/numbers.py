"""Numbers from text (separators, K and M, missing values), and units of volume and amount."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kronos.io.columns import plain_name
from kronos.io.table import MISSING

_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?")
_CERTAIN_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:(?:,\d{3}){2,}|(?:,\d{3})+\.\d*)")
_DECIMAL_COMMA = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:\.\d{3})+),\d*(?:[eE][+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:[ '\u00a0\u2009\u202f’]\d{3})+(?:[.,]\d*)?")
_SCALED = re.compile(r"([+-]?\d[\d.,]*)\s*([KMBT])", re.IGNORECASE)
_SCALES = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


class Numbers(NamedTuple):
    """Columns as floats.

    Attributes:
        frame: float64, NaN for missing values.
        notes: how the text was interpreted.
    """

    frame: pd.DataFrame
    notes: tuple[str, ...]


def to_numbers(frame: pd.DataFrame, scalable: frozenset[str], separator: str, file: Path) -> Numbers:
    """Convert columns to floats.

    Args:
        frame: columns of numbers, or of numbers as text.
        scalable: columns whose numbers may end in K, M, B or T.
        separator: column separator of the file; if it is a comma, "1,234" can only be thousands.
        file: for messages.

    Raises:
        ValueError: a value is neither a number nor a missing value, or the meaning of commas is ambiguous.
    """
    notes = []
    texts = {str(head): _clean(column) for head, column in frame.items() if not _numeric(column)}
    commas = _comma(texts, frame, separator, file)
    columns = {}
    for head, column in frame.items():
        if head in texts:
            columns[str(head)] = _parse(texts[str(head)], commas, str(head), head in scalable, file)
        else:
            columns[str(head)] = column if column.dtype == np.float64 else column.astype(float)
    if commas == "decimal":
        notes.append("decimal commas")
    elif commas == "thousands" or any(texts[head].str.fullmatch(_GROUPED).any() for head in texts):
        notes.append("thousands separators removed")
    return Numbers(pd.DataFrame(columns, index=frame.index, copy=False), tuple(notes))


def _numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _clean(column: pd.Series) -> pd.Series:
    """Stripped text; missing values are None."""
    text = (
        column.astype(object).where(column.notna(), None).map(lambda v: None if v is None else str(v).strip())
    )
    return text.where(~text.str.lower().isin(MISSING), None).astype(object)


def _comma(texts: dict[str, pd.Series], frame: pd.DataFrame, separator: str, file: Path) -> str:
    """Meaning of commas in numbers: "decimal", "thousands", or "" if there are none."""
    cells = pd.concat([text.dropna() for text in texts.values()]) if texts else pd.Series([], dtype=object)
    cells = cells[cells.str.contains(",", regex=False, na=False)]
    if cells.empty:
        return ""
    decimal = cells[
        cells.str.fullmatch(_DECIMAL_COMMA, na=False) & ~cells.str.fullmatch(_THOUSANDS, na=False)
    ]
    thousands = cells[cells.str.fullmatch(_CERTAIN_THOUSANDS)]
    points = any(_has_fractions(column) for head, column in frame.items() if head not in texts)
    points |= any(_has_points(text.dropna()) for text in texts.values())
    if len(decimal) and not len(thousands) and not points:
        return "decimal"
    if not len(decimal) and (len(thousands) or points or separator == ","):
        return "thousands"
    example = decimal.iloc[0] if len(decimal) else cells.iloc[0]
    raise ValueError(
        f"{file} has numbers such as '{example}' whose comma may separate thousands or decimals. "
        "Write decimals with a point and no thousands separators."
    )


def _has_fractions(column: pd.Series) -> bool:
    values = column.to_numpy(float)
    values = values[np.isfinite(values)]
    return bool((values != np.rint(values)).any())


def _has_points(text: pd.Series) -> bool:
    """Whether a point separates decimals and cannot separate thousands."""
    return bool(
        (text.str.fullmatch(r"[+-]?\d+\.\d+") & ~text.str.fullmatch(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")).any()
    )


def _parse(text: pd.Series, commas: str, head: str, scalable: bool, file: Path) -> pd.Series:
    grouped = text.str.fullmatch(_GROUPED, na=False)
    plain = text.where(~grouped, text.str.replace(r"[ '\u00a0\u2009\u202f’]", "", regex=True))
    scale = pd.Series(1.0, index=text.index)
    if scalable:
        parts = plain.str.extract(_SCALED)
        marked = plain.str.fullmatch(_SCALED, na=False)
        plain = plain.where(~marked, parts[0])
        scale = scale.where(~marked, parts[1].str.lower().map(_SCALES))
    if commas == "decimal":
        plain = plain.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    elif commas == "thousands":
        whole = plain.str.fullmatch(_THOUSANDS, na=False)
        plain = plain.where(~whole, plain.str.replace(",", "", regex=False))
    values = pd.to_numeric(plain, errors="coerce").astype(float) * scale
    bad = values.isna() & text.notna()
    if bad.any():
        first = int(bad.to_numpy().argmax())
        row = int(str(text.index[first])) + 1
        raise ValueError(
            f"{file} has {int(bad.sum())} values in '{head}' that are not numbers, the first "
            f"'{text.iloc[first]}' in row {row}. Write plain numbers without currency or percent signs, and "
            "leave missing ones empty."
        )
    return values


_UNITS = {"手": 100.0, "万手": 1e6, "千股": 1e3, "万股": 1e4, "亿股": 1e8}
_UNITS |= {"千元": 1e3, "万元": 1e4, "万": 1e4, "亿元": 1e8, "亿": 1e8}
_UNIT = re.compile(r"[(（\[]\s*(.*?)\s*[)）\]]\s*$")
_LOT, _THOUSAND = 100.0, 1000.0
# Thresholds on amount / (volume x close), which is about 1 in plain units: the geometric mean with its value in
# lots.
_CHINESE_LOTS = 10.0
_TUSHARE_LOTS = 0.3
_SHOWN = 3  # instruments listed in a note
_RECENT = 20  # bars: back-adjusted prices are unadjusted at the end


class Scales(NamedTuple):
    """Factors to plain units for "volume" and "amount", and notes."""

    factors: dict[str, float]
    notes: tuple[str, ...] = ()


def find_scales(heads: Sequence[str], found: dict[str, str], bars: pd.DataFrame) -> Scales:
    """Factors that convert volume and amount to shares and currency.

    A unit in the column name takes precedence, such as 成交量(手). Tushare's daily files have lots of 100 and
    thousands. Other Chinese columns are ambiguous: amount / (volume x close) is near 100 for lots and near 1 for
    shares.

    Args:
        heads: column names of the file.
        found: column in the file by known name.
        bars: datetime and close, and volume and amount as in the file.
    """
    if "volume" not in found:
        return Scales({})
    factors = {}
    for name in ("volume", "amount"):
        unit = _UNIT.search(str(found.get(name, "")))
        if unit and unit[1] in _UNITS:
            factors[name] = _UNITS[unit[1]]
    if factors:
        return Scales(factors, tuple(f"{found[name]} x {factor:g}" for name, factor in factors.items()))
    ratio = _ratio(bars)
    plain = {plain_name(head) for head in heads}
    if {"tscode", "tradedate"} <= plain and plain_name(found["volume"]) == "vol":
        if ratio is not None and ratio > _TUSHARE_LOTS:
            return Scales({}, ("volume and amount are already in plain units",))
        note = "volume in lots x 100" + (", amount in thousands x 1,000" if "amount" in found else "")
        return Scales({"volume": _LOT, "amount": _THOUSAND}, (note,))
    if plain_name(found["volume"]).startswith("成交量"):
        if ratio is not None and ratio > _CHINESE_LOTS:
            return Scales({"volume": _LOT}, ("volume in lots x 100, from the amount",))
        if ratio is None:
            return Scales({}, ("volume unchanged: without an amount, lots and shares are indistinguishable",))
    return Scales({})


def hide_zeros(frame: pd.DataFrame) -> dict[str, set[str]]:
    """Set to NaN, in place, volume and amount that are always 0 for an instrument whose price moves."""
    absent: dict[str, set[str]] = {}
    moves = (frame["high"] > frame["low"]).groupby(frame["instrument"]).transform("any").eq(True)
    for name in ("volume", "amount"):
        if name not in frame:
            continue
        zeros = frame[name].fillna(0).eq(0).groupby(frame["instrument"]).transform("all").eq(True)
        hidden = zeros & moves & frame[name].notna()
        if hidden.any():
            absent[name] = set(frame.loc[hidden, "instrument"])
            frame.loc[hidden, name] = np.nan
    return absent


def describe_absent(frame: pd.DataFrame, absent: Mapping[str, set[str]]) -> list[str]:
    """Notes on what `hide_zeros` set to NaN in a part of its frame."""
    notes = []
    for name, instruments in absent.items():
        here = sorted(instruments & set(frame["instrument"].dropna()))
        if here and len(here) == frame["instrument"].nunique():
            notes.append(f"{name} is always 0 and ignored")
        elif here:
            shown = ", ".join(here[:_SHOWN]) + (", ..." if len(here) > _SHOWN else "")
            notes.append(f"{name} is always 0 for {shown} and ignored")
    return notes


def _ratio(bars: pd.DataFrame) -> float | None:
    """Median amount per volume and close of the latest bars."""
    if "amount" not in bars:
        return None
    complete = (bars["volume"] > 0) & (bars["amount"] > 0) & (bars["close"] > 0)
    latest = bars["datetime"][complete].to_numpy().argsort(kind="stable")[-_RECENT:]
    bars = bars.iloc[np.flatnonzero(complete)[latest]]
    if bars.empty:
        return None
    return float(np.median(bars["amount"] / (bars["volume"] * bars["close"])))
