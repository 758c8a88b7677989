"""The Qlib store that a run reads: opened, and checked for what is asked of it before anything is forecast."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pandas as pd
import qlib
from qlib.config import C
from qlib.data import D
from qlib.log import set_global_logger_level

from kronos.config import as_integer
from kronos_strategies.data.default import default_store, ensure_store, store_notices
from kronos_strategies.data.regions import region_of_store
from kronos_strategies.qlib.experiment import TRACKING, KronosExpManager
from kronos_strategies.qlib.market import DAY
from kronos_strategies.qlib.universe import Config, check_instruments, instruments_of

REMEDY = "Set KRONOS_TEST_START and KRONOS_TEST_END."
_DATE = re.compile(r"\d{4}(-\d{1,2}-\d{1,2}|/\d{1,2}/\d{1,2}|\d{4})([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?")


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


def store_folder(freq: str = DAY) -> Path:
    """The folder that Qlib was told to read bars of a frequency from.

    Raises:
        ValueError: Qlib has not been told, or not of this frequency.
    """
    if not C.registered:
        raise ValueError(
            'Qlib does not know which data to read yet. Call qlib.init(provider_uri="~/store", region="cn") first.'
        )
    try:
        return Path(C.dpm.get_data_uri(freq))
    except KeyError:
        known = sorted(str(each) for each in C.dpm.provider_uri)
        raise ValueError(
            f"Qlib was given no data of freq='{freq}', only of {known}. Add it to provider_uri of qlib.init."
        ) from None


def open_source(freq: str = DAY) -> list[str]:
    """Look at the store that Qlib was told to read; return what a reader of its figures must know.

    Raises:
        ValueError: Qlib has not been told.
        FileNotFoundError: no Qlib store there, or none of this frequency.
    """
    folder = store_folder(freq)
    _check_there(folder, freq)
    return [*store_notices(folder), *_region_notices(folder)]


def _region_notices(folder: Path) -> list[str]:
    """A warning where Qlib was told to trade by the rules of another region than the store's."""
    expected = region_of_store(folder)
    if C.region == expected.name:
        return []
    return [
        f"Qlib trades by the rules of region '{C.region}', while instruments of {folder} are called as those of "
        f"'{expected.name}' ({expected}). Set KRONOS_REGION={expected.name}, or region in qlib_init, unless it is "
        "meant."
    ]


def check_market(market: str) -> None:
    """Demand that the store has a market.

    Raises:
        ValueError: names those that it has.
    """
    check_instruments({"market": market, "filter_pipe": []}, store_folder())


def as_date(what: str, value: object) -> pd.Timestamp:
    """A date as a user writes it: 2023-01-03, 2023/1/3, 20230103, perhaps with a time, or a date of Python's.

    Raises:
        ValueError: anything else, such as "June", which pandas reads as a day of the year 1.
    """
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else None
    if text is None and isinstance(value, date | pd.Timestamp):
        return pd.Timestamp(value)
    try:
        if text is not None and _DATE.fullmatch(text):
            return pd.Timestamp(text)
    except ValueError:
        pass
    raise ValueError(f"{what}={value!r} is not a date. Write it as 2023-01-03.")


def check_lookback(lookback: object, most: int) -> None:
    """Demand windows that the model reads whole.

    Raises:
        ValueError: a longer one, of which the model would read the last bars only.
    """
    if as_integer("lookback", lookback) > as_integer("max_context", most):
        raise ValueError(
            f"lookback={lookback} is more than the {most} bars of context that the model has. Give {most} or less "
            "(KRONOS_LOOKBACK, --lookback)."
        )


def check_span(what: str, start: pd.Timestamp, end: pd.Timestamp, remedy: str) -> None:
    """Demand that a span holds a trading day of the store, and begins and ends within it.

    Raises:
        ValueError: gives both spans and the remedy.
    """
    check_overlap(what, start, end, remedy)
    calendar, future = pd.DatetimeIndex(D.calendar()), pd.DatetimeIndex(D.calendar(future=True))
    store = f"the store, which spans {calendar[0]:%Y-%m-%d} to {calendar[-1]:%Y-%m-%d}"
    span = f"{what} from {start:%Y-%m-%d} to {end:%Y-%m-%d}"
    if ((future > calendar[-1]) & (future <= end)).any() or end > calendar[-1] + pd.Timedelta(days=7):
        raise ValueError(f"{span} ends after {store}. {remedy}")
    if start < calendar[0] - pd.Timedelta(days=7):  # holidays may lie between
        raise ValueError(f"{span} starts before {store}. {remedy}")


