"""Read and write the files of a Qlib data directory without Qlib; checks only the limits of the format.

    calendars/day.txt, day_future.txt      one trading day per line; the second continues after the last bar
    instruments/<market>.txt               symbol, first day, last day; several rows where a member returned
    features/<symbol>/<field>.day.bin      float32: index of the first day, then one value per day (NaN: no bar)

Bars of another frequency have its name instead of "day", e.g. 5min, and times instead of days.

Qlib's convention: $close = raw * $factor, $volume = raw / $factor, $amount raw, and $change = $close /
previous traded $close - 1, from which its exchange identifies days at a price limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from kronos.bars import PRICES
from kronos.calendar import infer_frequency
from kronos_strategies.data.validation import SPAN

FUTURE_DAYS = 60
FUTURE_SESSIONS = 20  # days, for intraday bars
MANIFEST = "kronos_store.json"  # manifest of a store written by this package
DAY = "day"  # Qlib's name of the frequency
FREQUENCIES = {
    "1min": "1min", "5min": "5min", "15min": "15min", "30min": "30min", "60min": "60min", "4h": "240min",
}  # as kronos.calendar calls those within a day, and as Qlib does  # fmt: skip

_WINDOWS_DEVICES = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)
_OUTSIDE = re.compile(r".*[/\\\0].*|\.*", re.DOTALL)  # names that lead to another folder
_RECENT, _TELLING = 250, 10  # days of the calendar from which weekdays are inferred, and their minimum number
_WITH_FREQ = re.compile(r"(.+)-(\d+min)")  # a universe of bars within the day
_RARE = 0.2  # share of the most frequent weekday; a weekday below it has no regular trading


def bin_folder(store: Path, symbol: str) -> Path:
    """Folder of a symbol's bins: in lower case, and never the name of a Windows device.

    Raises:
        ValueError: the symbol leads out of the data directory.
    """
    if _OUTSIDE.fullmatch(symbol):
        raise ValueError(
            f"the instrument {symbol!r} of {store} is not the name of a folder. Remove it from instruments/*.txt."
        )
    name = f"_qlib_{symbol}" if _WINDOWS_DEVICES.fullmatch(symbol) else symbol
    return store / "features" / name.lower()


def write_calendars(store: Path, times: pd.DatetimeIndex, freq: str = DAY) -> None:
    """Write the (T,) trading times, and later ones extrapolated from the calendar.

    Qlib needs later times to trade on a forecast from the last bar, and to end a backtest there.
    """
    later = later_sessions(times, FUTURE_SESSIONS) if freq != DAY else _later_days(times, FUTURE_DAYS)
    folder, form = store / "calendars", "%Y-%m-%d" if freq == DAY else "%Y-%m-%d %H:%M:%S"
    folder.mkdir(parents=True, exist_ok=True)
    for name, dates in {freq: times, f"{freq}_future": times.append(later)}.items():
        (folder / f"{name}.txt").write_text(
            "".join(f"{line}\n" for line in pd.DatetimeIndex(dates).strftime(form)), encoding="utf-8"
        )


def later_sessions(times: pd.DatetimeIndex, days: int) -> pd.DatetimeIndex:
    """The trading times after the last one: the rest of its day, then `days` more with the usual times of day.

    The usual times are those of the latest complete day: of the last twenty days the one with the most bars.
    """
    by_day = pd.Series(times, times.normalize()).groupby(level=0)
    recent = list(by_day)[-20:]
    whole = max(reversed(recent), key=lambda each: len(each[1]))[1]
    clock = pd.DatetimeIndex(whole) - pd.DatetimeIndex(whole).normalize()
    last = times[-1].normalize()
    dates = pd.DatetimeIndex([last]).append(_later_days(times.normalize().unique(), days))
    later = pd.DatetimeIndex(np.add.outer(dates.to_numpy(), clock.to_numpy()).ravel())
    return later[later > times[-1]]


def _later_days(days: pd.DatetimeIndex, count: int) -> pd.DatetimeIndex:
    """The next days on weekdays on which the market trades; weeks after weekly bars."""
    if infer_frequency(days) == "1week":
        return pd.date_range(days[-1], periods=count + 1, freq="7D")[1:]
    counts = np.bincount(days[-_RECENT:].day_of_week, minlength=7)
    if len(days) < _TELLING:  # too few to infer weekdays without trading
        counts[:5] = counts.max()
    later = pd.date_range(days[-1], periods=7 * count + 1)[1:]
    return later[counts[later.day_of_week] > _RARE * counts.max()][:count]


def store_freq(store: Path) -> str:
    """Qlib's name of a store's bar frequency: that of its manifest, else day if it has daily bars."""
    if (store / MANIFEST).is_file():
        return str(json.loads((store / MANIFEST).read_text(encoding="utf-8")).get("freq", DAY))
    calendars = (path.stem for path in (store / "calendars").glob("*.txt"))
    known = sorted(name for name in calendars if not name.endswith("_future"))
    return DAY if DAY in known or not known else known[0]


def choose_freq(store: Path, frequency: str | None = None) -> str:
    """Qlib's name of the bar frequency to read from a store.

    Args:
        store: the data folder; where it has no calendar, reading it raises.
        frequency: name of one of its frequencies, Qlib's or ours; when omitted that of its manifest, else day if it
            has daily bars, else the only one.

    Raises:
        ValueError: the store has no bars of that frequency, or several of which none is named.
    """
    store = store.expanduser()
    calendars = (path.stem for path in (store / "calendars").glob("*.txt"))
    present = sorted(name for name in calendars if not name.endswith("_future"))
    if frequency is None:
        if (store / MANIFEST).is_file() or DAY in present or len(present) < 2:
            return store_freq(store)
        raise ValueError(f"{store} has bars of {', '.join(present)}: choose one of them with --frequency.")
    freq = {"1day": DAY, **FREQUENCIES}.get(frequency, frequency)
    if present and freq not in present:
        raise ValueError(
            f"{store} has bars of {', '.join(present)}, and none of --frequency {frequency}: choose one of these."
        )
    return freq


def bar_frequency(freq: str) -> str:
    """Qlib's name of a bar frequency as `kronos.calendar` and return heads have it: 1day, 5min, 4h."""
    return {DAY: "1day", **{name: ours for ours, name in FREQUENCIES.items()}}.get(freq, freq)


