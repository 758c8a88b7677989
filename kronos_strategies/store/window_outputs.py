"""Values per window, one file per date: outputs of a head, or hidden states. Resumable like forecasts.

    <folder>/_rows.json                                  what computed them
    <folder>/date=2024-01-02/<windows sha>-<file sha>.parquet   keys, and a column for each value or one of lists

A date is computed if it is missing, damaged, or was computed from other bars; the
timestamps to forecast do not matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from time import sleep
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kronos.head import ReturnHead
from kronos.panels import KEYS
from kronos.utils import package_version
from kronos.windows import Windows
from kronos_strategies.distributed import WorkerPool
from kronos_strategies.forecasters.protocol import Embedder
from kronos_strategies.forecasting import WindowsByDate
from kronos_strategies.progress import ProgressReport, offset_progress
from kronos_strategies.store.files import (
    date_state,
    find_file,
    listed_states,
    locked,
    make_folder,
    publish,
    warn_of_damage,
    write_record,
)
from kronos_strategies.store.location import absolute
from kronos_strategies.store.parallel import WAIT, ShardFiller, claim_dates, fill_shards, prepare
from kronos_strategies.store.settings import WindowSpec, label_of

DESCRIPTION = "_rows.json"
CHUNK_WINDOWS = 4096  # computed together, so that an interruption costs seconds


class WindowOutputs:
    """A folder of values by (datetime, instrument).

    Args:
        folder: folder, created on the first fill.
        columns: names of the values; empty for vectors, which are stored as one column of lists.
        described: description of the computation, written to the folder.
        lifetime: object that keeps a temporary folder from being deleted.
    """

    def __init__(
        self, folder: Path, columns: Sequence[str], described: Mapping[str, Any], lifetime: object = None
    ) -> None:
        self.folder, self.columns, self.described = folder, tuple(columns), dict(described)
        self._lifetime = lifetime

    def state(self, date: pd.Timestamp, digest: str) -> str:
        """present, missing, changed or damaged, see `StoreStatus`."""
        return date_state(self.folder, date, digest)

    def fill(
        self, windows: Windows, compute: Compute, progress: ProgressReport, pool: WorkerPool | None = None
    ) -> np.ndarray:
        """Values of all windows; missing ones are computed and stored.

        Args:
            windows: N windows, any number of dates; their `future` is not used.
            compute: values of windows; a pool pickles it.
            progress: called as progress(windows done, windows due).
            pool: workers that share the dates; None for this process.

        Returns:
            (N, values) float32 in the order of `windows`.
        """
        dated = WindowsByDate(replace(windows, future=windows.future[:, :0]))
        make_folder(self.folder)
        if read_description(self.folder) is None:
            with locked(self.folder, "rows"):
                write_record(self.folder / DESCRIPTION, self.described)
        digests = {date: dated.digest(date) for date in dated.dates}
        states = listed_states(self.folder, digests)
        warn_of_damage(self.folder, [date for date in dated.dates if states[date] == "damaged"])
        due = [date for date in dated.dates if states[date] != "present"]
        if pool is None:
            self._compute_due(dated, due, compute, progress)
        else:
            task = OutputsTask(absolute(self.folder), self.columns, compute, pool.device, package_version())
            fill_shards(pool, task, dated, due, CHUNK_WINDOWS, progress)
        parts = [self._read(date, dated.digest(date)) for date in dated.dates]
        order = dated.windows.index.get_indexer(windows.index)
        return np.concatenate(parts)[order]

    def _compute_due(
        self, dated: WindowsByDate, due: Sequence[pd.Timestamp], compute: Compute, progress: ProgressReport
    ) -> None:
        done, total = 0, dated.count(due) if due else 0
        while due:
            with ExitStack() as locks:
                claim = claim_dates(self, dated, due, CHUNK_WINDOWS, locks)
                due = claim.left
                if claim.dates:
                    chunk = dated.select(claim.dates)
                    values = compute(chunk, _counted(offset_progress(progress, done, total)))
                    self.publish(claim.dates, chunk, values, dated)
                    done += len(chunk)
            if due and not claim.dates:
                sleep(WAIT)

    def publish(
        self,
        dates: Sequence[pd.Timestamp],
        chunk: Windows,
        values: np.ndarray,
        dated: WindowsByDate,
        due: Collection[pd.Timestamp] | None = None,
    ) -> None:
        """Write the values of a chunk of dates; of those that are due, if given. The caller holds their locks."""
        start = 0
        for date in dates:
            rows = slice(start, start + dated.count([date]))
            start = rows.stop
            if due is not None and date not in due:
                continue
            content = _to_parquet(chunk.index[rows], values[rows], self.columns)
            publish(self.folder, date, dated.digest(date), content)

    def _read(self, date: pd.Timestamp, digest: str) -> np.ndarray:
        file = find_file(self.folder, date)
        if file is None or not file.holds(digest):
            raise ValueError(
                f"{self.folder} was filled from other bars of {date} by another process. Fill it again."
            )
        table = pq.read_table(BytesIO(file.read()))
        if self.columns:
            return np.stack([table[name].to_numpy() for name in self.columns], axis=1)
        lists = table["hidden"].combine_chunks()
        flat: np.ndarray = lists.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(table), -1)


def read_description(folder: Path) -> dict[str, Any] | None:
    """What computed the values of a folder; None if the file is missing or damaged."""
    try:
        return dict(json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


class Compute(Protocol):
    """Computes values of windows: hidden states, or outputs of a head."""

    @property
    def embedder(self) -> Embedder:
        """What reads the windows."""
        ...

    def __call__(self, windows: Windows, progress: Callable[[int], None]) -> np.ndarray:
        """(n, values) float32; progress is called after each part with its number of windows."""
        ...


@dataclass(frozen=True)
class HiddenStates:
    """Hidden states of an embedder, see `Compute`."""

    embedder: Embedder

    def __call__(self, windows: Windows, progress: Callable[[int], None]) -> np.ndarray:
        """(n, d_model) float32."""
        return self.embedder.embed(windows, progress)


@dataclass(frozen=True)
class HeadOutputs:
    """Outputs of a return head, see `Compute`."""

    embedder: Embedder
    head: ReturnHead

    def __call__(self, windows: Windows, progress: Callable[[int], None]) -> np.ndarray:
        """(n, horizons) float32."""
        return self.head(self.embedder.embed(windows, progress))


@dataclass(frozen=True)
class OutputsTask:
    """Compute the values of a shard, see `kronos_strategies.distributed.shards.Task`.

    Attributes:
        folder, columns: see `WindowOutputs`.
        compute: values of windows.
        device: that of the worker, None for the embedder's own.
        version: version of this package in the process that starts the workers.
    """

    folder: Path
    columns: tuple[str, ...]
    compute: Compute
    device: str | None
    version: str

    def open(self) -> ShardFiller:
        """Move the networks to the device."""
        prepare(self.compute.embedder, self.device, self.version)
        outputs = WindowOutputs(self.folder, self.columns, {})
        return ShardFiller(outputs, partial(_compute_shard, outputs, self.compute))


def _compute_shard(
    outputs: WindowOutputs,
    compute: Compute,
    dated: WindowsByDate,
    due: Collection[pd.Timestamp],
    progress: Callable[[int], None],
) -> None:
    values = compute(dated.windows, _counted(progress))
    outputs.publish(list(dated.dates), dated.windows, values, dated, due)


def settings_sha256(settings: Mapping[str, Any]) -> str:
    """sha256 of JSON settings, for a folder name."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def _counted(report: Callable[[int], None]) -> Callable[[int], None]:
    """Convert numbers of windows done per part into a total."""
    done = 0

    def advance(windows: int) -> None:
        nonlocal done
        done += windows
        report(done)

    return advance


