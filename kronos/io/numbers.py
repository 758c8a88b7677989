"""Numbers as people write them: separators of thousands, decimal commas, K and M, marks for missing values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

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
        frame: float64, NaN where a value is missing.
        notes: what was understood.
    """

    frame: pd.DataFrame
    notes: tuple[str, ...]


def to_numbers(frame: pd.DataFrame, scalable: frozenset[str], separator: str, file: Path) -> Numbers:
    """Convert columns to floats.

    Args:
        frame: columns of numbers, or of text that stands for numbers.
        scalable: columns whose numbers may end in K, M, B or T.
        separator: between the columns of the file; between commas, "1,234" can only be thousands.
        file: for messages.

    Raises:
        ValueError: a value that is neither a number nor a mark for a missing one, or commas of unclear meaning.
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
    """Text without blanks around it; missing values are None."""
    text = (
        column.astype(object).where(column.notna(), None).map(lambda v: None if v is None else str(v).strip())
    )
    return text.where(~text.str.lower().isin(MISSING), None).astype(object)


def _comma(texts: dict[str, pd.Series], frame: pd.DataFrame, separator: str, file: Path) -> str:
    """What a comma in a number means: "decimal", "thousands", or "" where there is none."""
    cells = pd.concat([text.dropna() for text in texts.values()]) if texts else pd.Series([], dtype=object)
    cells = cells[cells.str.contains(",", regex=False).fillna(False).astype(bool)]
    if cells.empty:
        return ""
    decimal = cells[cells.str.fullmatch(_DECIMAL_COMMA) & ~cells.str.fullmatch(_THOUSANDS)]
    thousands = cells[cells.str.fullmatch(_CERTAIN_THOUSANDS)]
    points = any(_has_fractions(column) for head, column in frame.items() if head not in texts)
    points |= any(_has_points(text.dropna()) for text in texts.values())
    if len(decimal) and not len(thousands) and not points:
        return "decimal"
    if not len(decimal) and (len(thousands) or points or separator == ","):
        return "thousands"
    example = decimal.iloc[0] if len(decimal) else cells.iloc[0]
    raise ValueError(
        f"{file} has numbers such as '{example}' whose comma may stand for thousands or for decimals. "
        "Write decimals with a point and no separators of thousands."
    )


def _has_fractions(column: pd.Series) -> bool:
    values = column.to_numpy(float)
    values = values[np.isfinite(values)]
    return bool((values != np.rint(values)).any())


def _has_points(text: pd.Series) -> bool:
    """Whether a point stands for decimals, and cannot stand for thousands."""
    return bool(
        (text.str.fullmatch(r"[+-]?\d+\.\d+") & ~text.str.fullmatch(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")).any()
    )


def _parse(text: pd.Series, commas: str, head: str, scalable: bool, file: Path) -> pd.Series:
    grouped = text.str.fullmatch(_GROUPED).fillna(False).astype(bool)
    plain = text.where(~grouped, text.str.replace(r"[ '\u00a0\u2009\u202f’]", "", regex=True))
    scale = pd.Series(1.0, index=text.index)
    if scalable:
        parts = plain.str.extract(_SCALED)
        marked = plain.str.fullmatch(_SCALED).fillna(False).astype(bool)
        plain = plain.where(~marked, parts[0])
        scale = scale.where(~marked, parts[1].str.lower().map(_SCALES))
    if commas == "decimal":
        plain = plain.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    elif commas == "thousands":
        whole = plain.str.fullmatch(_THOUSANDS).fillna(False).astype(bool)
        plain = plain.where(~whole, plain.str.replace(",", "", regex=False))
    values = pd.to_numeric(plain, errors="coerce").astype(float) * scale
    bad = values.isna() & text.notna()
    if bad.any():
        first = int(bad.to_numpy().argmax())
        row = int(str(text.index[first])) + 1
        raise ValueError(
            f"{file} has {int(bad.sum())} values in '{head}' that are not numbers, the first "
            f"'{text.iloc[first]}' in row {row}. Write plain numbers, without signs of currency or percent, and "
            "leave missing ones empty."
        )
    return values
