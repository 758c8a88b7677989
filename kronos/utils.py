"""Helpers of both packages: version, missing extras, tables for spreadsheets, and error reports of commands."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from cyclopts import App


class MissingExtra(ImportError):
    """An optional dependency is not installed; the message gives the command that installs it."""


# Printed as one line: user errors, missing extras, diverged training, too little memory. Others keep tracebacks.
USER_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, MemoryError, MissingExtra)


def package_version() -> str:
    """Version of the installed distribution."""
    return version("kronos-strategies")


def git_commit() -> str | None:
    """Commit of the code that runs, with a + if tracked files differ from it; None outside a repository."""
    here = Path(
        __file__
    )  # installed into a virtual environment inside another repository, it is not tracked there
    commands = (
        ["ls-files", "--error-unmatch", here.name],
        ["rev-parse", "HEAD"],
        ["status", "--porcelain", "--untracked-files=no"],
    )
    try:
        _, commit, changed = (
            subprocess.run(
                ["git", "-C", str(here.parent), *command],
                capture_output=True, text=True, check=True, timeout=10,
            ).stdout.strip()
            for command in commands
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


FORMULA_STARTS = tuple(
    "=+-@\t\r\n＝＋－＠"
)  # a spreadsheet takes a cell of text that begins with one for a formula


def csv_text(frame: pd.DataFrame, *index: str) -> str:
    """A table as CSV for people: no spreadsheet runs a cell of it as a formula.

    Text that begins with one of FORMULA_STARTS has an apostrophe before it, in cells, the index and column names
    alike. Numbers stay as they are. Parquet and JSON files keep all text unchanged.

    Args:
        frame: any table.
        index: names of the index levels, which are left out when omitted.
    """
    from pandas import MultiIndex  # takes time to load, which --help does without

    safe = frame.rename(columns=_defused)
    for position, kind in enumerate(frame.dtypes):
        if kind.kind == "O":  # text and categories
            safe.isetitem(position, _defused_values(safe.iloc[:, position]))
    if index:
        levels = [_defused_values(frame.index.get_level_values(i)) for i in range(frame.index.nlevels)]
        safe.index = levels[0] if len(levels) == 1 else MultiIndex.from_arrays(levels)
    return safe.to_csv(
        index=bool(index), index_label=[_defused(name) for name in index] or None, lineterminator="\n"
    )


def _defused(value: Any) -> Any:
    """Text that no spreadsheet runs; anything else unchanged."""
    if isinstance(value, str) and value.lstrip(" ").startswith(FORMULA_STARTS):
        return "'" + value
    return value


def _defused_values(values: Any) -> Any:
    """A column or index level with text that no spreadsheet runs."""
    harmful = {value: _defused(value) for value in values.unique() if _defused(value) is not value}
    return values.map(lambda value: harmful.get(value, value)) if harmful else values


def show_log() -> None:
    """Log to stderr; with several processes only the first one logs more than errors."""
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for verbose in ("accelerate", "matplotlib"):
        logging.getLogger(verbose).setLevel(logging.WARNING)


def run_command(app: App, tokens: Sequence[str] | None = None) -> None:
    """Run `app` on the command line; a user error is printed in red, and the exit code is 2."""
    from cyclopts import CycloptsError
    from rich.console import Console
    from rich.markup import escape

    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            app(tokens, exit_on_error=False, print_error=False)
    except (CycloptsError, *USER_ERRORS) as error:
        text = str(error) or "There is not enough memory."  # Python's own MemoryError has no text
        Console(stderr=True, soft_wrap=True).print(f"[red]{escape(text)}[/red]")
        sys.exit(2)


def _show_warning(
    default: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any
) -> None:
    """Print a warning about the user's bars as one line, without the place in this code."""
    from rich.console import Console
    from rich.markup import escape

    from kronos.bars import BarsWarning  # loads pandas, which --help does without

    if issubclass(category, BarsWarning):
        Console(stderr=True, soft_wrap=True).print(f"[yellow]Warning: {escape(str(message))}[/yellow]")
    else:
        default(message, category, *where)
