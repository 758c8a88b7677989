"""What every command of ours does alike: a mistake of the user's becomes one sentence, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError
from rich.console import Console
from rich.markup import escape

USER_ERRORS = (
    ValueError,
    TypeError,
    OSError,
)  # mistakes of the user's; the rest are ours and keep their trace


def run_command(app: App, tokens: Sequence[str] | None = None) -> None:
    """Run `app` on the command line; a mistake of the user's is printed in red, and the exit code is 2."""
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except (CycloptsError, *USER_ERRORS) as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]{escape(str(error))}[/red]")
        sys.exit(2)
