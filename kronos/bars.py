"""The bar schema: six features a bar, ascending unique timestamps; checks, repair and calendar fields.

Knows no torch. Every door into the project runs `check_bars`, so that bad input fails in one sentence.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from kronos.jumps import warn_of_jumps

PRICES = ("open", "high", "low", "close")
FEATURES = (*PRICES, "volume", "amount")  # the order in which the released weights expect them
CLOSE = FEATURES.index("close")
STAMPS = ("minute", "hour", "weekday", "day", "month")

_SMALLEST, _LARGEST = 1e-37, 1e38  # of a number other than 0: windows and paths are float32
_TOLERANCE = 1e-4  # relative: stores round prices to float32, and adjusted ones to a few digits


def check_bars(bars: pd.DataFrame, name: str = "bars") -> pd.DataFrame:
    """Return `bars` as float64 FEATURES, with volume and amount completed; refuse what is not a bar.

    Without a volume column both volume and amount are 0; without amount it is volume times the mean of
    open, high, low and close. A DatetimeIndex must ascend without duplicates; any other index is left alone. Prices
    that jump as no market does, see `kronos.jumps`, give a `BarsWarning`.

    Args:
        bars: one row a bar; columns open, high, low, close, optionally volume and amount (others are dropped).
        name: what to call the frame in an error.

    Raises:
        TypeError: not a DataFrame.
        ValueError: empty, a missing column, NaN or inf, a negative volume, a high below a low, or timestamps
            out of order.
    """
    if not isinstance(bars, pd.DataFrame):
        raise TypeError(f"{name} is a {type(bars).__name__}. Pass a pandas DataFrame of bars.")
    if bars.empty:
        raise ValueError(f"{name} has no rows. Pass at least 2 bars.")
    if missing := [column for column in PRICES if column not in bars.columns]:
        raise ValueError(
            f"{name} lacks the columns {missing}; it has {list(bars.columns)}. Rename yours to {list(PRICES)}."
        )
    if isinstance(bars.index, pd.DatetimeIndex):
        check_timestamps(bars.index, name)
    full = _complete(bars, name)
    _check_values(full, name)
    if isinstance(full.index, pd.DatetimeIndex):
        warn_of_jumps(full, name)
    return full


def check_timestamps(index: pd.DatetimeIndex, name: str = "bars") -> None:
    """Demand ascending, unique, known timestamps.

    Raises:
        ValueError: names the first offender and the remedy.
    """
    if index.tz is not None:
        raise ValueError(
            f"{name} has timestamps in the time zone {index.tz}. Keep the exchange's wall time: "
            "tz_convert('Asia/Shanghai') or the like, then tz_localize(None)."
        )
    if index.hasnans:
        raise ValueError(f"{name} has no timestamp in row {int(np.argmax(index.isna()))}. Drop that row.")
    if index.has_duplicates:
        first = index[index.duplicated()][0]
        raise ValueError(f"{name} has the timestamp {first} twice. Keep one bar, e.g. with repair_bars().")
    if not index.is_monotonic_increasing:
        first = index[1:][np.diff(index.asi8) < 0][0]
        raise ValueError(
            f"{name} is not in order of time: {first} follows a later bar. Use bars.sort_index()."
        )


def repair_bars(bars: pd.DataFrame) -> pd.DataFrame:
    """Mend what can be mended without guessing, and drop the rest.

    Sorts by time, keeps the last of duplicate timestamps, drops rows without four finite prices, stretches
    high and low around open and close, and sets missing or negative volume and amount to 0.
    """
    if missing := [column for column in PRICES if column not in bars.columns]:
        raise ValueError(f"bars lack the columns {missing}. Rename yours to {list(PRICES)}.")
    bars = bars.sort_index(kind="stable")
    bars = bars[~bars.index.duplicated(keep="last")]
    prices = bars[list(PRICES)].apply(pd.to_numeric, errors="coerce")
    keep = np.isfinite(prices.to_numpy(float)).all(axis=1)
    bars, prices = bars[keep].copy(), prices[keep]
    bars[list(PRICES)] = prices
    bars["high"], bars["low"] = prices.max(axis=1), prices.min(axis=1)
    for column in {"volume", "amount"} & set(bars.columns):
        values = pd.to_numeric(bars[column], errors="coerce").replace([np.inf, -np.inf], np.nan)
        bars[column] = values.fillna(0.0).clip(lower=0.0)
    return bars


def adjust_bars(bars: pd.DataFrame, factor: str = "factor") -> pd.DataFrame:
    """Raw bars -> adjusted ones: prices times the column `factor`, volume divided by it, amount as it is.

    Factors may start at 1 with the first bar or end at 1 with the last: forecasts do not depend on the unit of
    the price.
    """
    if factor not in bars.columns:
        raise ValueError(f"bars lack the column '{factor}'. Name the one that holds the adjustment factor.")
    adjusted = bars.drop(columns=factor)
    adjusted[list(PRICES)] = bars[list(PRICES)].mul(bars[factor], axis=0)
    if "volume" in bars.columns:
        adjusted["volume"] = bars["volume"] / bars[factor]
    return adjusted


def stamps(timestamps: pd.DatetimeIndex) -> np.ndarray:
    """Calendar fields of (T,) timestamps: (T, 5) int64 in the order of STAMPS, Monday = 0."""
    t = timestamps
    fields = (t.minute, t.hour, t.day_of_week, t.day, t.month)
    return np.stack([field.to_numpy(np.int64) for field in fields], axis=-1)


def _complete(bars: pd.DataFrame, name: str) -> pd.DataFrame:
    columns = [c for c in FEATURES if c in bars.columns]
    full = pd.DataFrame(index=bars.index)
    for column in columns:
        values = bars[column]
        if isinstance(values, pd.DataFrame):
            raise ValueError(f"{name} has the column '{column}' {values.shape[1]} times. Keep one.")
        try:
            full[column] = values.astype(float)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name} has a column '{column}' that is not numeric ({error}). Convert it with pd.to_numeric."
            ) from None
    if "volume" not in full:
        full["volume"] = full["amount"] = 0.0
    elif "amount" not in full:
        full["amount"] = full["volume"] * full[list(PRICES)].mean(axis=1)
    return full[list(FEATURES)]


def _check_values(bars: pd.DataFrame, name: str) -> None:
    values = bars.to_numpy()
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{name} has {int(bad.sum())} missing or infinite values, the first in column "
            f"'{FEATURES[column]}' at {bars.index[row]}. Drop or fill them, e.g. with repair_bars()."
        )
    sizes = np.abs(values)
    outside = (sizes > _LARGEST) | ((sizes > 0) & (sizes < _SMALLEST))
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"{name} has a {FEATURES[column]} of {values[row, column]:g} at {bars.index[row]}, beyond what float32 "
            f"holds ({_SMALLEST:g} to {_LARGEST:g}). Use another unit."
        )
    negative = values[:, 4:] < 0
    if negative.any():
        row, column = np.argwhere(negative)[0]
        raise ValueError(
            f"{name} has a negative {FEATURES[4 + column]} at {bars.index[row]}. Mend it, e.g. with repair_bars()."
        )
    slack = _TOLERANCE * np.abs(values[:, :4]).max(axis=1)
    highest, lowest = values[:, [0, 3]].max(axis=1), values[:, [0, 3]].min(axis=1)
    wrong = (values[:, 1] < highest - slack) | (values[:, 2] > lowest + slack)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{name} has open or close outside [low, high] in {int(wrong.sum())} rows, the first at "
            f"{bars.index[row]}. Mend them, e.g. with repair_bars()."
        )
