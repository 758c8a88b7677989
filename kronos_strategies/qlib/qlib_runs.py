"""A run of any Qlib model -> its run artifacts, or an input of `kronos compare`."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from kronos.utils import git_commit, package_version
from kronos_strategies.evaluation.baselines import baseline_scores
from kronos_strategies.evaluation.comparison.comparison import ComparisonInput
from kronos_strategies.evaluation.comparison.version import Version
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.evaluation.warnings import universe_warnings
from kronos_strategies.qlib.artifacts import (
    backtest_result,
    breadth_warnings,
    count_samples,
    exposures_for,
    price_panel,
    read_price_panel,
)
from kronos_strategies.qlib.checks import trade_settings
from kronos_strategies.qlib.data_access import (
    DAY,
    Instruments,
    StoreBars,
    bars_per_year,
    init_qlib,
    instruments_of,
    member_rows,
    universe_name,
)
from kronos_strategies.qlib.pickles import read_settings_pickle, read_table_pickle
from kronos_strategies.run_artifacts import DECAY_HORIZONS, RunArtifacts, RunMetadata

SEARCHED = 21  # holding periods to compare a label with
ALIKE = 1e-4  # Qlib's labels are float32


def collect_qlib_run(
    run: QlibRun,
    trials: int = 1,
    industries: pd.Series | None = None,
    store_warnings: Sequence[str] = (),
) -> RunArtifacts:
    """All data of the report of a run, computed from the bars that Qlib reads.

    Args:
        run: run of any Qlib model.
        trials: number of settings tried so far, including this run.
        industries: industry by instrument, see `neutralization.read_industries`.
        store_warnings: warnings about the store.
    """
    keys, instruments = cast(pd.MultiIndex, run.score.index), instruments_of(run.instruments)
    names, universe = set(keys.get_level_values("instrument")), keys[:0]
    if run.traded is not None:
        universe = member_rows(instruments, run.traded.index[0], run.traded.index[-1])
        names |= set(universe.get_level_values("instrument"))
    bars = StoreBars.read(sorted(names))
    market = price_panel(bars, keys)
    run, warnings = with_span(run, market)
    hold = run.hold or 1
    label = _own_label(run, market)
    baselines, left_out = baseline_scores(market, keys)
    result = None
    if run.traded is not None:
        result = backtest_result(run.traded, run.held, bars.equal_weight(universe, run.traded.index))
    members = keys if run.label is None else cast(pd.MultiIndex, run.label.index.union(keys))
    metadata = RunMetadata(
        title=f"{run.model} on {universe_name(instruments)}",
        hold=hold,
        bars_between=1,
        trials=trials,
        settings={
            **run.described,
            "market": universe_name(instruments),
            "code": f"kronos-strategies {package_version()}, commit {git_commit() or 'unknown'}",
        },
        sample_counts=count_samples(members, keys, label),
        warnings=(
            *store_warnings,
            *warnings,
            *universe_warnings(members),
            *(breadth_warnings(result, members) if result is not None else ()),
            *left_out,
        ),
        bars_per_year=bars_per_year(DAY)[0] if result is None else result.bars_per_year,
    )
    return RunArtifacts(
        metadata=metadata,
        scores=pd.DataFrame({run.model: run.score}).join(baselines),
        labels=_labels(run, market, keys, label),
        exposures=exposures_for(market, keys, industries),
        market=market,
        result=result,
    )


def load_qlib_run(folder: Path, trusted: bool, data: Path | None) -> RunArtifacts:
    """Artifacts of the run in a folder, see `read_qlib_run`.

    Raises:
        ValueError: its data directory is neither recorded nor given.
    """
    run = read_qlib_run(folder, trusted)
    store = data or run.data
    if store is None:
        raise ValueError(
            f"The run in {folder} does not record its data directory. Pass it with --data or "
            "KRONOS_QLIB_DATA."
        )
    return collect_qlib_run(run, store_warnings=init_qlib(store))


def input_from_qlib_run(folder: Path, name: str, trusted: bool, data: Path | None) -> ComparisonInput:
    """The run in a folder as an input of a comparison: its label from the run, or else from the bars.

    Args:
        folder: folder of the artifacts.
        name: name of the version; that of the model when empty.
        trusted: see `read_qlib_run`.
        data: Qlib data directory of its bars; the recorded one when omitted.
    """
    run = read_qlib_run(folder, trusted)
    store, baselines = data or run.data, None
    warnings: tuple[str, ...] = ()
    keys = cast(pd.MultiIndex, run.score.index)
    labels = None if run.label is None else pd.DataFrame({run.hold or 1: run.label.reindex(keys)})
    if store is not None:
        store_warnings = init_qlib(store)
        market = read_price_panel(keys)
        run, found = with_span(run, market)
        warnings = (*store_warnings, *found)
        labels = _labels(run, market, keys, _own_label(run, market))
        baselines = baseline_scores(market, keys)[0]
    elif run.hold is None and labels is not None:
        warnings = ("the span of the label is not recorded: 1 bar is assumed",)
    name = name or run.model
    return ComparisonInput(
        version=Version(name, run.score, None, run.described),
        labels=labels,
        horizon=None if labels is None else run.hold or 1,
        baselines=baselines,
        warnings=tuple(f"'{name}': {each}" for each in warnings),
    )


def with_span(run: QlibRun, market: PricePanel) -> tuple[QlibRun, list[str]]:
    """The run with the span of its label, inferred from the bars if its task does not give it; and warnings."""
    if run.hold is not None:
        return run, []
    if run.label is not None:
        keys = cast(pd.MultiIndex, run.label.index[run.label.index.isin(_rows(market))])
        label = run.label.reindex(keys)
        for hold in range(1, SEARCHED):
            for price in ("close", "open"):
                realized = market.lookup(market.forward_return(hold, price), keys)
                both = (label.notna() & realized.notna()).to_numpy()
                if both.sum() > 10 and np.mean(np.abs(label - realized)[both] < ALIKE) > 0.9:
                    return replace(run, hold=hold, price=price), []
    return replace(run, hold=1), [
        "The span of the run's label is not recorded and matches no return of its bars: 1 bar is assumed."
    ]


def _rows(market: PricePanel) -> pd.MultiIndex:
    return pd.MultiIndex.from_product([market.closes.index, market.closes.columns])


def _own_label(run: QlibRun, market: PricePanel) -> pd.Series:
    """By (datetime, instrument) of the score; from the bars where the run kept none."""
    keys = cast(pd.MultiIndex, run.score.index)
    if run.label is not None:
        return run.label
    price = run.price if run.price in ("close", "open") else "close"
    return market.lookup(market.forward_return(run.hold or 1, price), keys)


def _labels(run: QlibRun, market: PricePanel, keys: pd.MultiIndex, label: pd.Series) -> pd.DataFrame:
    price = run.price if run.price in ("close", "open") else "close"
    horizons = sorted({*DECAY_HORIZONS, run.hold or 1})
    columns = {h: market.lookup(market.forward_return(h, price), keys) for h in horizons}
    return pd.DataFrame(columns | {run.hold or 1: label.reindex(keys)})


PREDICTION, LABEL, BOOK = "pred.pkl", "label.pkl", "portfolio_analysis"
OF_ALPHA = ("Alpha158", "Alpha360", "Alpha158DL", "Alpha360DL")  # whose default label spans one day
_TRADED = re.compile(r"Ref\(\$(\w+),-(\d+)\)/Ref\(\$(\w+),-1\)-1")


@dataclass(frozen=True)
class QlibRun:
    """A run of any Qlib model.

    Attributes:
        model: name of its class.
        score: score by (datetime, instrument): the first column of the prediction, without rows that have none.
        label: label by (datetime, instrument); None where the run kept none.
        hold: holding period of the label in bars; None if neither task nor model gives it.
        price: price that the label is computed from.
        task: task as Qlib saves it; empty if unknown.
        traded: Qlib's report of the backtest, by datetime; None without one.
        held: its positions at each close; None if they cannot be read.
        data: Qlib data directory of the run, if it is recorded and exists.
    """

    model: str
    score: pd.Series
    label: pd.Series | None = None
    hold: int | None = None
    price: str = "close"
    task: Mapping[str, Any] = field(default_factory=dict)
    traded: pd.DataFrame | None = None
    held: Mapping[pd.Timestamp, Any] | None = None
    data: Path | None = None

    @property
    def instruments(self) -> Instruments:
        """Rows of the run's dataset, or those with a score."""
        named = next((value for key, value in _items(self.task.get("dataset")) if key == "instruments"), None)
        return sorted(self.score.index.get_level_values("instrument").unique()) if named is None else named

    @property
    def described(self) -> dict[str, str]:
        """Settings of the run by label, ready to print."""
        kwargs = _mapping(_mapping(self.task.get("model")).get("kwargs"))
        features = trade_settings(self.task).get("features")
        dates = self.score.index.get_level_values("datetime")
        held = self.hold or 1
        return {
            "model": self.model,
            **({"settings": ", ".join(f"{k}={v}" for k, v in kwargs.items())} if kwargs else {}),
            **({"features": ", ".join(map(str, features))} if features else {}),
            "test": f"{dates.min():%Y-%m-%d} to {dates.max():%Y-%m-%d}",
            "label": f"{self.price}(t+{1 + held}) / {self.price}(t+1) - 1",
        }


