"""`kronos data download` and `kronos data fetch`: bars from the network."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kronos_strategies.cli.common import next_run, note, show_next
from kronos_strategies.progress import progress_bar

if TYPE_CHECKING:
    from kronos_strategies.data.community_build import CommunityBuild


def download(
    what: Literal["csi300"],
    /,
    *,
    to: Path,
    release: str | None = None,
    sha256: str | None = None,
    url: str | None = None,
    file: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Download Qlib data of Chinese shares with point-in-time members of the CSI 300.

    The data is the community's daily build, github.com/chenditc/investment_data. A download that breaks off is
    resumed by the same command. The folder appears when it is complete.

    For example: `kronos data download csi300 --to ~/csi300`

    Args:
        what: csi300, the only data set so far; it also has other Chinese indices and all shares.
        to: folder to create.
        release: tag of a release, its date; the latest when omitted.
        sha256: hash that the archive must have. Without it, that of the release's manifest counts; where there is
            none, that of the first download, which is recorded.
        url: address of a mirror of the archive.
        file: archive that was downloaded by other means, e.g. for a machine without a connection.
        overwrite: replace a folder that this command made.
    """
    from kronos_strategies.data.community_build import (
        Expected,
        check_folder,
        download_archive,
        find_release,
        install,
        local_archive,
    )

    if sum(option is not None for option in (release, url, file)) > 1:
        raise ValueError("--release, --url and --file each name an archive. Choose one.")
    if sha256 is not None and (len(sha256) != 64 or not set(sha256.lower()) <= set("0123456789abcdef")):
        raise ValueError(f"--sha256 {sha256} is not a hash of 64 hexadecimal digits. Copy all of it.")
    check_folder(to, overwrite)
    if file is not None:
        archive = local_archive(file.expanduser(), sha256)
    else:
        address, expected = (url, Expected()) if url is not None else find_release(release)
        if sha256 is not None:
            expected = Expected(sha256, "--sha256", expected.size)
        with progress_bar("download", "bytes") as downloading:
            archive = download_archive(address, expected, downloading)
    with progress_bar("unpacking", "bytes") as unpacking:
        _show(install(archive, to, overwrite=overwrite, progress=unpacking))


def fetch(
    *,
    source: Literal["yfinance", "akshare", "ccxt"],
    symbols: Annotated[list[str], Parameter(consume_multiple=True)],
    start: datetime,
    end: datetime,
    to: Path,
    interval: Literal["1d", "1h", "30m", "15m", "5m", "1m"] = "1d",
    exchange: str = "binance",
) -> None:
    """Fetch bars with the library of a data vendor, as files for `kronos data import`.

    For example: `kronos data fetch --source yfinance --symbols AAPL MSFT --start 2020-01-01 --end 2023-12-31
    --to bars`

    Args:
        source: yfinance (shares and indices of many countries), akshare (Chinese shares, days) or ccxt (pairs of
            crypto exchanges). Each needs the extra of its name.
        symbols: as the source writes them: AAPL, 0700.HK; 600519; BTC/USDT.
        start: first date.
        end: last date, included.
        to: folder of the files, one for each symbol.
        interval: step of the bars; akshare has days only.
        exchange: exchange that ccxt asks.
    """
    from pandas import Timestamp

    from kronos_strategies.data.vendors import CONVENTIONS, Request
    from kronos_strategies.data.vendors import fetch as fetch_bars

    request = Request(Timestamp(start), Timestamp(end), interval, exchange)
    with progress_bar(source, "symbols") as progress:
        fetched = fetch_bars(source, symbols, request, to.expanduser(), progress)
    console = Console()
    table = Table("symbol", "bars", "file")
    table.columns[1].justify = "right"
    for (symbol, rows), file in zip(fetched.rows.items(), fetched.files, strict=True):
        table.add_row(escape(symbol), f"{rows:,}", escape(str(file)))
    console.print(table)
    for symbol, reason in fetched.missing.items():
        note(console, f"nothing of {symbol}: {reason}.")
    note(console, f"{CONVENTIONS[source]}.")
    show_next(console, f"kronos data import {shlex.quote(str(to))} --to {shlex.quote(f'{to}-qlib')}")


def _show(build: CommunityBuild) -> None:
    """Print what was downloaded, and the command to run next."""
    table = Table(show_header=False)
    table.add_row("folder", escape(str(build.path)))
    table.add_row("archive", escape(build.source))
    table.add_row("sha256", build.sha256)
    table.add_row("days", f"{build.start} to {build.end}")
    table.add_row("markets", ", ".join(f"{name} ({count:,})" for name, count in build.markets.items()))
    table.add_row("files", f"{build.files:,}")
    console = Console()
    console.print(table)
    note(console, f"the hash is {build.verified}.")
    show_next(console, next_run(build.path, "csi300" if "csi300" in build.markets else "all"))
