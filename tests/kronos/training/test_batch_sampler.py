from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kronos.training.bar_array import return_labels
from kronos.training.batch_sampler import BatchSampler, DeviceWindows, MicroBatches, fits_on_device
from kronos.training.dataset import Split, TrainingWindows, mixture_weights
from kronos.training.objectives import TokenizerObjective
from tests.kronos.builders import make_bars, make_tokenizer
from tests.kronos.training.builders import (
    make_config,
    make_mapped_bars,
    make_market,
    make_trainer,
    make_windows,
    waves,
)

EXAMPLES = settings(deadline=None, max_examples=60)


def make_order(
    *sizes: int,
    weights: tuple[float, ...] | None = None,
    batch: int = 1,
    hide: float = 0.05,
    seed: int = 0,
) -> BatchSampler:
    return BatchSampler(sizes, weights, batch, hide, seed)


def drawn(order: BatchSampler, steps: Iterable[int]) -> list[int]:
    """Indices of some steps, in their order."""
    return [int(index) for step in steps for index in order.batch_indices(step).indices]


def epoch(order: BatchSampler, number: int) -> list[int]:
    return drawn(order, range(number * order.epoch_steps, (number + 1) * order.epoch_steps))


@st.composite
def orders(draw: st.DrawFn) -> Callable[[], BatchSampler]:
    """How to make an order of any sources, with weights or without."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    weights = draw(st.none() | st.lists(st.floats(0.05, 10), min_size=len(sizes), max_size=len(sizes)))
    batch, seed = draw(st.integers(1, 8)), draw(st.integers(0, 5))
    try:
        BatchSampler(sizes, weights, batch, 0.05, seed)
    except ValueError:
        assume(False)  # not one batch
    return lambda: BatchSampler(sizes, weights, batch, 0.05, seed)


@EXAMPLES
@given(make=orders())
def test_no_window_occurs_twice_in_an_epoch(make: Callable[[], BatchSampler]) -> None:
    order = make()
    for number in range(4):
        indices = epoch(order, number)
        assert len(set(indices)) == len(indices) == order.epoch_steps * order.batch
        assert min(indices) >= 0
        assert max(indices) < sum(order.sizes)


@EXAMPLES
@given(make=orders(), later=st.integers(0, 50), before=st.lists(st.integers(0, 60), max_size=4))
def test_a_batch_depends_on_its_step_and_not_on_earlier_batches(
    make: Callable[[], BatchSampler], later: int, before: list[int]
) -> None:
    used = make()
    for step in before:
        used.batch_indices(step)
    for one, other in zip(make().batch_indices(later), used.batch_indices(later), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_weights_every_epoch_contains_every_window_once_in_another_order() -> None:
    order = make_order(30, 7)
    epochs = [epoch(order, number) for number in range(3)]
    assert all(sorted(indices) == list(range(37)) for indices in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_windows_that_do_not_fill_a_batch_are_left_out_and_differ_between_epochs() -> None:
    order = make_order(37, batch=8)
    rests = [set(range(37)) - set(epoch(order, number)) for number in range(3)]
    assert [len(rest) for rest in rests] == [5, 5, 5]
    assert rests[0] != rests[1] != rests[2]


def test_weights_give_the_proportions_for_any_sizes() -> None:
    order = make_order(1000, 400, weights=(3.0, 1.0))
    for number in range(3):
        indices = np.array(epoch(order, number))
        assert len(indices) == 1333  # until the first source has no window left
        assert (indices < 1000).sum() == 1000
    assert mixture_weights((1000, 400), (3.0, 1.0)) == [0.75, 0.25]
    assert mixture_weights((300, 100), None) == [0.75, 0.25]


def test_any_part_of_an_epoch_mixes_its_sources() -> None:
    order = make_order(1000, 1000, weights=(3.0, 1.0), batch=64)
    parts = [np.mean(order.batch_indices(step).indices < 1000) for step in range(order.epoch_steps)]
    assert 0.5 < min(parts) <= max(parts) < 0.95  # 4.6 deviations of a share of .75 among 64


@pytest.mark.parametrize("size", [99, 100, 101])
def test_over_a_pass_every_window_of_a_source_with_a_small_share_is_seen(size: int) -> None:
    order = make_order(30, size, weights=(9.0, 1.0))  # three of the second source an epoch
    assert [index >= 30 for index in epoch(order, 0)].count(True) == 3
    passing = -(-size // 3)  # epochs
    for turn in range(3):
        epochs = [epoch(order, number) for number in range(turn * passing, (turn + 1) * passing)]
        seen = Counter(index for indices in epochs for index in indices if index >= 30)
        assert sorted(seen) == list(range(30, 30 + size))
        assert seen.total() - size < 3  # as often as each other


def test_each_pass_through_a_source_has_its_own_order() -> None:
    order = make_order(30, 99, weights=(9.0, 1.0))
    passes = [[i for n in range(turn * 33, turn * 33 + 33) for i in epoch(order, n)] for turn in range(2)]
    small = [[index for index in indices if index >= 30] for indices in passes]
    assert small[0] != small[1]


def test_another_seed_gives_another_order_and_hides_others() -> None:
    draws = [make_order(50, batch=50, hide=0.5, seed=seed).batch_indices(0) for seed in (0, 0, 1)]
    for same, different in zip(draws[1], draws[2], strict=True):
        assert not np.array_equal(same, different)
    for one, other in zip(draws[0], draws[1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("hide", [0.0, 0.05, 0.4])
def test_a_share_of_the_windows_is_hidden(hide: float) -> None:
    order = make_order(4000, batch=40, hide=hide)
    drop_volume = np.concatenate([order.batch_indices(step).drop_volume for step in range(200)])
    # four standard deviations
    assert abs(drop_volume.mean() - hide) <= 4 * (hide * (1 - hide) / len(drop_volume)) ** 0.5


def test_a_window_is_hidden_in_some_epochs_only() -> None:
    order = make_order(40, batch=40, hide=0.5)
    often: Counter[int] = Counter()
    for step in range(60):
        indices, drop_volume = order.batch_indices(step)
        often.update(indices[drop_volume].tolist())
    assert 10 < min(often.values()) <= max(often.values()) < 50
    assert len(often) == 40
    assert not np.array_equal(order.batch_indices(0).drop_volume, order.batch_indices(1).drop_volume)


def test_too_few_windows_for_one_batch_are_refused_with_both_numbers() -> None:
    with pytest.raises(
        ValueError, match=r"50 training windows are fewer than one batch of 64\. Pass more bars"
    ):
        make_order(50, batch=64)
    with pytest.raises(ValueError, match=r"12 training windows are fewer than one batch of 13"):
        make_order(100, 3, weights=(3.0, 1.0), batch=13)


CPU = torch.device("cpu")


@pytest.fixture
def windows() -> TrainingWindows:
    """Windows of a market with labels and of hours without."""
    market = make_market(24, 50)
    odd = make_bars(50, 99, freq="h").assign(volume=0.0)  # a volume that is not recorded, and a huge amount
    hours = make_mapped_bars(odd.assign(amount=1e15 * odd["amount"]), name="hours")
    return replace(make_windows(market, hours), labels=(return_labels(market, None), None))


@pytest.mark.parametrize("labeled", [True, False])
def test_the_device_cuts_the_windows_that_the_host_cuts(labeled: bool, windows: TrainingWindows) -> None:
    if not labeled:
        windows = replace(windows, labels=None)
    indices = np.random.default_rng(0).permutation(len(windows))[:200]
    indices[0] = len(windows) - 1  # of the second source
    drop_volume = np.arange(200) % 3 == 0
    want = windows.item(indices, drop_volume)
    device = DeviceWindows(windows, CPU)
    got = device.gather(*device.item(indices, drop_volume))
    assert len(got) == len(want) == (3 if labeled else 2)
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_labels_are_at_positions_whose_target_is_after_the_lookback(windows: TrainingWindows) -> None:
    labels = windows.labels_of(np.array([3, len(windows) - 1]))
    mapped_labels = windows.labels[0]
    first = windows.start_rows[0][3] + windows.lookback - 1
    np.testing.assert_array_equal(labels[0], mapped_labels[first : first + windows.horizon])
    assert labels[1].isnan().all()


def test_labels_do_not_change_the_bars(windows: TrainingWindows) -> None:
    indices = np.arange(50)
    with_labels = windows.item(indices)
    without = replace(windows, labels=None).item(indices)
    assert all(torch.equal(one, other) for one, other in zip(with_labels, without, strict=False))
    assert len(with_labels) == len(without) + 1


@pytest.mark.parametrize("on_device", [True, False])
def test_parts_of_a_step_share_the_count_of_its_labels(on_device: bool, windows: TrainingWindows) -> None:
    order = BatchSampler(windows.sizes, None, 16, 0.05, 0)
    item_source = DeviceWindows(windows, CPU) if on_device else None
    batches = MicroBatches(windows, order, 4, 0, 1, item_source)
    known = windows.labels_of(order.batch_indices(2).indices).isfinite().sum()
    assert known > 0
    for number in batches.numbers([2]):
        assert batches[number][-1] == known / 4


def test_a_run_on_device_data_is_the_run_on_host_data(tmp_path: Path) -> None:
    split = Split(waves(120), waves(60))
    histories = []
    for where in ("on", "off"):
        config = make_config(tmp_path / where, data_on_device=where)
        trainer = make_trainer(TokenizerObjective(make_tokenizer()), split, config)
        assert (trainer.device_windows is not None) == (where == "on")
        histories.append(trainer.run().history)
    for one, other in zip(*histories, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)


def test_auto_leaves_the_bars_on_a_host_without_an_accelerator(tmp_path: Path) -> None:
    assert not fits_on_device(waves(60), CPU, make_config(tmp_path))
