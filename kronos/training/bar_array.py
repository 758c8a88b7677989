"""The clean bars of a source as flat arrays on disk, mapped into memory, and the return-head labels of these bars.

Training reads only the pages with its windows, so that millions of bars need little memory. The arrays are in the
user's cache, in a folder named by a hash of the source's settings and its files' sizes and modification times.

The label of bar t and horizon h is the cross-sectional rank of the return from close(t + 1) to close(t + 1 + h)
among all instruments with a bar at that date, in [-0.5, 0.5] times sqrt(12), minus its regression on the rank of
the 20-day volatility at t. Bars are counted within a clean segment of one instrument, on adjusted closes, and a
label never extends into another segment.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from filelock import FileLock
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kronos.bars import CLOSE, FEATURES, STAMPS, stamps
from kronos.calendar import common_frequency, typical_step
from kronos.training.config import AUTO, Source
from kronos.training.model_card import SEVERAL, DatasetInfo, no_clean_segment
from kronos.training.sources import (
    MAX_PAUSE,
    RULES,
    CleaningReport,
    InstrumentBars,
    QlibReader,
    Reader,
    clean_segments,
    nearest_rule,
    open_reader,
)
from kronos.utils import atomic_folder, explain_write_errors

CACHE_VERSION = 5  # raise it whenever the same files would give other arrays
_FREQUENCY_BARS = 1000  # bars of a series that determine its frequency
_TYPES = {"values": "<f4", "stamps": "i1", "dates": "<i8"}  # of the arrays on disk


@dataclass(frozen=True)
class MappedBars:
    """Clean segments of bars, one after the other.

    Attributes:
        values: (M, 6) float32 FEATURES in the bars' own units.
        stamps: (M, 5) int8 calendar fields.
        dates: (M,) datetime64[ns] timestamps.
        bounds: (segments + 1,) first row of each segment, then M.
        info: description of the contents and their source.
        folder: folder of the arrays; None: in memory only.
    """

    values: np.ndarray
    stamps: np.ndarray
    dates: np.ndarray
    bounds: np.ndarray
    info: DatasetInfo
    folder: Path | None = None

    def __reduce__(self) -> tuple[Callable[..., MappedBars], tuple[Any, ...]]:
        """Pickle the folder only, so that processes that load windows map the same files."""
        if self.folder is not None and isinstance(self.values, np.memmap):
            return MappedBars._map, (self.folder, self.info.name)
        return MappedBars, tuple(getattr(self, field.name) for field in fields(self))

    @classmethod
    def open(cls, source: Source | None, min_bars: int, read_qlib: QlibReader | None = None) -> MappedBars:
        """The bars of a source, written to the cache if missing; None is the simulated market.

        If several processes open the same source, one writes the arrays and the others wait.

        Args:
            source: training data.
            min_bars: shorter segments are dropped.
            read_qlib: see `open_reader`.

        Raises:
            FileNotFoundError: there is no such source.
            ValueError: it has no segment of `min_bars` clean bars, or bars that cannot be read.
        """
        reader = open_reader(source, read_qlib)
        folder = cache_folder() / _key(source, reader, min_bars)
        with explain_write_errors(folder, "Set XDG_CACHE_HOME to another folder for the cache."):
            folder.parent.mkdir(parents=True, exist_ok=True)
            Path(f"{folder}.lock").open("a").close()  # without permission, a lock would wait forever
            with FileLock(f"{folder}.lock"):
                if not (folder / "info.json").is_file():
                    with atomic_folder(folder) as new:
                        _write(new, source, reader, min_bars)
        return cls._map(folder, _label(source))

    def window_starts(
        self, length: int, since: str | None, until: str | None, held_out: int | None = None
    ) -> np.ndarray:
        """First rows of all windows of `length` bars within one segment that end in [since, until].

        With `held_out`, the last `held_out` bars of a window must all be at `since` or later, not only its last
        bar.
        """
        first = [np.arange(a, b - length + 1) for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True)]
        starts = np.concatenate(first)
        keep = np.ones(len(starts), bool)
        if since is not None:
            keep &= self.dates[starts + length - (1 if held_out is None else held_out)] >= midnight(since)
        if until is not None:
            keep &= self.dates[starts + length - 1] < midnight(until) + np.timedelta64(1, "D")
        return starts[keep]

    def date_at(self, share: float) -> str:
        """The ISO date at a share of the time span, and at the latest the day before the last one."""
        first, last = self.dates.min(), self.dates.max()
        day = (first + (last - first) * share).astype("datetime64[D]")
        earlier = last.astype("datetime64[D]") - 1
        return str(max(min(day, earlier), first.astype("datetime64[D]")))

    @classmethod
    def _map(cls, folder: Path, name: str) -> MappedBars:
        held = json.loads((folder / "info.json").read_text())
        held["cleaning"] = CleaningReport(**held["cleaning"])
        held["notes"] = tuple(held["notes"])
        arrays = {name: np.memmap(folder / name, kind, "r") for name, kind in _TYPES.items()}
        return cls(
            values=arrays["values"].reshape(-1, len(FEATURES)),
            stamps=arrays["stamps"].reshape(-1, len(STAMPS)),
            dates=arrays["dates"].view("datetime64[ns]"),
            bounds=np.load(folder / "bounds.npy"),
            info=replace(DatasetInfo(**held), name=name),  # the same bars may have several names
            folder=folder,
        )


def cache_folder() -> Path:
    """The cache of mapped bars, in $XDG_CACHE_HOME or ~/.cache. It can be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "kronos" / "bars"


