"""What every command of ours does alike: it logs to stderr; a mistake of the user's becomes one sentence."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from cyclopts import App, CycloptsError
from rich.console import Console
from rich.markup import escape

from kronos.extras import MissingExtra

# Mistakes of the user's, what is not installed, a training that ran off; the rest are ours and keep their trace.
USER_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, MissingExtra)


def show_log() -> None:
    """Say on stderr what happens; of several processes the first one does."""
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for talkative in ("accelerate", "matplotlib"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


def run_command(app: App, tokens: Sequence[str] | None = None) -> None:
    """Run `app` on the command line; a mistake of the user's is printed in red, and the exit code is 2."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            app(tokens, exit_on_error=False, print_error=False)
    except (CycloptsError, *USER_ERRORS) as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]{escape(str(error))}[/red]")
        sys.exit(2)


def _show_warning(
    usual: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any
) -> None:
    """A warning about the user's bars is one line without the place in our code."""
    from kronos.jumps import BarsWarning  # pandas, which --help does without

    if issubclass(category, BarsWarning):
        Console(stderr=True, soft_wrap=True).print(f"[yellow]Warning: {escape(str(message))}[/yellow]")
    else:
        usual(message, category, *where)