def split_universe(universe: str) -> tuple[str, str]:
    """The market and the bar frequency in the name of a universe; a name without a frequency is of daily bars."""
    found = _WITH_FREQ.fullmatch(universe)
    return (found[1], found[2]) if found else (universe, DAY)


def forecast_freq(store: Path, universe: str, dates: pd.DatetimeIndex) -> str:
    """The frequency of the bars that were forecast: that in the name of their universe.

    Forecasts of another origin, such as Backtrader's, have none in it: with times of day they are of the
    frequency of the store.
    """
    freq = split_universe(universe)[1]
    return freq if freq != DAY or (dates == dates.normalize()).all() else store_freq(store.expanduser())


def end_of(date: pd.Timestamp, freq: str) -> pd.Timestamp:
    """The end of a span of bars: a date without a time ends with its last bar."""
    whole = freq != DAY and date == date.normalize()
    return date + pd.Timedelta(days=1) - pd.Timedelta(microseconds=1) if whole else date


def read_calendar(store: Path, future: bool = False, freq: str | None = None) -> pd.DatetimeIndex:
    """The (T,) trading times of a store, with `future` also those after the last bar."""
    name = f"{freq or store_freq(store)}{'_future' if future else ''}.txt"
    text = (store / "calendars" / name).read_text(encoding="utf-8")
    return pd.DatetimeIndex(text.splitlines(), dtype="datetime64[ns]")


def write_market(store: Path, market: str, spans: pd.DataFrame) -> None:
    """Write instruments/<market>.txt from a frame of SPAN."""
    folder = store / "instruments"
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(*(spans.sort_values(list(SPAN))[column] for column in SPAN), strict=True)
    text = "".join(f"{symbol}\t{time_text(start)}\t{time_text(end)}\n" for symbol, start, end in rows)
    (folder / f"{market}.txt").write_text(text, encoding="utf-8")


def time_text(time: pd.Timestamp) -> str:
    """A time as the files have it; a date if it is midnight."""
    return f"{time:%Y-%m-%d}" if time == time.normalize() else f"{time:%Y-%m-%d %H:%M:%S}"


def read_market(store: Path, market: str = "all") -> pd.DataFrame:
    """The membership spans of a market: a frame of SPAN.

    Raises:
        ValueError: a date cannot be read.
    """
    path = store / "instruments" / f"{market}.txt"
    frame = pd.read_csv(path, sep="\t", names=list(SPAN), dtype=str, keep_default_na=False)
    try:
        return frame.assign(start=_dates(frame["start"]), end=_dates(frame["end"]))
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} has a date that cannot be read ({reason}). Write it like 2024-01-02."
        ) from None


def write_bins(store: Path, bars: pd.DataFrame, calendar: pd.DatetimeIndex, freq: str = DAY) -> None:
    """Write the bins of one instrument.

    Args:
        store: the data folder.
        bars: ascending times of `calendar`; columns instrument, datetime, raw prices, volume, factor[, amount].
        calendar: (T,) trading times of the store.
        freq: bar frequency.

    Raises:
        ValueError: a price or volume that float32 cannot hold.
    """
    symbol = bars["instrument"].iloc[0]
    position = calendar.get_indexer(pd.DatetimeIndex(bars["datetime"]))
    folder = bin_folder(store, symbol)
    folder.mkdir(parents=True, exist_ok=True)
    for field, values in _fields(bars).items():
        column = np.full(position[-1] - position[0] + 2, np.nan, "<f4")
        column[0] = position[0]
        with np.errstate(over="ignore"):
            column[1 + position - position[0]] = values
        written = column[1 + position - position[0]]
        if np.isinf(written).any() or (field in PRICES and not (written > 0).all()):
            raise ValueError(
                f"{symbol} has a {field} too large or too small for float32, Qlib's format. Scale its bars."
            )
        column.tofile(folder / f"{field}.{freq}.bin")


