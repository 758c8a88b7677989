"""The bar schema: six features per bar and ascending unique timestamps; checks, repair and calendar fields.

Every public entry point validates its bars with `check_bars` and raises an error of one sentence.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from kronos.calendar import FREQUENCIES, typical_step

PRICES = ("open", "high", "low", "close")
FEATURES = (*PRICES, "volume", "amount")  # the order in which the released weights expect them
CLOSE = FEATURES.index("close")
STAMPS = ("minute", "hour", "weekday", "day", "month")

_SMALLEST, _LARGEST = 1e-37, 1e38  # of a nonzero number: windows and paths are float32
_TOLERANCE = 1e-4  # relative: data directories round prices to float32, and adjusted ones to a few digits


def check_bars(bars: pd.DataFrame, name: str = "bars") -> pd.DataFrame:
    """Return `bars` as float64 FEATURES, with volume and amount completed; refuse invalid bars.

    Without a volume column both volume and amount are 0; a missing amount becomes volume times the mean of
    open, high, low and close. A DatetimeIndex must ascend without duplicates and is returned unchanged, with its
    time zone; any other index is not checked. Implausible price jumps emit a `BarsWarning`, see `warn_of_jumps`.

    Args:
        bars: one row per bar; columns open, high, low, close, optionally volume and amount (others are dropped),
            see `name_columns`.
        name: name of the frame in error messages.

    Raises:
        TypeError: not a DataFrame.
        ValueError: empty, a missing column, columns of several instruments, NaN or inf, a negative volume, a
            high below a low, or timestamps out of order.
    """
    if not isinstance(bars, pd.DataFrame):
        raise TypeError(f"{name} is a {type(bars).__name__}. Pass a pandas DataFrame of bars.")
    if bars.empty:
        raise ValueError(f"{name} has no rows. Pass at least 2 bars.")
    bars = name_columns(bars, name)
    if missing := [column for column in PRICES if column not in bars.columns]:
        raise ValueError(
            f"{name} lacks the columns {missing}; it has {list(bars.columns)}. Rename yours to {list(PRICES)}, or "
            "make bars of a column of closes by kronos.bars_from_closes(closes)."
        )
    if isinstance(bars.index, pd.DatetimeIndex):
        check_timestamps(bars.index, name)
    full = _complete(bars, name)
    _check_values(full, name)
    if isinstance(full.index, pd.DatetimeIndex):
        warn_of_jumps(full, name)
    return full


def name_columns(bars: pd.DataFrame, name: str = "bars") -> pd.DataFrame:
    """Rename the columns of one instrument's bars to FEATURES, ignoring case.

    A column that already has the exact name takes precedence (`open` over `Open`). Of two-level columns, as
    yfinance returns them, the level with the prices is kept if the other level has a single instrument. Columns
    that are not FEATURES keep their names.

    Args:
        bars: one row per bar.
        name: name of the frame in error messages.

    Raises:
        ValueError: columns of several instruments, or two columns that could be the same feature.
    """
    if isinstance(bars.columns, pd.MultiIndex):
        bars = bars.set_axis(_only_instrument(bars.columns, name), axis=1)
    heads: dict[str, list[object]] = {}
    for head in bars.columns:
        if isinstance(head, str) and head not in FEATURES and head.strip().lower() in FEATURES:
            heads.setdefault(head.strip().lower(), []).append(head)
    heads = {feature: found for feature, found in heads.items() if feature not in bars.columns}
    if twice := [found for found in heads.values() if len(found) > 1]:
        raise ValueError(f"{name} has the columns {twice[0]} for one feature. Keep one of them.")
    return bars.rename(columns={found[0]: feature for feature, found in heads.items()}) if heads else bars


def check_timestamps(index: pd.DatetimeIndex, name: str = "bars") -> None:
    """Require ascending, unique timestamps without NaT; with a time zone, the instants must ascend.

    Raises:
        ValueError: states the first offending timestamp and the remedy.
    """
    if index.hasnans:
        raise ValueError(f"{name} has no timestamp in row {int(np.argmax(index.isna()))}. Drop that row.")
    if index.has_duplicates:
        first = index[index.duplicated()][0]
        raise ValueError(f"{name} has the timestamp {first} twice. Keep one bar, e.g. with repair_bars().")
    if not index.is_monotonic_increasing:
        first = index[1:][np.diff(index.asi8) < 0][0]
        raise ValueError(f"{name} is not sorted by time: {first} follows a later bar. Use bars.sort_index().")


def wall_clock(index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Timestamps without their time zone, at the local time of the exchange.

    This rule holds for all timestamps with a zone: calendar fields are those of the local clock, and nothing is
    converted. When clocks are set back, an hour occurs twice.
    """
    return index.tz_localize(None)


