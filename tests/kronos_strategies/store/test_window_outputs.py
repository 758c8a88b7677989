"""Outputs of heads and hidden states in a store: computed once, keyed by weights, head and windows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from kronos_strategies.store import ForecastStore, WindowSpec
from tests.kronos.builders import make_head, make_model, make_tokenizer

from .conftest import SPEC, windows_of


class Reader:
    """An embedder that counts what it is asked for."""

    def __init__(self, inner: KronosPredictor) -> None:
        self.inner, self.sampling = inner, inner.sampling
        self.asked: list[pd.MultiIndex] = []

    def embed(self, windows: Windows, progress=None) -> np.ndarray:
        self.asked.append(windows.index)
        return self.inner.embed(windows, progress)

    def provenance(self, sampling, data_sha256):
        return self.inner.provenance(sampling, data_sha256)

    @property
    def dates(self) -> list[pd.Timestamp]:
        return [date for keys in self.asked for date in keys.get_level_values("datetime").unique()]


@pytest.fixture
def reader(predictor: KronosPredictor) -> Reader:
    return Reader(predictor)


@pytest.fixture
def head(predictor: KronosPredictor):
    return make_head(predictor.model.config.d_model)


@pytest.fixture(autouse=True)
def small_row_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kronos_strategies.store.window_outputs.CHUNK_WINDOWS", 8)


def test_outputs_are_those_of_the_head_and_are_computed_once(reader, head, windows, tmp_path):
    store = ForecastStore(tmp_path)
    expected = head(reader.inner.embed(windows))
    np.testing.assert_allclose(
        store.head_outputs(reader, head, windows, SPEC), expected, rtol=1e-4, atol=1e-5
    )
    asked = len(reader.asked)
    assert asked > 1  # in chunks
    again = ForecastStore(tmp_path).head_outputs(reader, head, windows, SPEC)
    np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-5)
    assert len(reader.asked) == asked


def test_outputs_come_in_the_order_of_the_windows(reader, head, windows, tmp_path):
    order = np.random.default_rng(0).permutation(len(windows))
    store = ForecastStore(tmp_path)
    straight = store.head_outputs(reader, head, windows, SPEC)
    np.testing.assert_array_equal(store.head_outputs(reader, head, windows[order], SPEC), straight[order])


def test_another_head_is_computed_and_both_are_kept(reader, head, windows, tmp_path):
    store, other = ForecastStore(tmp_path), make_head(head.info.d_model, seed=1)
    first = store.head_outputs(reader, head, windows, SPEC)
    second = store.head_outputs(reader, other, windows, SPEC)
    assert not np.allclose(first, second)
    asked = len(reader.asked)
    np.testing.assert_array_equal(store.head_outputs(reader, head, windows, SPEC), first)
    assert len(reader.asked) == asked
    folders = [folder.name for folder in tmp_path.glob("*/heads/*")]
    assert sorted(name.split("-")[2] for name in folders) == sorted([head.sha256[:12], other.sha256[:12]])


def test_a_head_of_the_same_weights_by_another_name_in_another_process_is_found(
    reader, head, windows, tmp_path
):
    store = ForecastStore(tmp_path)
    store.head_outputs(reader, head, windows, SPEC)
    (folder,) = tmp_path.glob("*/heads/*")
    described = json.loads((folder / "_rows.json").read_text())
    assert described["head_sha256"] == head.sha256
    assert described["settings"]["horizons"] == [1, 5, 10]
    file = next(folder.glob("date=*/*.parquet"))
    assert pq.read_table(file).column_names[-5:] == ["instrument", "datetime", "rank_1", "rank_5", "rank_10"]


def test_only_dates_with_other_bars_are_computed_again(reader, head, windows, panel, tmp_path):
    store = ForecastStore(tmp_path)
    store.head_outputs(reader, head, windows, SPEC)
    reader.asked.clear()
    panel["AAA"].iloc[-20:, :4] *= 1.5
    changed = windows_of(panel)
    store.head_outputs(reader, head, changed, SPEC)
    dates = changed.index.get_level_values("datetime").unique()
    assert set(reader.dates) == set(dates[dates >= panel["AAA"].index[-20]])


def test_a_damaged_date_is_computed_again(reader, head, windows, tmp_path):
    store = ForecastStore(tmp_path)
    before = store.head_outputs(reader, head, windows, SPEC)
    reader.asked.clear()
    file = sorted(tmp_path.glob("*/heads/*/date=*/*.parquet"))[3]
    file.write_bytes(file.read_bytes()[:-8])
    np.testing.assert_allclose(store.head_outputs(reader, head, windows, SPEC), before, rtol=1e-4, atol=1e-5)
    assert len(reader.dates) == 1


def test_an_interrupted_computation_loses_one_chunk(reader, head, windows, tmp_path, monkeypatch):
    store, honest = ForecastStore(tmp_path), reader.inner.embed

    def fails(windows, progress=None):
        if len(reader.asked) > 2:
            raise KeyboardInterrupt
        return honest(windows, progress)

    monkeypatch.setattr(reader.inner, "embed", fails)
    with pytest.raises(KeyboardInterrupt):
        store.head_outputs(reader, head, windows, SPEC)
    monkeypatch.setattr(reader.inner, "embed", honest)
    done = set(reader.dates[:4])
    reader.asked.clear()
    store.head_outputs(reader, head, windows, SPEC)
    assert not done & set(reader.dates)


def test_the_horizon_of_windows_does_not_matter(reader, head, windows, tmp_path):
    store = ForecastStore(tmp_path)
    before = store.head_outputs(reader, head, windows, SPEC)
    asked = len(reader.asked)
    nearer = replace(windows, future=windows.future[:, :1])
    spec = WindowSpec(SPEC.universe, SPEC.lookback, 1, SPEC.min_bars)
    np.testing.assert_array_equal(store.head_outputs(reader, head, nearer, spec), before)
    assert len(reader.asked) == asked


def test_hidden_states_are_kept_to_the_bit_and_computed_once(reader, windows, tmp_path):
    store = ForecastStore(tmp_path)
    first = store.embeddings(reader, windows, SPEC)
    np.testing.assert_allclose(first, reader.inner.embed(windows), rtol=1e-4, atol=1e-5)
    asked = len(reader.asked)
    np.testing.assert_array_equal(store.embeddings(reader, windows, SPEC), first)
    assert len(reader.asked) == asked


def test_outputs_do_not_change_the_forecasts_of_the_same_store(reader, head, windows, predictor, tmp_path):
    store = ForecastStore(tmp_path)
    store.head_outputs(reader, head, windows, SPEC)
    store.embeddings(reader, windows, SPEC)
    assert store.forecast_sets() == []
    store.fill(predictor, windows, SPEC)
    assert [len(forecast_set) for forecast_set in store.forecast_sets()] == [15]


def test_networks_that_were_not_loaded_from_files_are_refused(windows, tmp_path):
    predictor = KronosPredictor(make_model(), make_tokenizer(), "cpu")
    with pytest.raises(ValueError, match="were not loaded from files"):
        ForecastStore(tmp_path).embeddings(predictor, windows, SPEC)
