"""Instruments: text as it is written, and codes that may have lost their leading zeros."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

_SHORTEST = 4  # digits of a code that is complete for sure, as in Tokyo and Taipei
_FULL = 6  # digits of a code that no leading zero can have been lost from, as in Shanghai and Seoul


def to_codes(column: pd.Series, pad: int | None, file: Path) -> pd.Series:
    """Instruments as text; missing ones stay missing.

    Text is kept as it is written: case, leading zeros, and prefix or suffix of an exchange (SH600519, 600519.SH).
    Numbers, and text of digits in different lengths, may have lost leading zeros.

    Args:
        column: of a file.
        pad: digits that codes of digits only are filled up to with zeros; 1 leaves them as they are.
        file: for messages.

    Raises:
        ValueError: codes that may have lost zeros, without `pad`; `pad` below 1.
    """
    if pad is not None and pad < 1:
        raise ValueError(f"pad_codes={pad} is not a number of digits. Give at least 1.")
    numbers = pd.api.types.is_numeric_dtype(column)
    if numbers:
        values = column.dropna().to_numpy(float)
        if (values != np.rint(values)).any():
            raise ValueError(
                f"{file} has the number {values[0]} in '{column.name}'. Name instruments by text."
            )
    rows, uniques = pd.factorize(column)  # -1 is a missing value
    if numbers:
        names = pd.Series(np.asarray(uniques)).astype("int64").astype(str)
    else:
        names = pd.Series(np.asarray(uniques), dtype=object).astype(str).str.strip()
        names = names.str.replace(r"^(\d+)\.0$", r"\1", regex=True)
    names = names.where(names != "")
    is_digits = names.str.fullmatch(r"\d+").eq(True)
    digits = names[is_digits]
    if pad is not None:
        names = names.where(~is_digits, names.str.zfill(pad))
    elif len(digits) and _may_lack_zeros(digits, numbers):
        short = min(digits, key=lambda name: (len(name), name))
        raise ValueError(
            f"{file} has the code {short} in '{column.name}', which may have lost leading zeros. Pass --pad-codes "
            f"6 to read it as {short.zfill(_FULL)} (pad_codes=6), or --pad-codes 1 to keep codes as they are."
        )
    # One string object per instrument, however many rows it has.
    return pd.Series(np.append(names.to_numpy(object), np.nan)[rows], index=column.index, name=column.name)


def is_wanted(name: str, patterns: Collection[str]) -> bool:
    """Whether a pattern, perhaps with `*` or `?`, stands for an instrument; without any, all are wanted."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _may_lack_zeros(digits: pd.Series, numbers: bool) -> bool:
    lengths = digits.str.len()
    if numbers:
        return bool(lengths.min() < _FULL)
    if digits.str.startswith("0").any():  # a file that keeps some zeros keeps them all
        return False
    return bool(lengths.min() < _SHORTEST or lengths.min() < min(lengths.max(), _FULL))
