"""`kronos store ls`, `verify` and `gc`: contents of a forecast store, its integrity, and its garbage."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from kronos_strategies.cli.common import show_next, span_text
from kronos_strategies.progress import progress_bar, track

WIDTH = 100  # at least, so that tables are complete in a pipe or a file
MAX_ROWS = 40  # files that are printed


def ls(folder: Path, /) -> None:
    """List the forecasts of a store: model, settings, market, dates, windows and size.

    For example: `kronos store ls ~/forecasts`

    Args:
        folder: folder of the forecast store.
    """
    from kronos_strategies.store.maintenance import contents, find_folders

    console = Console(width=max(WIDTH, Console().width))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for head in ("model", "kind", "settings", "market"):
        table.add_column(head, overflow="fold")
    for head in ("dates", "windows", "size"):
        table.add_column(head, justify="right", no_wrap=True)
    folders = find_folders(folder.expanduser())
    for each in track(folders, "reading", "folders"):
        has, settings = contents(each), each.settings
        spec = settings.get("window_spec", {})
        market = str(settings.get("universe") or spec.get("universe") or "?")
        span = f"{len(has.dates):,}"
        if len(has.dates):
            span += "".join(f"\n{time}" for time in span_text(list(has.dates)))
        table.add_row(
            escape(each.model), each.kind, escape(_described(settings)), escape(market), span,
            f"{has.windows:,}", decimal(has.size),
        )  # fmt: skip
    console.print(table)
    if not folders:
        console.print("The store has no forecasts: `kronos store fill --help`.")


def verify(folder: Path, /) -> None:
    """Read every file of a store and compare it with its checksum; exit code 1 if one is damaged.

    For example: `kronos store verify ~/forecasts`

    Args:
        folder: folder of the forecast store.
    """
    from kronos_strategies.store.maintenance import verify_store

    console = Console(soft_wrap=True, highlight=False)
    with progress_bar("verifying", "dates") as progress:
        found = verify_store(folder.expanduser(), progress)
    for problem in found.problems[:MAX_ROWS]:
        console.print(f"[red]damaged[/red] {escape(str(problem.path))}: {escape(problem.reason)}")
    if len(found.problems) > MAX_ROWS:
        console.print(f"... and {len(found.problems) - MAX_ROWS:,} more")
    console.print(
        f"{found.files:,} files in {found.folders:,} folders, {decimal(found.size)} intact, "
        f"{len(found.problems):,} problems"
    )
    if found.problems:
        console.print(
            "Filling the store again computes damaged dates; `kronos store gc` deletes damaged files."
        )
        sys.exit(1)


def gc(folder: Path, /, *, dry_run: bool = False) -> None:
    """Delete what no reader uses: unfinished files, damaged files, folders of earlier formats.

    Files that another process is writing are left alone.

    For example: `kronos store gc ~/forecasts --dry-run`

    Args:
        folder: folder of the forecast store.
        dry_run: list the files, delete nothing.
    """
    from kronos_strategies.store.maintenance import collect_garbage

    folder, console = folder.expanduser(), Console(soft_wrap=True, highlight=False)
    with progress_bar("searching", "folders") as progress:
        found = collect_garbage(folder, dry_run, progress)
    for each in found[:MAX_ROWS]:
        console.print(f"{escape(str(each.path))}: {escape(each.reason)} ({decimal(each.size)})")
    if len(found) > MAX_ROWS:
        console.print(f"... and {len(found) - MAX_ROWS:,} more")
    word = "can be deleted" if dry_run else "deleted"
    console.print(f"{len(found):,} files and folders {word}, {decimal(sum(each.size for each in found))}")
    if dry_run and found:
        show_next(console, f"kronos store gc {shlex.quote(str(folder))}")


def _described(settings: Mapping[str, Any]) -> str:
    """Settings that distinguish the folders of one model, in a line."""
    if not settings:
        return "unreadable"
    spec, sampling = settings.get("window_spec", settings), settings.get("sampling")
    words = [f"lookback={spec.get('lookback')}"]
    if sampling:
        words += [
            f"horizon={spec.get('horizon')}",
            *(f"{name}={value}" for name, value in sampling.items()),
        ]
    if settings.get("horizons"):
        words.append(f"horizons={','.join(map(str, settings['horizons']))}")
    words += [
        str(settings[name]) for name in ("dtype", "precision") if settings.get(name, "float32") != "float32"
    ]
    return " ".join(words)
