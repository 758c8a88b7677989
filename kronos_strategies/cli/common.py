"""The command that runs a workflow on a store: its settings follow from the data."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, env_var_split
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from kronos_strategies.data.qlib_store import StoreSummary

TOPK, LOOKBACK = 50, 90  # default of the workflow files for a given store
INTRADAY = "kronos_crypto.yaml"
USUAL = {  # region, market and benchmark of each
    "kronos_csi300.yaml": ("cn", "csi300", "SH000300"),
    "kronos_us.yaml": ("us", "us", None),
    INTRADAY: ("us", "crypto", None),
}


def qrun_command(settings: Mapping[str, str], config: str = "kronos_csi300.yaml") -> str:
    """A run of a workflow file with some of its settings changed by the environment; works from any folder."""
    words = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    return " ".join([*words, "qrun", shlex.quote(str(config_path(config)))])


def config_path(name: str) -> Path:
    """The path of a workflow file, relative to the working directory if it is below it."""
    path = config_folder() / name
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def config_folder() -> Path:
    """Where the workflow files are: within the installed package, or next to it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def trade_settings(store: Path, market: str) -> tuple[dict[str, str], str]:
    """Market, benchmark, number of positions and trading rules that fit a store, and the workflow file.

    Args:
        store: a Qlib store.
        market: one of its markets.

    Returns:
        settings that differ from those of the workflow file; its name.
    """
    from kronos_strategies.data.qlib_bins import DAY, bin_folder, read_market, store_freq
    from kronos_strategies.data.qlib_store import MANIFEST, read_summary, region_of_store

    region, freq = region_of_store(store), store_freq(store)
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


def next_run(summary: StoreSummary, market: str) -> str:
    """The command that runs a new store: over its last year, its last month if intraday, or its last half."""
    from pandas import Timedelta, Timestamp

    from kronos_strategies.data.qlib_bins import DAY, read_calendar

    trade, config = trade_settings(summary.path, market)
    settings = {"KRONOS_QLIB_DATA": str(summary.path), **trade}
    whole = config == "kronos_csi300.yaml" and summary.start <= "2022-07-01" and summary.end >= "2023-12-28"
    if not whole:
        first, last = Timestamp(summary.start), Timestamp(summary.end)
        most = Timedelta(days=365 if summary.freq == DAY else 30)
        start = max(last - most, first + (last - first) / 2).normalize()
        before = int((read_calendar(summary.path) < start).sum())
        if before < LOOKBACK:
            settings["KRONOS_LOOKBACK"] = str(max(2, before))
        settings |= {"KRONOS_TEST_START": f"{start:%Y-%m-%d}", "KRONOS_TEST_END": summary.end}
    return qrun_command(settings, config)


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


# MLflow tracking store: that of `qrun` in the same folder, unless another one is given.
TRACKING = "sqlite:///mlflow.db"
Tracking = Annotated[str, Parameter(env_var="MLFLOW_TRACKING_URI")]


def set_values(type_: object, value: str, *, delimiter: str | None = None) -> list[str]:
    """The values of an environment variable; an empty one counts as unset, as in the workflow files."""
    return env_var_split(type_, value, delimiter=delimiter) if value else []


def note(console: Console, text: str) -> None:
    """Print a warning that a reader of the numbers must see."""
    console.print(f"[yellow]Note:[/yellow] {escape(text)}", soft_wrap=True)


def show_next(console: Console, command: str) -> None:
    """Print the command to run next, on one line that can be copied."""
    console.print("Next:", f"[bold]{escape(command)}[/bold]", soft_wrap=True, highlight=False)
