"""What several commands take and print alike."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

# The MLflow store of runs: that of `qrun` in the same folder, unless another one is named.
TRACKING = "sqlite:///mlflow.db"
Tracking = Annotated[str, Parameter(env_var="MLFLOW_TRACKING_URI")]


def note(console: Console, text: str) -> None:
    """A remark that a reader of the figures must not miss."""
    console.print(f"[yellow]Note:[/yellow] {escape(text)}", soft_wrap=True)


def show_next(console: Console, command: str) -> None:
    """The command to run next, on one line that can be copied."""
    console.print("Next:", f"[bold]{escape(command)}[/bold]", soft_wrap=True, highlight=False)
