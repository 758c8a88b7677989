"""Other engines read a store as it stands."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES
from kronos_strategies.store import ForecastStore

from .conftest import SAMPLING, SPEC

CLOSE = FEATURES.index("close")


@pytest.fixture(params=["float32", "float16"])
def filled(request, tmp_path, predictor, windows):
    return ForecastStore(tmp_path, request.param).fill(predictor, windows, SPEC, SAMPLING)


def close_of(forecast) -> str:
    """The close of path 2 at step 3, as an expression over the columns of a store of either type."""
    return {"float32": "close[2][3]", "float16": "last_close + scale_close * offset_close[2][3]"}[forecast]


def test_duckdb_reads_keys_summary_paths_and_the_date_of_a_partition(filled):
    duckdb = pytest.importorskip("duckdb")
    dtype = filled.forecast_set.settings.dtype
    rows = duckdb.sql(
        f"""
        SELECT date, datetime, instrument, expected_return, timestamps[3] AS until, {close_of(dtype)} AS close
        FROM read_parquet('{filled.forecast_set.folder}/date=*/*.parquet', hive_partitioning = true)
        WHERE date BETWEEN DATE '2024-02-14' AND DATE '2024-02-16'
        ORDER BY datetime, instrument
        """
    ).fetchall()
    assert [row[2] for row in rows] == ["AAA", "BBB", "CCC", "DDD"] * 3
    assert rows[0][:2] == (datetime.date(2024, 2, 14), datetime.datetime(2024, 2, 14))
    forecast = filled.forecast_set.read("2024-02-14")
    np.testing.assert_allclose([row[5] for row in rows[:4]], forecast.paths[:, 1, 2, CLOSE], rtol=1e-6)
    assert pd.Timestamp(rows[0][4]) == forecast.timestamps[0, 2]
    assert rows[1][3] == filled.forecast_set.frame()["expected_return"].loc[("2024-02-14", "BBB")]


def test_duckdb_averages_over_paths_in_plain_sql(tmp_path, predictor, windows):
    duckdb = pytest.importorskip("duckdb")
    forecast_set = ForecastStore(tmp_path).fill(predictor, windows, SPEC, SAMPLING).forecast_set
    means = duckdb.sql(
        f"""
        SELECT list_avg(list_transform(close, lambda path: path[3] / last_close - 1)) AS gain, expected_return
        FROM read_parquet('{forecast_set.folder}/date=*/*.parquet', hive_partitioning = true)
        """
    ).fetchall()
    assert len(means) == 60
    np.testing.assert_allclose(*zip(*means, strict=True), atol=1e-6)


def test_polars_reads_paths_as_arrays_and_filters_by_partition(filled):
    pl = pytest.importorskip("polars")
    halves = filled.forecast_set.settings.dtype == "float16"
    element = pl.col("offset_close" if halves else "close").arr.get(1).arr.get(2).cast(pl.Float32)
    close = pl.col("last_close") + pl.col("scale_close") * element if halves else element
    rows = (
        pl.scan_parquet(filled.forecast_set.folder / "date=*/*.parquet", hive_partitioning=True)
        .filter(pl.col("date") == datetime.date(2024, 2, 14))
        .select("instrument", "datetime", "expected_return", step=close)
        .collect()
    )
    forecast = filled.forecast_set.read("2024-02-14")
    assert rows["instrument"].to_list() == ["AAA", "BBB", "CCC", "DDD"]
    np.testing.assert_allclose(rows["step"].to_numpy(), forecast.paths[:, 1, 2, CLOSE], rtol=1e-6)


def test_pandas_and_pyarrow_read_the_folder_as_one_data_set(filled):
    frame = pd.read_parquet(
        filled.forecast_set.folder, columns=["date", "datetime", "instrument", "last_close"]
    )
    assert len(frame) == 60
    assert set(frame["date"]) == {f"{date:%Y-%m-%d}" for date in filled.forecast_set.dates}
