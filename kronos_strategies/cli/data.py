"""`kronos data`: make a Qlib data directory, from files, by download or by simulation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import App
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kronos_strategies.cli import common
from kronos_strategies.cli.common import next_run, note, show_next
from kronos_strategies.cli.data_download import download, fetch
from kronos_strategies.progress import progress_bar

if TYPE_CHECKING:
    from pandas import DataFrame

    from kronos.io.rows import ReadOptions
    from kronos_strategies.data.importer import ImportReport
    from kronos_strategies.data.qlib_store import StoreSummary

data = App(
    name="data",
    help="Make a Qlib data directory, from files, by download or by simulation.\n\n"
    "For example: `kronos data import bars.parquet --to ~/csi300`",
)


data.command(download)
data.command(fetch)


@data.command(name="import")
def import_files(
    files: list[Path],
    /,
    *,
    to: Path,
    market: str | None = None,
    region: Literal["cn", "us", "tw"] | None = None,
    benchmark: Path | None = None,
    membership: Path | None = None,
    columns: common.Columns = (),
    timezone: common.Timezone = None,
    pad_codes: common.PadCodes = None,
    append: bool = False,
    overwrite: bool = False,
) -> None:
    """Import daily or intraday bars from CSV or parquet files, and print what was read and dropped.

    For example: `kronos data import bars.parquet --benchmark index.csv --to ~/csi300`

    Args:
        files: bars: files, folders or glob patterns; tidy, or one instrument per file, named by the file. Columns
            have their usual names, or those of Yahoo, AKShare, Tushare, Binance or MetaTrader. Prices are raw if
            there is a factor or an adjusted close (adjusted = price * factor), otherwise they count as adjusted.
        to: folder to create.
        market: Qlib name of the universe; csi300 for Chinese shares, else the region's default.
        region: trading rules of the next command: cn, tw, or us with single shares and no price limit; inferred
            from the instrument codes when omitted.
        benchmark: bars of one or several indices.
        membership: file of dated membership with columns instrument, start, end. Without it an instrument is a
            member from its first to its last bar, which is survivorship bias if they were chosen today.
        append: add the days of the files to the existing data directory. Older prices are rescaled if the
            overlapping days have one constant ratio, as after a dividend or a split; files without overlap are
            appended unchanged.
        overwrite: replace an existing data directory.
    """
    from kronos.io.columns import parse_columns
    from kronos.io.rows import ReadOptions
    from kronos_strategies.data.append import Appended, append_days
    from kronos_strategies.data.importer import import_bars
    from kronos_strategies.data.qlib_bins import FREQUENCIES
    from kronos_strategies.data.qlib_store import (
        REGIONS,
        check_target,
        default_market,
        guess_region,
        read_summary,
        write_store,
    )
    from kronos_strategies.data.validation import whole_days

    if append and overwrite:
        raise ValueError("--append adds to a data directory and --overwrite replaces it. Choose one.")
    to = to.expanduser().resolve()
    check_target(to, overwrite or append)
    known = read_summary(to) if append else None
    bars, report = import_bars(files, ReadOptions(parse_columns(columns), timezone, pad_codes))
    _show_import("bars", report)
    source: dict[str, object] = {"kind": "import", "bars": report.as_dict()}
    indices = _benchmarks(benchmark, ReadOptions(timezone=timezone, pad_codes=pad_codes), source)
    frequency = report.frequency if report.frequency in FREQUENCIES else "1day"
    _check_frequency(known, frequency)
    symbols = bars["instrument"].unique()
    rules = REGIONS[region] if region else guess_region(symbols)
    market, source["region"] = market or _market_of(known) or default_market(rules, symbols), rules.name
    spans, source["membership"], warning = _members(membership, bars, pad_codes)
    if membership is not None and frequency != "1day":
        spans = whole_days(spans)
    whole = Appended(bars, indices, {market: spans}, source, ())
    if append:
        whole = append_days(to, bars, indices, source, (market, spans) if membership is not None else None)
    elif overwrite:
        _show_loss(to, bars, indices)
    for text in whole.notes:
        note(Console(), text)
    with progress_bar("writing", "instruments") as progress:
        summary = write_store(
            whole.bars,
            to,
            membership=whole.membership,
            benchmarks=whole.benchmarks,
            source=whole.source,
            overwrite=overwrite or append,
            progress=progress,
            frequency=frequency,
        )
    _show_store(summary, market, warning)


@data.command
def simulate(
    *, to: Path, seed: int = 0, instruments: int = 80, market: str = "csi300", overwrite: bool = False
) -> None:
    """Simulate a market with a planted effect, to try everything out.

    For example: `kronos data simulate --seed 7 --to ~/simulated`

    Args:
        to: folder to create.
        seed: equal seeds give equal markets.
        instruments: number of instruments.
        market: Qlib name of the universe of index members.
        overwrite: replace an existing data directory.
    """
    from kronos_strategies.data.simulate import MarketConfig, write_simulated

    config = MarketConfig(seed=seed, instruments=instruments)
    with progress_bar("writing", "instruments") as progress:
        summary = write_simulated(to, config, market, overwrite=overwrite, progress=progress)
    _show_store(summary, market, "simulated data with a planted effect: results are not evidence of alpha.")


@data.command
def verify(folder: Path, /) -> None:
    """Compare the files of an imported data directory with their checksums; exit code 2 if one is damaged.

    For example: `kronos data verify ~/csi300`

    Args:
        folder: data directory that `kronos data` wrote.
    """
    from kronos_strategies.data.qlib_store import check_intact

    count = check_intact(folder.expanduser())
    Console().print(f"{count:,} files of {escape(str(folder))} are intact.", soft_wrap=True, highlight=False)


def _benchmarks(file: Path | None, options: ReadOptions, source: dict[str, object]) -> DataFrame | None:
    """Bars of the benchmarks, whose files are added to the provenance."""
    from kronos_strategies.data.importer import import_benchmarks

    if file is None:
        return None
    indices, report = import_benchmarks(file, options)
    _show_import("benchmarks", report)
    source["benchmarks"] = report.as_dict()
    return indices


def _members(file: Path | None, bars: DataFrame, pad_codes: int | None) -> tuple[DataFrame, object, str]:
    """Membership spans, their source, and warnings about them."""
    from kronos.io.files import file_record
    from kronos_strategies.data.importer import import_membership
    from kronos_strategies.data.validation import LISTING, listing_spans

    if file is None:
        warning = (
            "an instrument is a member from its first to its last bar, prone to survivorship bias "
            "(see --membership)."
        )
        return listing_spans(bars), LISTING, warning
    spans, unknown = import_membership(file, bars, pad_codes)
    return spans, file_record(file), f"{unknown} of the members in {file} have no bars and are left out."


def _check_frequency(known: StoreSummary | None, frequency: str) -> None:
    from kronos_strategies.data.qlib_bins import DAY, FREQUENCIES

    if known is not None and known.freq != FREQUENCIES.get(frequency, DAY):
        raise ValueError(
            f"{known.path} has bars of {known.freq} and the files have {frequency}. Import these into another "
            "data directory."
        )


def _market_of(known: StoreSummary | None) -> str | None:
    """The market of a data directory that days are appended to, if it has one other than `all`."""
    others = sorted(set(known.markets) - {"all"}) if known else []
    return others[0] if others else None


def _show_loss(to: Path, bars: DataFrame, benchmarks: DataFrame | None) -> None:
    """Print what is lost when a data directory is replaced."""
    from kronos_strategies.data.qlib_bins import read_calendar
    from kronos_strategies.data.qlib_store import MANIFEST, read_summary

    if not (to / MANIFEST).is_file():
        return
    old, days = read_summary(to), bars["datetime"].nunique()
    had = len(read_calendar(to))
    if days < had / 2:
        note(
            Console(),
            f"{to} has {had:,} days, {old.start} to {old.end}, and is replaced by {days:,} days, "
            f"{bars['datetime'].min():%Y-%m-%d} to {bars['datetime'].max():%Y-%m-%d}. --append adds days.",
        )
    names = set() if benchmarks is None else set(benchmarks["instrument"])
    if lost := sorted(set(old.benchmarks) - names):
        note(Console(), f"{to} loses its benchmark {', '.join(lost)}. Pass its bars with --benchmark.")


def _show_import(what: str, report: ImportReport) -> None:
    """Print how each file was read, and how many rows were kept or dropped and why."""
    console = Console()
    for line in report.understood:
        console.print(escape(line), soft_wrap=True, highlight=False)
    names = [file["name"] for file in report.files]
    shown = ", ".join(names[:3]) + (f", ... ({len(names)} files)" if len(names) > 3 else "")
    table = Table("rows", f"{what}: {escape(shown)}", "first")
    table.columns[0].justify = "right"
    table.add_row(f"{report.rows_read:,}", "read", "")
    for drop in report.dropped:
        table.add_row(f"-{drop.rows:,}", escape(drop.reason), escape(drop.example))
    kept = f"kept: {report.instruments} instruments, {report.start:%Y-%m-%d} to {report.end:%Y-%m-%d}"
    table.add_row(f"{report.rows_kept:,}", kept, "")
    console.print(table)
    for warning in report.notes:
        note(console, warning)


def _show_store(summary: StoreSummary, market: str, warning: str) -> None:
    """Print what the data directory holds, and the command to run next."""
    from kronos_strategies.data.qlib_store import region_of_store

    table = Table(show_header=False)
    table.add_row("data directory", str(summary.path))
    table.add_row("days", f"{summary.start} to {summary.end}")
    table.add_row("bars", f"{summary.rows:,} of {summary.freq}")
    table.add_row("markets", ", ".join(f"{name} ({count})" for name, count in summary.markets.items()))
    table.add_row("benchmarks", ", ".join(summary.benchmarks) or "none")
    table.add_row("traded as", str(region_of_store(summary.path)))
    table.add_row("sha256", summary.sha256[:16])
    console = Console()
    console.print(table)
    note(console, warning)
    show_next(console, next_run(summary.path, market))