def check_same_zone(bars: pd.DatetimeIndex, others: pd.DatetimeIndex, name: str, what: str) -> None:
    """Require timestamps of bars and of `what` to have the same time zone, or none.

    Raises:
        ValueError: the time zones differ.
    """
    if str(bars.tz) != str(others.tz):
        raise ValueError(
            f"{name}: the bars are in the time zone {bars.tz}, {what} in {others.tz}. Convert both to one, e.g. by "
            "tz_convert, or remove both."
        )


def unique_wall_clock(index: pd.DatetimeIndex, name: str) -> pd.DatetimeIndex:
    """Timestamps as in `wall_clock`, without duplicates.

    Raises:
        ValueError: two bars have the same local time.
    """
    if index.tz is None:
        return index
    local = wall_clock(index)
    if local.has_duplicates:
        raise ValueError(
            f"bars of {name} have the local time {local[local.duplicated()][0]} twice, since clocks in {index.tz} "
            "are set back. Use a time zone without daylight saving time, e.g. bars.tz_convert('UTC')."
        )
    return local


def repair_bars(bars: pd.DataFrame) -> pd.DataFrame:
    """Repair bars where no guess is needed, and drop the other invalid rows.

    Sorts by time, keeps the last of duplicate timestamps, drops rows without four finite prices, widens high and
    low to include open and close, and sets missing or negative volume and amount to 0. Columns are renamed as in
    `name_columns`.
    """
    bars = name_columns(bars)
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
    """Adjust raw bars: prices times the column `factor`, volume divided by it, amount unchanged.

    Factors may start at 1 on the first bar or end at 1 on the last: forecasts do not depend on the unit of the
    price.
    """
    bars = name_columns(bars)
    if factor not in bars.columns:
        raise ValueError(
            f"bars lack the column '{factor}'. Pass factor= with the name of your adjustment factor."
        )
    if missing := [column for column in PRICES if column not in bars.columns]:
        raise ValueError(f"bars lack the columns {missing}. Rename yours to {list(PRICES)}.")
    adjusted = bars.drop(columns=factor)
    adjusted[list(PRICES)] = bars[list(PRICES)].mul(bars[factor], axis=0)
    if "volume" in bars.columns:
        adjusted["volume"] = bars["volume"] / bars[factor]
    return adjusted


def bars_from_closes(closes: pd.Series) -> pd.DataFrame:
    """(T,) closes of one instrument in order of time -> bars, where nothing else is known.

    Each bar opens at the previous close, the first at its own; high and low are the larger and the smaller of open
    and close. There is no volume.
    """
    opens = closes.shift().fillna(closes)
    ends = pd.DataFrame({"open": opens, "close": closes})
    ends.insert(1, "high", ends.max(axis=1))
    ends.insert(2, "low", ends.min(axis=1))
    return ends


def stamps(timestamps: pd.DatetimeIndex) -> np.ndarray:
    """Calendar fields of (T,) timestamps by the local clock: (T, 5) int64 in the order of STAMPS, Monday = 0."""
    t = timestamps
    fields = (t.minute, t.hour, t.day_of_week, t.day, t.month)
    return np.stack([field.to_numpy(np.int64) for field in fields], axis=-1)


def price_level(columns: pd.MultiIndex) -> int | None:
    """The column level with the names of the prices, ignoring case; None if there is none."""
    levels = range(columns.nlevels)
    return next((i for i in levels if set(PRICES) <= set(_plain(columns.get_level_values(i)))), None)


def _plain(heads: pd.Index) -> list[str]:
    return [str(head).strip().lower() for head in heads]


def _only_instrument(columns: pd.MultiIndex, name: str) -> list[object]:
    """Names from the column level with the prices, if all feature columns belong to one instrument."""
    level = price_level(columns)
    if level is None:
        raise ValueError(
            f"{name} has columns of {columns.nlevels} levels, none of which holds {list(PRICES)}. Pass one frame "
            "per instrument, with columns of these names."
        )
    heads = columns.get_level_values(level)
    features = columns[[head in FEATURES for head in _plain(heads)]].droplevel(level)
    instruments = features.unique()
    if len(instruments) > 1:
        other = 1 if level == 0 else 0
        by = other if columns.names[other] is None else columns.names[other]
        first = features.get_level_values(0)[0]
        raise ValueError(
            f"{name} has columns of {len(instruments)} instruments. Take one at a time: "
            f"bars.xs({first!r}, axis=1, level={by!r})."
        )
    return list(heads)


