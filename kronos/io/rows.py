"""The rows of one file as bars: times, instruments and numbers; only rows that are not bars are dropped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from kronos.bars import PRICES, bars_from_closes
from kronos.io.columns import (
    NAMES,
    Columns,
    find_columns,
    is_code_head,
    name_unnamed,
    plain_name,
    wide_columns,
)
from kronos.io.files import symbol_in_name
from kronos.io.numbers import find_scales, to_numbers
from kronos.io.table import EmptyFileError, load_table, read_heads
from kronos.io.times import Times, bad_times, check_timezone, to_clock, to_times

_SHORTEST = 4  # digits of the shortest complete codes, as in Tokyo and Taipei
_FULL = 6  # digits of codes without lost leading zeros, as in Shanghai and Seoul


def to_codes(column: pd.Series, pad: int | None, file: Path) -> pd.Series:
    """Instruments as text; missing ones stay missing.

    Text is unchanged: case, leading zeros, and prefix or suffix of an exchange (SH600519, 600519.SH). Numbers, and
    numeric text of different lengths, may have lost leading zeros.

    Args:
        column: column of a file.
        pad: number of digits that numeric codes are padded to with zeros; 1 keeps them unchanged.
        file: for messages.

    Raises:
        ValueError: codes may have lost zeros and `pad` is None; or `pad` is below 1.
    """
    if pad is not None and pad < 1:
        raise ValueError(f"pad_codes={pad} is not a number of digits. Pass at least 1.")
    numbers = pd.api.types.is_numeric_dtype(column)
    if numbers:
        values = column.dropna().to_numpy(float)
        if (values != np.rint(values)).any():
            raise ValueError(
                f"{file} has the number {values[0]} in '{column.name}'. Write instruments as text."
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
    """Whether an instrument matches a pattern, which may contain `*` and `?`; without patterns all match."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _may_lack_zeros(digits: pd.Series, numbers: bool) -> bool:
    lengths = digits.str.len()
    if numbers:
        return bool(lengths.min() < _FULL)
    if digits.str.startswith("0").any():  # a file with some leading zeros has all of them
        return False
    return bool(lengths.min() < _SHORTEST or lengths.min() < min(lengths.max(), _FULL))


_ONLY_CLOSES = "only closes: bars open at the previous close, high and low are the ends of the candle"
_TICKS = ("tickvol", "tickvolume")


