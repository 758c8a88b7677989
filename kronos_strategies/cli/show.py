"""What several commands print alike."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape


def note(console: Console, text: str) -> None:
    """A remark that a reader of the figures must not miss."""
    console.print(f"[yellow]Note:[/yellow] {escape(text)}", soft_wrap=True)


def show_next(console: Console, command: str) -> None:
    """The command to run next, on one line that can be copied."""
    console.print("Next:", f"[bold]{escape(command)}[/bold]", soft_wrap=True, highlight=False)


def qrun_command(settings: Mapping[str, str]) -> str:
    """A run of configs/kronos_csi300.yaml with some of its settings changed by the environment."""
    words = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    return " ".join([*words, "qrun configs/kronos_csi300.yaml"])
