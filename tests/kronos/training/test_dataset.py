from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos.bars import FEATURES, stamps
from kronos.training.__main__ import DataConfig
from kronos.training.dataset import ZEROED, BarTape, TrainingWindows
from tests.kronos.builders import make_bars

LOOKBACK, HORIZON = 8, 3
LENGTH = LOOKBACK + HORIZON


def tidy(*series: pd.DataFrame) -> pd.DataFrame:
    """Long form: one row an instrument and time."""
    named = [bars.reset_index().assign(instrument=f"I{i}") for i, bars in enumerate(series)]
    return pd.concat(named, ignore_index=True)


def write(frame: pd.DataFrame, folder: Path, suffix: str = ".parquet") -> Path:
    file = folder / f"bars{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(file)
    else:
        frame.to_csv(file, index=False)
    return file


@pytest.fixture
def tape(tmp_path: Path) -> BarTape:
    """Two instruments of 60 and 40 business days."""
    file = write(tidy(make_bars(60, 0), make_bars(40, 1)), tmp_path)
    return BarTape.from_files([file], "1day", min_bars=LENGTH)


@pytest.fixture
def windows(tape: BarTape) -> TrainingWindows:
    return TrainingWindows(tape, tape.starts(LENGTH, None, None), LOOKBACK, HORIZON)


# BarTape


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_tape_holds_the_bars_of_its_files_end_to_end(suffix: str, tmp_path: Path) -> None:
    series = make_bars(30, 0), make_bars(20, 1)
    tape = BarTape.from_files([write(tidy(*series), tmp_path, suffix)], "1day", min_bars=5)
    assert tape.bounds.tolist() == [0, 30, 50]
    assert tape.values.dtype == np.float32
    for bars, a, b in zip(series, tape.bounds[:-1], tape.bounds[1:], strict=True):
        np.testing.assert_array_equal(tape.values[a:b], bars.to_numpy(np.float32))
        np.testing.assert_array_equal(tape.stamps[a:b], stamps(bars.index))
        np.testing.assert_array_equal(tape.dates[a:b], bars.index.to_numpy("datetime64[ns]"))


@pytest.mark.parametrize("column", ["factor", "factor_est"])
def test_bars_are_adjusted_by_their_factor_so_that_a_split_is_no_gap(column: str, tmp_path: Path) -> None:
    whole = make_bars(30)
    split = whole.copy()
    split.iloc[15:, :4] /= 2
    split.iloc[15:, 4] *= 2
    split[column] = np.r_[np.ones(15), np.full(15, 2.0)]
    raw = BarTape.from_files([write(tidy(split.drop(columns=column)), tmp_path)], "1day", 5)
    adjusted = BarTape.from_files([write(tidy(split), tmp_path)], "1day", 5)
    assert raw.bounds.tolist() == [0, 15, 30]  # half the price overnight
    assert adjusted.bounds.tolist() == [0, 30]
    np.testing.assert_allclose(adjusted.values, whole.to_numpy(np.float32), rtol=1e-6)


def test_files_without_a_long_enough_stretch_are_refused_by_name(tmp_path: Path) -> None:
    file = write(tidy(make_bars(9)), tmp_path)
    with pytest.raises(ValueError, match=r"No stretch of 10 clean bars in .*bars\.parquet.*longer series"):
        BarTape.from_files([file], "1day", min_bars=10)


def test_every_window_lies_within_one_segment(tape: BarTape) -> None:
    starts = tape.starts(LENGTH, None, None)
    want = [*range(60 - LENGTH + 1), *range(60, 100 - LENGTH + 1)]
    assert starts.tolist() == want


def test_windows_end_within_the_asked_dates_both_inclusive(tape: BarTape) -> None:
    since, until = "2024-01-22", "2024-02-02"
    starts = tape.starts(LENGTH, since, until)
    ends = pd.DatetimeIndex(tape.dates[starts + LENGTH - 1])
    assert ends.min() == pd.Timestamp(since)
    assert ends.max() == pd.Timestamp(until)
    assert len(starts) == 2 * len(pd.bdate_range(since, until))


def test_the_last_date_counts_to_its_last_bar(tmp_path: Path) -> None:
    file = write(tidy(make_bars(40, freq="h")), tmp_path)
    tape = BarTape.from_files([file], "60min", min_bars=5)
    ends = pd.DatetimeIndex(tape.dates[tape.starts(5, None, "2024-01-02") + 4])
    assert ends.max() == pd.Timestamp("2024-01-02 23:00")


# TrainingWindows


def test_a_window_is_scaled_by_its_lookback_alone(windows: TrainingWindows) -> None:
    index = np.array([0, 17, 60])
    x, s = windows.batch(index)
    assert x.shape == (3, LENGTH, 6)
    assert x.dtype == np.float32
    for row, stamp, i in zip(x, s, index, strict=True):
        rows = slice(windows.starts[i], windows.starts[i] + LENGTH)
        bars = windows.tape.values[rows].astype(float)
        past = bars[:LOOKBACK]
        want = ((bars - past.mean(0)) / (past.std(0) + 1e-5)).clip(-5, 5)
        np.testing.assert_allclose(row, want, rtol=1e-3, atol=1e-3)  # float32 means and deviations of 8 bars
        np.testing.assert_array_equal(stamp, windows.tape.stamps[rows])