def _complete(bars: pd.DataFrame, name: str) -> pd.DataFrame:
    full: dict[str, np.ndarray] = {}
    for column in (feature for feature in FEATURES if feature in bars.columns):
        values = bars[column]
        if isinstance(values, pd.DataFrame):
            raise ValueError(f"{name} has the column '{column}' {values.shape[1]} times. Keep one.")
        try:
            full[column] = values.astype(float).to_numpy()
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name} has a column '{column}' that is not numeric ({error}). Convert it with pd.to_numeric."
            ) from None
    if "volume" not in full:
        full["volume"] = full["amount"] = np.zeros(len(bars))
    elif "amount" not in full:
        prices = pd.DataFrame({price: full[price] for price in PRICES})
        full["amount"] = full["volume"] * prices.mean(axis=1).to_numpy()
    # One block of all columns: columns that are added one by one take several times as long.
    return pd.DataFrame({feature: full[feature] for feature in FEATURES}, index=bars.index)


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
            f"{name} has a {FEATURES[column]} of {values[row, column]:g} at {bars.index[row]}, outside the range "
            f"of float32 ({_SMALLEST:g} to {_LARGEST:g}). Use another unit."
        )
    negative = values[:, 4:] < 0
    if negative.any():
        row, column = np.argwhere(negative)[0]
        raise ValueError(
            f"{name} has a negative {FEATURES[4 + column]} at {bars.index[row]}. Fix it, e.g. with repair_bars()."
        )
    slack = _TOLERANCE * np.abs(values[:, :4]).max(axis=1)
    highest, lowest = values[:, [0, 3]].max(axis=1), values[:, [0, 3]].min(axis=1)
    wrong = (values[:, 1] < highest - slack) | (values[:, 2] > lowest + slack)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{name} has open or close outside [low, high] in {int(wrong.sum())} rows, the first at "
            f"{bars.index[row]}. Fix them, e.g. with repair_bars()."
        )


# Threshold on |open / previous close - 1| above which a series is broken (Kronos, appendix on data).
MAX_GAP = {
    "1min": 0.10,
    "5min": 0.15,
    "15min": 0.15,
    "30min": 0.20,
    "60min": 0.20,
    "4h": 0.25,
    "1day": 0.30,
    "1week": 0.50,
}
MAX_RANGE = 3.0  # high / low within one bar: more than that is a bad print


class BarsWarning(UserWarning):
    """Bars are readable, but forecasts from them are probably meaningless."""


def warn_of_jumps(bars: pd.DataFrame, name: str, frequency: str | None = None) -> None:
    """Emit a `BarsWarning` about the first price jump that no market makes: an unadjusted split or a bad print.

    Args:
        bars: one instrument, DatetimeIndex, positive open, high, low and close, adjusted for splits.
        name: name of the bars in the message, e.g. "bars of AAA".
        frequency: frequency of the bars, a key of MAX_GAP; inferred from the timestamps when omitted.
    """
    limit = MAX_GAP[frequency] if frequency else _limit(pd.DatetimeIndex(bars.index))
    prices = [bars[column].to_numpy(float) for column in ("open", "high", "low", "close")]
    open_, high, low, close = prices
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.r_[0.0, open_[1:] / close[:-1] - 1]
        found = (np.abs(gap) > limit) | (high / low > MAX_RANGE)
    found &= np.all([price > 0 for price in prices], axis=0)
    if not found.any():
        return
    row, count = int(np.argmax(found)), int(found.sum())
    what = (
        f"open {abs(gap[row]):.0%} {'above' if gap[row] > 0 else 'below'} the previous close"
        if abs(gap[row]) > limit
        else f"reach from {low[row]:g} to {high[row]:g} within one bar"
    )
    when = str(bars.index[row]).removesuffix(" 00:00:00")
    more = f" ({count - 1} more such {'bar' if count == 2 else 'bars'})" if count > 1 else ""
    warnings.warn(
        f"{name} {what} at {when}{more}: forecasts are meaningless across an unadjusted split or a bad "
        "print. Adjust prices, e.g. with adjust_bars(), or drop the bad bars.",
        BarsWarning,
        stacklevel=3,
    )


def _limit(index: pd.DatetimeIndex) -> float:
    """Threshold of the shortest known frequency that is not shorter than the bars' own step."""
    step = typical_step(index)
    if step is None:
        return np.inf
    limits = [MAX_GAP[name] for name, minutes in FREQUENCIES.items() if pd.Timedelta(minutes=minutes) >= step]
    return limits[0] if limits else max(MAX_GAP.values())