@dataclass(frozen=True)
class ReadOptions:
    """Options for ambiguous files.

    Attributes:
        columns: column name in the files by name in NAMES, if it is not recognized: {"close": "Last"}.
        timezone: time zone of the exchange, to which timestamps with an offset and epochs are converted. Without
            it the former keep their local time and the latter are UTC.
        pad_codes: number of digits that numeric codes are padded to with zeros; 1 keeps them unchanged.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    timezone: str | None = None
    pad_codes: int | None = None

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.columns) - set(NAMES)):
            raise ValueError(f"columns has unknown names {unknown}. Known ones are {list(NAMES)}.")
        check_timezone(self.timezone)


class Rows(NamedTuple):
    """The rows of one file.

    Attributes:
        frame: instrument, datetime, open, high, low, close and, if the file has them, volume, amount, factor; in
            the order of the file.
        layout: the recognized layout.
        absolute: whether timestamps are instants, by an offset or as epochs.
        zone: time zone of the timestamps; None if it is unknown.
        notes: how the file was interpreted.
    """

    frame: pd.DataFrame
    layout: str
    absolute: bool
    zone: tzinfo | None
    notes: tuple[str, ...]


def read_rows(file: Path, options: ReadOptions) -> Rows:
    """Read one file; without an instrument column the symbol is in its name.

    Raises:
        EmptyFileError: the file has no rows.
        ValueError: it cannot be read, lacks columns, or has values that are neither numbers nor dates.
    """
    raw, header, separator, encoding = load_table(file, lambda head: is_code_head(head, options.columns))
    layout = ""
    blank = raw.isna().all(axis=1)
    raw = (
        raw[~blank] if blank.any() else raw
    )  # a copy only where it is needed: files may hold millions of rows
    if raw.empty:
        raise EmptyFileError(f"{file} has a header but no rows. Pass a file with bars.")
    if not header and not options.columns:
        raw, layout = name_unnamed(raw, file)
    heads = [str(head) for head in raw.columns]
    raw.columns = pd.Index(heads)  # in place, as set_axis copies
    if wide := wide_columns(heads, options.columns):
        raw, layout = raw.melt(heads[0], wide, "instrument", "close").dropna(subset="close"), "wide"
        heads = [str(head) for head in raw.columns]
    columns = find_columns(heads, options.columns, file)
    _check_single(heads, columns, file)
    scalable = frozenset(columns.heads[name] for name in ("volume", "amount") if name in columns.heads)
    number_heads = [head for name, head in columns.heads.items() if name != "instrument"]
    ticks = next((head for head in heads if plain_name(head) in _TICKS and head not in number_heads), None)
    numbers, notes = to_numbers(raw[number_heads + ([ticks] if ticks else [])], scalable, separator, file)
    times, kept = _times(raw, columns, numbers, options, file)
    wall = times.wall
    if not kept.all():
        raw, wall, numbers = raw[kept], wall[kept], numbers[kept]
    instruments = _instruments(raw, columns, options, file)
    del raw
    parts = {"instrument": instruments, "datetime": wall}
    parts |= {name: numbers[head] for name, head in columns.heads.items() if name != "instrument"}
    frame = pd.DataFrame(parts, index=wall.index, copy=False)
    if "open" not in frame:
        frame, notes = _add_prices(frame), (*notes, _ONLY_CLOSES)
    notes = (*times.notes, *notes)
    notes = (*notes, *_gaps(frame, columns, dropped=int((~kept).sum())))
    if options.pad_codes is not None and options.pad_codes > 1:
        notes = (*notes, f"codes padded to {options.pad_codes} digits")
    if ticks is not None and "volume" in frame and not (frame["volume"] > 0).any():
        frame["volume"] = numbers[ticks]
        notes = (*notes, f"volume from {ticks}, since {columns.heads['volume']} is always 0")
    frame, unit_notes = _finish(frame, heads, columns)
    if encoding in ("gb18030", "latin-1", "utf-16"):
        notes = (*notes, "encoding GBK" if encoding == "gb18030" else f"encoding {encoding}")
    frame.index = pd.RangeIndex(len(frame))
    layout = layout or _layout(heads, columns)
    return Rows(frame, layout, times.absolute, times.zone, (*unit_notes, *notes))


def has_instruments(file: Path, options: ReadOptions) -> bool:
    """Whether a file has an instrument column; reads its header only."""
    heads = read_heads(file)
    return any(is_code_head(head, options.columns) for head in heads) or bool(
        wide_columns(heads, options.columns)
    )


def symbol_of(file: Path, options: ReadOptions) -> str:
    """The instrument of a file without an instrument column."""
    return str(to_codes(pd.Series([symbol_in_name(file)], name="file name"), options.pad_codes, file)[0])


def _check_single(heads: Sequence[str], columns: Columns, file: Path) -> None:
    """Refuse a file with two columns of one name that is read."""
    for head in (*columns.times, *columns.heads.values()):
        if heads.count(head) > 1:
            raise ValueError(
                f"{file} has {heads.count(head)} columns '{head}'. Rename or remove all but one."
            )


def _times(
    raw: pd.DataFrame, columns: Columns, numbers: pd.DataFrame, options: ReadOptions, file: Path
) -> tuple[Times, pd.Series]:
    """Times of all rows, and which rows are bars: footers have neither date nor price."""
    head, *others = columns.times
    times = to_times(raw[head], options.timezone)
    if times.wall.isna().all() and not others:
        raise bad_times(raw[head], raw[head].notna(), file)
    for other in others:
        clock = to_clock(raw[other])
        if clock is not None:
            if (times.wall.dt.normalize() == times.wall)[times.wall.notna()].all():
                notes = (*times.notes, f"{head} and {other} joined")
                times = times._replace(wall=times.wall + clock, notes=notes)
            continue
        finer = to_times(raw[other], options.timezone)
        if finer.wall.nunique() > times.wall.nunique():
            times, head = finer, other
    priced = numbers[[columns.heads[name] for name in PRICES if name in columns.heads]].notna().any(axis=1)
    bad = times.wall.isna() & raw[head].notna()
    if (bad & priced).any():
        raise bad_times(raw[head], bad & priced, file)
    if options.timezone is not None and not times.absolute:
        note = f"timestamps without offset, read as local time of {options.timezone}"
        times = times._replace(notes=(*times.notes, note), zone=ZoneInfo(options.timezone))
    return times, ~bad | priced


def _add_prices(frame: pd.DataFrame) -> pd.DataFrame:
    """Bars from closes alone, in the order of the file."""
    closes = frame.sort_values("datetime", kind="stable").groupby("instrument")["close"]
    parts = [bars_from_closes(part) for _, part in closes] or [bars_from_closes(frame["close"])]
    prices = pd.concat(parts).reindex(frame.index)
    others = frame.drop(columns=["instrument", "datetime", "close"])
    return pd.concat([frame[["instrument", "datetime"]], prices, others], axis=1)


def _instruments(raw: pd.DataFrame, columns: Columns, options: ReadOptions, file: Path) -> pd.Series | str:
    if (head := columns.heads.get("instrument")) is None:
        return symbol_of(file, options)
    codes = to_codes(raw[head], options.pad_codes, file)
    if len(codes) and codes.isna().all():
        raise ValueError(f"{file} names no instrument in its column '{head}'. Fill the column, or remove it.")
    return codes


def _finish(frame: pd.DataFrame, heads: list[str], columns: Columns) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Convert to plain units, and compute a factor from the adjusted close."""
    scales = find_scales(heads, columns.heads, frame)
    notes = scales.notes
    for name, factor in scales.factors.items():
        if name in frame:
            frame[name] = frame[name] * factor
    if _is_qlib(heads):
        frame[list(PRICES)] = frame[list(PRICES)].div(frame["factor"], axis=0)
        frame["volume"] = frame["volume"] * frame["factor"]
        notes = (*notes, "prices and volume of Qlib are adjusted, made raw by factor")
    if "adj_close" in frame:
        adjusted = frame.pop("adj_close")
        if "factor" not in frame:
            frame["factor"] = (adjusted / frame["close"]).replace([np.inf, -np.inf], np.nan)
            notes = (
                *notes,
                f"factor = {columns.heads['adj_close']} / {columns.heads['close']}, prices kept raw",
            )
    return frame, notes