def _key(source: Source | None, reader: Reader, min_bars: int) -> str:
    """Name of the folder: equal names mean equal settings and unchanged files."""
    used = asdict(source) if source else {}
    for name in ("name", "weight", "train_until", "validate_until", "head"):  # these do not affect the bars
        used.pop(name, None)
    found = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in reader.files()]
    text = json.dumps([CACHE_VERSION, min_bars, used, found], default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _label(source: Source | None) -> str:
    return source.label if source else "simulated"


def midnight(date: str) -> np.datetime64:
    """The start of a date."""
    return pd.Timestamp(date).normalize().to_datetime64()


def _write(folder: Path, source: Source | None, reader: Reader, min_bars: int) -> None:
    name = _label(source)
    digest, bounds, names, read = hashlib.sha256(), [0], set(), 0
    first, last, report = pd.Timestamp.max, pd.Timestamp.min, CleaningReport()
    files = {array: (folder / array).open("wb") for array in _TYPES}
    found = _frequency(source, reader)
    for instrument, bars in _shown(_series(source, reader), f"cleaning {name}"):
        read += len(bars)
        segments, taken = clean_segments(bars, RULES[found.used], min_bars, found.max_pause)
        report += taken
        for segment in segments:
            index = pd.DatetimeIndex(segment.index).as_unit("ns")
            arrays = {"values": segment.to_numpy(), "stamps": stamps(index), "dates": index.asi8}
            for array, values in arrays.items():
                content = np.ascontiguousarray(values, _TYPES[array]).tobytes()
                files[array].write(content)
                digest.update(content)
            bounds.append(bounds[-1] + len(segment))
            digest.update(len(segment).to_bytes(8, "little"))
            names.add(instrument)
            first, last = min(first, index[0]), max(last, index[-1])
    for file in files.values():
        file.close()
    if not names:
        raise ValueError(no_clean_segment(name, read, min_bars, report, found.used, found.inferred))
    np.save(folder / "bounds.npy", np.array(bounds))
    info = DatasetInfo(
        name,
        len(names),
        len(bounds) - 1,
        read,
        bounds[-1],
        f"{first:%Y-%m-%d}",
        f"{last:%Y-%m-%d}",
        digest.hexdigest(),
        found.used,
        found.inferred,
        report,
        tuple(reader.notes()),
    )
    (folder / "info.json").write_text(json.dumps(asdict(info), indent=1))


def _series(source: Source | None, reader: Reader) -> Iterator[InstrumentBars]:
    """The bars of each instrument within the source's span; instruments without any are dropped."""
    span = slice(source.start if source else None, source.end if source else None)
    for instrument, bars in reader.series():
        bars = bars.loc[span]
        if source and source.derive_amount:
            bars = bars.drop(columns="amount", errors="ignore")
        if len(bars):
            yield InstrumentBars(instrument, bars)


class _Frequency(NamedTuple):
    """The frequency whose cleaning rule is used, that of the timestamps, and the longest pause without a cut."""

    used: str
    inferred: str
    max_pause: pd.Timedelta


def _frequency(source: Source | None, reader: Reader) -> _Frequency:
    """The frequency of a source's bars: as set, else as inferred, else the nearest one with a rule.

    Raises:
        ValueError: it is not set, and instruments have different frequencies.
    """
    name, given = _label(source), source.frequency if source else AUTO
    series = _shown(_series(source, reader), f"reading the timestamps of {name}")
    # Copies, because slices would keep all timestamps in memory.
    indexes = [
        (instrument, pd.DatetimeIndex(bars.index[:_FREQUENCY_BARS].to_numpy(copy=True)))
        for instrument, bars in series
    ]
    try:
        inferred = common_frequency(indexes, name)
    except ValueError:
        if given == AUTO:
            raise
        return _Frequency(given, SEVERAL, MAX_PAUSE)
    steps = Counter(step for _, index in indexes if (step := typical_step(index)) is not None)
    step = steps.most_common(1)[0][0] if steps else pd.Timedelta(days=1)
    used = (inferred or nearest_rule(step)) if given == AUTO else given
    # Steps of monthly bars exceed MAX_PAUSE.
    return _Frequency(used, inferred or _step_text(step), max(MAX_PAUSE, 2.2 * step))


def _step_text(step: pd.Timedelta) -> str:
    units = {"days": pd.Timedelta(days=1), "h": pd.Timedelta(hours=1), "min": pd.Timedelta(minutes=1)}
    for name, unit in units.items():
        if step >= unit and not step % unit:
            return f"{step // unit}{' ' * (name == 'days')}{name}"
    return f"{step.total_seconds():g}s"


def _shown(series: Iterator[InstrumentBars], what: str) -> Iterator[InstrumentBars]:
    """The series, with a counter on a terminal, since their number is not known in advance."""
    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task, bars = progress.add_task(what, total=None), 0
        for count, one in enumerate(series, start=1):
            bars += len(one.bars)
            progress.update(task, description=f"{what}: {count:,} series, {bars:,} bars")
            yield one


HORIZONS = (1, 5, 10)  # bars from close(t + 1)
MIN_INSTRUMENTS = 20  # per date; dates with fewer have no label
VOLATILITY_BARS = 20
LABEL = (
    "rank of the return from close(t+1) to close(t+1+h) among the instruments of a market and date, in "
    "[-0.5, 0.5] x sqrt(12), minus its least-squares regression on the equally scaled rank of the "
    f"{VOLATILITY_BARS}-bar volatility; dates with {MIN_INSTRUMENTS} instruments or more"
)


def return_labels(mapped: MappedBars, until: str | None) -> np.ndarray:
    """(M, len(HORIZONS)) float32 labels of all bars of a market.

    A label at date t uses closes up to bar t + 1 + h, and none after `until`: instruments whose return would extend
    further are excluded from the ranks of the date.

    Args:
        mapped: bars of one market.
        until: last date that labels may use.

    Returns:
        NaN without a label: missing closes or volatility, after `until`, or fewer than MIN_INSTRUMENTS instruments.
    """
    volatility = rolling_volatility(mapped)
    labels = np.full((len(mapped.values), len(HORIZONS)), np.nan, np.float32)
    for column, returns in enumerate(forward_returns(mapped, until).T):
        rows = np.flatnonzero(np.isfinite(returns) & np.isfinite(volatility))
        if len(rows):
            groups = np.unique(mapped.dates[rows], return_inverse=True)[1]
            labels[rows, column] = _residual_ranks(returns[rows], volatility[rows], groups)
    return labels


def forward_returns(mapped: MappedBars, until: str | None) -> np.ndarray:
    """(M, len(HORIZONS)) returns from close(t + 1) to close(t + 1 + h); NaN after the segment's end or `until`."""
    close = mapped.values[:, CLOSE].astype(float)
    rows = np.arange(len(close))
    ends = np.repeat(mapped.bounds[1:], np.diff(mapped.bounds))
    returns = np.full((len(close), len(HORIZONS)), np.nan)
    for column, horizon in enumerate(HORIZONS):
        inside = rows[rows + 1 + horizon < ends]
        if until is not None:
            inside = inside[mapped.dates[inside + 1 + horizon] < midnight(until) + np.timedelta64(1, "D")]
        returns[inside, column] = close[inside + 1 + horizon] / close[inside + 1] - 1
    return returns


def rolling_volatility(mapped: MappedBars) -> np.ndarray:
    """(M,) standard deviation of the last VOLATILITY_BARS log returns; NaN if the segment has fewer."""
    close = np.log(mapped.values[:, CLOSE].astype(float))
    volatility = np.full(len(close), np.nan)
    for first, end in zip(mapped.bounds[:-1], mapped.bounds[1:], strict=True):
        if end - first > VOLATILITY_BARS:
            steps = np.lib.stride_tricks.sliding_window_view(np.diff(close[first:end]), VOLATILITY_BARS)
            volatility[first + VOLATILITY_BARS : end] = steps.std(axis=1)
    return volatility


def centered_ranks(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(N,) ranks within each group with averaged ties, from -0.5 (lowest) to 0.5 (highest)."""
    ranks = pd.Series(values).groupby(groups).rank().to_numpy()
    counts = np.bincount(groups)[groups]
    return (ranks - 1) / np.maximum(counts - 1, 1) - 0.5


def residual(values: np.ndarray, exposure: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Residual of a least-squares regression on the exposure in each group; both have mean 0 in each group."""
    shared = np.bincount(groups, values * exposure)
    own = np.bincount(groups, exposure**2)
    return values - (shared / np.where(own > 0, own, 1.0))[groups] * exposure


def _residual_ranks(returns: np.ndarray, volatility: np.ndarray, groups: np.ndarray) -> np.ndarray:
    left = residual(centered_ranks(returns, groups), centered_ranks(volatility, groups), groups)
    return np.where(np.bincount(groups)[groups] >= MIN_INSTRUMENTS, np.sqrt(12) * left, np.nan)
