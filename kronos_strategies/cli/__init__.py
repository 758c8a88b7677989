"""The `kronos` command. Each command is a few lines in the order of the flow; the work is done elsewhere.

Heavy modules are imported inside the commands, so that `kronos --help` answers at once.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape

from kronos.hub import OFFLINE
from kronos.utils import collect_less, explain_write_errors, run_command, show_log, write_atomic
from kronos_strategies.cli.backtest import backtest, sweep
from kronos_strategies.cli.benchmark import benchmark
from kronos_strategies.cli.calibrate import calibrate
from kronos_strategies.cli.common import config_folder, set_values, show_next, shown_default
from kronos_strategies.cli.compare import compare
from kronos_strategies.cli.data import data
from kronos_strategies.cli.doctor import doctor
from kronos_strategies.cli.forecast import forecast
from kronos_strategies.cli.picks import picks
from kronos_strategies.cli.report import evaluate, report
from kronos_strategies.cli.serve import serve
from kronos_strategies.cli.store import store
from kronos_strategies.cli.train import train


def init(folder: Path, /, *, overwrite: bool = False) -> None:
    """Write the YAML files of this version: workflows for `qrun`, settings for `kronos train` and `kronos sweep`.

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


app = App(
    name="kronos",
    help="Kronos forecasts as ranked, tested trading signals.\n\n"
    "For example: `kronos forecast bars.csv --horizon 24 --plot out.html`\n\n"
    f"`--offline`, with any command, allows no downloads, as does {OFFLINE}=1 in the environment.",
    version=lambda: version("kronos-strategies"),
    default_parameter=Parameter(negative=(), env_var_split=set_values, show_default=shown_default),
)
app.command(backtest)
app.command(benchmark)
app.command(calibrate)
app.command(compare)
app.command(data)
app.command(doctor)
app.command(evaluate)
app.command(forecast)
app.command(init)
app.command(picks)
app.command(report)
app.command(serve)
app.command(store)
app.command(sweep)
app.command(train)


def main(tokens: Sequence[str] | None = None) -> None:
    """Run the command line; a user error becomes one red sentence and exit code 2."""
    words = list(sys.argv[1:] if tokens is None else tokens)
    if "--offline" in words:
        words.remove("--offline")
        os.environ[OFFLINE] = "1"  # before a command imports huggingface_hub, which reads it once
    if tokens is None:
        collect_less()
    show_log()
    run_command(app, words)


def run_kronos(*words: object) -> None:
    """Run one command in the process of a script; a command that fails ends the script with its exit code."""
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        if stop.code:
            raise
