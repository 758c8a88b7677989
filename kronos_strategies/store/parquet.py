"""Forecasts of one date <-> a parquet table with one row per instrument: keys, summary, and six columns of paths.

Columns, in this order (S samples, H steps; prices in quote currency):

    instrument, datetime          the keys; datetime is the exact time of the last bar seen
    last_open ... last_amount     float32, that bar
    decoded_close                 float32, its close as the tokenizer reads it, see `Forecast`; null if unknown
    trailing_volatility           float32, of the window's last 20 log returns, per bar; null if unknown
    expected_return ... q95       float64, see `kronos_strategies.signal.summary`
    timestamps                    H times that are forecast
    open ... amount               S x H float32, nested fixed-size lists: close[s][h] is step h of path s

A float16 file has `offset_open ...` (S x H float16, within ±1) and `scale_open ...` (float32) for the last six:
open = last_open + scale_open * offset_open, where the scale is the row's largest offset from the last bar, so that
no volume overflows and the error is below scale / 4096.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kronos.bars import FEATURES
from kronos.forecast import Forecast, Provenance
from kronos.panels import KEYS
from kronos_strategies.signal import SUMMARY, summary
from kronos_strategies.store.files import CorruptFileError

SUMMARY_COLUMNS = (*KEYS, "last_close", *SUMMARY)
_METADATA = b"kronos"
_LIST = "list.element"
_OPTIONAL = ("decoded_close", "trailing_volatility")  # fields of a Forecast, (N,) float32 or None


def to_parquet(forecast: Forecast, dtype: str) -> bytes:
    """A parquet file of forecasts of one date.

    Args:
        forecast: N windows of one date.
        dtype: type of the paths, "float32" (exact) or "float16".
    """
    columns: dict[str, pa.Array] = {
        "instrument": pa.array(forecast.index.get_level_values("instrument"), pa.string()),
        "datetime": pa.array(pd.DatetimeIndex(forecast.index.get_level_values("datetime"))),
    }
    columns |= {f"last_{name}": pa.array(forecast.last_bar[:, i]) for i, name in enumerate(FEATURES)}
    for name in _OPTIONAL:
        values = getattr(forecast, name)
        values = np.full(len(forecast), np.nan, np.float32) if values is None else values
        columns[name] = pa.array(values, from_pandas=True)
    columns |= {str(name): pa.array(column.to_numpy()) for name, column in summary(forecast).items()}
    columns["timestamps"] = _lists(forecast.timestamps)
    if dtype == "float32":
        columns |= {name: _lists(forecast.path(name)) for name in FEATURES}
        # BYTE_STREAM_SPLIT saves a tenth more; not every reader supports it for float16.
        split = [f"{name}.{_LIST}.{_LIST}" for name in FEATURES]
    else:
        columns |= _halves(forecast)
        split = []
    kept = {"data_sha256": forecast.provenance.data_sha256, "samples": forecast.samples}
    table = pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(kept)})
    sink = BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=[f"timestamps.{_LIST}"],
        use_byte_stream_split=split,
        write_page_checksum=True,
    )
    return sink.getvalue()


def from_parquet(content: bytes, provenance: Provenance) -> Forecast:
    """The forecasts that `to_parquet` wrote, bit by bit if they were stored as float32.

    Args:
        content: bytes of the file.
        provenance: provenance of the forecasts; the hash of the data is read from the file.
    """
    table = pq.read_table(BytesIO(content))
    kept = json.loads(table.schema.metadata[_METADATA])
    last = np.stack([table[f"last_{name}"].to_numpy() for name in FEATURES], axis=-1)
    timestamps = _array(table["timestamps"], 1)
    shape = (len(table), kept["samples"], timestamps.shape[1])
    paths = np.empty((*shape, len(FEATURES)), np.float32)
    for i, name in enumerate(FEATURES):
        if name in table.column_names:
            paths[..., i] = _array(table[name], 2)
        else:
            scale = table[f"scale_{name}"].to_numpy()[:, None, None]
            paths[..., i] = last[:, i, None, None] + scale * _array(table[f"offset_{name}"], 2).astype(
                np.float32
            )
    return Forecast(
        paths=paths,
        index=_keys(table),
        timestamps=timestamps,
        last_bar=last,
        provenance=replace(provenance, data_sha256=kept["data_sha256"]),
        decoded_close=_optional(table["decoded_close"]),
        trailing_volatility=_optional(table["trailing_volatility"]),
    )


def read_summary(paths: Sequence[Path]) -> pd.DataFrame:
    """Summary columns of files by (datetime, instrument), in the order given; paths are not read.

    Raises:
        CorruptFileError: a page does not match its checksum, which Parquet keeps in addition to the file's.
    """
    tables = []
    for path in paths:
        try:
            with path.open("rb") as file:  # of any file system; only the columns are read
                stored = pq.ParquetFile(file, page_checksum_verification=True)
                tables.append(stored.read(list(SUMMARY_COLUMNS)))
        except (OSError, pa.ArrowException) as error:
            raise CorruptFileError(path, str(error)) from None
    bare = [table.replace_schema_metadata() for table in tables]
    table = pa.concat_tables(bare, promote_options="permissive")  # pandas 2 and 3 write times in other units
    return pd.DataFrame(
        {name: table[name].to_numpy() for name in SUMMARY_COLUMNS[len(KEYS) :]}, index=_keys(table)
    )


def _halves(forecast: Forecast) -> dict[str, pa.Array]:
    offsets = forecast.paths - forecast.last_bar[:, None, None].astype(np.float64)  # (N, S, H, 6)
    scale = np.abs(offsets).max(axis=(1, 2)).astype(np.float32)  # (N, 6)
    small = (offsets / np.where(scale > 0, scale, 1)[:, None, None]).astype(np.float16)
    columns = {f"scale_{name}": pa.array(scale[:, i]) for i, name in enumerate(FEATURES)}
    return columns | {f"offset_{name}": _lists(small[..., i]) for i, name in enumerate(FEATURES)}


def _optional(column: pa.ChunkedArray) -> np.ndarray | None:
    return None if column.null_count == len(column) else column.to_numpy()


def _lists(values: np.ndarray) -> pa.Array:
    """(N, ..., K) as N rows of nested fixed-size lists."""
    column = pa.array(np.ascontiguousarray(values).ravel())
    for size in values.shape[:0:-1]:
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


def _array(column: pa.ChunkedArray, depth: int) -> np.ndarray:
    """Inverse of `_lists` for a column of lists nested `depth` deep."""
    values, shape = column.combine_chunks(), [len(column)]
    for _ in range(depth):
        shape.append(values.type.list_size)
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _keys(table: pa.Table) -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays([table[name].to_pandas() for name in KEYS], names=list(KEYS))