def test_scrambling_the_horizon_does_not_move_the_lookback(windows: TrainingWindows) -> None:
    i = np.array([5])
    values = windows.tape.values.copy()
    values[windows.starts[5] + LOOKBACK : windows.starts[5] + LENGTH] *= 30
    scrambled = replace(windows, tape=replace(windows.tape, values=values))
    before, after = windows.batch(i)[0], scrambled.batch(i)[0]
    np.testing.assert_array_equal(before[:, :LOOKBACK], after[:, :LOOKBACK])
    assert not np.array_equal(before[:, LOOKBACK:], after[:, LOOKBACK:])


def tokens_of(batches: list[tuple[np.ndarray, np.ndarray]]) -> list[bytes]:
    """What each window of each batch holds: prices and stamps, which are never hidden."""
    return [x[i, :, :4].tobytes() + s[i].tobytes() for x, s in batches for i in range(len(x))]


def same(a: list[tuple[np.ndarray, np.ndarray]], b: list[tuple[np.ndarray, np.ndarray]]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x, y) and np.array_equal(s, t) for (x, s), (y, t) in zip(a, b, strict=True)
    )


def test_the_same_seed_gives_the_same_batches_and_another_seed_another_order(
    windows: TrainingWindows,
) -> None:
    runs = [list(windows.batches(8, 25, seed)) for seed in (3, 3, 4)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_no_window_comes_twice_in_an_epoch_and_each_epoch_has_its_own_order(
    windows: TrainingWindows,
) -> None:
    per_epoch = len(windows) // 8
    batches = list(windows.batches(8, 3 * per_epoch, seed=0))
    epochs = [tokens_of(batches[i * per_epoch : (i + 1) * per_epoch]) for i in range(3)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == 8 * per_epoch
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_run_taken_up_at_any_step_goes_on_with_the_same_batches(windows: TrainingWindows) -> None:
    whole = list(windows.batches(8, 25, seed=1))
    for first in (1, len(windows) // 8, 20):
        assert same(list(windows.batches(8, 25, seed=1, first=first)), whole[first:])


def test_volume_and_amount_are_hidden_together_in_a_twentieth_of_the_windows(
    windows: TrainingWindows,
) -> None:
    batches = list(windows.batches(16, 250, seed=0))  # 4,000 windows
    hidden = np.concatenate([(x[:, :, 4:] == 0).all(axis=(1, 2)) for x, _ in batches])
    half = np.concatenate([(x[:, :, 4:] == 0).all(axis=1).any(axis=1) for x, _ in batches])
    assert (hidden == half).all()
    # four standard deviations of a share of .05 among 4,000
    assert abs(hidden.mean() - ZEROED) < 4 * (ZEROED * (1 - ZEROED) / 4000) ** 0.5
    assert not any((x[:, :, :4] == 0).all(axis=(1, 2)).any() for x, _ in batches)


def test_too_few_windows_for_one_batch_are_refused_with_both_numbers(windows: TrainingWindows) -> None:
    with pytest.raises(ValueError, match=rf"{len(windows)} windows do not fill one batch of 999"):
        next(windows.batches(999, 1, seed=0))


# The split


@pytest.mark.parametrize(
    ("freq", "frequency", "train_until", "validate_until"),
    [("B", "1day", "2024-02-15", "2024-03-10"), ("h", "60min", "2024-01-04", "2024-01-05")],
    ids=["daily", "hourly"],
)
def test_no_bar_that_is_predicted_in_validation_was_seen_in_training(
    freq: str, frequency: str, train_until: str, validate_until: str, tmp_path: Path
) -> None:
    file = write(tidy(make_bars(90, 0, freq=freq), make_bars(90, 1, freq=freq)), tmp_path)
    config = DataConfig([file], train_until, validate_until, LOOKBACK, HORIZON, frequency)
    training, validation = config.windows()
    seen = (training.starts[:, None] + np.arange(LENGTH)).ravel()
    predicted = (validation.starts[:, None] + np.arange(LOOKBACK, LENGTH)).ravel()
    assert len(training)
    assert len(validation)
    assert training.tape.dates[seen].max() < validation.tape.dates[predicted].min()
    assert not np.intersect1d(seen, predicted).size
    last_day = np.datetime64(train_until)
    assert training.tape.dates[seen].max().astype("datetime64[D]") == last_day
    behind = training.tape.dates[training.tape.dates.astype("datetime64[D]") > last_day]
    assert validation.tape.dates[predicted].min() == behind.min()  # and no bar is wasted
    assert validation.tape.dates[predicted].max().astype("datetime64[D]") <= np.datetime64(validate_until)


def test_features_keep_their_order_on_the_tape(tmp_path: Path) -> None:
    shuffled = tidy(make_bars(30))[
        ["volume", "instrument", "low", "datetime", "amount", "close", "open", "high"]
    ]
    tape = BarTape.from_files([write(shuffled, tmp_path)], "1day", 5)
    np.testing.assert_array_equal(tape.values, make_bars(30)[list(FEATURES)].to_numpy(np.float32))
