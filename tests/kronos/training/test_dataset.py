from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from kronos.training.bar_array import MappedBars
from kronos.training.batch_sampler import BatchSampler, MicroBatches
from kronos.training.config import Source
from kronos.training.dataset import Batch, TrainingWindows, split_windows
from tests.kronos.builders import make_bars
from tests.kronos.training.builders import (
    LENGTH,
    LOOKBACK,
    make_config,
    make_mapped_bars,
    make_windows,
    write_bars,
)


@pytest.fixture
def windows() -> TrainingWindows:
    """41 and 21 windows of the two segments of one source, then 31 of another."""
    daily = make_mapped_bars(make_bars(60, 0), make_bars(40, 1), name="daily")
    return make_windows(daily, make_mapped_bars(make_bars(50, 2, freq="h"), name="hourly"))


# TrainingWindows


@pytest.mark.parametrize(("index", "source", "start"), [(0, 0, 0), (40, 0, 40), (41, 0, 60), (62, 1, 0)])
def test_a_window_is_scaled_by_its_lookback_alone(
    index: int, source: int, start: int, windows: TrainingWindows
) -> None:
    bars, stamps = windows.batch(np.array([5, index]))
    assert bars.shape == (2, LENGTH, 6)
    assert (bars.dtype, stamps.dtype) == (torch.float32, torch.int64)
    mapped, rows = windows.mapped_bars[source], slice(start, start + LENGTH)
    past = mapped.values[rows][:LOOKBACK].astype(float)
    want = ((mapped.values[rows] - past.mean(0)) / (past.std(0) + 1e-5)).clip(-5, 5)
    # float32 means and deviations of 16 bars
    np.testing.assert_allclose(bars[1], want, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(stamps[1], mapped.stamps[rows])


def test_scrambling_the_horizon_does_not_move_the_lookback() -> None:
    mapped = make_mapped_bars(make_bars(60))
    values = mapped.values.copy()
    values[5 + LOOKBACK : 5 + LENGTH] *= 30
    before, after = (
        make_windows(one).batch(np.array([5])).bars for one in (mapped, replace(mapped, values=values))
    )
    assert torch.equal(before[:, :LOOKBACK], after[:, :LOOKBACK])
    assert not torch.equal(before[:, LOOKBACK:], after[:, LOOKBACK:])


def test_hidden_windows_lose_volume_and_amount_together_and_nothing_else(windows: TrainingWindows) -> None:
    indices, drop_volume = np.array([0, 30, 62]), np.array([False, True, False])
    whole, some = windows.batch(indices).bars, windows.batch(indices, drop_volume).bars
    assert (some[1, :, 4:] == 0).all()
    assert torch.equal(some[1, :, :4], whole[1, :, :4])
    assert torch.equal(some[[0, 2]], whole[[0, 2]])
    assert not (whole[:, :, 4:] == 0).all(dim=1).any()


def test_a_sample_is_spread_evenly_over_each_source_in_their_proportions(windows: TrainingWindows) -> None:
    assert windows.sizes == (62, 31)
    first, second = windows.sample(30)
    assert (len(first), len(second)) == (20, 10)
    assert (first[0], first[-1], second[0], second[-1]) == (0, 61, 62, 92)
    assert np.ptp(np.diff(first)) <= 1
    first, second = replace(windows, weights=(1.0, 2.0)).sample(30)
    assert (len(first), len(second)) == (10, 20)
    first, second = windows.sample(10**6)
    np.testing.assert_array_equal(np.concatenate([first, second]), np.arange(93))


# The split


def split(tmp_path: Path, *sources: Source, **settings: object) -> tuple[TrainingWindows, TrainingWindows]:
    return split_windows(make_config(tmp_path / "out", sources=sources, **settings))


def learnt_and_predicted(
    training: TrainingWindows, validation: TrainingWindows, source: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows on a source's mapped that training windows hold, and those that validation windows predict."""
    learned = training.start_rows[source][:, None] + np.arange(LENGTH)
    predicted = validation.start_rows[source][:, None] + np.arange(LOOKBACK, LENGTH)
    return learned.ravel(), predicted.ravel()


def assert_apart(
    mapped: MappedBars, learned: np.ndarray, predicted: np.ndarray, train: str, until: str
) -> None:
    """Validation targets lie after all training bars, and no bar between the dates is unused."""
    assert len(learned)
    assert len(predicted)
    days = mapped.dates.astype("datetime64[D]")
    assert days[learned].max() == np.datetime64(train)
    assert mapped.dates[learned].max() < mapped.dates[predicted].min()
    assert mapped.dates[predicted].min() == mapped.dates[days > np.datetime64(train)].min()
    assert days[predicted].max() == np.datetime64(until)


@pytest.mark.parametrize(
    ("freq", "frequency", "train", "until"),
    [("B", "1day", "2024-03-15", "2024-04-11"), ("h", "60min", "2024-01-04", "2024-01-05")],
    ids=["daily", "hourly"],
)
def test_no_bar_that_is_predicted_in_validation_was_seen_in_training(
    freq: str, frequency: str, train: str, until: str, tmp_path: Path
) -> None:
    file = write_bars(tmp_path / "bars.parquet", make_bars(120, 0, freq=freq), make_bars(120, 1, freq=freq))
    source = Source(file, frequency=frequency)
    training, validation = split(tmp_path, source, train_until=train, validate_until=until)
    learned, predicted = learnt_and_predicted(training, validation, 0)
    assert_apart(training.mapped_bars[0], learned, predicted, train, until)


def test_validation_targets_may_begin_later_than_training_ends(tmp_path: Path) -> None:
    source = Source(write_bars(tmp_path / "bars.parquet", make_bars(120)))
    dates = {"train_until": "2024-03-15", "validate_until": "2024-05-03"}
    for validate_from, first in (("2024-04-01", "2024-04-01"), ("2024-04-06", "2024-04-08")):
        training, validation = split(tmp_path, source, **dates, validate_from=validate_from)
        _, predicted = learnt_and_predicted(training, validation, 0)
        days = training.mapped_bars[0].dates.astype("datetime64[D]")
        assert days[predicted].min() == np.datetime64(first)
        assert training.last_dates() == ["2024-03-15"]
    # Without train_until it begins after the default, even if validate_from is earlier.
    whole = split(tmp_path, source)
    early = split(tmp_path, source, validate_from="2024-01-05")
    assert np.array_equal(early.validation.start_rows[0], whole.validation.start_rows[0])


def test_a_source_may_have_dates_of_its_own(tmp_path: Path) -> None:
    one = Source(write_bars(tmp_path / "one.parquet", make_bars(120)))
    two = Source(
        write_bars(tmp_path / "two.parquet", make_bars(120, 1)),
        train_until="2024-02-29",
        validate_until="2024-03-28",
    )
    spans = ("2024-04-12", "2024-05-10"), ("2024-02-29", "2024-03-28")
    training, validation = split(tmp_path, one, two, train_until=spans[0][0], validate_until=spans[0][1])
    for source, span in enumerate(spans):
        learned, predicted = learnt_and_predicted(training, validation, source)
        assert_apart(training.mapped_bars[source], learned, predicted, *span)
    assert training.last_dates() == [span[0] for span in spans]
    assert validation.last_dates() == [span[1] for span in spans]


def test_without_a_date_training_ends_after_four_fifths_of_each_sources_span(tmp_path: Path) -> None:
    bars = make_bars(101, freq="D"), make_bars(101, 1, start="2020-01-01", freq="D")
    sources = [
        Source(write_bars(tmp_path / f"{i}.parquet", one), frequency="1day") for i, one in enumerate(bars)
    ]
    training, validation = split(tmp_path, *sources)
    assert training.last_dates() == [f"{one.index[80]:%Y-%m-%d}" for one in bars]
    assert validation.last_dates() == [f"{one.index[-1]:%Y-%m-%d}" for one in bars]


def test_a_source_without_training_windows_is_refused_by_name(tmp_path: Path) -> None:
    good = Source(write_bars(tmp_path / "good.parquet", make_bars(120)))
    late = Source(write_bars(tmp_path / "late.parquet", make_bars(120, 1, start="2024-03-01")))
    with pytest.raises(
        ValueError,
        match=r"late, 2024-03-01 to 2024-08-15, has no window of 20 bars that ends by train_until=2024-03-15\.",
    ):
        split(tmp_path, good, late, train_until="2024-03-15")


def test_the_error_for_a_short_series_states_the_default_date(tmp_path: Path) -> None:
    source = Source(write_bars(tmp_path / "bars.parquet", make_bars(21)))
    with pytest.raises(ValueError, match=r"ends by 2024-01-24, 80 % of its span\..*longer series"):
        split(tmp_path, source)


def test_an_empty_validation_set_says_what_the_bars_and_dates_are(tmp_path: Path) -> None:
    source = Source(write_bars(tmp_path / "bars.parquet", make_bars(120)))
    with pytest.raises(ValueError, match="bars, 2024-01-02 to 2024-06-17, trains until 2030-01-01") as error:
        split(tmp_path, source, train_until="2030-01-01", validate_until="2031-01-01")
    assert "at least 4 bars (horizon) are between them" in str(error.value)


def test_an_empty_validation_set_is_refused(tmp_path: Path) -> None:
    source = Source(write_bars(tmp_path / "bars.parquet", make_bars(120)))
    with pytest.raises(ValueError, match=r"no validation window.*Move train_until or validate_until"):
        split(tmp_path, source, train_until="2030-01-01")
    # a date that leaves less than a horizon
    with pytest.raises(ValueError, match="no validation window"):
        split(tmp_path, source, train_until="2024-03-15", validate_until="2024-03-20")


def test_one_source_may_have_no_validation_window_if_another_has(tmp_path: Path) -> None:
    long, short = (Source(write_bars(tmp_path / f"{count}.parquet", make_bars(count))) for count in (120, 60))
    training, validation = split(tmp_path, long, short, train_until="2024-04-12")
    assert training.sizes == (55, 41)
    assert validation.sizes[1] == 0
    assert validation.last_dates()[1] is None
    assert len(validation.sample(10)[1]) == 0


def test_weights_go_to_both_parts_of_the_split(tmp_path: Path) -> None:
    sources = [
        Source(write_bars(tmp_path / f"{i}.parquet", make_bars(120, i)), weight=weight)
        for i, weight in enumerate((3.0, 1.0))
    ]
    training, validation = split(tmp_path, *sources, train_until="2024-04-12")
    assert training.weights == validation.weights == (3.0, 1.0)


# MicroBatches


def rows(*batches: Batch) -> list[bytes]:
    """Bytes of each window of some batches, in any order."""
    return sorted(
        bars.numpy().tobytes() + stamps.numpy().tobytes()
        for batch in batches
        for bars, stamps in zip(*batch, strict=True)
    )


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_and_parts_of_a_step_share_its_draw(
    processes: int, accumulate: int, windows: TrainingWindows
) -> None:
    order = BatchSampler(windows.sizes, None, 16, 0.3, seed=3)
    parts = processes * accumulate
    shared = [MicroBatches(windows, order, parts, rank, processes) for rank in range(processes)]
    for step in (0, 4, 7):
        numbers = [one.numbers(range(step, step + 1)) for one in shared]
        assert {len(own) for own in numbers} == {accumulate}
        batches = [one[number] for one, own in zip(shared, numbers, strict=True) for number in own]
        assert {len(batch.bars) for batch in batches} == {16 // parts}
        assert rows(*batches) == rows(windows.batch(*order.batch_indices(step)))


def test_steps_have_consecutive_numbers(windows: TrainingWindows) -> None:
    order = BatchSampler(windows.sizes, None, 16, 0.3, seed=3)
    batches = MicroBatches(windows, order, 4, 0, 2)
    assert batches.numbers(range(5)) == range(10)
    assert batches.numbers(range(3, 5)) == range(6, 10)
    assert len(batches.numbers(range(5, 5))) == 0


def test_a_loader_gives_the_same_batches_with_any_number_of_workers(windows: TrainingWindows) -> None:
    order = BatchSampler(windows.sizes, None, 16, 0.3, seed=3)
    batches = MicroBatches(windows, order, 2, 1, 2)
    numbers = batches.numbers(range(8))
    direct = [batches[number] for number in numbers]
    for workers in (0, 2):
        loader = DataLoader(batches, batch_size=None, sampler=numbers, num_workers=workers)
        for one, other in zip(loader, direct, strict=True):
            assert torch.equal(one[0], other.bars)
            assert torch.equal(one[1], other.stamps)


def test_a_twentieth_of_the_training_windows_and_no_validation_window_is_hidden(
    windows: TrainingWindows,
) -> None:
    order = BatchSampler(windows.sizes, None, 16, 0.05, seed=0)
    batches = MicroBatches(windows, order, 1, 0, 1)
    bars = torch.cat([batches[number].bars for number in range(250)])  # 4,000 windows
    drop_volume = (bars[:, :, 4:] == 0).all(dim=1)
    assert (drop_volume[:, 0] == drop_volume[:, 1]).all()
    # four standard deviations of a share of .05 among 4,000
    assert abs(drop_volume[:, 0].float().mean() - 0.05) < 4 * (0.05 * 0.95 / 4000) ** 0.5
    assert not (bars[:, :, :4] == 0).all(dim=(1, 2)).any()
    assert not (windows.batch(np.arange(len(windows))).bars[:, :, 4:] == 0).all(dim=1).any()
