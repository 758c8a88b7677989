"""What commands share: options, the workflow that runs a data directory, and how they print."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, env_var_split
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    import pandas as pd

TOPK, LOOKBACK = 50, 90  # default of the workflow files for a given data directory
INTRADAY = "kronos_crypto.yaml"
USUAL = {  # region, market and benchmark of each
    "kronos_csi300.yaml": ("cn", "csi300", "SH000300"),
    "kronos_us.yaml": ("us", "us", None),
    INTRADAY: ("us", "crypto", None),
}
# MLflow tracking store: that of `qrun` in the same folder, unless another one is given.
TRACKING = "sqlite:///mlflow.db"
Tracking = Annotated[str, Parameter(env_var="MLFLOW_TRACKING_URI")]

# Options of several commands; one of them adds its environment variable: Annotated[Seed, Parameter(env_var=...)].
Calibration = Annotated[
    str,
    Parameter(
        env_var="KRONOS_CALIBRATION",
        help="auto for the checkpoint's own calibration where it fits, none, or a file of `kronos calibrate`.",
    ),
]
Tokenizer = Annotated[str | None, Parameter(help="tokenizer of a model whose configuration names none.")]
Revision = Annotated[str | None, Parameter(help="revision of the model on the hub.")]
Temperature = Annotated[
    float | None,
    Parameter(
        help="sampling temperature, 0 for the most likely token; like top-p and top-k that of the checkpoint when "
        "omitted."
    ),
]
TopP = Annotated[float | None, Parameter(help="nucleus probability of the sampled tokens.")]
TopK = Annotated[int | None, Parameter(help="number of most likely tokens to sample from; 0 for all.")]
Seed = Annotated[int, Parameter(help="seed of the sampled paths.")]
Device = Annotated[str | None, Parameter(help="cpu, cuda or mps; the fastest available when omitted.")]
Precision = Annotated[
    Literal["float32", "bfloat16"],
    Parameter(
        help="precision of matrix products; bfloat16 is faster on hardware that supports it, with other paths."
    ),
]
ContextOverflow = Annotated[
    Literal["recompute", "rolling"],
    Parameter(
        help="once a window outgrows the model's context: recompute reads it again at each step, rolling drops the "
        "oldest bars."
    ),
]
# How files of bars are read.
Calendar = Annotated[
    str | None,
    Parameter(
        help="exchange whose sessions have the timestamps to forecast, such as XSHG, XNYS or 24/7; inferred from "
        "the bars when omitted, a Qlib data directory has its own."
    ),
]
Columns = Annotated[
    tuple[str, ...],
    Parameter(
        consume_multiple=True,
        negative=(),
        help="column names of the files that are not recognized otherwise: close=Last volume=Turnover.",
    ),
]
Timezone = Annotated[
    str | None,
    Parameter(
        help="time zone of the exchange, to which timestamps with a UTC offset and epochs are converted."
    ),
]
PadCodes = Annotated[
    int | None,
    Parameter(help="number of digits to which codes such as 1 are zero-padded; 1 keeps them as they are."),
]


def qrun_command(settings: Mapping[str, str], config: str = "kronos_csi300.yaml") -> str:
    """A run of a workflow file with some of its settings changed by the environment; works from any folder."""
    words = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    return " ".join([*words, "qrun", shlex.quote(str(config_path(config)))])


def config_path(name: str) -> Path:
    """The path of a workflow file, relative to the working directory if it is below it."""
    path = config_folder() / name
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def config_folder() -> Path:
    """Folder of the workflow files: within the installed package, or next to it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def trade_settings(store: Path, market: str, freq: str | None = None) -> tuple[dict[str, str], str]:
    """Market, benchmark, number of positions and trading rules that fit a data directory, and the workflow file.

    Args:
        store: a Qlib data directory.
        market: one of its markets.
        freq: Qlib's name of the bar frequency; that of the data directory when omitted.

    Returns:
        settings that differ from those of the workflow file; its name.
    """
    from kronos_strategies.data.qlib_bins import DAY, bin_folder, read_market, store_freq
    from kronos_strategies.data.qlib_store import MANIFEST, read_summary, region_of_store

    region, freq = region_of_store(store), freq or store_freq(store)
    config = region.config if freq == DAY else INTRADAY
    usual_region, usual_market, usual_benchmark = USUAL[config]
    settings = {}
    if freq not in (DAY, "60min"):
        settings["KRONOS_FREQ"] = freq
    if market != usual_market:
        settings["KRONOS_MARKET"] = market
    known = read_summary(store).benchmarks if (store / MANIFEST).is_file() else ()
    if usual_benchmark is None or not bin_folder(store, usual_benchmark).is_dir():
        settings["KRONOS_BENCHMARK"] = known[0] if known else "market"
    stays = read_market(store, market)
    members = int((stays["end"] >= stays["end"].max()).sum())
    topk = max(1, members // 6)
    if members < 0.9 * 6 * TOPK or members > 1.1 * 6 * TOPK:
        settings |= {"KRONOS_TOPK": str(topk), "KRONOS_N_DROP": str(max(1, topk // 10))}
    if region.name != usual_region:
        settings["KRONOS_REGION"] = region.name
    return settings, config


def next_run(store: Path, market: str) -> str:
    """The command that runs new data: over its last year, its last month if intraday, or its last half."""
    from pandas import Timedelta

    from kronos_strategies.data.qlib_bins import DAY, read_calendar, store_freq

    trade, config = trade_settings(store, market)
    settings = {"KRONOS_QLIB_DATA": str(store), **trade}
    calendar = read_calendar(store)
    first, last = calendar[0].normalize(), calendar[-1].normalize()
    whole = (
        config == "kronos_csi300.yaml"
        and f"{first:%Y-%m-%d}" <= "2022-07-01"
        and f"{last:%Y-%m-%d}" >= "2023-12-28"
    )
    if not whole:
        most = Timedelta(days=365 if store_freq(store) == DAY else 30)
        start = max(last - most, first + (last - first) / 2).normalize()
        before = int((calendar < start).sum())
        if before < LOOKBACK:
            settings["KRONOS_LOOKBACK"] = str(max(2, before))
        settings |= {"KRONOS_TEST_START": f"{start:%Y-%m-%d}", "KRONOS_TEST_END": f"{last:%Y-%m-%d}"}
    return qrun_command(settings, config)


def check_daily(folder: Path, command: str) -> None:
    """Refuse a Qlib data directory of intraday bars, whose calendar of days would be taken for its bars.

    Raises:
        ValueError: the bars are not daily; names the command.
    """
    from kronos_strategies.data.qlib_bins import DAY, store_freq

    folder = folder.expanduser()
    if folder.is_dir() and (freq := store_freq(folder)) != DAY:
        raise ValueError(
            f"{folder} has bars of {freq}, and {command} reads daily bars. Pass a data directory of daily bars, or "
            f"run the intraday workflow: qrun {INTRADAY}, with KRONOS_FREQ={freq}."
        )


def open_market(data: Path | None, market: str, freq: str) -> tuple[str, list[str]]:
    """Let Qlib read the bars of a market.

    Args:
        data: Qlib data directory; the simulated market when None.
        market: universe that it must have.
        freq: Qlib's name of the bar frequency, see `choose_freq`.

    Returns:
        name of the market for what is trained on it, and warnings about the data.

    Raises:
        FileNotFoundError: it is not a Qlib data directory, or has no bars of that frequency.
        ValueError: it has no such market.
    """
    from kronos_strategies.data.simulate import default_store
    from kronos_strategies.qlib.checks import check_market
    from kronos_strategies.qlib.data_access import init_qlib
    from kronos_strategies.qlib.fit import SIMULATED

    folder = data or default_store()
    warnings = init_qlib(folder, freq=freq)
    check_market(market, freq)
    return (SIMULATED if any("SIMULATED" in warning for warning in warnings) else market), warnings


def span_text(times: Sequence[pd.Timestamp]) -> tuple[str, str]:
    """The first and the last of ascending times, as dates unless one of all has a time of day."""
    form = "%Y-%m-%d" if all(time == time.normalize() for time in times) else "%Y-%m-%d %H:%M"
    return times[0].strftime(form), times[-1].strftime(form)


def absolute_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Relative paths made absolute, so that a command works from any folder; a URL is absolute."""
    from kronos_strategies.store.location import is_url

    always = ("KRONOS_QLIB_DATA", "KRONOS_STORE", "KRONOS_CALIBRATION")
    if_there = ("KRONOS_MODEL", "KRONOS_TOKENIZER", "KRONOS_HEADS")  # otherwise it names

    def absolute(name: str, value: object) -> object:
        path = Path(str(value)).expanduser()
        named = value is not None and (name in always or (name in if_there and path.exists()))
        named = named and not is_url(str(value))
        return Path(os.path.abspath(path)) if named else value

    return {name: absolute(name, value) for name, value in settings.items()}


def set_values(type_: object, value: str, *, delimiter: str | None = None) -> list[str]:
    """The values of an environment variable; an empty one counts as unset, as in the workflow files."""
    return env_var_split(type_, value, delimiter=delimiter) if value else []


def shown_default(value: object) -> str | None:
    """The default of an option as one would type it; None, which is not shown, for an empty one."""
    if value is None or value is False or value in ("", ()):
        return None
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@contextmanager
def told_how_to_resume() -> Iterator[None]:
    """Exit with code 130 when the user stops the command, and say how to resume it."""
    try:
        yield
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped. Run the same command again to resume.")
        sys.exit(130)


def note(console: Console, text: str) -> None:
    """Print a warning that a reader of the numbers must see."""
    console.print(f"[yellow]Note:[/yellow] {escape(text)}", soft_wrap=True)


def show_next(console: Console, command: str) -> None:
    """Print the command to run next, on one line that can be copied."""
    console.print("Next:", f"[bold]{escape(command)}[/bold]", soft_wrap=True, highlight=False)
