"""Early checks of a Qlib task: settings that would fail only after forecasting, or give wrong results silently."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from qlib.config import C
from qlib.data import D
from qlib.utils.time import Freq

from kronos.config import as_integer, as_number
from kronos_strategies.data.qlib_bins import DAY, time_text
from kronos_strategies.data.qlib_store import REGIONS
from kronos_strategies.evaluation.signal.neutralization import read_industries
from kronos_strategies.forecasters.registry import parse_name
from kronos_strategies.portfolio import check_history, check_inputs, rules_of
from kronos_strategies.qlib.data_access import (
    Config,
    check_instruments,
    instruments_of,
    qlib_warnings,
    store_folder,
)

REMEDY = "Set KRONOS_TEST_START and KRONOS_TEST_END."
QLIB_BENCHMARK = "SH000300"  # Qlib's default benchmark if it is None
Settings = Mapping[str, Any]
_DATE = re.compile(r"\d{4}(-\d{1,2}-\d{1,2}|/\d{1,2}/\d{1,2}|\d{4})([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?")


def check_task(task: Settings) -> None:
    """Refuse a task whose settings do not fit each other, the data directory or the files that they name.

    Tasks without a class of this project are left to Qlib.

    Args:
        task: task as in a workflow file: model, dataset, record.

    Raises:
        ValueError: a setting does not fit; says what to do.
        FileNotFoundError: the data directory or a file does not exist.
    """
    records, dataset = _records(task), trade_settings(task)
    names = {_class(task.get("dataset")), *map(_class, records)}
    if not dataset and not {"KronosDataset", "KronosRecord"} & names:
        return
    used = task.get("model")
    used = _kwargs(used).get("model") if _class(used) == "RollingModel" else used
    model = _kwargs(used) if _class(used) == "KronosModel" else {}
    qlib_warnings(dataset.get("freq", DAY))
    if dataset and model:
        named = parse_name(model.get("checkpoint") or "kronos-nano")
        check_lookback(dataset.get("lookback", 90), model.get("max_context", 512) if named is None else None)
    for record in records:
        kwargs = _kwargs(record)
        if "backtest" in (kwargs.get("config") or {}):
            check_backtest(kwargs["config"], dataset, model)
        if _class(record) == "KronosRecord":
            if kwargs.get("industry"):
                read_industries(Path(kwargs["industry"]))
            if model.get("samples") == 1:
                needed = "Set KRONOS_SAMPLES to 2 or more, or to 0 to rank by a return head alone."
                raise ValueError(f"samples=1 is too few for the report, which scores distributions. {needed}")


def trade_settings(task: Settings) -> Settings:
    """Arguments of a task's KronosDataset or KronosFeatures, which have its label; empty for other tasks."""
    dataset = task.get("dataset")
    handler = _kwargs(dataset).get("handler")
    found = ((_class(each), _kwargs(each)) for each in (dataset, handler))
    return next((kwargs for name, kwargs in found if name in ("KronosDataset", "KronosFeatures")), {})


def check_backtest(config: Settings, dataset: Settings, model: Settings) -> None:
    """Refuse a backtest whose trades differ from the label, or for which the data directory lacks data.

    Args:
        config: configuration of PortAnaRecord: strategy, backtest.
        dataset: arguments of KronosDataset or KronosFeatures; empty for any other.
        model: arguments of KronosModel; empty for any other.

    Raises:
        ValueError: a setting does not fit; says what to do.
    """
    strategy, backtest = config.get("strategy") or {}, config["backtest"]
    freq = dataset.get("freq", DAY)
    hold = dataset.get("hold", 1) if dataset else None
    kwargs = _kwargs(strategy)
    if _class(strategy) == "TopkDropoutStrategy":
        _check_topk(kwargs, hold)
    if _class(strategy) == "KronosWeightStrategy":
        _check_weights(kwargs, hold, model)
    exchange = backtest.get("exchange_kwargs") or {}
    _check_exchange(exchange, dataset)
    _check_freq(config, exchange, freq)
    _check_span(backtest, freq)
    benchmark = backtest.get("benchmark", QLIB_BENCHMARK)
    if benchmark is None and D.features([QLIB_BENCHMARK], ["$close"], freq=freq).empty:
        raise ValueError(
            f"Qlib reads benchmark: null as {QLIB_BENCHMARK}, which the data directory lacks. Set KRONOS_BENCHMARK "
            "to one that it has, or to market for the mean of the market."
        )
    if benchmark is not None:
        check_benchmark(benchmark, freq)


def _check_topk(kwargs: Settings, hold: int | None) -> None:
    topk, drop = as_integer("topk", kwargs.get("topk")), as_integer("n_drop", kwargs.get("n_drop"))
    if topk < 1:
        raise ValueError(f"topk={topk} is too small. Set KRONOS_TOPK to at least 1.")
    if not 0 <= drop <= topk:
        raise ValueError(
            f"n_drop={drop} of topk={topk} instruments cannot be replaced. Set KRONOS_N_DROP to 0 to {topk}."
        )
    _check_hold("hold_thresh", kwargs.get("hold_thresh", 1), hold)


