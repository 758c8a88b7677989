"""Write bars as a Qlib data directory, checked and atomically; the trading rules of the region that fits it.

The store is a plain `provider_uri`. Next to Qlib's files, kronos_store.json records how it was made, and
kronos_checksums.txt the sha256 of each of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kronos.utils import atomic_folder, explain_write_errors, recover_folder
from kronos_strategies.data.qlib_bins import (
    DAY,
    FREQUENCIES,
    MANIFEST,
    days_of,
    read_market,
    write_bins,
    write_calendars,
    write_market,
)
from kronos_strategies.data.validation import check_spans, check_symbols, check_tidy, listing_spans

INSTEAD = "Choose another folder, with --to."
CHECKSUMS = "kronos_checksums.txt"


@dataclass(frozen=True)
class StoreSummary:
    """Contents of a data directory.

    Attributes:
        path: the folder, Qlib's `provider_uri`.
        rows: number of bars, without benchmarks.
        markets: market -> number of instruments that were ever a member; `all` counts every instrument.
        benchmarks: index symbols, which have bars but belong to no market.
        start: first trading day, ISO.
        end: last trading day, ISO.
        sha256: hash of all Qlib files; equal contents give equal hashes.
        source: provenance, as passed to `write_store`.
        freq: Qlib's name of the bar frequency.
    """

    path: Path
    rows: int
    markets: Mapping[str, int]
    benchmarks: tuple[str, ...]
    start: str
    end: str
    sha256: str
    source: Mapping[str, object]
    freq: str = DAY


class _Content(NamedTuple):
    bars: pd.DataFrame
    benchmarks: pd.DataFrame
    spans: dict[str, pd.DataFrame]  # by market, `all` included


def write_store(
    bars: pd.DataFrame,
    to: Path,
    *,
    membership: Mapping[str, pd.DataFrame],
    source: Mapping[str, object],
    benchmarks: pd.DataFrame | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    frequency: str = "1day",
) -> StoreSummary:
    """Write bars as a Qlib data directory.

    Args:
        bars: tidy: instrument, datetime, open, high, low, close (raw), volume, and optionally amount and
            factor (1 without it; adjusted price = raw * factor). Suspended days are absent.
        to: folder to create.
        membership: market name -> frame of instrument, start, end: one row per stay, both days
            included. Membership on a day must have been known on that day.
        source: provenance of the bars, ready for JSON; saved in the manifest.
        benchmarks: index bars, tidy like `bars`, cut to the days from the first to the last of `bars`.
        overwrite: replace a data directory that this function wrote; anything else is never replaced.
        progress: called as progress(done, total) after each instrument.
        frequency: bar frequency as in `kronos.calendar`: "1day" or an intraday one.

    Raises:
        FileExistsError: `to` already exists.
        ValueError: bars or membership are not usable.
    """
    to = to.expanduser().resolve()
    check_target(to, overwrite)
    if frequency not in ("1day", *FREQUENCIES):
        raise ValueError(
            f"frequency='{frequency}' has no data directory. Choose one of {['1day', *FREQUENCIES]}."
        )
    content = _check(bars, benchmarks, membership, frequency)
    freq = FREQUENCIES.get(frequency, DAY)
    with explain_write_errors(to, INSTEAD), atomic_folder(to, replace=overwrite) as draft:
        calendar = _write_files(draft, content, progress, freq)
        summary = StoreSummary(
            path=to,
            rows=len(content.bars),
            markets={market: frame["instrument"].nunique() for market, frame in content.spans.items()},
            benchmarks=tuple(content.benchmarks["instrument"].unique()),
            start=f"{calendar[0]:%Y-%m-%d}",
            end=f"{calendar[-1]:%Y-%m-%d}",
            sha256=_write_checksums(draft),
            source=source,
            freq=freq,
        )
        _write_manifest(draft, summary)
        check_target(to, overwrite)
    return summary


def read_summary(store: Path) -> StoreSummary:
    """Read the manifest of a data directory.

    Raises:
        FileNotFoundError: `write_store` did not write it.
    """
    path = store / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{store} has no {MANIFEST}, so `kronos data` did not write it. Make a data directory "
            "with `kronos data`."
        )
    manifest = json.loads(path.read_text(encoding="utf-8"))
    return StoreSummary(**manifest | {"path": store, "benchmarks": tuple(manifest["benchmarks"])})


def check_intact(store: Path) -> int:
    """Compare the files of a data directory with the checksums that were written with them.

    Every file of Qlib's is covered; the manifest and files that were added later are not. Checksums are compared
    when days are appended and by `kronos data verify`; Qlib and forecasts read the files without them.

    Returns:
        Number of files.

    Raises:
        FileNotFoundError: there are no checksums.
        ValueError: files are damaged or missing; names the first.
    """
    path = store / CHECKSUMS
    if not path.is_file():
        raise FileNotFoundError(
            f"{store} has no {CHECKSUMS}, so its files cannot be verified. Import the whole history again."
        )
    lines = [line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines()]
    damaged = [name for sha256, name in lines if _sha256(store / name) != sha256]
    if damaged:
        more = f" and {len(damaged) - 1} more files are" if len(damaged) > 1 else " is"
        raise ValueError(
            f"{store / damaged[0]}{more} damaged or missing: they differ from {CHECKSUMS}. Import the whole "
            "history again with --overwrite."
        )
    return len(lines)


def _sha256(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def check_target(to: Path, overwrite: bool) -> None:
    """Check that a data directory can be written at `to`, before files are read.

    Raises:
        FileExistsError: it already exists.
        OSError: the folder cannot be created.
    """
    with explain_write_errors(to, INSTEAD):
        recover_folder(to)  # raises where its name is too long
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not (to / MANIFEST).is_file():
        raise FileExistsError(
            f"{to} exists and is not a data directory that `kronos data` wrote. Choose another folder."
        )
    if not overwrite:
        raise FileExistsError(
            f"{to} already contains a data directory. Choose another folder, add days (--append), or replace it "
            "(--overwrite)."
        )


def _check(
    bars: pd.DataFrame,
    benchmarks: pd.DataFrame | None,
    membership: Mapping[str, pd.DataFrame],
    frequency: str,
) -> _Content:
    bars = check_tidy(bars, frequency=frequency)
    index_bars = bars.iloc[:0]
    if benchmarks is not None:
        index_bars = check_tidy(benchmarks, "benchmarks", frequency)
        index_bars = index_bars[
            index_bars["datetime"].between(bars["datetime"].min(), bars["datetime"].max())
        ]
        if gone := sorted(set(benchmarks["instrument"]) - set(index_bars["instrument"])):
            raise ValueError(
                f"the benchmark {gone[0]} has no bar on the days of the instruments. Pass bars of these days."
            )
    check_symbols([*bars["instrument"].unique(), *index_bars["instrument"].unique()])
    spans = {"all": listing_spans(bars)}
    for market, frame in membership.items():
        if not re.fullmatch(r"[a-z0-9_]+", market) or market == "all":
            raise ValueError(f"'{market}' cannot name a market. Use a-z, 0-9 and _, and not 'all'.")
        spans[market] = check_spans(frame, market, bars["instrument"].unique())
    return _Content(bars, index_bars, spans)


def _write_files(
    folder: Path, content: _Content, progress: Callable[[int, int], None], freq: str
) -> pd.DatetimeIndex:
    """Write Qlib's files; return the trading times, the union over instruments and benchmarks."""
    days = pd.concat([content.bars["datetime"], content.benchmarks["datetime"]])
    calendar = pd.DatetimeIndex(np.sort(days.unique()))
    write_calendars(folder, calendar, freq)
    for market, spans in content.spans.items():
        write_market(folder, market, spans)
    frames = [frame for part in content[:2] for _, frame in part.groupby("instrument")]
    if freq != DAY:  # Qlib's intraday backtest reads daily bars as well
        write_calendars(folder, calendar.normalize().unique())
    for done, frame in enumerate(frames, start=1):
        write_bins(folder, frame, calendar, freq)
        if freq != DAY:
            write_bins(folder, days_of(frame), calendar.normalize().unique())
        progress(done, len(frames))
    return calendar


