"""Settings of a Qlib task that would fail only after all is forecast, or be wrong silently: checked first."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
from qlib.config import C
from qlib.data import D
from qlib.utils.time import Freq

from kronos.config import as_integer, as_number
from kronos_strategies.data.regions import REGIONS
from kronos_strategies.portfolio import PortfolioRules
from kronos_strategies.qlib.industries import read_industries
from kronos_strategies.qlib.market import DAY
from kronos_strategies.qlib.source import (
    REMEDY,
    as_date,
    check_benchmark,
    check_lookback,
    check_overlap,
    open_source,
)

QLIB_BENCHMARK = "SH000300"  # what Qlib's backtest takes where it is given None
Config = Mapping[str, Any]


def check_task(task: Config) -> None:
    """Refuse a task of ours whose settings do not fit each other, the store or the files that they name.

    Tasks without a class of this project are left to Qlib.

    Args:
        task: as in a workflow file: model, dataset, record.

    Raises:
        ValueError: in one sentence, what is wrong and what to do.
        FileNotFoundError: no such store or file.
    """
    records = _records(task)
    names = [_class(task.get("dataset")), *map(_class, records)]
    if not {"KronosDataset", "KronosRecord"} & set(names):
        return
    dataset = _kwargs(task.get("dataset")) if names[0] == "KronosDataset" else {}
    model = _kwargs(task.get("model")) if _class(task.get("model")) == "KronosModel" else {}
    open_source(dataset.get("freq", DAY))
    if dataset and model:
        check_lookback(dataset.get("lookback", 90), model.get("max_context", 512))
    for record in records:
        kwargs = _kwargs(record)
        if "backtest" in (kwargs.get("config") or {}):
            check_backtest(kwargs["config"], dataset, model)
        if _class(record) == "KronosRecord" and kwargs.get("industry"):
            read_industries(Path(kwargs["industry"]))


def check_backtest(config: Config, dataset: Config, model: Config) -> None:
    """Refuse a backtest that does not trade what the dataset measures, or that the store cannot carry.

    Args:
        config: of PortAnaRecord: strategy, backtest.
        dataset: arguments of KronosDataset; empty for any other.
        model: arguments of KronosModel; empty for any other.

    Raises:
        ValueError: in one sentence, what is wrong and what to do.
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
            f"benchmark: null is {QLIB_BENCHMARK} to Qlib, which the store lacks. Name one by KRONOS_BENCHMARK, or "
            "take the mean of the market by KRONOS_BENCHMARK=market."
        )
    if benchmark is not None:
        check_benchmark(benchmark, freq)


def _check_topk(kwargs: Config, hold: int | None) -> None:
    topk, drop = as_integer("topk", kwargs.get("topk")), as_integer("n_drop", kwargs.get("n_drop"))
    if topk < 1:
        raise ValueError(f"topk={topk} holds nothing. Set KRONOS_TOPK to at least 1.")
    if not 0 <= drop <= topk:
        raise ValueError(
            f"n_drop={drop} of topk={topk} instruments cannot be replaced. Set KRONOS_N_DROP to 0 to {topk}."
        )
    _check_hold("hold_thresh", kwargs.get("hold_thresh", 1), hold)


