"""The `kronos` command. Each command is a few lines in the order of the flow; the work is done elsewhere.

Heavy modules are imported inside the commands, so that `kronos --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App, Parameter

from kronos.utils import run_command, show_log
from kronos_strategies.cli.backtest import backtest
from kronos_strategies.cli.calibrate import calibrate
from kronos_strategies.cli.compare import compare
from kronos_strategies.cli.data import data
from kronos_strategies.cli.evaluate import evaluate
from kronos_strategies.cli.forecast import forecast
from kronos_strategies.cli.init import init
from kronos_strategies.cli.report import report
from kronos_strategies.cli.store import store
from kronos_strategies.cli.train import train

app = App(
    name="kronos",
    help="Kronos forecasts as ranked, tested trading signals.\n\nFor example: `kronos data simulate --to ~/store`",
    version=lambda: version("kronos-strategies"),
    default_parameter=Parameter(negative=()),
)
app.command(backtest)
app.command(calibrate)
app.command(compare)
app.command(data)
app.command(evaluate)
app.command(forecast)
app.command(init)
app.command(report)
app.command(store)
app.command(train)


def main(tokens: Sequence[str] | None = None) -> None:
    """Run the command line; a user error becomes one red sentence and exit code 2."""
    show_log()
    run_command(app, tokens)
