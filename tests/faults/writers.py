"""Everything that this project writes, by name: a call that writes small data to a place.

    python -m tests.faults.writers FOLDER LIMIT...

writes each in a process of its own to FOLDER/LIMIT/NAME, where no file can exceed LIMIT bytes (0 for no limit), and
then once more without a limit. It prints as JSON, by limit and name, how both ended: the types and the text of the
error, and the files that are left.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd


def _bars(count: int = 2000) -> pd.DataFrame:
    days = pd.bdate_range("2015-01-01", periods=count)
    return pd.DataFrame(
        {
            "instrument": "A",
            "datetime": days,
            **dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0),
        }
    )


def data_directory(to: Path) -> None:
    from kronos_strategies.data.qlib_store import write_store
    from kronos_strategies.data.validation import listing_spans

    write_store(_bars(), to, membership={"m": listing_spans(_bars())}, source={})


def forecast_store(to: Path) -> None:
    from kronos_strategies.store import ForecastStore
    from tests.kronos.builders import make_panel
    from tests.kronos_strategies.store.conftest import NAMES, SAMPLING, SPEC, windows_of

    ForecastStore(to).fill(_predictor(), windows_of(make_panel(60, *NAMES))[:4], SPEC, SAMPLING)


def hidden_states(to: Path) -> None:
    from kronos_strategies.store import ForecastStore
    from tests.kronos.builders import make_panel
    from tests.kronos_strategies.store.conftest import NAMES, SPEC, windows_of

    ForecastStore(to).embeddings(_predictor(), windows_of(make_panel(60, *NAMES))[:4], SPEC)


def weights(to: Path) -> None:
    from tests.kronos.builders import make_model

    make_model().save_pretrained(to)


def head(to: Path) -> None:
    from tests.kronos.builders import make_head

    make_head(16).save(to)


def calibration(to: Path) -> None:
    from kronos.calibration import Calibration
    from kronos.config import PRETRAINED

    own = Calibration.read(PRETRAINED / "kronos-nano" / "predictor" / "calibration.json")
    own.write(to / "calibration.json")


def training(to: Path) -> None:
    from kronos.training.dataset import split_windows
    from kronos.training.run import run_stage
    from tests.kronos.training.builders import make_run

    os.environ["XDG_CACHE_HOME"] = str(to.parent / "cache")
    config = make_run(to.parent / "training bars", output=to, resume=True)
    split_windows(config)
    _limit()
    run_stage("tokenizer", config)


def training_cache(to: Path) -> None:
    from kronos.training.bar_array import MappedBars
    from kronos.training.config import Source
    from tests.kronos.training.builders import make_waves, write_bars

    os.environ["XDG_CACHE_HOME"] = str(to)
    data = write_bars(to.parent / "bars.csv", make_waves(200))
    _limit()
    MappedBars.open(Source(data), 20)


def report(to: Path) -> None:
    from kronos_strategies.report.export import save_report
    from kronos_strategies.report.report import build_report

    save_report(build_report(_artifacts()), to)


def forecast_page(to: Path) -> None:
    from kronos_strategies import save_forecast_plot

    save_forecast_plot(_forecast(), to / "page.html")


def forecast_picture(to: Path) -> None:
    from kronos_strategies import save_forecast_plot

    save_forecast_plot(_forecast(), to / "page.png")


def forecast_table(to: Path) -> None:
    from kronos_strategies.forecast_view.summary import forecast_table, write_table

    write_table(forecast_table(_forecast()), to / "table.csv")


def run_artifacts(to: Path) -> None:
    _artifacts().write(to)


def workflow_files(to: Path) -> None:
    from kronos_strategies.cli import init

    init(to)


@cache
def _predictor() -> Any:
    from kronos.predictor import KronosPredictor

    return KronosPredictor.from_pretrained("kronos-nano", device="cpu")


@cache
def _artifacts() -> Any:
    from tests.kronos_strategies.test_run_artifacts import make_artifacts

    return make_artifacts()


@cache
def _forecast() -> Any:
    from tests.kronos.builders import make_panel
    from tests.kronos_strategies.forecast_view.conftest import make_forecast

    return make_forecast(make_panel(60, "A"))


WRITERS: dict[str, Callable[[Path], None]] = {
    each.__name__: each
    for each in (
        data_directory, forecast_store, hidden_states, weights, head, calibration, training, training_cache, report,
        forecast_page, forecast_picture, forecast_table, run_artifacts, workflow_files,
    )
}  # fmt: skip
# What the writers import, a second or more each in every process that starts without it.
LOADED = (
    *("kronos.training.run", "kronos_strategies.cli", "kronos_strategies.forecast_view.pictures"),
    *("kronos_strategies.report.export", "kronos_strategies.report.report", "kronos_strategies.store"),
    *("plotly.graph_objects", "tests.kronos.training.builders", "tests.kronos_strategies.store.conftest"),
    *("tests.kronos_strategies.forecast_view.conftest", "tests.kronos_strategies.test_run_artifacts"),
)
OWN_LIMIT = ("training", "training_cache")  # they write their input first
SEVERAL_FILES = (
    "data_directory",
    "forecast_store",
    "training",
)  # the later of which may be larger than a limit
SMALL = 1000  # bytes; every writer has a larger file
limit = 0


def _limit() -> None:
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def write(name: str, to: Path, results: int) -> None:
    """Write in a child process, and report the outcome."""
    found: dict[str, Any] = {"error": None, "text": ""}
    try:
        if name not in OWN_LIMIT:
            _limit()
        WRITERS[name](to)
    except Exception as error:
        found = {"error": [each.__name__ for each in type(error).__mro__], "text": str(error)}
    os.write(results, json.dumps(found).encode())


def attempt(name: str, to: Path, bytes_: int) -> dict[str, Any]:
    """How one writer ended, in a process of its own."""
    global limit
    limit = bytes_
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(2, 1)
        try:
            write(name, to, writer)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        found: dict[str, Any] = json.loads(stream.read() or '{"error": ["killed"], "text": ""}')
    os.waitpid(child, 0)
    found["left"] = [str(path.relative_to(to)) for path in to.rglob("*") if path.is_file()]
    return found


def main() -> None:
    """Load everything once, then one process for each writer and limit."""
    import torch

    folder, found = Path(sys.argv[1]), {}
    torch.set_num_threads(1)
    for module in LOADED:
        import_module(module)
    _predictor()
    _artifacts()
    _forecast()
    for bytes_ in map(int, sys.argv[2:]):
        where = folder / str(bytes_)
        names = WRITERS if bytes_ < SMALL else SEVERAL_FILES
        found[bytes_] = {name: [attempt(name, where / name, bytes_)] for name in names}
        for name in names if bytes_ else ():
            found[bytes_][name].append(attempt(name, where / name, 0))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