def _check_weights(kwargs: Settings, hold: int | None, model: Settings) -> None:
    made = rules_of(dict(kwargs.get("rules") or {}))
    check_inputs(made, industries=False, amounts=False)  # which Qlib's strategy does not pass
    check_history(made, closes=True, paths=bool(kwargs.get("forecasts")))
    _check_hold("every", kwargs.get("every", 1), hold)
    if made.uses_scenarios and model.get("samples") == 0:
        raise ValueError(
            f"weighting={made.weighting} optimizes over sampled paths. Set KRONOS_SAMPLES to 10 or more."
        )
    read = [name for name in (made.rank_by, *made.columns) if name != "score"]
    column, reads_more = next(iter(read), ""), bool(read)
    if model and reads_more and model.get("samples") == 0:
        raise ValueError(
            f"The strategy reads '{column}', which comes from sampled paths. Set KRONOS_SAMPLES to 10, or weight "
            "equally by the score with KRONOS_WEIGHTING=equal."
        )
    if model and reads_more and model.get("prediction", "score") != "signals":
        raise ValueError(
            f"The strategy reads '{column}', of which predictions of the score alone have none. Set prediction: "
            "signals of KronosModel."
        )


def _check_hold(name: str, value: object, hold: int | None) -> None:
    value = as_integer(name, value)
    if value < 1:
        raise ValueError(f"{name} must be at least 1 day, got {value}.")
    if hold is not None and value != hold:
        raise ValueError(f"The dataset has hold={hold} but the strategy has {name}={value}. Make them equal.")


def _check_exchange(exchange: Settings, dataset: Settings) -> None:
    limit = exchange.get("limit_threshold")
    if isinstance(limit, str) and limit.startswith(
        "KRONOS_REGION"
    ):  # placeholder of the workflow files for an unknown region
        raise ValueError(f"{limit} is not a region of Qlib. Choose one of {sorted(REGIONS)}.")
    for name in ("open_cost", "close_cost", "min_cost"):
        if name in exchange and as_number(name, exchange[name]) < 0:
            raise ValueError(f"{name}={exchange[name]} is negative. Pass a cost of 0 or more.")
    if isinstance(limit, str) or (isinstance(limit, int | float) and not 0 < limit < 1):
        raise ValueError(
            f"limit_threshold={limit!r} is not a fraction of the price. Set KRONOS_LIMIT, e.g. to 0.095 or null."
        )
    price = exchange.get("deal_price", C.deal_price)
    prices = {str(each).removeprefix("$") for each in ([price] if isinstance(price, str) else price)}
    expected = dataset.get("deal_price", "close")
    if dataset and prices != {expected}:
        raise ValueError(
            f"The dataset measures returns at the {expected} but the backtest trades at {sorted(prices)}. Set both "
            "the same deal_price."
        )


def _check_freq(config: Settings, exchange: Settings, freq: str) -> None:
    """Check that executor and exchange use the dataset's bar frequency."""
    steps = _kwargs(config.get("executor") or {}).get("time_per_step", DAY)
    for name, value in (
        ("time_per_step of the executor", steps),
        ("freq of exchange_kwargs", exchange.get("freq", DAY)),
    ):
        if Freq(str(value)) != Freq(freq):
            raise ValueError(
                f"The dataset has bars of freq='{freq}' and {name} is '{value}'. Make them agree."
            )


def _check_span(backtest: Settings, freq: str) -> None:
    """A backtest needs a bar after its last one, by the calendar."""
    calendar, future = (pd.DatetimeIndex(D.calendar(freq=freq, future=later)) for later in (False, True))
    start, end = (
        None if backtest.get(f"{which}_time") is None else as_date(f"{which}_time", backtest[f"{which}_time"])
        for which in ("start", "end")
    )
    start, end = calendar[0] if start is None else start, calendar[-2] if end is None else end
    check_overlap("The backtest", start, end, REMEDY, freq)
    span = f"The backtest from {start:%Y-%m-%d} to {end:%Y-%m-%d}"
    store = f"the data directory, which spans {calendar[0]:%Y-%m-%d} to {calendar[-1]:%Y-%m-%d}"
    if ((future > calendar[-1]) & (future <= end)).any():
        raise ValueError(f"{span} ends after {store}. {REMEDY}")
    if end >= future[-1]:
        raise ValueError(
            f"{span} ends with {store}, without a calendars/{freq}_future.txt after it: a backtest must end by "
            f"{calendar[-2]:%Y-%m-%d}. {REMEDY} Predictions need no backtest and reach the last bar."
        )


def _records(task: Settings) -> list[Settings]:
    records: Any = task.get("record") or []
    return list(_each(records))


def _each(records: Mapping[str, Any] | Sequence[Any]) -> Iterator[Settings]:
    yield from (records,) if isinstance(records, Mapping) else (r for r in records if isinstance(r, Mapping))


