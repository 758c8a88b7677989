"""`kronos doctor`: what this installation has, and what to fix first."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kronos_strategies.cli.common import note

if TYPE_CHECKING:
    from kronos_strategies.doctor import Diagnosis


def doctor(
    *,
    data: Annotated[Path | None, Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    store: Annotated[Path | None, Parameter(env_var="KRONOS_STORE")] = None,
    json: bool = False,
) -> None:
    """Show versions, devices, threads, bars and forecasts, and the one thing to fix first.

    The exit code is 1 if something does not work, else 0.

    For example: `kronos doctor --data ~/csi300 --store ~/forecasts`

    Args:
        data: Qlib data directory to look at.
        store: forecast store to look at; its files are counted, not read.
        json: print JSON.
    """
    from kronos_strategies.doctor import diagnose

    found = diagnose(data, store)
    if json:
        _print_json(found)
    else:
        _show(found)
    sys.exit(0 if found.healthy else 1)


def _print_json(found: Diagnosis) -> None:
    sys.stdout.write(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) + "\n")


def _show(found: Diagnosis) -> None:
    console = Console()
    for title, facts in found.sections.items():
        table = Table(title=title, title_justify="left", show_header=False)
        for name, value in facts.items():
            table.add_row(escape(name), escape(_text(value)))
        console.print(table)
    for text in found.problems:
        console.print(f"[red]Problem:[/red] {escape(text)}", soft_wrap=True)
    for text in found.advice:
        note(console, text)
    if found.fix_first is None:
        console.print("Nothing to fix.")
    else:
        console.print(f"[bold]Fix first:[/bold] {escape(found.fix_first)}", soft_wrap=True)


def _text(value: Any) -> str:
    """A fact in words: versions by name, a list, or a value."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {'–' if each is None else each}" for name, each in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