def _check_weights(kwargs: Config, hold: int | None, model: Config) -> None:
    rules, known = dict(kwargs.get("rules") or {}), [field.name for field in fields(PortfolioRules)]
    if unknown := [name for name in rules if name not in known]:
        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"Did you mean '{close[0]}'?" if close else f"Choose among {known}."
        raise ValueError(f"'{unknown[0]}' is no rule of a portfolio. {hint}")
    made = PortfolioRules(**rules)
    _check_hold("every", kwargs.get("every", 1), hold)
    column = made.by if made.by != "score" else "volatility"
    reads_more = made.by != "score" or made.reads_volatility
    if model and reads_more and model.get("samples") == 0:
        raise ValueError(
            f"The strategy reads '{column}', which comes from sampled paths. Set KRONOS_SAMPLES to 10, or weigh "
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
        raise ValueError(f"{name}={value} days is no holding. Give 1 or more.")
    if hold is not None and value != hold:
        raise ValueError(
            f"The dataset scores a trade of hold={hold} and the strategy trades by {name}={value}. Make them agree."
        )


def _check_exchange(exchange: Config, dataset: Config) -> None:
    limit = exchange.get("limit_threshold")
    if isinstance(limit, str) and limit.startswith("KRONOS_REGION"):  # what the workflow files make of it
        raise ValueError(f"{limit} is no region of Qlib. Choose one of {sorted(REGIONS)}.")
    for name in ("open_cost", "close_cost", "min_cost"):
        if name in exchange and as_number(name, exchange[name]) < 0:
            raise ValueError(f"{name}={exchange[name]} is a cost below 0. Give 0 or more.")
    if isinstance(limit, str) or (isinstance(limit, int | float) and not 0 < limit < 1):
        raise ValueError(
            f"limit_threshold={limit!r} is not a share of a price. Set KRONOS_LIMIT to 0.095, say, or null."
        )
    price = exchange.get("deal_price", C.deal_price)
    prices = {str(each).removeprefix("$") for each in ([price] if isinstance(price, str) else price)}
    expected = dataset.get("deal_price", "close")
    if dataset and prices != {expected}:
        raise ValueError(
            f"The dataset measures returns at the {expected} but the backtest trades at {sorted(prices)}. Set both "
            "the same deal_price."
        )


def _check_freq(config: Config, exchange: Config, freq: str) -> None:
    """Executor and exchange must go by the dataset's bars."""
    steps = _kwargs(config.get("executor") or {}).get("time_per_step", DAY)
    for name, value in (
        ("time_per_step of the executor", steps),
        ("freq of exchange_kwargs", exchange.get("freq", DAY)),
    ):
        if Freq(str(value)) != Freq(freq):
            raise ValueError(
                f"The dataset has bars of freq='{freq}' and {name} is '{value}'. Make them agree."
            )


def _check_span(backtest: Config, freq: str) -> None:
    """A backtest needs a bar behind its last one, by the calendar."""
    calendar, future = (pd.DatetimeIndex(D.calendar(freq=freq, future=later)) for later in (False, True))
    start, end = (
        None if backtest.get(f"{which}_time") is None else as_date(f"{which}_time", backtest[f"{which}_time"])
        for which in ("start", "end")
    )
    start, end = calendar[0] if start is None else start, calendar[-2] if end is None else end
    check_overlap("The backtest", start, end, REMEDY, freq)
    span = f"The backtest from {start:%Y-%m-%d} to {end:%Y-%m-%d}"
    store = f"the store, which spans {calendar[0]:%Y-%m-%d} to {calendar[-1]:%Y-%m-%d}"
    if ((future > calendar[-1]) & (future <= end)).any():
        raise ValueError(f"{span} ends after {store}. {REMEDY}")
    if end >= future[-1]:
        raise ValueError(
            f"{span} ends with {store}, without a calendars/{freq}_future.txt behind it: a backtest must end by "
            f"{calendar[-2]:%Y-%m-%d}. {REMEDY} Predictions need no backtest and reach the last bar."
        )


def _records(task: Config) -> list[Config]:
    records: Any = task.get("record") or []
    return list(_each(records))


def _each(records: Mapping[str, Any] | Sequence[Any]) -> Iterator[Config]:
    yield from (records,) if isinstance(records, Mapping) else (r for r in records if isinstance(r, Mapping))


def _class(config: object) -> str:
    """The name of the class that a configuration makes, without its module."""
    name = config.get("class", "") if isinstance(config, Mapping) else type(config).__name__
    return name.rpartition(".")[2] if isinstance(name, str) else getattr(name, "__name__", "")


def _kwargs(config: object) -> Config:
    return (config.get("kwargs") or {}) if isinstance(config, Mapping) else {}