def _write_checksums(folder: Path) -> str:
    """Write a checksum of each file, as `sha256sum --check` reads it; return the hash of all files."""
    whole, lines = hashlib.sha256(), []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        whole.update(name.encode() + b"\0" + content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
    return whole.hexdigest()


def _write_manifest(folder: Path, summary: StoreSummary) -> None:
    # A store may be moved, so it does not record its path.
    manifest = {key: value for key, value in asdict(summary).items() if key != "path"}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Region:
    """Trading rules of a region that a backtest sets.

    Attributes:
        name: Qlib's name, which sets the lot size: 100 shares in cn, 1,000 in tw, single ones in us.
        limit: daily price limit as a return; None for no limit.
        open_cost: cost of a purchase, as a fraction of its value.
        close_cost: cost of a sale, as a fraction of its value.
        min_cost: minimum cost of a trade, in currency.
        config: workflow file in `configs/`.
    """

    name: str
    limit: float | None
    open_cost: float
    close_cost: float
    min_cost: float
    config: str

    def __str__(self) -> str:
        """Description in words."""
        lots = {"cn": "lots of 100", "tw": "lots of 1,000", "us": "single shares"}[self.name]
        limit = "no price limit" if self.limit is None else f"a price limit of {self.limit:.1%}"
        return (
            f"{self.name}: {lots}, {limit}, costs of {self.open_cost:.2%} and {self.close_cost:.2%}, at least "
            f"{self.min_cost:g}"
        )


REGIONS = {
    "cn": Region("cn", 0.095, 0.0005, 0.0015, 5, "kronos_csi300.yaml"),
    "us": Region("us", None, 0.0005, 0.0005, 0, "kronos_us.yaml"),
    "tw": Region("tw", 0.095, 0.001425, 0.004425, 20, "kronos_csi300.yaml"),
}
_PATTERNS = {
    "cn": re.compile(r"(SH|SZ|BJ)?\.?\d{6}(\.(SH|SZ|BJ|SS|XSHG|XSHE))?", re.IGNORECASE),
    "tw": re.compile(r"\d{4}\.TWO?", re.IGNORECASE),
}
_CRYPTO = re.compile(r"[A-Z0-9]{2,}[-/_]?(USDT|USDC|BUSD|TUSD|FDUSD)", re.IGNORECASE)


def guess_region(symbols: Iterable[str]) -> Region:
    """The region whose symbol format most instruments follow; us, which has the fewest rules, otherwise."""
    names = list(symbols)
    for region, pattern in _PATTERNS.items():
        if 2 * sum(bool(pattern.fullmatch(name)) for name in names) > len(names):
            return REGIONS[region]
    return REGIONS["us"]


def default_market(region: Region, symbols: Iterable[str]) -> str:
    """Default name of a market: csi300, tw, us, or crypto."""
    names = list(symbols)
    if region.name == "cn":
        return "csi300"
    return "crypto" if 2 * sum(bool(_CRYPTO.fullmatch(name)) for name in names) > len(names) else region.name


def region_of_store(store: Path) -> Region:
    """The recorded region of the import, else the one inferred from the symbols."""
    if (store / MANIFEST).is_file():
        known = read_summary(store).source.get("region")
        if known in REGIONS:
            return REGIONS[str(known)]
    return guess_region(read_market(store)["instrument"].unique())