def _class(config: object) -> str:
    """Class name of a configuration, without its module."""
    name = config.get("class", "") if isinstance(config, Mapping) else type(config).__name__
    return name.rpartition(".")[2] if isinstance(name, str) else getattr(name, "__name__", "")


def _kwargs(config: object) -> Settings:
    return (config.get("kwargs") or {}) if isinstance(config, Mapping) else {}


def check_market(market: str, freq: str = DAY) -> None:
    """Check that the data directory has a market.

    Raises:
        ValueError: it does not; names the markets that it has.
    """
    check_instruments({"market": market, "filter_pipe": []}, store_folder(freq))


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


def check_lookback(lookback: object, most: int | None) -> None:
    """Check that the lookback fits the model's context; None of `most` is a model without a limit.

    Raises:
        ValueError: it is longer, so that the model would read the last bars only.
    """
    if most is not None and as_integer("lookback", lookback) > as_integer("max_context", most):
        raise ValueError(
            f"lookback={lookback} is more than the model's context of {most} bars. Pass {most} or less "
            "(KRONOS_LOOKBACK, --lookback)."
        )


def check_span(what: str, start: pd.Timestamp, end: pd.Timestamp, remedy: str, freq: str = DAY) -> None:
    """Check that a span has a trading day of the data directory, and begins and ends within it.

    Raises:
        ValueError: it does not; gives both spans and the remedy.
    """
    check_overlap(what, start, end, remedy, freq)
    calendar, future = (pd.DatetimeIndex(D.calendar(freq=freq, future=later)) for later in (False, True))
    store = f"the data directory, which spans {time_text(calendar[0])} to {time_text(calendar[-1])}"
    span = f"{what} from {time_text(start)} to {time_text(end)}"
    later = future[future.normalize() > calendar[-1].normalize()]  # the last day may be incomplete
    if (later <= end).any() or end > calendar[-1] + pd.Timedelta(days=7):
        raise ValueError(f"{span} ends after {store}. {remedy}")
    if start < calendar[0] - pd.Timedelta(days=7):  # allows for holidays
        raise ValueError(f"{span} starts before {store}. {remedy}")


def check_overlap(what: str, start: pd.Timestamp, end: pd.Timestamp, remedy: str, freq: str = DAY) -> None:
    """Check that a span has a trading time of the data directory.

    Raises:
        ValueError: it does not; gives both spans and the remedy.
    """
    calendar = pd.DatetimeIndex(D.calendar(freq=freq))
    if start > end:
        raise ValueError(
            f"{what} has no trading day: it starts on {time_text(start)} and ends on {time_text(end)}. {remedy}"
        )
    if not ((calendar >= start) & (calendar <= end)).any():
        raise ValueError(
            f"{what} from {time_text(start)} to {time_text(end)} has no trading day of the data directory, which "
            f"spans {time_text(calendar[0])} to {time_text(calendar[-1])}. {remedy}"
        )


def check_segments(spans: Mapping[str, tuple[pd.Timestamp | None, ...]], freq: str = DAY) -> None:
    """Refuse a segment without a trading day, on which Qlib would fail much later.

    A segment may end after the data directory, as in Qlib's rolling tasks: it is scored up to the last bar.

    Raises:
        ValueError: a segment is outside of the data directory.
    """
    calendar = pd.DatetimeIndex(D.calendar(freq=freq))
    for name, (start, end) in spans.items():
        first = calendar[0] if start is None else start
        check_overlap(
            f"Segment '{name}'", first, max(calendar[-1], first) if end is None else end, REMEDY, freq
        )
        if first < calendar[0] - pd.Timedelta(days=7):  # allows for holidays
            raise ValueError(
                f"Segment '{name}' starts on {first:%Y-%m-%d}, before the data directory, which has "
                f"{calendar[0]:%Y-%m-%d} to {calendar[-1]:%Y-%m-%d}. {REMEDY}"
            )


def check_benchmark(benchmark: object, freq: str = DAY) -> None:
    """Check that the data directory has bars of a benchmark: a symbol, or several that Qlib averages.

    Raises:
        ValueError: it does not.
    """
    if isinstance(benchmark, pd.Series):
        return
    config: Config = [benchmark] if isinstance(benchmark, str) else instruments_of(benchmark)  # type: ignore[arg-type]
    if D.features(config, ["$close"], freq=freq).empty:
        raise ValueError(
            f"The data directory has no benchmark '{benchmark}'. Import it with `kronos data import ... "
            "--benchmark FILE`, set KRONOS_BENCHMARK to one that it has, or to market for the mean of the market."
        )


def has_field(instruments: Config, field: str, freq: str = DAY) -> bool:
    """Whether the data directory has a field of some of the instruments, on the last days that it has bars of."""
    recent = D.calendar(freq=freq)[-20:]
    found = D.features(instruments, [f"${field}"], start_time=recent[0], freq=freq)
    return bool(found[f"${field}"].notna().any())
