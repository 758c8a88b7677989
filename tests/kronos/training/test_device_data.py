from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kronos.training.dataset import MicroBatches, Split, TrainingWindows
from kronos.training.device_data import DeviceWindows, fits
from kronos.training.labels import return_labels
from kronos.training.order import Order
from kronos.training.stages import TokenizerStage
from tests.kronos.builders import make_bars, make_tokenizer
from tests.kronos.training.builders import (
    make_config,
    make_market,
    make_tape,
    make_trainer,
    make_windows,
    waves,
)

CPU = torch.device("cpu")


@pytest.fixture
def windows() -> TrainingWindows:
    """Windows of a market with labels and of hours without."""
    market = make_market(24, 50)
    odd = make_bars(50, 99, freq="h").assign(volume=0.0)  # a volume that is not recorded, and a huge amount
    hours = make_tape(odd.assign(amount=1e15 * odd["amount"]), name="hours")
    return replace(make_windows(market, hours), labels=(return_labels(market, None), None))


@pytest.mark.parametrize("labelled", [True, False])
def test_the_device_cuts_the_windows_that_the_host_cuts(labelled: bool, windows: TrainingWindows) -> None:
    if not labelled:
        windows = replace(windows, labels=None)
    indices = np.random.default_rng(0).permutation(len(windows))[:200]
    indices[0] = len(windows) - 1  # of the second source
    hidden = np.arange(200) % 3 == 0
    want = windows.pick(indices, hidden)
    device = DeviceWindows(windows, CPU)
    got = device.gather(*device.pick(indices, hidden))
    assert len(got) == len(want) == (3 if labelled else 2)
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_labels_lie_at_the_positions_whose_target_is_behind_the_lookback(windows: TrainingWindows) -> None:
    labels = windows.labels_of(np.array([3, len(windows) - 1]))
    tape_labels = windows.labels[0]
    first = windows.starts[0][3] + windows.lookback - 1
    np.testing.assert_array_equal(labels[0], tape_labels[first : first + windows.horizon])
    assert labels[1].isnan().all()


def test_labels_leave_the_bars_alone(windows: TrainingWindows) -> None:
    indices = np.arange(50)
    with_labels = windows.pick(indices)
    without = replace(windows, labels=None).pick(indices)
    assert all(torch.equal(one, other) for one, other in zip(with_labels, without, strict=False))
    assert len(with_labels) == len(without) + 1


@pytest.mark.parametrize("on_device", [True, False])
def test_parts_of_a_step_share_the_count_of_its_labels(on_device: bool, windows: TrainingWindows) -> None:
    order = Order(windows.sizes, None, 16, 0.05, 0)
    picker = DeviceWindows(windows, CPU) if on_device else None
    batches = MicroBatches(windows, order, 4, 0, 1, picker)
    known = windows.labels_of(order.draw(2).indices).isfinite().sum()
    assert known > 0
    for number in batches.numbers([2]):
        assert batches[number][-1] == known / 4


def test_a_run_on_device_data_is_the_run_on_host_data(tmp_path: Path) -> None:
    split = Split(waves(120), waves(60))
    histories = []
    for where in ("on", "off"):
        config = make_config(tmp_path / where, data_on_device=where)
        trainer = make_trainer(TokenizerStage(make_tokenizer()), split, config)
        assert (trainer.held is not None) == (where == "on")
        histories.append(trainer.run().history)
    for one, other in zip(*histories, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)


def test_auto_leaves_the_bars_on_a_host_without_an_accelerator(tmp_path: Path) -> None:
    assert not fits(waves(60), CPU, make_config(tmp_path))
