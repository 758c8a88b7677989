"""Training data: where bars are read from, and how they are cleaned by the paper's rules (appendix on data)."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd

from kronos.bars import FEATURES, MAX_GAP, PRICES, BarsWarning, adjust_bars, check_bars, repair_bars
from kronos.calendar import FREQUENCIES
from kronos.config import check_numbers
from kronos.io import BarFiles
from kronos.io.files import summarize
from kronos.io.rows import ReadOptions

# Columns that a source may have under another name.
FIELDS = ("instrument", "datetime", "time", *FEATURES, "factor", "adj_close")
AUTO = "auto"  # as `frequency`: inferred from the timestamps


@dataclass(frozen=True)
class Source:
    """Training data: the bars of a market, with a frequency and a span of dates.

    Attributes:
        path: a Qlib data directory, a CSV or parquet file, a folder of such files, or a glob pattern. The
            instrument of a file without an instrument column is in its name. A column `factor` or `Adj Close`
            adjusts prices.
        name: name in tables and model cards; that of the path when omitted.
        market: universe of a Qlib data directory whose members to learn from.
        instruments: only these; a pattern such as `*@1d` selects all that match.
        fields: column names of the source by feature, where they differ, e.g. {amount: money}.
        timezone: time zone of the exchange, for files whose timestamps have an offset or are epochs.
        pad_codes: number of digits that codes such as 1 are padded to with zeros, for files; 1 keeps them.
        start: first date.
        end: last date.
        train_until: overrides that of all sources.
        validate_until: overrides that of all sources.
        frequency: frequency of the bars, for the cleaning rules; auto infers it from the timestamps.
        weight: share of training windows from this source, relative to the weights of the others; its number of
            windows if all sources omit it.
        derive_amount: compute the amount as volume times the mean price, even if the source has an amount.
        head: train a return head on the cross-section of its instruments, in the predictor stage.
    """

    path: Path
    name: str = ""
    market: str = "all"
    instruments: tuple[str, ...] = ()
    fields: dict[str, str] = field(default_factory=dict)
    timezone: str | None = None
    pad_codes: int | None = None
    start: str | None = None
    end: str | None = None
    train_until: str | None = None
    validate_until: str | None = None
    frequency: str = AUTO
    weight: float | None = None
    derive_amount: bool = False
    head: bool = False

    @property
    def label(self) -> str:
        """Name in tables and model cards."""
        return self.name or self.path.expanduser().resolve().name.partition(".")[0]

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.fields) - set(FIELDS)):
            raise ValueError(
                f"fields of {self.path} has unknown names {unknown}. Known ones are {list(FIELDS)}."
            )
        check_frequency(self.frequency)
        check_numbers(self)
        if self.weight is not None and not self.weight > 0:
            raise ValueError(f"weight={self.weight} of {self.path} is not positive. Pass a positive weight.")
        for name in ("start", "end", "train_until", "validate_until"):
            if (text := getattr(self, name)) is not None:
                parse_date(name, text)


def check_frequency(frequency: str) -> None:
    """Require a frequency with a cleaning rule, or `auto`."""
    if frequency not in (AUTO, *RULES):
        raise ValueError(f"frequency={frequency} has no cleaning rule. Choose one of {[AUTO, *RULES]}.")


def parse_date(name: str, text: str) -> pd.Timestamp:
    """A date from the settings.

    Raises:
        ValueError: it is not a date; names the setting.
    """
    try:
        return pd.to_datetime(text, format="%Y-%m-%d")
    except ValueError:
        raise ValueError(f"{name}={text!r} is not a date. Write it like 2018-12-31.") from None


class InstrumentBars(NamedTuple):
    """Adjusted bars of one instrument with a DatetimeIndex; prices may be NaN, volume and amount missing."""

    instrument: str
    bars: pd.DataFrame


class Reader(Protocol):
    """Reads the bars of one source."""

    def files(self) -> list[Path]:
        """All files of the source; the bars change only if one of them changes."""
        ...

    def series(self) -> Iterator[InstrumentBars]:
        """Bars by instrument, in a fixed order."""
        ...

    def notes(self) -> list[str]:
        """How the files read so far were interpreted, one line each; may be empty."""
        ...


QlibReader = Callable[[Source | None], Reader]  # of a Qlib data directory; None: the simulated market


def open_reader(source: Source | None, read_qlib: QlibReader | None = None) -> Reader:
    """The reader of a source; None is the simulated market.

    Args:
        source: files of bars, or a Qlib data directory.
        read_qlib: opens Qlib data directories and the simulated market; `kronos train` passes it.

    Raises:
        FileNotFoundError: there is nothing at the source's path.
        ValueError: the source needs `read_qlib`.
    """
    if source is not None and not is_qlib_directory(source.path):
        return FileReader(source)
    if read_qlib is None:
        what = "The simulated market" if source is None else f"The Qlib data directory {source.path}"
        raise ValueError(
            f"{what} cannot be read by `python -m kronos.training`. Use `kronos train`, or pass files of bars."
        )
    return read_qlib(source)


def is_qlib_directory(path: Path) -> bool:
    """Whether a folder is a Qlib data directory."""
    return (path.expanduser() / "calendars").is_dir() and (path.expanduser() / "features").is_dir()


class FileReader:
    """CSV or parquet files, tidy or one symbol each; a symbol may span several files.

    Raises:
        FileNotFoundError: there is no file at the source's path.
        ValueError: an unsupported file type, or an unknown time zone.
    """

    def __init__(self, source: Source) -> None:
        options = ReadOptions(source.fields, source.timezone, source.pad_codes)
        self._bars = BarFiles(source.path, options, source.instruments)

    def files(self) -> list[Path]:
        """The files, sorted by name."""
        return self._bars.files

    def notes(self) -> list[str]:
        """How the files read so far were interpreted: one line per file, or per group of similar files."""
        return summarize(self._bars.notes)

    def series(self) -> Iterator[InstrumentBars]:
        """Adjusted bars by instrument, in the order of the files.

        Raises:
            ValueError: a file cannot be read, or a requested instrument is missing.
        """
        for instrument, bars in self._bars.series():
            yield InstrumentBars(instrument, adjust_bars(bars) if "factor" in bars else bars)


def match_instruments(instruments: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """Instruments that match any of the patterns, which may contain `*` and `?`."""
    return {name for name in instruments if any(fnmatchcase(name, pattern) for pattern in patterns)}


class CleaningRule(NamedTuple):
    """Thresholds for one bar frequency.

    Attributes:
        max_gap: the series is cut before a bar whose |open / previous close - 1| exceeds it.
        max_illiquid: longest run of bars without volume that is kept.
        max_stagnant: longest run of bars with an unchanged close that is kept.
    """

    max_gap: float
    max_illiquid: int
    max_stagnant: int


# The paper gives no runs for 30 minutes, 4 hours and weeks: those of adjacent frequencies are used.
RULES = {
    "1min": CleaningRule(MAX_GAP["1min"], 15, 45),
    "5min": CleaningRule(MAX_GAP["5min"], 3, 10),
    "15min": CleaningRule(MAX_GAP["15min"], 2, 5),
    "30min": CleaningRule(MAX_GAP["30min"], 1, 3),
    "60min": CleaningRule(MAX_GAP["60min"], 1, 3),
    "4h": CleaningRule(MAX_GAP["4h"], 1, 3),
    "1day": CleaningRule(MAX_GAP["1day"], 1, 3),
    "1week": CleaningRule(MAX_GAP["1week"], 1, 3),
}


# Longest pause without a cut; exchange holidays take up to 11 days. After a longer pause (a suspension, or an
# exit from the data) a new segment starts.
MAX_PAUSE = pd.Timedelta(days=15)

# Why bars are dropped or a series is cut; a bar counts under the first reason that applies.
REASONS = ("no price", "illiquid", "stagnant", "pause", "gap", "short")
_NO_PRICE, _ILLIQUID, _STAGNANT, _PAUSE, _GAP, _SHORT = range(1, len(REASONS) + 1)


@dataclass(frozen=True)
class CleaningReport:
    """What cleaning removes from one or more series, by REASONS.

    Attributes:
        places: number of occurrences of each reason: runs of dropped bars, cuts between bars (pause, gap) and short
            segments.
        bars: number of bars dropped for each reason; pauses and gaps only cut.
        lost: the same, with the bars of a short segment counted under the reason of the cut next to it; "short" are
            then series that are short themselves.
        longest: bars of the longest segment before short ones are dropped.
    """

    places: dict[str, int] = field(default_factory=dict)
    bars: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    longest: int = 0

    def __add__(self, other: CleaningReport) -> CleaningReport:
        """Sum of both reports."""
        places, bars, lost = (
            dict(Counter(one) + Counter(two))
            for one, two in ((self.places, other.places), (self.bars, other.bars), (self.lost, other.lost))
        )
        return CleaningReport(places, bars, lost, max(self.longest, other.longest))


class Cleaned(NamedTuple):
    """The clean segments of one series in order of time, and what was removed."""

    segments: list[pd.DataFrame]
    report: CleaningReport


def nearest_rule(step: pd.Timedelta) -> str:
    """The frequency in RULES nearest to a step by ratio; of two equally near ones the longer."""
    minutes = step / pd.Timedelta(minutes=1)
    return min(reversed(FREQUENCIES), key=lambda name: round(abs(math.log(FREQUENCIES[name] / minutes)), 6))


def clean_segments(
    bars: pd.DataFrame, rule: CleaningRule, min_bars: int, max_pause: pd.Timedelta = MAX_PAUSE
) -> Cleaned:
    """Contiguous segments of at least `min_bars` bars that are suitable for training.

    A bar with a missing price is dropped; missing volume or amount counts as 0, as in the paper. Suspended days
    may be missing rather than empty: `max_pause` cuts there. A volume that is 0 or missing in all bars is
    ignored.

    Args:
        bars: one instrument, DatetimeIndex; columns as for `check_bars`, prices may be NaN.
        rule: one of RULES.
        min_bars: shorter segments are dropped.
        max_pause: longest time between two bars of a segment.
    """
    bars = bars.sort_index()
    if "volume" in bars and not (bars["volume"] > 0).any():
        bars = bars.drop(columns="volume")
    dead = _dropped(bars, rule)
    # (T,) why a bar does not continue the previous one; 0 if it does.
    edge = np.where(dead > 0, dead, _cuts(bars, rule, max_pause))
    alive = np.flatnonzero(dead == 0)
    # A run of dropped bars ends a segment.
    stretch = np.cumsum(edge > 0)[alive]
    parts = np.split(alive, np.flatnonzero(np.diff(stretch)) + 1) if len(alive) else []
    segments, short = [], []
    for part in parts:
        if len(part) < min_bars:
            short.append(part)
        else:
            segments.append(_complete(bars.iloc[part[0] : part[-1] + 1]))
    return Cleaned(segments, _report(dead, edge, short, max(map(len, parts), default=0)))


def _complete(bars: pd.DataFrame) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BarsWarning)  # the rule cuts at jumps
        return check_bars(repair_bars(bars))[list(FEATURES)]


def _dropped(bars: pd.DataFrame, rule: CleaningRule) -> np.ndarray:
    """(T,) why each bar is dropped; 0 if it is kept."""
    prices = bars[list(PRICES)].to_numpy(float)
    dead = np.zeros(len(bars), int)
    dead[_long_runs(bars["close"].diff().eq(0).to_numpy(), rule.max_stagnant)] = _STAGNANT
    if "volume" in bars:
        dead[_long_runs(~(bars["volume"] > 0).to_numpy(), rule.max_illiquid)] = _ILLIQUID
    dead[~(np.isfinite(prices) & (prices > 0)).all(axis=1)] = _NO_PRICE
    return dead


def _cuts(bars: pd.DataFrame, rule: CleaningRule, max_pause: pd.Timedelta) -> np.ndarray:
    """(T,) why the series is cut before each bar; 0 if it is not."""
    gap = (bars["open"] / bars["close"].shift().where(lambda close: close > 0) - 1).abs()
    pause = bars.index.to_series().diff().gt(max_pause).to_numpy()
    return np.select([pause, (gap > rule.max_gap).to_numpy()], [_PAUSE, _GAP], 0)


def _report(dead: np.ndarray, edge: np.ndarray, short: list[np.ndarray], longest: int) -> CleaningReport:
    places, dropped = np.zeros(_SHORT + 1, int), np.bincount(dead, minlength=_SHORT + 1)
    before = np.r_[0, dead[:-1]]
    for reason in (_NO_PRICE, _ILLIQUID, _STAGNANT):
        places[reason] = ((dead == reason) & (before != reason)).sum()
    between = (dead == 0) & (before == 0)  # next to a dropped bar there is nothing to cut
    for reason in (_PAUSE, _GAP):
        places[reason] = (between & (edge == reason)).sum()
    lost, edges = dropped.copy(), np.r_[edge, 0]
    for part in short:
        first, end = part[0], part[-1] + 1
        cause = (before[first] or edge[first]) if first else 0
        lost[cause or edges[end] or _SHORT] += len(part)
    places[_SHORT], dropped[_SHORT] = len(short), sum(map(len, short))
    named = [{r: int(n) for r, n in zip(REASONS, c[1:], strict=True) if n} for c in (places, dropped, lost)]
    return CleaningReport(named[0], named[1], named[2], longest)


def _long_runs(flags: np.ndarray, limit: int) -> np.ndarray:
    """(T,) True where a run of True is longer than `limit`."""
    run = np.cumsum(np.r_[True, flags[1:] != flags[:-1]])
    length = np.bincount(run)[run]
    return flags & (length > limit)
