"""The tidy frame of daily bars, and the spans of a market: columns and checks.

One row per (instrument, datetime), raw prices, suspended days absent. All bars in this package have this form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from kronos.bars import PRICES, check_bars, warn_of_jumps

KEYS = ("instrument", "datetime")
REQUIRED = (*KEYS, *PRICES, "volume")
OPTIONAL = ("amount", "factor")  # without a factor, prices count as adjusted
SPAN = ("instrument", "start", "end")  # a stay in a market, both days included
LISTING = "first to last bar"  # name in the manifest of membership that was not given

LONGEST = 100  # maximum characters of a symbol, which names a folder
_UNSAFE = set('/\\:*?"<>| ')  # reserved folder names on some systems
_DEVICES = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d)\..*", re.IGNORECASE
)  # Windows opens a device in their place
_QLIB_PREFIX = "_qlib_"  # of the folder of an instrument whose name is that of a device
_READ_AS_MISSING = {
    "na",
    "nan",
    "-nan",
    "null",
    "none",
}  # read as missing by pandas, with which Qlib reads its lists


def check_tidy(bars: pd.DataFrame, name: str = "bars", frequency: str = "1day") -> pd.DataFrame:
    """Return bars sorted by instrument and date, with a factor, without other columns.

    Args:
        bars: columns REQUIRED, perhaps OPTIONAL. Volume and amount may be NaN throughout an instrument.
        name: name of the frame in errors.
        frequency: bar frequency as in `kronos.calendar`; the times of daily ones are dropped.

    Raises:
        TypeError: not a DataFrame.
        ValueError: a missing column, an invalid value, or several bars of an instrument on a day.
    """
    if not isinstance(bars, pd.DataFrame):
        raise TypeError(f"{name} is a {type(bars).__name__}. Pass a tidy pandas DataFrame.")
    if missing := [column for column in REQUIRED if column not in bars.columns]:
        raise ValueError(f"{name} lacks the columns {missing}; it has {list(bars.columns)}. Add them.")
    if not isinstance(bars["datetime"].dtype, np.dtype) or bars["datetime"].dtype.kind != "M":
        raise ValueError(
            f"{name} has {bars['datetime'].dtype} as 'datetime'. Pass datetime64 without time zone."
        )
    times = bars["datetime"].dt.normalize() if frequency == "1day" else bars["datetime"]
    tidy = bars[[*REQUIRED, *(column for column in OPTIONAL if column in bars.columns)]].assign(
        instrument=bars["instrument"].astype(str),
        datetime=times.astype("datetime64[ns]"),
    )
    tidy = tidy.sort_values(list(KEYS), ignore_index=True)
    if "factor" not in tidy:
        tidy["factor"] = 1.0
    _check_keys(tidy, name)
    check_bars(_without_absent(tidy).set_index(list(KEYS)), name)
    _check_positive(tidy, name)
    for symbol, rows in tidy.groupby("instrument", sort=False):
        adjusted = rows[list(PRICES)].mul(rows["factor"], axis=0).set_index(rows["datetime"])
        warn_of_jumps(adjusted, f"{name} of {symbol}", frequency)
    return tidy


def check_symbols(symbols: Iterable[str]) -> None:
    """Check that symbols are distinct folder names on every system, and that Qlib reads them back unchanged.

    Raises:
        ValueError: one is not; names the first.
    """
    seen: dict[str, str] = {}
    for symbol in symbols:
        printable = symbol.isascii() and symbol.isprintable()
        if not symbol or not printable or symbol[0] == "." or symbol[-1] == "." or _UNSAFE & set(symbol):
            raise ValueError(f"the instrument {symbol!r} cannot name a folder. Use letters, digits and '-'.")
        if _DEVICES.fullmatch(symbol) or symbol.lower().startswith(_QLIB_PREFIX):
            raise ValueError(f"the instrument '{symbol}' cannot name a folder on Windows. Rename it.")
        if len(symbol) > LONGEST:
            raise ValueError(
                f"the instrument '{symbol[:20]}...' has {len(symbol)} characters and cannot name a folder. Use at "
                f"most {LONGEST}."
            )
        if symbol.lower() in _READ_AS_MISSING:
            raise ValueError(f"Qlib would read the instrument '{symbol}' as a missing value. Rename it.")
        if symbol.lower() in seen:
            raise ValueError(
                f"the instruments '{seen[symbol.lower()]}' and '{symbol}' would share a folder. "
                "Rename one; a benchmark must not be among the bars."
            )
        seen[symbol.lower()] = symbol


def check_spans(spans: pd.DataFrame, market: str, known: Iterable[str]) -> pd.DataFrame:
    """Return the spans of a market, sorted, after checking that each is a stay of a `known` instrument.

    Raises:
        ValueError: a missing column, no rows, an instrument without bars, or an end before its start.
    """
    if missing := [column for column in SPAN if column not in spans.columns]:
        raise ValueError(
            f"the membership of {market} lacks the columns {missing}. Pass the columns {list(SPAN)}."
        )
    if spans.empty:
        raise ValueError(
            f"the membership of {market} has no rows, so the market would be empty. Add members."
        )
    if unknown := sorted(set(spans["instrument"]) - set(known)):
        raise ValueError(f"{len(unknown)} members of {market} have no bars, e.g. {unknown[0]}. Drop them.")
    ordered = spans[list(SPAN)].sort_values(list(SPAN), ignore_index=True)
    backwards = ~(ordered["start"] <= ordered["end"])  # true for a missing date too
    if backwards.any():
        symbol = ordered["instrument"].iloc[np.argmax(backwards)]
        raise ValueError(f"{symbol} has a stay in {market} that ends before it starts. Correct it.")
    return ordered


def listing_spans(bars: pd.DataFrame) -> pd.DataFrame:
    """A stay from the first to the last bar of each instrument, as a frame of SPAN."""
    days = bars.groupby("instrument", observed=True)["datetime"]
    return days.agg(start="min", end="max").reset_index()


def whole_days(spans: pd.DataFrame) -> pd.DataFrame:
    """Spans of SPAN that include all of their last day, for intraday bars."""
    ends = spans["end"]
    return spans.assign(end=ends.where(ends != ends.dt.normalize(), ends + pd.Timedelta(days=1, seconds=-1)))


def first_key(bars: pd.DataFrame, where: np.ndarray | pd.Series) -> str:
    """The first row of `where` as "instrument date", for a message."""
    row = bars.iloc[int(np.argmax(where))]
    symbol, day = row["instrument"], row["datetime"]
    return f"{'?' if pd.isna(symbol) else symbol} {'?' if pd.isna(day) else f'{day:%Y-%m-%d}'}"


def _without_absent(tidy: pd.DataFrame) -> pd.DataFrame:
    """The frame with 0 for instruments without any volume or amount."""
    columns = [column for column in ("volume", "amount") if column in tidy]
    absent = tidy[columns].isna().groupby(tidy["instrument"]).transform("all")
    return tidy.assign(**{column: tidy[column].mask(absent[column], 0.0) for column in columns})


def _check_keys(tidy: pd.DataFrame, name: str) -> None:
    if tidy["datetime"].isna().any():
        raise ValueError(f"{name} has {tidy['datetime'].isna().sum()} rows without a date. Drop them.")
    several = tidy.duplicated(list(KEYS))
    if several.any():
        raise ValueError(
            f"{name} has several rows of {first_key(tidy, several)}. Only daily bars fit: resample intraday ones."
        )


def _check_positive(tidy: pd.DataFrame, name: str) -> None:
    values = tidy[[*PRICES, "factor"]].to_numpy(float)
    bad = ~((values > 0) & np.isfinite(values)).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name} has {bad.sum()} rows with a price or factor that is not positive, the first "
            f"{first_key(tidy, bad)}. Drop them."
        )