def read_bars(
    store: Path,
    instruments: Iterable[str] | None = None,
    fields: Mapping[str, str] = MappingProxyType({}),
    freq: str | None = None,
) -> pd.DataFrame:
    """Read bars as they were written, up to rounding to float32.

    Args:
        store: the data folder.
        instruments: symbols, benchmarks allowed; by default market `all`.
        fields: the store's names of features that differ from ours.
        freq: bar frequency, see `store_freq`.

    Returns:
        tidy frame: instrument, datetime, open, high, low, close (raw), volume, amount where stored, factor.
    """
    symbols = read_market(store)["instrument"] if instruments is None else instruments
    freq = freq or store_freq(store)
    calendar = read_calendar(store, freq=freq)
    parts = [_read_bins(store, symbol, calendar, fields, freq) for symbol in symbols]
    return pd.concat(parts, ignore_index=True)


def days_of(bars: pd.DataFrame) -> pd.DataFrame:
    """Tidy daily bars from tidy intraday bars."""
    adjusted = bars.assign(datetime=bars["datetime"].dt.normalize())
    whole = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum", "factor": "last"}
    if "amount" in bars:
        whole["amount"] = "sum"
    days = adjusted.groupby(["instrument", "datetime"], sort=True).agg(whole).reset_index()
    for quantity in {"volume", "amount"} & set(bars):
        known = bars[quantity].notna().groupby(bars["instrument"]).any()
        days[quantity] = days[quantity].where(days["instrument"].map(known))
    return days


def _fields(bars: pd.DataFrame) -> dict[str, np.ndarray]:
    """Raw bars -> (T,) values of each Qlib field."""
    factor = bars["factor"].to_numpy(float)
    fields = {price: bars[price].to_numpy(float) * factor for price in PRICES}
    fields["volume"] = bars["volume"].to_numpy(float) / factor
    if "amount" in bars:
        fields["amount"] = bars["amount"].to_numpy(float)
    change = np.full(len(bars), np.nan)
    change[1:] = fields["close"][1:] / fields["close"][:-1] - 1
    return fields | {"factor": factor, "change": change}


def _read_bins(
    store: Path, symbol: str, calendar: pd.DatetimeIndex, fields: Mapping[str, str], freq: str
) -> pd.DataFrame:
    folder = bin_folder(store, symbol)
    files = {n: folder / f"{fields.get(n, n)}.{freq}.bin" for n in (*PRICES, "volume", "amount", "factor")}
    if absent := [files[n].name for n in (*PRICES, *fields) if n in files and not files[n].is_file()]:
        raise ValueError(
            f"{store} has no {absent[0]} of '{symbol}'. Its bars are those in {store / 'instruments' / 'all.txt'}."
        )
    columns = {n: _read_bin(file, len(calendar)) for n, file in files.items() if file.is_file()}
    if len({(len(values), values[0]) for values in columns.values()}) > 1:
        raise ValueError(
            f"The files in {folder} have different lengths: one is damaged. Import the bars again."
        )
    start = int(columns["close"][0])
    frame = pd.DataFrame({name: values[1:] for name, values in columns.items()})
    frame.insert(0, "instrument", symbol)
    frame.insert(1, "datetime", calendar[start : start + len(frame)])
    frame = frame.dropna(subset=["close"])
    if "factor" not in frame:
        frame["factor"] = 1.0
    if "volume" not in frame:
        frame["volume"] = np.nan
    frame[list(PRICES)] = frame[list(PRICES)].div(frame["factor"], axis=0)
    frame["volume"] *= frame["factor"]
    return frame


def _read_bin(file: Path, days: int) -> np.ndarray:
    """Position of the first value in the calendar, then the values.

    Raises:
        ValueError: the file is truncated, or reaches beyond the calendar.
    """
    content = file.read_bytes()
    values = np.frombuffer(content[: len(content) // 4 * 4], "<f4").astype(float)
    if len(content) % 4 or len(values) < 2 or not 0 <= values[0] <= days + 1 - len(values):
        raise ValueError(
            f"{file} is damaged: it has {len(content)} bytes, which do not fit a calendar of {days} dates. Import "
            "the bars again."
        )
    return values


def _dates(text: pd.Series) -> pd.Series:
    # Days and times of day may be mixed: an instrument that begins at midnight, another at 9:30.
    return pd.to_datetime(text, format="ISO8601").astype("datetime64[ns]")