def _is_qlib(heads: list[str]) -> bool:
    """Whether a table has the columns that Qlib's collectors write and `dump_bin` reads."""
    return {*PRICES, "volume", "factor", "change"} <= {plain_name(head) for head in heads}


def _gaps(frame: pd.DataFrame, columns: Columns, dropped: int) -> list[str]:
    """Notes on missing values."""
    notes = [] if "volume" in frame else ["no volume"]
    missing = {name: int(frame[name].isna().sum()) for name in columns.heads if name in frame}
    if shown := [f"{count:,} in {columns.heads[name]}" for name, count in missing.items() if count]:
        notes.append(f"missing values: {', '.join(shown)}")
    if times := int(frame["datetime"].isna().sum()):
        notes.append(f"missing times: {times:,}")
    if dropped:
        notes.append(f"rows dropped without date and price: {dropped:,}")
    return notes


def _layout(heads: list[str], columns: Columns) -> str:
    plain = {plain_name(head) for head in heads}
    if {"tscode", "tradedate"} <= plain:
        return "Tushare"
    if _is_qlib(heads):
        return "Qlib"
    if any(head.startswith("<") and head.endswith(">") for head in heads):
        return "Stooq" if "per" in plain else "MetaTrader"
    if "opentime" in plain:
        return "Binance klines"
    if not columns.heads["close"].isascii():
        return "Chinese headers"
    return "Yahoo" if "adjclose" in plain else "columns by name"
