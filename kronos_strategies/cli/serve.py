"""`kronos serve`: the local page that forecasts bars and lists reports."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from kronos_strategies.cli import common
from kronos_strategies.cli.common import TRACKING

PORT = 8765


def serve(
    bars: list[Path],
    /,
    *,
    models: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ("kronos-nano",),
    calibrations: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),
    tracking: Annotated[str | None, Parameter(env_var="MLFLOW_TRACKING_URI")] = None,
    reports: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),
    calendar: common.Calendar = None,
    columns: common.Columns = (),
    timezone: common.Timezone = None,
    pad_codes: common.PadCodes = None,
    device: common.Device = None,
    port: int = PORT,
) -> None:
    """Serve a page on this machine: forecast bars, rank their instruments, and open reports.

    For example: `kronos serve bars/ ~/csi300 --models kronos-nano NeoQuasar/Kronos-small --reports out`

    It listens on 127.0.0.1 only, and reads nothing but the paths that it is given.

    Args:
        bars: CSV or parquet files, folders of such files, glob patterns or Qlib data directories; each is a choice
            of the page.
        models: bundled names, folders, hub ids or other forecasters, such as baseline:ewma, to choose from; the
            first one is loaded at once.
        calibrations: files of `kronos calibrate` to choose from, in addition to auto and none.
        tracking: MLflow tracking store of the runs whose reports are listed; mlflow.db in the working directory, if
            there is one, when omitted.
        reports: folders with pages of `kronos report`, `kronos evaluate`, `kronos compare --html` and
            `kronos forecast --plot`.
        port: port to listen on; 0 for any that is free.
    """
    from kronos.io.columns import parse_columns
    from kronos.io.rows import ReadOptions
    from kronos_strategies.forecasters import load_forecaster
    from kronos_strategies.serve.app import make_app
    from kronos_strategies.serve.data import offer_data
    from kronos_strategies.serve.forecasts import Forecasts
    from kronos_strategies.serve.jobs import JobRunner
    from kronos_strategies.serve.reports import Reports
    from kronos_strategies.serve.server import ADDRESS, open_socket, run_server

    data = offer_data(bars, ReadOptions(parse_columns(columns), timezone, pad_codes))
    if tracking is None and Path(TRACKING.removeprefix("sqlite:///")).is_file():
        tracking = TRACKING
    pages = Reports(tracking, reports)
    with open_socket(port) as listener:
        load = partial(load_forecaster, device=device)
        forecasts = Forecasts(data, models, load, [str(file) for file in calibrations], calendar)
        number, runner = listener.getsockname()[1], JobRunner()
        app = make_app(forecasts, pages, runner, number)
        Console().print(f"Open http://{ADDRESS}:{number} (Ctrl-C ends it)", highlight=False)
        run_server(app, listener, runner)