def _to_parquet(keys: pd.MultiIndex, values: np.ndarray, columns: Sequence[str]) -> bytes:
    table: dict[str, pa.Array] = {
        KEYS[1]: pa.array(keys.get_level_values(KEYS[1]), pa.string()),
        KEYS[0]: pa.array(pd.DatetimeIndex(keys.get_level_values(KEYS[0]))),
    }
    values = np.ascontiguousarray(values, np.float32)
    if columns:
        table |= {name: pa.array(values[:, i]) for i, name in enumerate(columns)}
    else:
        table["hidden"] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    sink = BytesIO()
    pq.write_table(pa.table(table), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


FORMAT = 1  # format of the files; another format has another folder


def head_rows(
    folder: Path, embedder: Embedder, head: ReturnHead, spec: WindowSpec, lifetime: object = None
) -> WindowOutputs:
    """`<model>-<sha>/heads/<head>-<sha>-<settings sha>` in the store `folder`: a column for each horizon.

    Raises:
        ValueError: the networks were not loaded from files.
    """
    model, settings = _read(embedder, spec)
    settings |= {"horizons": list(head.info.horizons)}
    name = f"{label_of(head.name)}-{head.sha256[:12]}-{settings_sha256(settings)[:12]}"
    columns = [f"rank_{horizon}" for horizon in head.info.horizons]
    described = {"head": head.name, "head_sha256": head.sha256, "settings": settings}
    return WindowOutputs(folder / model / "heads" / name, columns, described, lifetime)


def embedding_rows(
    folder: Path, embedder: Embedder, spec: WindowSpec, lifetime: object = None
) -> WindowOutputs:
    """`<model>-<sha>/embeddings/<settings sha>` in the store `folder`: one column of vectors.

    Raises:
        ValueError: the networks were not loaded from files.
    """
    model, settings = _read(embedder, spec)
    where = folder / model / "embeddings" / settings_sha256(settings)[:12]
    return WindowOutputs(where, (), {"settings": settings}, lifetime)


def _read(embedder: Embedder, spec: WindowSpec) -> tuple[str, dict[str, Any]]:
    """The model's folder, and all settings that decide a hidden state."""
    known = embedder.provenance(embedder.sampling, "")
    if known.weights_sha256 is None:
        raise ValueError(
            f"The networks of '{known.model}' were not loaded from files, so nothing distinguishes their hidden "
            "states from those of other weights. Save both with save_pretrained() and load those files."
        )
    settings = {
        "format": FORMAT,
        "universe": spec.universe,
        "lookback": spec.lookback,
        "min_bars": spec.min_bars,
        "max_context": known.max_context,
        "clip": known.clip,
        "precision": known.precision,
    }
    return f"{label_of(known.model)}-{known.weights_sha256[:12]}", settings