def read_qlib_run(folder: Path, trusted: bool) -> QlibRun:
    """Read the run whose artifacts are in a folder.

    Args:
        folder: folder of the artifacts, with pred.pkl.
        trusted: whether it is in the user's own tracking store and may be unpickled as Qlib does; other files
            may contain types of pandas and numpy only, so positions are left out.

    Raises:
        ValueError: a file holds something else.
    """
    read, read_settings = (_read_own, _read_own) if trusted else (read_table_pickle, read_settings_pickle)
    label, task = _maybe(folder / LABEL, read), _maybe(folder / "task", read_settings)
    config, book = _maybe(folder / "config", read_settings), folder / BOOK
    report = sorted(book.glob("report_normal_*.pkl"))
    positions = sorted(book.glob("positions_normal_*.pkl")) if trusted else []
    return qlib_run(
        read(folder / PREDICTION),
        None if label is None or not len(label) else label,
        task if isinstance(task, Mapping) else {},
        read(report[0]) if report else None,
        read(positions[0]) if positions else None,
        _data_of(config),
    )


def qlib_run(
    prediction: pd.DataFrame | pd.Series,
    label: pd.DataFrame | None,
    task: Mapping[str, Any],
    traded: pd.DataFrame | None = None,
    held: Mapping[pd.Timestamp, Any] | None = None,
    data: Path | None = None,
) -> QlibRun:
    """A run from the contents of its records, see `QlibRun`."""
    score = prediction if isinstance(prediction, pd.Series) else prediction.iloc[:, 0]
    hold, price = label_of(task)
    return QlibRun(
        model=str(_mapping(task.get("model")).get("class") or "Qlib run").rpartition(".")[2],
        score=_by_date(score.rename("score").astype(float)).dropna(),
        label=None if label is None else _by_date(label.iloc[:, 0].astype(float)),
        hold=hold,
        price=price,
        task=task,
        traded=traded,
        held=held,
        data=data,
    )


