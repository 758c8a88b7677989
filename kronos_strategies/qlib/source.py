"""The Qlib store that a run reads: opened, and checked for what is asked of it before anything is forecast."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import qlib
from qlib.config import C
from qlib.data import D
from qlib.log import set_global_logger_level

from kronos_strategies.data.default import default_store, ensure_store, store_notices
from kronos_strategies.qlib.experiment import TRACKING, KronosExpManager


def use_source(folder: Path, tracking: str = TRACKING) -> list[str]:
    """Make Qlib read `folder`, quietly; return what a reader of its figures must know.

    Args:
        folder: of a Qlib store.
        tracking: address of the MLflow store that runs are recorded in; nothing is written to it here.

    Raises:
        FileNotFoundError: no Qlib store there.
    """
    folder = folder.expanduser().resolve()
    _check_there(folder)
    manager = {
        "class": KronosExpManager.__name__,
        "module_path": KronosExpManager.__module__,
        "kwargs": {"uri": tracking, "default_exp_name": "kronos"},
    }
    qlib.init(
        provider_uri=str(folder), region="cn", kernels=1, logging_level=logging.WARNING, exp_manager=manager
    )
    set_global_logger_level(logging.ERROR)  # its recorder warns that a new experiment is new
    return store_notices(folder)


def open_source() -> list[str]:
    """Look at the store that Qlib was told to read; return what a reader of its figures must know.

    Raises:
        FileNotFoundError: no Qlib store there.
    """
    folder = Path(C.dpm.get_data_uri())
    _check_there(folder)
    return store_notices(folder)


def check_market(market: str) -> None:
    """Demand that the store has a market.

    Raises:
        ValueError: names those that it has.
    """
    folder = Path(C.dpm.get_data_uri()) / "instruments"
    known = sorted(path.stem for path in folder.glob("*.txt"))
    if market not in known:
        raise ValueError(f"The store {folder.parent} has no market '{market}'. It has {known}.")


def check_span(what: str, start: pd.Timestamp, end: pd.Timestamp, remedy: str) -> None:
    """Demand that a span holds a trading day of the store and ends within it.

    Raises:
        ValueError: gives both spans and the remedy.
    """
    calendar, future = pd.DatetimeIndex(D.calendar()), pd.DatetimeIndex(D.calendar(future=True))
    store = f"the store, which spans {calendar[0]:%Y-%m-%d} to {calendar[-1]:%Y-%m-%d}"
    span = f"{what} from {start:%Y-%m-%d} to {end:%Y-%m-%d}"
    if not ((calendar >= start) & (calendar <= end)).any():
        raise ValueError(f"{span} holds no trading day of {store}. {remedy}")
    if ((future > calendar[-1]) & (future <= end)).any():
        raise ValueError(f"{span} ends after {store}. {remedy}")


def check_segments(spans: Mapping[str, tuple[pd.Timestamp | None, ...]]) -> None:
    """Refuse a segment without a trading day, which Qlib would trip over much later.

    One may end after the store: it is scored as far as bars reach, as Qlib's rolling tasks want it.

    Raises:
        ValueError: a segment outside of the store.
    """
    calendar = pd.DatetimeIndex(D.calendar())
    for name, (start, end) in spans.items():
        first, last = start or calendar[0], end or calendar[-1]
        if not ((calendar >= first) & (calendar <= last)).any():
            raise ValueError(
                f"Segment '{name}' from {first:%Y-%m-%d} to {last:%Y-%m-%d} holds no trading day of the store, which "
                f"spans {calendar[0]:%Y-%m-%d} to {calendar[-1]:%Y-%m-%d}. Set KRONOS_TEST_START and KRONOS_TEST_END."
            )


def check_benchmark(benchmark: str) -> None:
    """Demand that the store has bars of a benchmark.

    Raises:
        ValueError: it has none.
    """
    if D.features([benchmark], ["$close"]).empty:
        raise ValueError(
            f"The store has no benchmark '{benchmark}'. Import it with `kronos data import ... --benchmark FILE`, "
            "or name one that it has by KRONOS_BENCHMARK."
        )


def _check_there(folder: Path) -> None:
    """Make the default store on first use; demand that any other one is there."""
    if folder.resolve() == default_store().resolve():  # Qlib has resolved its own
        ensure_store(folder)
    if not (folder / "calendars" / "day.txt").is_file():
        raise FileNotFoundError(
            f"{folder} holds no Qlib store (no calendars/day.txt). Make one with `kronos data import FILE... "
            f"--to {folder}`, or unset KRONOS_QLIB_DATA to run on a simulated market."
        )