def last_tradable(end: pd.Timestamp, freq: str = DAY) -> pd.Timestamp:
    """The last day up to `end` that a backtest can end on: one that the calendar has another behind."""
    future = pd.DatetimeIndex(D.calendar(freq=freq, future=True))
    return end if end < future[-1] else pd.Timestamp(future[-2])


def check_overlap(what: str, start: pd.Timestamp, end: pd.Timestamp, remedy: str, freq: str = DAY) -> None:
    """Demand that a span holds a trading time of the store.

    Raises:
        ValueError: gives both spans and the remedy.
    """
    calendar = pd.DatetimeIndex(D.calendar(freq=freq))
    if start > end:
        raise ValueError(
            f"{what} holds no trading day: it starts on {start:%Y-%m-%d} and ends on {end:%Y-%m-%d}. {remedy}"
        )
    if not ((calendar >= start) & (calendar <= end)).any():
        raise ValueError(
            f"{what} from {start:%Y-%m-%d} to {end:%Y-%m-%d} holds no trading day of the store, which spans "
            f"{calendar[0]:%Y-%m-%d} to {calendar[-1]:%Y-%m-%d}. {remedy}"
        )


def check_segments(spans: Mapping[str, tuple[pd.Timestamp | None, ...]], freq: str = DAY) -> None:
    """Refuse a segment without a trading day, which Qlib would trip over much later.

    One may end after the store: it is scored as far as bars reach, as Qlib's rolling tasks want it.

    Raises:
        ValueError: a segment outside of the store.
    """
    calendar = pd.DatetimeIndex(D.calendar(freq=freq))
    for name, (start, end) in spans.items():
        first = calendar[0] if start is None else start
        check_overlap(
            f"Segment '{name}'", first, max(calendar[-1], first) if end is None else end, REMEDY, freq
        )
        if first < calendar[0] - pd.Timedelta(days=7):  # holidays may lie between
            raise ValueError(
                f"Segment '{name}' starts on {first:%Y-%m-%d}, before the store, which has {calendar[0]:%Y-%m-%d} "
                f"to {calendar[-1]:%Y-%m-%d}. {REMEDY}"
            )


def check_benchmark(benchmark: object, freq: str = DAY) -> None:
    """Demand that the store has bars of a benchmark: a symbol, or several whose mean Qlib takes.

    Raises:
        ValueError: it has none.
    """
    if isinstance(benchmark, pd.Series):
        return
    config: Config = [benchmark] if isinstance(benchmark, str) else instruments_of(benchmark)  # type: ignore[arg-type]
    if D.features(config, ["$close"], freq=freq).empty:
        raise ValueError(
            f"The store has no benchmark '{benchmark}'. Import it with `kronos data import ... --benchmark FILE`, "
            "name one that it has by KRONOS_BENCHMARK, or take the mean of the market by KRONOS_BENCHMARK=market."
        )


def has_field(instruments: Config, field: str, freq: str = DAY) -> bool:
    """Whether the store has a field of some of the instruments, on the last days that it has bars of."""
    recent = D.calendar(freq=freq)[-20:]
    found = D.features(instruments, [f"${field}"], start_time=recent[0], freq=freq)
    return bool(found[f"${field}"].notna().any())


def _check_there(folder: Path, freq: str = DAY) -> None:
    """Make the default store on first use; demand that any other one is there."""
    if folder.resolve() == default_store().resolve():  # Qlib has resolved its own
        ensure_store(folder)
    calendar = folder / "calendars" / f"{freq}.txt"
    if calendar.is_file():
        return
    others = sorted(path.stem for path in folder.glob("calendars/*.txt") if "future" not in path.stem)
    if others:
        raise FileNotFoundError(
            f"{folder} has bars of {others}, not of freq='{freq}' (no calendars/{freq}.txt). Choose one, or "
            "import bars of that frequency."
        )
    raise FileNotFoundError(
        f"{folder} holds no Qlib store (no calendars/{freq}.txt). Make one with `kronos data import FILE... "
        f"--to {folder}`, or unset KRONOS_QLIB_DATA to run on a simulated market."
    )
