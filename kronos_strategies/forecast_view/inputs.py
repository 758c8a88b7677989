"""Files of bars or a Qlib data directory -> the bars to forecast from, and the later ones that are held back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from kronos.bars import FEATURES, PRICES, adjust_bars, wall_clock
from kronos.calendar import common_frequency
from kronos.io import BarFiles
from kronos.io.files import summarize
from kronos.io.rows import ReadOptions
from kronos.training.sources import Source, is_qlib_directory
from kronos.windows import MIN_BARS
from kronos.zones import Zones
from kronos_strategies.data.qlib_bins import read_calendar, read_market, store_freq
from kronos_strategies.data.training import QlibBars
from kronos_strategies.store.settings import MANIFEST

SHOWN = 3  # instruments that a warning names
DEFAULT_OPTIONS = ReadOptions()


@dataclass(frozen=True)
class AllBars:
    """Bars by instrument, as read.

    Attributes:
        bars: ascending DatetimeIndex, four prices in every row, volume and amount as far as there are any.
        calendar: trading times of a Qlib data directory, those after its last bar included; None for files, and
            where the directory has no later times.
        notes: how files were read, one line each.
        warnings: sentences about bars that are left out.
    """

    bars: dict[str, pd.DataFrame]
    calendar: pd.DatetimeIndex | None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def select(self, names: Iterable[str]) -> AllBars:
        """The bars of some instruments."""
        return replace(self, bars={name: self.bars[name] for name in names})


@dataclass(frozen=True)
class ForecastBars:
    """Bars by instrument, divided at the time of the forecast.

    Attributes:
        known: up to the time of the forecast; ascending DatetimeIndex, in the time zone of the files if they
            have one; FEATURES as far as there are any.
        held_back: the later bars; empty frames where nothing is later.
        calendar: as in `AllBars`.
        frequency: frequency of the bars, a key of `kronos.calendar.FREQUENCIES`; None if it is another.
        notes: how files were read, one line each.
        warnings: sentences about instruments that are left out and about volume and amount.
    """

    known: dict[str, pd.DataFrame]
    held_back: dict[str, pd.DataFrame]
    calendar: pd.DatetimeIndex | None
    frequency: str | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def read_forecast_bars(
    paths: Sequence[Path],
    instruments: Sequence[str] = (),
    options: ReadOptions = DEFAULT_OPTIONS,
    as_of: str | None = None,
    lookback: int | None = None,
) -> ForecastBars:
    """Read the bars of `kronos forecast`: `read_all_bars`, divided by `divide_bars`.

    Raises:
        FileNotFoundError: a path has no file.
        ValueError: as in `read_all_bars` and `divide_bars`.
    """
    divided = divide_bars(read_all_bars(paths, instruments, options), as_of, lookback)
    if as_of is None or any(map(len, divided.held_back.values())):
        return divided
    nothing = f"No bar is later than {as_of}, so nothing is held back."
    return replace(divided, warnings=(*divided.warnings, nothing))


def read_all_bars(
    paths: Sequence[Path], instruments: Sequence[str] = (), options: ReadOptions = DEFAULT_OPTIONS
) -> AllBars:
    """Read the bars of files or of a Qlib data directory.

    Args:
        paths: CSV or parquet files, folders of them or glob patterns; or one Qlib data directory.
        instruments: only these, also patterns such as `SH*`; needed for a Qlib data directory.
        options: options for ambiguous files.

    Raises:
        FileNotFoundError: a path has no file.
        ValueError: a path is a forecast store, files cannot be read, or a name is missing.
    """
    calendar: pd.DatetimeIndex | None = None
    notes: tuple[str, ...] = ()
    if any(is_qlib_directory(path) for path in paths):
        bars, calendar = _read_directory(paths, instruments)
    else:
        bars, notes = _read_files(paths, instruments, options)
    warnings = tuple(_drop_unpriced(bars))
    return AllBars(bars, calendar, notes, warnings)


def divide_bars(bars: AllBars, as_of: str | None = None, lookback: int | None = None) -> ForecastBars:
    """Bars up to the time of a forecast, and those held back.

    Args:
        bars: bars of any number of instruments.
        as_of: last time that a forecast may use, "2024-08-26" (with all bars of that day) or "2024-08-26 10:30",
            by the clock of each instrument, or one moment for all, "2024-08-26 10:30+08:00"; the last bar of each
            instrument when omitted.
        lookback: number of bars that an instrument must have; 2 when omitted.

    Raises:
        ValueError: no instrument has enough bars by then, or a moment is given for bars without a time zone.
    """
    until = None if as_of is None else parse_as_of(as_of)
    known = {
        name: frame if until is None else _before(frame, until, name) for name, frame in bars.bars.items()
    }
    later = {name: frame.iloc[len(known[name]) :] for name, frame in bars.bars.items()}
    needed = max(lookback or MIN_BARS, MIN_BARS)
    short = [name for name, frame in known.items() if len(frame) < needed]
    when = "" if as_of is None else f" by {as_of}"
    if len(short) == len(known):
        longest = max((len(frame) for frame in known.values()), default=0)
        raise ValueError(
            f"No instrument has {needed} bars{when}, the longest has {longest}. Pass earlier bars or a shorter "
            "lookback."
        )
    warnings = list(bars.warnings)
    if short:
        warnings.append(f"Fewer than {needed} bars{when}, left out: {_listed(short)}.")
    kept = {name: frame for name, frame in known.items() if name not in set(short)}
    warnings += _absent_columns(kept)
    ends = {frame.index[-1] for frame in kept.values()}
    if len(ends) > 1:
        warnings.append(
            f"The last bars differ, from {min(ends)} to {max(ends)}: each is forecast from its own."
        )
    indexes = ((name, pd.DatetimeIndex(frame.index)) for name, frame in kept.items())
    frequency = common_frequency(indexes, "The bars")
    return ForecastBars(
        kept, {name: later[name] for name in kept}, bars.calendar, frequency, bars.notes, tuple(warnings)
    )


def parse_as_of(text: str) -> pd.Timestamp:
    """The last moment of a day without a time, or the time itself; local unless it has a UTC offset.

    Raises:
        ValueError: neither a date nor a time, or a date with a UTC offset.
    """
    time = pd.to_datetime(text, errors="coerce")
    clock = re.search(r"[T ]\d{1,2}:", text) is not None
    if pd.isna(time) or (time.tz is not None and not clock):
        raise ValueError(
            f"--as-of {text} is not a date or time. Write it like 2024-08-26, '2024-08-26 10:30' or "
            "2024-08-26T10:30+08:00."
        )
    return time if clock else time + pd.Timedelta(days=1) - pd.Timedelta(1, "ns")


def _read_files(
    paths: Sequence[Path], instruments: Sequence[str], options: ReadOptions
) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    for path in paths:
        refuse_forecast_store(path)
    files = BarFiles(paths, options, instruments)
    bars = {name: adjust_bars(frame) if "factor" in frame else frame for name, frame in files.series()}
    zones = files.zones
    notes = summarize(files.notes)
    if zones and (bare := sorted(set(bars) - set(zones))):
        notes.append(f"no single time zone of {_listed(bare)}, so all times are local and have none")
    return _in_zones(bars, zones), tuple(notes)


def _in_zones(bars: dict[str, pd.DataFrame], zones: Zones) -> dict[str, pd.DataFrame]:
    """Bars with the time zones of their files, if those of all instruments are known and have all of the times."""
    if set(bars) != set(zones):
        return bars
    zoned = {}
    for name, frame in bars.items():
        index = pd.DatetimeIndex(frame.index)
        first = np.ones(len(index), bool)  # of an hour that occurs twice
        moments = index.tz_localize(zones[name], ambiguous=first, nonexistent="NaT")
        if moments.hasnans:
            return bars
        zoned[name] = frame.set_axis(moments)
    return zoned


def _before(frame: pd.DataFrame, until: pd.Timestamp, name: str) -> pd.DataFrame:
    """The bars until a local time or a moment."""
    index = pd.DatetimeIndex(frame.index)
    if until.tz is None:
        return frame[wall_clock(index) <= until]
    if index.tz is None:
        raise ValueError(
            f"--as-of {until} has a UTC offset, but the times of {name} have no time zone. Write a local time, or "
            "name the zone of the bars with --timezone."
        )
    return frame[index <= until]


def refuse_forecast_store(path: Path) -> None:
    """Require that a path of bars is not a forecast store.

    Raises:
        ValueError: it is one.
    """
    folder = path.expanduser()
    if folder.is_dir() and (any(folder.glob(f"*/*/{MANIFEST}")) or (folder / MANIFEST).is_file()):
        raise ValueError(
            f"{path} is a forecast store, not a folder of bars. Fill it with "
            f"`kronos store fill {path} --start ... --end ...`."
        )


def _read_directory(
    paths: Sequence[Path], instruments: Sequence[str]
) -> tuple[dict[str, pd.DataFrame], pd.DatetimeIndex | None]:
    if len(paths) > 1:
        raise ValueError(
            f"{paths[0]} and {len(paths) - 1} more paths include a Qlib data directory. Pass one by itself."
        )
    folder = paths[0].expanduser()
    if not instruments:
        names = sorted(set(read_market(folder)["instrument"]))
        raise ValueError(
            f"{folder} is a Qlib data directory of {len(names):,} instruments. Name some with --instrument, such "
            f"as {_listed(names)}; `kronos store fill` forecasts a whole market."
        )
    reader = QlibBars(Source(folder, instruments=tuple(instruments)))
    bars = dict(reader.series())
    ahead = folder / "calendars" / f"{store_freq(folder)}_future.txt"
    return bars, read_calendar(folder, future=True) if ahead.is_file() else None


def _drop_unpriced(bars: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Keep the bars with four prices, in place; says how many are dropped."""
    dropped = 0
    for name, frame in bars.items():
        priced = frame[list(PRICES)].notna().all(axis=1)
        dropped += int((~priced).sum())
        columns = [column for column in FEATURES if column in frame]
        bars[name] = frame.loc[priced, columns].fillna({"volume": 0.0, "amount": 0.0})
    if dropped:
        yield f"Bars without four prices, left out: {dropped:,}."


def _absent_columns(bars: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Sentence on the values that the model reads where volume or amount is missing."""
    if volume := [name for name, frame in bars.items() if "volume" not in frame]:
        yield f"No volume and amount of {_listed(volume)}: the model reads zeros, and no volume is shown."
    amount = [name for name, frame in bars.items() if "volume" in frame and "amount" not in frame]
    if amount:
        yield f"No amount of {_listed(amount)}: it is computed as volume times the mean price."


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
