"""A run of any Qlib model -> its evidence, or what `kronos compare` holds against others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from kronos.utils import git_commit, package_version
from kronos_strategies.contenders import Contender
from kronos_strategies.evaluation.baselines import baseline_scores
from kronos_strategies.evaluation.comparison.version import Version
from kronos_strategies.evaluation.price_panel import PricePanel
from kronos_strategies.evaluation.warnings import universe_warnings
from kronos_strategies.evidence import DECAY, About, Evidence
from kronos_strategies.qlib.evidence import (
    crowded,
    exposures_of,
    ledger_of,
    market_of,
)
from kronos_strategies.qlib.market import backtest_result, equal_weight
from kronos_strategies.qlib.plain_runs import PlainRun, read_plain_run
from kronos_strategies.qlib.source import use_source
from kronos_strategies.qlib.universe import instruments_of, universe_name
from kronos_strategies.result import BARS_PER_YEAR

SEARCHED = 21  # bars held that a label is held against to find its own
ALIKE = 1e-4  # Qlib's labels are float32


def evidence_of_plain_run(
    run: PlainRun,
    trials: int = 1,
    industries: pd.Series | None = None,
    notices: Sequence[str] = (),
) -> Evidence:
    """Everything that the report of a run is computed from, off the bars that Qlib reads.

    Args:
        run: of any Qlib model.
        trials: settings that were tried before this run, itself counted.
        industries: by instrument, see `industries.read_industries`.
        notices: what a reader must know of the store.
    """
    keys = cast(pd.MultiIndex, run.score.index)
    market = market_of(keys)
    run, told = with_span(run, market)
    hold = run.hold or 1
    label = _own_label(run, market)
    baselines, scarce = baseline_scores(market, keys)
    instruments = instruments_of(run.instruments)
    result = None
    if run.traded is not None:
        result = backtest_result(run.traded, run.held, equal_weight(instruments, run.traded.index))
    members = keys if run.label is None else cast(pd.MultiIndex, run.label.index.union(keys))
    about = About(
        title=f"{run.model} on {universe_name(instruments)}",
        hold=hold,
        bars_between=1,
        trials=trials,
        described={
            **run.described,
            "market": universe_name(instruments),
            "code": f"kronos-strategies {package_version()}, commit {git_commit() or 'unknown'}",
        },
        ledger=ledger_of(members, keys, label),
        warnings=(
            *notices,
            *told,
            *universe_warnings(members),
            *(crowded(result, members) if result is not None else ()),
            *scarce,
        ),
        bars_per_year=BARS_PER_YEAR if result is None else result.bars_per_year,
    )
    return Evidence(
        about=about,
        scores=pd.DataFrame({run.model: run.score}).join(baselines),
        labels=_labels(run, market, keys, label),
        exposures=exposures_of(market, keys, industries),
        market=market,
        result=result,
    )


def evidence_of_folder(folder: Path, trusted: bool, data: Path | None) -> Evidence:
    """That of the run whose artifacts a folder holds, see `read_plain_run`.

    Raises:
        ValueError: its bars are not on record, and none are named.
    """
    run = read_plain_run(folder, trusted)
    store = data or run.data
    if store is None:
        raise ValueError(
            f"The run in {folder} does not say where its bars are. Name their Qlib store with --data or "
            "KRONOS_QLIB_DATA."
        )
    return evidence_of_plain_run(run, notices=use_source(store))


def contender_of_plain_run(folder: Path, name: str, trusted: bool, data: Path | None) -> Contender:
    """The run whose artifacts a folder holds, as a version: its label from the run, or else from the bars.

    Args:
        folder: of the artifacts.
        name: of the version; the model's when empty.
        trusted: see `read_plain_run`.
        data: Qlib store of its bars; that on record when omitted.
    """
    run = read_plain_run(folder, trusted)
    store, references = data or run.data, None
    told: tuple[str, ...] = ()
    keys = cast(pd.MultiIndex, run.score.index)
    labels = None if run.label is None else pd.DataFrame({run.hold or 1: run.label.reindex(keys)})
    if store is not None:
        notices = use_source(store)
        market = market_of(keys)
        run, found = with_span(run, market)
        told = (*notices, *found)
        labels = _labels(run, market, keys, _own_label(run, market))
        references = baseline_scores(market, keys)[0]
    elif run.hold is None and labels is not None:
        told = ("what the label spans is not on record: taken as 1 bar",)
    name = name or run.model
    return Contender(
        version=Version(name, run.score, None, run.described),
        labels=labels,
        horizon=None if labels is None else run.hold or 1,
        references=references,
        warnings=tuple(f"'{name}': {each}" for each in told),
    )


def with_span(run: PlainRun, market: PricePanel) -> tuple[PlainRun, list[str]]:
    """The run with what its label spans, found in the bars where its task does not tell; and what is to be told."""
    if run.hold is not None:
        return run, []
    if run.label is not None:
        keys = cast(pd.MultiIndex, run.label.index[run.label.index.isin(_rows(market))])
        label = run.label.reindex(keys)
        for hold in range(1, SEARCHED):
            for price in ("close", "open"):
                came = market.lookup(market.forward_return(hold, price), keys)
                both = (label.notna() & came.notna()).to_numpy()
                if both.sum() > 10 and np.mean(np.abs(label - came)[both] < ALIKE) > 0.9:
                    return replace(run, hold=hold, price=price), []
    return replace(run, hold=1), [
        "What the label of the run spans is neither on record nor a return of its bars: it is taken to span 1 bar."
    ]


def _rows(market: PricePanel) -> pd.MultiIndex:
    return pd.MultiIndex.from_product([market.closes.index, market.closes.columns])


def _own_label(run: PlainRun, market: PricePanel) -> pd.Series:
    """By (datetime, instrument) of the score; from the bars where the run kept none."""
    keys = cast(pd.MultiIndex, run.score.index)
    if run.label is not None:
        return run.label
    price = run.price if run.price in ("close", "open") else "close"
    return market.lookup(market.forward_return(run.hold or 1, price), keys)


def _labels(run: PlainRun, market: PricePanel, keys: pd.MultiIndex, label: pd.Series) -> pd.DataFrame:
    price = run.price if run.price in ("close", "open") else "close"
    horizons = sorted({*DECAY, run.hold or 1})
    columns = {h: market.lookup(market.forward_return(h, price), keys) for h in horizons}
    return pd.DataFrame(columns | {run.hold or 1: label.reindex(keys)})
