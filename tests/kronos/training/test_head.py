from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kronos.head import HEAD_INFO, HEAD_WEIGHTS, HeadInfo, ReturnHead
from kronos.model import Kronos
from kronos.training.head import HeadedKronos, RankHead
from kronos.training.labels import HORIZONS, LABEL
from tests.kronos.builders import make_model

INFO = HeadInfo(
    16, HORIZONS, LABEL, lookback=16, frequency="1day", markets=("a", "b"), trained_until="2018-12-31"
)


def make_head(seed: int = 0, info: HeadInfo = INFO) -> RankHead:
    """A head of random weights."""
    head, random = RankHead(info), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in head.parameters():
            weight.copy_(torch.randn(weight.shape, generator=random))
    return head


def test_a_fresh_head_ranks_nothing() -> None:
    assert not RankHead(INFO)(torch.randn(4, 16)).any()


def test_the_loss_is_the_mean_over_labels_that_are_known() -> None:
    head, hidden = make_head(), torch.randn(5, 4, 16)
    labels = torch.randn(5, 4, len(HORIZONS))
    labels[torch.rand(labels.shape) < 0.4] = torch.nan
    known = ~labels.isnan()
    want = (head(hidden)[known] - labels[known]).square().mean()
    torch.testing.assert_close(head.loss(hidden, labels), want)
    parts = [slice(0, 1), slice(1, 3), slice(3, 5)]
    count = known.sum() / len(parts)
    split = torch.stack([head.loss(hidden[part], labels[part], count) for part in parts]).mean()
    torch.testing.assert_close(split, want)


def test_a_batch_without_labels_has_no_loss_and_a_gradient_of_zero() -> None:
    head = make_head()
    loss = head.loss(torch.randn(2, 4, 16), torch.full((2, 4, len(HORIZONS)), torch.nan))
    loss.backward()
    assert loss.item() == 0
    assert all(not weight.grad.any() for weight in head.parameters())


def test_a_predictor_and_its_head_are_saved_side_by_side(tmp_path: Path) -> None:
    network, head = make_model(), make_head()
    HeadedKronos(network, head).save_pretrained(tmp_path / "predictor")
    weights = load_file(tmp_path / "predictor" / HEAD_WEIGHTS)
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "rank.weight": (3, 16),
        "rank.bias": (3,),
    }
    told = json.loads((tmp_path / "predictor" / HEAD_INFO).read_text())
    assert told["horizons"] == [1, 5, 10]
    assert (told["lookback"], told["frequency"], told["d_model"]) == (16, "1day", 16)
    assert told["trained_until"] == "2018-12-31"
    loaded = Kronos.from_pretrained(tmp_path)
    assert all(torch.equal(w, loaded.state_dict()[name]) for name, w in network.state_dict().items())


@pytest.mark.parametrize("width", [16, 32])
def test_a_head_goes_on_with_the_weights_that_fit_it(width: int, tmp_path: Path) -> None:
    HeadedKronos(make_model(), make_head()).save_pretrained(tmp_path)
    head = RankHead(replace(INFO, d_model=width))
    head.load(tmp_path)
    assert bool(head.rank.weight.any()) == (width == 16)
    RankHead(INFO).load(tmp_path / "nowhere")  # weights without a head
    assert np.isfinite(head.rank.weight.detach().numpy()).all()


def test_a_saved_head_is_read_without_torch_as_it_was_trained(tmp_path: Path) -> None:
    head, hidden = make_head(), torch.randn(7, 16)
    HeadedKronos(make_model(), head).save_pretrained(tmp_path / "predictor")
    read = ReturnHead.from_pretrained(tmp_path)
    assert (read.info.horizons, read.info.markets, read.info.lookback) == (HORIZONS, INFO.markets, 16)
    assert (read.info.kind, read.info.trained_until) == ("linear", INFO.trained_until)
    with torch.no_grad():
        np.testing.assert_allclose(read(hidden.numpy()), head(hidden).numpy(), rtol=1e-5, atol=1e-6)
