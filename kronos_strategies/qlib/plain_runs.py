"""Runs of any Qlib model: prediction, label and backtest as Qlib's own records keep them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from kronos_strategies.contenders import PREDICTION
from kronos_strategies.qlib.market import DAY
from kronos_strategies.qlib.pickles import read_settings_pickle, read_table_pickle
from kronos_strategies.qlib.universe import Instruments

LABEL, BOOK = "label.pkl", "portfolio_analysis"
OF_ALPHA = (
    "Alpha158",
    "Alpha360",
    "Alpha158DL",
    "Alpha360DL",
)  # whose label holds a day unless another is named
_TRADED = re.compile(r"Ref\(\$(\w+),-(\d+)\)/Ref\(\$(\w+),-1\)-1")


@dataclass(frozen=True)
class PlainRun:
    """A run of any Qlib model.

    Attributes:
        model: name of its class.
        score: by (datetime, instrument): the first column of the prediction, without rows that have none.
        label: by the same; None where the run kept none.
        hold: bars that the label spans, less the one to enter; None where neither task nor model tells.
        price: that the label is of.
        task: as Qlib keeps it; empty where it is not known.
        traded: Qlib's report of the backtest, by datetime; None without one.
        held: its positions at each close; None where they cannot be read.
        data: folder of the Qlib store that it read, where that is on record and there.
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
        """Of the run's dataset, or those with a score."""
        named = next((value for key, value in _items(self.task.get("dataset")) if key == "instruments"), None)
        return sorted(self.score.index.get_level_values("instrument").unique()) if named is None else named

    @property
    def described(self) -> dict[str, str]:
        """What made the run, by label, ready to print."""
        kwargs = _mapping(_mapping(self.task.get("model")).get("kwargs"))
        dates = self.score.index.get_level_values("datetime")
        held = self.hold or 1
        return {
            "model": self.model,
            **({"settings": ", ".join(f"{k}={v}" for k, v in kwargs.items())} if kwargs else {}),
            "test": f"{dates.min():%Y-%m-%d} to {dates.max():%Y-%m-%d}",
            "label": f"{self.price}(t+{1 + held}) / {self.price}(t+1) - 1",
        }


def read_plain_run(folder: Path, trusted: bool) -> PlainRun:
    """The run whose artifacts a folder holds.

    Args:
        folder: of the artifacts, with pred.pkl.
        trusted: whether it is of the user's own store of runs, unpickled as Qlib does; files from elsewhere
            may hold types of pandas and numpy only, so that positions are left out.

    Raises:
        ValueError: a file holds something else.
    """
    read, read_settings = (_read_own, _read_own) if trusted else (read_table_pickle, read_settings_pickle)
    label, task = _maybe(folder / LABEL, read), _maybe(folder / "task", read_settings)
    config, book = _maybe(folder / "config", read_settings), folder / BOOK
    report = sorted(book.glob("report_normal_*.pkl"))
    positions = sorted(book.glob("positions_normal_*.pkl")) if trusted else []
    return plain_run(
        read(folder / PREDICTION),
        None if label is None or not len(label) else label,
        task if isinstance(task, Mapping) else {},
        read(report[0]) if report else None,
        read(positions[0]) if positions else None,
        _data_of(config),
    )


def plain_run(
    prediction: pd.DataFrame | pd.Series,
    label: pd.DataFrame | None,
    task: Mapping[str, Any],
    traded: pd.DataFrame | None = None,
    held: Mapping[pd.Timestamp, Any] | None = None,
    data: Path | None = None,
) -> PlainRun:
    """A run of what its records hold, see `PlainRun`."""
    score = prediction if isinstance(prediction, pd.Series) else prediction.iloc[:, 0]
    hold, price = label_of(task)
    return PlainRun(
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
    """Bars that a task's label holds a position, and the price it trades at; None where the task does not tell."""
    dataset = _mapping(task.get("dataset"))
    for _, value in _items(dataset):
        found = _TRADED.search(value.replace(" ", "")) if isinstance(value, str) else None
        if found and found[1] == found[3] and int(found[2]) > 1:
            return int(found[2]) - 1, found[1]
    classes = [str(value).rpartition(".")[2] for key, value in _items(dataset) if key == "class"]
    if "KronosDataset" in classes:
        kwargs = _mapping(dataset.get("kwargs"))
        return int(kwargs.get("hold", 1)), str(kwargs.get("deal_price", "close"))
    return (1, "close") if set(OF_ALPHA) & set(classes) else (None, "close")


def _items(value: object) -> Iterator[tuple[str, Any]]:
    """All entries of nested settings, with the key that they stand under."""
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
    """Settings, where a file holds any."""
    return value if isinstance(value, Mapping) else {}


def _by_date(rows: pd.Series) -> pd.Series:
    rows = rows.swaplevel() if rows.index.names[0] == "instrument" else rows
    return rows.rename_axis(["datetime", "instrument"]).sort_index()


def _maybe(file: Path, read: Any) -> Any:
    return read(file) if file.is_file() else None


def _read_own(file: Path) -> Any:
    with file.open("rb") as stream:
        return pickle.load(stream)