def label_of(task: Mapping[str, Any]) -> tuple[int | None, str]:
    """Holding period and price of a task's label; None if the task does not give them."""
    dataset = _mapping(task.get("dataset"))
    for _, value in _items(dataset):
        found = _TRADED.search(value.replace(" ", "")) if isinstance(value, str) else None
        if found and found[1] == found[3] and int(found[2]) > 1:
            return int(found[2]) - 1, found[1]
    if ours := trade_settings(task):
        return int(ours.get("hold", 1)), str(ours.get("deal_price", "close"))
    classes = [str(value).rpartition(".")[2] for key, value in _items(dataset) if key == "class"]
    return (1, "close") if set(OF_ALPHA) & set(classes) else (None, "close")


def _items(value: object) -> Iterator[tuple[str, Any]]:
    """All entries of nested settings, with their keys."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key), each
            yield from _items(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield "", each
            yield from _items(each)


def _data_of(config: object) -> Path | None:
    uri = _mapping(_mapping(config).get("qlib_init")).get("provider_uri")
    uri = uri.get(DAY) if isinstance(uri, Mapping) else uri
    folder = Path(str(uri)).expanduser() if uri else None
    return folder if folder is not None and (folder / "calendars").is_dir() else None


def _mapping(value: object) -> Mapping[str, Any]:
    """Settings of a file, if it has any."""
    return value if isinstance(value, Mapping) else {}


def _by_date(rows: pd.Series) -> pd.Series:
    rows = rows.swaplevel() if rows.index.names[0] == "instrument" else rows
    return rows.rename_axis(["datetime", "instrument"]).sort_index()


def _maybe(file: Path, read: Any) -> Any:
    return read(file) if file.is_file() else None


def _read_own(file: Path) -> Any:
    with file.open("rb") as stream:
        return pickle.load(stream)
