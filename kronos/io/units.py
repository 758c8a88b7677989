"""Volume and amount: lots and thousands become shares and currency, zeros throughout become missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from kronos.io.columns import plain_name

_UNITS = {"手": 100.0, "万手": 1e6, "千股": 1e3, "万股": 1e4, "亿股": 1e8}
_UNITS |= {"千元": 1e3, "万元": 1e4, "万": 1e4, "亿元": 1e8, "亿": 1e8}
_UNIT = re.compile(r"[(（\[]\s*(.*?)\s*[)）\]]\s*$")
_LOT, _THOUSAND = 100.0, 1000.0
# Amount per volume and close, where both are in plain units about 1: halfway (in logarithms) to what lots give.
_CHINESE_LOTS = 10.0
_TUSHARE_LOTS = 0.3
_SHOWN = 3  # instruments named in a note
_RECENT = 20  # bars: prices adjusted backwards are true at their end


class Scales(NamedTuple):
    """Factors to plain units, by "volume" and "amount", and what was understood."""

    factors: dict[str, float]
    notes: tuple[str, ...] = ()


def find_scales(heads: Sequence[str], found: dict[str, str], bars: pd.DataFrame) -> Scales:
    """What volume and amount have to be multiplied by.

    A unit in the head counts first, such as 成交量(手). Tushare's daily files have lots of 100 and thousands.
    Other Chinese heads leave it open: there amount / (volume x close) tells lots, near 100, from shares, near 1.

    Args:
        heads: of the file.
        found: head of each column of ours.
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
            return Scales({}, ("volume and amount are in plain units already",))
        note = "volume in lots x 100" + (", amount in thousands x 1,000" if "amount" in found else "")
        return Scales({"volume": _LOT, "amount": _THOUSAND}, (note,))
    if plain_name(found["volume"]).startswith("成交量"):
        if ratio is not None and ratio > _CHINESE_LOTS:
            return Scales({"volume": _LOT}, ("volume in lots x 100, as the amount tells",))
        if ratio is None:
            return Scales({}, ("volume as it is: without an amount, lots cannot be told from shares",))
    return Scales({})


def hide_zeros(frame: pd.DataFrame) -> dict[str, set[str]]:
    """Set to NaN, in place, volume and amount that are 0 throughout an instrument whose price moves."""
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
    """Notes on what `hide_zeros` has hidden in a part of its frame."""
    notes = []
    for name, instruments in absent.items():
        here = sorted(instruments & set(frame["instrument"].dropna()))
        if here and len(here) == frame["instrument"].nunique():
            notes.append(f"{name} is 0 throughout and counts as absent")
        elif here:
            shown = ", ".join(here[:_SHOWN]) + (", ..." if len(here) > _SHOWN else "")
            notes.append(f"{name} is 0 throughout {shown} and counts as absent")
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
