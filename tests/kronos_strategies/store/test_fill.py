"""A fill computes missing and changed dates only."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from kronos.bars import FEATURES
from kronos.checkpoint import CheckpointInfo
from kronos.config import SampleConfig
from kronos.forecast import Forecast
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from kronos_strategies.forecasting import WindowsByDate
from kronos_strategies.lookahead import check_causal
from kronos_strategies.signal import signals
from kronos_strategies.store import ForecastStore, WindowSpec
from kronos_strategies.store.files import date_folder, date_label, try_lock
from tests.kronos.builders import make_bars, make_model, make_panel, make_tokenizer

from .conftest import NAMES, SAMPLING, SPEC, Spy, windows_of


def files_of(forecast_set) -> dict[str, int]:
    """When each file was written, by date and name."""
    return {
        f"{path.parent.name}/{path.name}": path.stat().st_mtime_ns
        for path in forecast_set.folder.glob("date=*/*.parquet")
    }


def assert_same_forecasts(one, other) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.index.equals(b.index)
        np.testing.assert_allclose(a.paths, b.paths, rtol=1e-4)
        np.testing.assert_array_equal(a.timestamps, b.timestamps)
        np.testing.assert_array_equal(a.last_bar, b.last_bar)
        assert a.provenance == b.provenance


# What is computed


def test_a_filled_store_gives_back_the_forecast_that_the_predictor_makes(tmp_path, predictor, windows):
    filled = ForecastStore(tmp_path).fill(predictor, windows, SPEC, SAMPLING)
    dated = WindowsByDate(windows)
    assert list(filled.forecast_set.dates) == list(dated.dates)
    assert_same_forecasts(
        filled, [predictor.forecast(dated[date], SAMPLING, candles="raw") for date in dated.dates]
    )


def test_filling_again_computes_nothing(tmp_path, spy, windows):
    store = ForecastStore(tmp_path)
    first = store.fill(spy, windows, SPEC, SAMPLING)
    written = files_of(first.forecast_set)
    again = store.fill(spy, windows, SPEC, SAMPLING)
    assert (first.computed, again.computed, again.windows) == (15, 0, 0)
    assert again.found.present == tuple(WindowsByDate(windows).dates)
    assert files_of(again.forecast_set) == written
    assert len(spy.dates) == 15


def test_longer_data_compute_the_new_dates_only(tmp_path, spy, windows, panel):
    store = ForecastStore(tmp_path)
    store.fill(spy, windows, SPEC, SAMPLING)
    spy.asked.clear()
    longer = windows_of(panel, until="2024-03-08")
    filled = store.fill(spy, longer, SPEC, SAMPLING)
    assert filled.computed == 5
    assert spy.dates == list(pd.bdate_range("2024-03-04", "2024-03-08"))


def test_an_earlier_start_of_the_bars_computes_nothing(tmp_path, spy, windows, panel):
    store = ForecastStore(tmp_path)
    store.fill(spy, windows, SPEC, SAMPLING)
    before = panel["AAA"].set_axis(panel["AAA"].index - pd.offsets.BDay(60))
    older = panel | {"AAA": pd.concat([before, panel["AAA"]])}
    assert store.fill(spy, windows_of(older), SPEC, SAMPLING).computed == 0


def test_readjusted_prices_recompute_the_dates_whose_windows_hold_one(tmp_path, spy, windows, panel):
    store = ForecastStore(tmp_path)
    first = store.fill(spy, windows, SPEC, SAMPLING)
    written = files_of(first.forecast_set)
    spy.asked.clear()
    # A dividend on 2 February: every earlier price of BBB is adjusted by it, as a vendor does.
    adjusted = panel["BBB"].copy()
    adjusted.loc[: pd.Timestamp("2024-02-01"), ["open", "high", "low", "close"]] *= 0.97
    again = windows_of(panel | {"BBB": adjusted})
    filled = store.fill(spy, again, SPEC, SAMPLING)
    days = panel["BBB"].index
    last = days[days.get_loc("2024-02-01") + SPEC.lookback - 1]  # the last window that reaches back that far
    stale = [date for date in first.forecast_set.dates if date <= last]
    assert 0 < len(stale) < 15
    assert spy.dates == stale == list(filled.found.changed)
    assert len(files_of(filled.forecast_set)) == 15, "the old files are gone"
    kept = {name: at for name, at in files_of(filled.forecast_set).items() if name in written}
    assert len(kept) == 15 - len(stale)
    assert all(written[name] == at for name, at in kept.items())
    assert_same_forecasts(filled, ForecastStore(tmp_path / "fresh").fill(spy, again, SPEC, SAMPLING))


def test_an_instrument_that_joins_the_universe_on_one_date_recomputes_that_date(tmp_path, spy, windows):
    store = ForecastStore(tmp_path)
    dates = windows.index.get_level_values("datetime")
    names = windows.index.get_level_values("instrument")
    fewer = windows[~((dates == "2024-02-20") & (names == "CCC"))]
    store.fill(spy, fewer, SPEC, SAMPLING)
    spy.asked.clear()
    filled = store.fill(spy, windows, SPEC, SAMPLING)
    assert spy.dates == [pd.Timestamp("2024-02-20")] == list(filled.found.changed)
    assert len(filled.forecast_set.read("2024-02-20")) == 4


def test_the_order_of_the_windows_changes_nothing(tmp_path, spy, windows):
    store = ForecastStore(tmp_path)
    store.fill(spy, windows, SPEC, SAMPLING)
    shuffled = windows[np.random.default_rng(0).permutation(len(windows))]
    assert store.fill(spy, shuffled, SPEC, SAMPLING).computed == 0


@pytest.mark.parametrize("time", ["2024-02-12", "2024-02-22"])
def test_scrambling_all_bars_after_t_changes_no_stored_forecast_up_to_t_and_recomputes_none(
    tmp_path, predictor, time
):
    panel = make_panel(45, *NAMES)
    bars = pd.concat([frame.reset_index().assign(instrument=name) for name, frame in panel.items()])
    store, present = ForecastStore(tmp_path), []

    def run(tidy: pd.DataFrame) -> pd.DataFrame:
        by_name = tidy.set_index("datetime").groupby("instrument")
        own = {name: frame.drop(columns="instrument") for name, frame in by_name}
        filled = store.fill(predictor, windows_of(own), SPEC, SAMPLING)
        present.append(filled.found.present)
        return pd.concat([signals(forecast, hold=2) for forecast in filled])

    check_causal(run, bars, [time])
    dates = pd.bdate_range("2024-02-12", "2024-03-01")
    assert present == [(), tuple(dates[dates <= time])]


# What names a folder


@pytest.mark.parametrize(
    ("spec", "sampling", "dtype"),
    [
        (SPEC, SampleConfig(samples=3, seed=2), "float32"),
        (SPEC, SampleConfig(samples=3, seed=1, T=0.7), "float32"),
        (WindowSpec("another", 20, 3, 20), SAMPLING, "float32"),
        (WindowSpec("four", 20, 3, 10), SAMPLING, "float32"),
        (SPEC, SAMPLING, "float16"),
    ],
)
def test_every_setting_that_changes_numbers_has_its_own_folder(
    tmp_path, predictor, windows, spec, sampling, dtype
):
    few = windows[:4]
    first = ForecastStore(tmp_path).fill(predictor, few, SPEC, SAMPLING).forecast_set
    other = ForecastStore(tmp_path, dtype).fill(predictor, few, spec, sampling).forecast_set
    assert other.folder != first.folder
    assert other.folder.parent == first.folder.parent
    assert first.read("2024-02-12").provenance.sampling == SAMPLING


def test_other_weights_and_another_context_have_a_folder_of_their_own(tmp_path, predictor, windows):
    store, few = ForecastStore(tmp_path), windows[:4]
    first = store.fill(predictor, few, SPEC, SAMPLING).forecast_set.folder
    shorter = KronosPredictor(predictor.model, predictor.tokenizer, "cpu", max_context=16)
    shorter.checkpoint_info = predictor.checkpoint_info
    assert store.fill(shorter, few, SPEC, SAMPLING).forecast_set.folder.parent == first.parent
    random = KronosPredictor(make_model(), make_tokenizer(), "cpu")
    random.checkpoint_info = CheckpointInfo("kronos-nano", None, "f" * 64, None)
    assert store.fill(random, few, SPEC, SAMPLING).forecast_set.folder.parent != first.parent
    assert len(store.forecast_sets()) == 3


def test_networks_without_a_file_are_refused_with_the_remedy(tmp_path, windows):
    nameless = KronosPredictor(make_model(), make_tokenizer(), "cpu")
    with pytest.raises(ValueError, match=r"were not loaded from files.*save_pretrained"):
        ForecastStore(tmp_path / "store").fill(nameless, windows, SPEC, SAMPLING)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (WindowSpec("four", 20, 4, 20), "horizon=4"),
        (WindowSpec("four", 10, 3, 10), "lookback=10"),
        (WindowSpec("four", 30, 3, 30), "min_bars=30"),
    ],
)
def test_windows_that_do_not_match_their_specification_are_refused(tmp_path, predictor, windows, spec, says):
    with pytest.raises(ValueError, match=says):
        ForecastStore(tmp_path).fill(predictor, windows, spec, SAMPLING)


def test_a_repeated_window_is_refused_by_name(tmp_path, predictor, windows):
    with pytest.raises(ValueError, match=r"2024-02-12.*AAA.*twice"):
        ForecastStore(tmp_path).fill(predictor, windows[np.array([0, 1, 0])], SPEC, SAMPLING)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "store").touch()
    with pytest.raises(ValueError, match="is a file"):
        ForecastStore(tmp_path / "store")


# Damage


def flip(path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_bit_is_found_on_reading_and_repaired_by_the_next_fill(tmp_path, spy, windows, where):
    store = ForecastStore(tmp_path)
    forecast_set = store.fill(spy, windows, SPEC, SAMPLING).forecast_set
    (path,) = (forecast_set.folder / "date=2024-02-14").glob("*.parquet")
    whole = path.read_bytes()
    flip(path, int(where * len(whole)))
    with pytest.raises(ValueError, match=r"date=2024-02-14.*damaged.*Fill the store again"):
        forecast_set.read("2024-02-14")
    forecast_set.read("2024-02-15")
    spy.asked.clear()
    filled = store.fill(spy, windows, SPEC, SAMPLING)
    assert filled.found.damaged == (pd.Timestamp("2024-02-14"),)
    assert spy.dates == [pd.Timestamp("2024-02-14")]
    forecast_set.read("2024-02-14")


@pytest.mark.parametrize("left", [0, 100])
def test_a_truncated_file_is_not_a_forecast(tmp_path, spy, windows, left):
    store = ForecastStore(tmp_path)
    forecast_set = store.fill(spy, windows, SPEC, SAMPLING).forecast_set
    (path,) = (forecast_set.folder / "date=2024-02-14").glob("*.parquet")
    path.write_bytes(path.read_bytes()[:left])
    assert store.fill(spy, windows, SPEC, SAMPLING).found.damaged == (pd.Timestamp("2024-02-14"),)


def test_of_two_files_of_a_date_one_is_removed(tmp_path, spy, windows):
    store = ForecastStore(tmp_path)
    forecast_set = store.fill(spy, windows, SPEC, SAMPLING).forecast_set
    (path,) = (forecast_set.folder / "date=2024-02-14").glob("*.parquet")
    path.with_name("copy of it.parquet").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="instead of one file"):
        forecast_set.read("2024-02-14")
    assert store.fill(spy, windows, SPEC, SAMPLING).computed == 1
    assert len(list((forecast_set.folder / "date=2024-02-14").glob("*.parquet"))) == 1


def test_files_half_written_by_a_killed_process_are_never_read_and_are_removed(tmp_path, spy, windows):
    store = ForecastStore(tmp_path)
    forecast_set = store.fill(spy, windows[:4], SPEC, SAMPLING).forecast_set
    remnant = date_folder(forecast_set.folder, pd.Timestamp("2024-02-13")) / ".0123-4567.parquet.tmp"
    remnant.parent.mkdir()
    remnant.write_bytes(b"half")
    assert list(forecast_set.dates) == [pd.Timestamp("2024-02-12")]
    assert store.fill(spy, windows, SPEC, SAMPLING).computed == 14
    assert not remnant.exists()


def test_an_error_half_way_loses_one_chunk_and_no_date_that_was_done(tmp_path, predictor, windows):
    def fail(asked: Windows) -> None:
        if pd.Timestamp("2024-02-16") in asked.index.get_level_values("datetime"):
            raise MemoryError("the device is full")

    store = ForecastStore(tmp_path)
    with pytest.raises(MemoryError):
        store.fill(Spy(predictor, before=fail), windows, SPEC, SAMPLING)
    (forecast_set,) = store.forecast_sets()
    assert len(forecast_set) == 4
    assert forecast_set.manifest["data"]["dates"] == 4
    assert store.fill(predictor, windows, SPEC, SAMPLING).computed == 11


# Chunks, memory, progress


def test_a_chunk_holds_as_many_dates_as_fit_and_at_least_one(
    tmp_path, spy, windows, small_chunks, monkeypatch
):
    ForecastStore(tmp_path / "a").fill(spy, windows, SPEC, SAMPLING)
    assert [len(keys) for keys in spy.asked] == [small_chunks] * 7 + [4]
    spy.asked.clear()
    monkeypatch.setattr("kronos_strategies.forecasting.CHUNK_WINDOWS", 3)
    ForecastStore(tmp_path / "b").fill(spy, windows, SPEC, SAMPLING)
    assert [len(keys) for keys in spy.asked] == [4] * 15


def test_chunks_change_no_forecast(tmp_path, predictor, windows, monkeypatch):
    small = ForecastStore(tmp_path / "small").fill(predictor, windows, SPEC, SAMPLING)
    monkeypatch.setattr("kronos_strategies.forecasting.CHUNK_WINDOWS", 1000)
    assert_same_forecasts(small, ForecastStore(tmp_path / "one").fill(predictor, windows, SPEC, SAMPLING))


def test_many_long_paths_make_smaller_chunks(monkeypatch):
    from kronos_strategies import forecasting

    monkeypatch.setattr(forecasting, "CHUNK_WINDOWS", 1024)
    assert forecasting.batch_windows(SampleConfig(samples=10), horizon=10) == 1024
    assert (
        forecasting.batch_windows(SampleConfig(samples=1000), horizon=100)
        == forecasting.CHUNK_BYTES // 2_400_000
    )


class Wide:
    """Forecasts of a megabyte each: 1,000 samples of 40 bars, all of them the last bar."""

    def __init__(self, inner: KronosPredictor) -> None:
        self.inner = inner

    def forecast(self, windows, sampling=None, progress=None, candles="valid") -> Forecast:
        shape = (len(windows), sampling.samples, windows.horizon, len(FEATURES))
        paths = np.broadcast_to(windows.last_bar[:, None, None], shape).copy()
        return Forecast(paths, windows.index, windows.future, windows.last_bar, self.provenance(sampling, ""))

    def provenance(self, sampling, data_sha256):
        return self.inner.provenance(sampling, data_sha256)


def test_no_more_than_a_few_chunks_of_paths_are_in_memory_however_many_dates(tmp_path, predictor, panel):
    chunk, peaks = 8 * 1000 * 40 * 6 * 4, []  # bytes of 8 windows
    for until in ("2024-02-16", "2024-03-15"):  # 5 dates, 25 dates
        windows = Windows.rolling(panel, 20, 40, "B", start="2024-02-12", end=until)
        arrow = pa.default_memory_pool()
        tracemalloc.start()
        spec = WindowSpec("four", 20, 40, 20)
        filled = ForecastStore(tmp_path / until).fill(
            Wide(predictor), windows, spec, SampleConfig(samples=1000)
        )
        total = sum(signals(forecast).shape[0] for forecast in filled)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == len(windows)
        assert arrow.bytes_allocated() < chunk
    assert 25 * 4 / 8 * chunk > 2 * peaks[1], "all dates at once would not have fitted"
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 6 * chunk, "a chunk, its windows, and temporary arrays of one date"


def test_progress_counts_the_windows_that_are_due(tmp_path, predictor, windows):
    store, seen = ForecastStore(tmp_path), []
    store.fill(predictor, windows[:24], SPEC, SAMPLING)
    store.fill(predictor, windows, SPEC, SAMPLING, lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {36}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (36, 36)


# Several processes


def test_a_date_that_another_process_holds_is_left_for_the_end(tmp_path, predictor, windows):
    store = ForecastStore(tmp_path)
    forecast_set = store.fill(predictor, windows[:4], SPEC, SAMPLING).forecast_set
    date = pd.Timestamp("2024-02-13")
    lock = try_lock(forecast_set.folder, date_label(date))
    spy = Spy(predictor)
    filling = threading.Thread(target=store.fill, args=(spy, windows, SPEC, SAMPLING), daemon=True)
    filling.start()
    while len(forecast_set) < 14:
        filling.join(0.05)
    filling.join(0.5)
    assert filling.is_alive()
    assert date not in spy.dates
    lock.release()
    filling.join(20)
    assert not filling.is_alive()
    assert spy.dates[-1] == date
    assert len(forecast_set) == 15


def test_a_date_that_another_process_finished_is_not_computed_again(tmp_path, predictor, windows):
    store, dated = ForecastStore(tmp_path), WindowsByDate(windows)
    late = dated.dates[-1]

    def meanwhile(asked: Windows) -> None:
        (forecast_set,) = store.forecast_sets()
        if late not in forecast_set.dates:
            forecast_set.write(predictor.forecast(dated[late], SAMPLING, candles="raw"))

    spy, seen = Spy(predictor, before=meanwhile), []
    filled = store.fill(spy, windows, SPEC, SAMPLING, lambda done, total: seen.append((done, total)))
    assert late not in spy.dates
    assert filled.computed == 14
    assert seen[-2:][0][0] < 56
    assert seen[-1][0] == 56
    assert len(list(filled)) == 15


def test_windows_whose_date_was_since_filled_from_other_bars_are_not_served(
    tmp_path, predictor, windows, panel
):
    store = ForecastStore(tmp_path)
    filled = store.fill(predictor, windows, SPEC, SAMPLING)
    store.fill(predictor, windows_of(panel | {"AAA": make_bars(60, seed=9)}), SPEC, SAMPLING)
    with pytest.raises(ValueError, match="was made from other bars"):
        next(iter(filled))
