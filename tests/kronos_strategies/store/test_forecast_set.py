"""The contents of a file, and the forecast that is read from it."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from kronos.bars import CLOSE, FEATURES
from kronos.config import SampleConfig
from kronos.forecast import Forecast
from kronos.windows import Windows
from kronos_strategies.forecasting import WindowsByDate
from kronos_strategies.signal import SUMMARY, signals, summary
from kronos_strategies.store import ForecastSet, ForecastStore, WindowSpec
from kronos_strategies.store.files import date_label
from kronos_strategies.store.parquet import from_parquet, to_parquet
from tests.kronos.builders import make_bars, make_panel

from .conftest import CALENDAR, NAMES, SAMPLING, SINCE, SPEC, windows_of


@pytest.fixture
def forecast(predictor, windows) -> Forecast:
    return predictor.forecast(windows[:4], SAMPLING, candles="raw")


@pytest.fixture(scope="module")
def filled(tmp_path_factory, predictor):
    """A store of 15 dates. Shared: change a copy."""
    folder = tmp_path_factory.mktemp("filled")
    ForecastStore(folder).fill(predictor, windows_of(make_panel(60, *NAMES)), SPEC, SAMPLING)
    return folder


@pytest.fixture
def forecast_set(filled, tmp_path) -> ForecastSet:
    """Of a copy of that store."""
    (found,) = ForecastStore(shutil.copytree(filled, tmp_path, dirs_exist_ok=True)).forecast_sets()
    return found


def test_a_forecast_is_read_back_bit_for_bit(forecast):
    back = from_parquet(to_parquet(forecast, "float32"), forecast.provenance)
    np.testing.assert_array_equal(back.paths, forecast.paths)
    np.testing.assert_array_equal(back.timestamps, forecast.timestamps)
    np.testing.assert_array_equal(back.last_bar, forecast.last_bar)
    np.testing.assert_array_equal(back.decoded_close, forecast.decoded_close)
    assert (back.paths.dtype, back.last_bar.dtype, back.timestamps.dtype) == ("f4", "f4", "datetime64[ns]")
    pd.testing.assert_index_equal(back.index, forecast.index.remove_unused_levels())
    assert back.provenance == forecast.provenance


def test_a_forecast_without_a_tokenizer_is_read_back_without_a_decoded_close(forecast):
    bare = dataclasses.replace(forecast, decoded_close=None)
    assert from_parquet(to_parquet(bare, "float32"), forecast.provenance).decoded_close is None


def test_float16_paths_are_within_a_4096th_of_the_largest_move_of_each_window(forecast):
    # Amounts far beyond the largest half (65,504) and a feature that does not move at all.
    paths = forecast.paths.copy()
    paths[..., FEATURES.index("amount")] *= 1e6
    paths[..., FEATURES.index("open")] = forecast.last_bar[:, None, None, FEATURES.index("open")]
    wide = dataclasses.replace(forecast, paths=paths)
    back = from_parquet(to_parquet(wide, "float16"), forecast.provenance)
    moves = np.abs(paths - wide.last_bar[:, None, None].astype(np.float64))
    error = np.abs(back.paths.astype(np.float64) - paths)
    rounding = np.abs(paths) * 2**-23  # of the float32 that it is given back as
    assert (error <= moves.max(axis=(1, 2), keepdims=True) / 4096 + 2 * rounding).all()
    assert np.isfinite(back.paths).all()
    np.testing.assert_array_equal(back.last_bar, wide.last_bar)


def test_float16_paths_take_less_space_and_give_nearly_the_same_signals(tmp_path, predictor, windows):
    sampling, windows = SampleConfig(samples=400), windows[:8]
    whole, half = (
        ForecastStore(tmp_path, dtype).fill(predictor, windows, SPEC, sampling)
        for dtype in ("float32", "float16")
    )
    assert half.forecast_set.size < 0.75 * whole.forecast_set.size
    exact, rounded = (pd.concat([signals(f) for f in filled]) for filled in (whole, half))
    np.testing.assert_allclose(rounded["score"], exact["score"], atol=2e-5)
    pd.testing.assert_frame_equal(
        half.forecast_set.frame(), whole.forecast_set.frame()
    )  # of the exact paths, both


def test_the_frame_is_the_summary_of_every_forecast(forecast_set, predictor, windows):
    frame = forecast_set.frame()
    assert list(frame.columns) == ["last_close", *SUMMARY]
    assert frame.index.equals(windows.index)
    expected = pd.concat([summary(forecast) for forecast in forecast_set])
    pd.testing.assert_frame_equal(frame[list(SUMMARY)], expected, check_index_type=False)
    np.testing.assert_array_equal(frame["last_close"], windows.last_bar[:, CLOSE])


def test_a_frame_of_some_dates_has_no_others(forecast_set):
    dates = forecast_set.frame("2024-02-14", "2024-02-20").index.get_level_values("datetime").unique()
    assert list(dates) == list(pd.bdate_range("2024-02-14", "2024-02-20"))
    with pytest.raises(ValueError, match=r"no forecast from 2030-01-01.*15 dates"):
        forecast_set.frame("2030-01-01")


def test_the_frame_reads_no_path(forecast_set, monkeypatch):
    read, columns = pq.ParquetFile.read, []
    monkeypatch.setattr(
        pq.ParquetFile, "read", lambda self, names, **rest: columns.extend(names) or read(self, names, **rest)
    )
    forecast_set.frame()
    assert not set(columns) & set(FEATURES)


def test_a_flipped_bit_in_a_summary_is_found_without_reading_the_file(forecast_set):
    (path,) = (forecast_set.folder / "date=2024-02-14").glob("*.parquet")
    meta = pq.ParquetFile(path).metadata.row_group(0)
    column = next(
        c for c in map(meta.column, range(meta.num_columns)) if c.path_in_schema == "expected_return"
    )
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"date=2024-02-14.*damaged"):
        forecast_set.frame()


def test_a_missing_date_is_named_with_the_stored_span(forecast_set):
    with pytest.raises(
        ValueError, match=r"no forecast of 2024-03-04.*15 dates, 2024-02-12.*kronos store fill"
    ):
        forecast_set.read("2024-03-04")


def test_iterating_gives_each_date_once_in_order(forecast_set):
    dates = [forecast.index[0][0] for forecast in forecast_set]
    assert dates == list(forecast_set.dates) == sorted(dates)
    assert len(forecast_set) == 15


def test_coverage_lists_each_date_once(forecast_set, windows, panel):
    longer = Windows.rolling(panel, 20, 3, "B", start="2024-02-26", end="2024-03-06")
    (forecast_set.folder / "date=2024-02-28").rename(forecast_set.folder / "gone")
    covered = forecast_set.coverage(WindowsByDate(longer))
    assert covered.missing == tuple(
        map(pd.Timestamp, ["2024-02-28", "2024-03-04", "2024-03-05", "2024-03-06"])
    )
    assert covered.due == covered.missing
    assert covered.changed == covered.damaged == ()
    assert len(covered.present) == 4


def test_a_forecast_from_elsewhere_is_written_if_its_settings_are_the_same(forecast_set, predictor, windows):
    dated = WindowsByDate(windows)
    one = predictor.forecast(dated[dated.dates[3]], SAMPLING, candles="raw")
    forecast_set.write(one)
    assert forecast_set.coverage(dated).due == ()
    with pytest.raises(ValueError, match="is of 15 dates"):
        forecast_set.write(predictor.forecast(windows, SAMPLING, candles="raw"))
    with pytest.raises(ValueError, match="store of its own"):
        forecast_set.write(predictor.forecast(dated[dated.dates[3]], SampleConfig(samples=2), candles="raw"))


def test_bars_in_a_time_zone_are_stored_by_their_local_clock(forecast_set, tmp_path, predictor, panel):
    zoned = {name: bars.tz_localize("Asia/Shanghai") for name, bars in panel.items()}
    calendar = CALENDAR.tz_localize("Asia/Shanghai")
    windows = Windows.rolling(zoned, SPEC.lookback, SPEC.horizon, calendar, start=SINCE, end="2024-03-01")
    filled = ForecastStore(tmp_path / "zoned").fill(predictor, windows, SPEC, SAMPLING).forecast_set
    pd.testing.assert_frame_equal(filled.frame(), forecast_set.frame())
    date = filled.dates[2]
    one = predictor.forecast(WindowsByDate(windows)[date], SAMPLING, candles="raw")
    assert str(one.index[0][0].tz) == "Asia/Shanghai"
    filled.write(one)
    read, plain = filled.read(date), forecast_set.read(date)
    pd.testing.assert_index_equal(read.index, plain.index)
    np.testing.assert_array_equal(read.timestamps, plain.timestamps)
    np.testing.assert_array_equal(read.paths, plain.paths)


def test_minutes_are_kept_apart_sorted_and_exact(tmp_path, predictor):
    panel = {
        "AAA": make_bars(40, freq="90min", start="2024-01-02 09:30"),
        "BBB": make_bars(40, 1, freq="90min"),
    }
    windows = Windows.rolling(panel, 20, 3, "90min", start="2024-01-03 10:00", end="2024-01-04 06:00")
    forecast_set = (
        ForecastStore(tmp_path).fill(predictor, windows, WindowSpec("two", 20, 3, 20), SAMPLING).forecast_set
    )
    dates = WindowsByDate(windows).dates
    assert list(forecast_set.dates) == list(dates)
    assert len(set(dates.normalize())) < len(dates)
    folders = sorted(path.name for path in forecast_set.folder.glob("date=*"))
    assert [forecast_set.read(date).index[0][0] for date in dates] == list(dates)
    assert folders == [f"date={date_label(date)}" for date in dates], (
        "in alphabetical as in chronological order"
    )
    assert not any(set(name) & set(':/\\*?"<>| ') for name in folders)


def test_date_labels_sort_like_the_times_they_stand_for():
    times = [
        "2024-01-01 23:59:59.999999", "2024-01-02", "2024-01-02 00:00:00.000000001", "2024-01-02 09:30",
        "2024-01-02 09:30:00.25", "2024-01-02 09:30:01", "2024-01-02 15:00", "2024-01-03",
    ]  # fmt: skip
    stamps = [pd.Timestamp(time) for time in times]
    labels = [date_label(stamp) for stamp in stamps]
    assert labels == sorted(labels)
    assert [pd.Timestamp(label) for label in labels] == stamps
