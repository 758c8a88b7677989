"""Import bars from CSV or parquet files, with counts of dropped rows by reason.

A row is read by `kronos.io` or dropped; values are never filled in. Without a factor, prices count as adjusted;
with one they are raw: adjusted price = raw * factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kronos.bars import PRICES
from kronos.io import BarFiles
from kronos.io.files import file_record, read_table, summarize, to_dates
from kronos.io.rows import ReadOptions, to_codes
from kronos_strategies.data.validation import KEYS, SPAN, first_key

_TOLERANCE = 1e-4  # relative, as in kronos.bars
_JUMP = 0.4  # a larger move from close to close is worth a look


@dataclass(frozen=True)
class Dropped:
    """Rows dropped for one reason.

    Attributes:
        reason: why.
        rows: how many.
        example: the first of them, as "instrument date".
    """

    reason: str
    rows: int
    example: str


@dataclass(frozen=True)
class ImportReport:
    """Counts of an import: rows_read = rows_kept + the rows of all `dropped`.

    Attributes:
        files: name and sha256 of each file.
        understood: how each file was read, in one line.
        frequency: bar frequency, inferred from timestamps; None if unknown.
        rows_read: rows of all files.
        dropped: rows by reason, in the order of the checks; a row counts for the first check that it fails.
        rows_kept: rows of the result.
        instruments: number of instruments in the result.
        start: first date in the result.
        end: last date in the result.
        notes: remarks about rows that were kept but look unusual.
    """

    files: tuple[dict[str, str], ...]
    understood: tuple[str, ...]
    frequency: str | None
    rows_read: int
    dropped: tuple[Dropped, ...]
    rows_kept: int
    instruments: int
    start: pd.Timestamp
    end: pd.Timestamp
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """The report as JSON-ready provenance: files, how they were read, rows read and dropped."""
        return {
            "files": list(self.files),
            "understood": list(self.understood),
            "rows_read": self.rows_read,
            "dropped": {drop.reason: drop.rows for drop in self.dropped},
        }


class Imported(NamedTuple):
    """Tidy bars, sorted by instrument and date, and their provenance."""

    bars: pd.DataFrame
    report: ImportReport


Check = tuple[str, Callable[[pd.DataFrame], pd.Series]]


def import_bars(paths: Sequence[Path], options: ReadOptions | None = None) -> Imported:
    """Read bars from files.

    Args:
        paths: CSV or parquet files, folders or glob patterns, in any layout that `kronos.io` knows; with a factor
            in all files or in none.
        options: options that the files do not determine.

    Returns:
        bars: instrument, datetime, open, high, low, close, volume, factor and perhaps amount. Volume or amount are
            NaN throughout an instrument for which the files have none, or only zeros.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a missing column, an invalid date, bars of different frequencies, or no usable row.
    """
    files = BarFiles(paths, options)
    frames = list(files.rows())
    if len(with_factor := {"factor" in frame for frame in frames if len(frame)}) > 1:
        raise ValueError(
            f"some of the {len(files.files)} files have a factor or an adjusted close and others do not. "
            "All files must have the same columns."
        )
    notes = [] if True in with_factor else ["no column 'factor': prices count as adjusted."]
    # Copied only to be joined: a market of years takes a gigabyte.
    bars = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    del frames
    bars["volume"], bars["factor"] = bars.get("volume", np.nan), bars.get("factor", 1.0)
    return _import(files, bars, SHARE_CHECKS, notes)


def import_benchmarks(file: Path, options: ReadOptions | None = None) -> Imported:
    """Read index bars from one file, which may hold several indices.

    Volume may be absent or missing, as it is for many indices; it is 0 then. Amount and factor are not read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a missing column, an invalid date, or no usable row.
    """
    files = BarFiles(file, options)
    bars = pd.concat(files.rows(), ignore_index=True)
    volume = bars["volume"].fillna(0.0) if "volume" in bars else 0.0
    bars = bars[[*KEYS, *PRICES]].assign(volume=volume, factor=1.0)
    return _import(files, bars, PRICE_CHECKS, [])


def import_membership(
    file: Path, bars: pd.DataFrame, pad_codes: int | None = None
) -> tuple[pd.DataFrame, int]:
    """Read the dated membership of a market: one row of instrument, start, end per stay.

    Each stay must have been known on its first day, as from an index provider's announcements. Without such a file,
    instruments are members from their first to their last bar; if they were chosen today, that is survivorship
    bias, which overstates results.

    Args:
        file: CSV or parquet. An empty end means: still a member.
        bars: the imported bars.
        pad_codes: as for the bars.

    Returns:
        frame of SPAN, restricted to instruments with bars; and the number of instruments left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a missing column, or an invalid date.
    """
    table = read_table(file, SPAN, ())
    table["instrument"] = to_codes(table["instrument"], pad_codes, file)
    for column in ("start", "end"):
        table[column] = to_dates(table[column], file)
    table["end"] = table["end"].fillna(bars["datetime"].max())
    known = table["instrument"].isin(bars["instrument"].unique())
    return table[known].reset_index(drop=True), table.loc[~known, "instrument"].nunique()


def _outside(bars: pd.DataFrame) -> pd.Series:
    slack = _TOLERANCE * bars["high"]
    highest, lowest = bars[["open", "close"]].max(axis=1), bars[["open", "close"]].min(axis=1)
    return (highest > bars["high"] + slack) | (lowest < bars["low"] - slack)


def _untraded(bars: pd.DataFrame) -> pd.Series:
    # Many vendors fill suspended days like this; Qlib would trade them.
    return (bars["volume"] == 0) & (bars["high"] == bars["low"])


def _quantities(bars: pd.DataFrame) -> pd.DataFrame:
    return bars[[column for column in ("volume", "amount") if column in bars]]


def _quantity_missing(bars: pd.DataFrame) -> pd.Series:
    """Missing although the instrument has other values: an instrument may have no volume at all."""
    missing = _quantities(bars).isna()
    return (missing & ~missing.groupby(bars["instrument"]).transform("all")).any(axis=1)


PRICE_CHECKS: tuple[Check, ...] = (
    ("no instrument or no date", lambda bars: bars[list(KEYS)].isna().any(axis=1)),
    ("missing price", lambda bars: bars[list(PRICES)].isna().any(axis=1)),
    ("infinite value", lambda bars: bars.drop(columns=list(KEYS)).isin([np.inf, -np.inf]).any(axis=1)),
    ("price not positive", lambda bars: (bars[list(PRICES)] <= 0).any(axis=1)),
    ("open or close outside [low, high]", _outside),
)
SHARE_CHECKS: tuple[Check, ...] = (
    *PRICE_CHECKS,
    ("missing volume or amount", _quantity_missing),
    ("negative volume or amount", lambda bars: (_quantities(bars) < 0).any(axis=1)),
    ("factor missing or not positive", lambda bars: ~(bars["factor"] > 0)),
    ("no trade (volume 0, one price)", _untraded),
)


def _import(files: BarFiles, bars: pd.DataFrame, checks: Sequence[Check], notes: list[str]) -> Imported:
    rows_read, frequency = len(bars), files.frequency
    dropped: list[Dropped] = []
    for reason, check in checks:
        bars = _drop(bars, check(bars), reason, dropped)
    bars = _drop(bars, bars.duplicated(list(KEYS), keep="last"), "duplicate key (the last is kept)", dropped)
    if bars.empty:
        reasons = ", ".join(f"{drop.rows} x {drop.reason}" for drop in dropped)
        raise ValueError(
            f"none of {rows_read} rows in {files.files[0]} is a usable bar: {reasons}. Check the columns."
        )
    bars = bars.sort_values(list(KEYS), ignore_index=True)
    report = ImportReport(
        files=tuple(file_record(file) for file in files.files),
        understood=tuple(summarize(files.notes)),
        frequency=frequency,
        rows_read=rows_read,
        dropped=tuple(dropped),
        rows_kept=len(bars),
        instruments=bars["instrument"].nunique(),
        start=bars["datetime"].min(),
        end=bars["datetime"].max(),
        notes=(*notes, *_jumps(bars)),
    )
    return Imported(bars, report)


def _drop(bars: pd.DataFrame, bad: pd.Series, reason: str, dropped: list[Dropped]) -> pd.DataFrame:
    if not bad.any():
        return bars
    dropped.append(Dropped(reason, int(bad.sum()), first_key(bars, bad)))
    return bars[~bad]


def _jumps(bars: pd.DataFrame) -> list[str]:
    """A note about moves that suggest a missed split or a wrong price."""
    adjusted = bars["close"] * bars["factor"]
    jump = (adjusted / adjusted.groupby(bars["instrument"]).shift() - 1).abs() > _JUMP
    if not jump.any():
        return []
    return [
        f"moves beyond {_JUMP:.0%} from close to close are kept: {jump.sum()}, the first {first_key(bars, jump)}; "
        "a missed split or a wrong price?"
    ]
