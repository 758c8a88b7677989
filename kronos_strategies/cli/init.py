"""`kronos init`: write this project's workflow and training files to a folder where a user can edit them."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from kronos.atomic import explain_write_errors, write_atomic
from kronos_strategies.cli.common import config_folder, show_next


def init(folder: Path, /, *, overwrite: bool = False) -> None:
    """Write the YAML files of this version: workflows for `qrun`, settings for `kronos train`.

    For example: `kronos init configs`

    Args:
        folder: where to write them; created if it does not exist.
        overwrite: replace existing files that differ from this version's.
    """
    folder = folder.expanduser()
    files = {folder / file.name: file.read_bytes() for file in sorted(config_folder().glob("*.yaml"))}
    differ = [path.name for path, content in files.items() if path.exists() and path.read_bytes() != content]
    if differ and not overwrite:
        raise ValueError(
            f"{folder} has other versions of {', '.join(differ)}. Choose another folder, or replace them with "
            "--overwrite."
        )
    with explain_write_errors(folder, "Choose another folder."):
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            write_atomic(path, content)
    console = Console()
    for path, content in files.items():
        title = content.decode().partition("\n")[0].lstrip("# ")
        console.print(f"{escape(str(path))}  [dim]{escape(title)}[/dim]", soft_wrap=True, highlight=False)
    show_next(console, f"qrun {shlex.quote(str(folder / 'kronos_csi300.yaml'))}")
