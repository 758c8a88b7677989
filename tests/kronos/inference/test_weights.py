"""Weights that a user has converted, moved, trained or made invalid, and their provenance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kronos.config import SampleConfig
from kronos.inference.settings import WeightsDigest, as_cpu, as_float32, weights_signature
from kronos.model import Kronos
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.kronos.builders import make_model, make_panel, make_tokenizer

CPU = torch.device("cpu")
SAMPLING = SampleConfig(samples=3, T=1.0, top_p=0.95, seed=3)
PARTS = ["model", "tokenizer"]


def make() -> KronosPredictor:
    return KronosPredictor(make_model(dropout=0.5), make_tokenizer(dropout=0.5), "cpu", 16)


@pytest.fixture(scope="module")
def windows() -> Windows:
    return Windows.rolling(make_panel(14, "A", "B"), 12, 3, "B")


def paths(predictor: KronosPredictor, windows: Windows) -> np.ndarray:
    return predictor.forecast(windows, SAMPLING).paths


def rounded(network: nn.Module, dtype: torch.dtype) -> None:
    """Round weights to the values of a type, stored as float32."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight.to(dtype))


@pytest.mark.parametrize("when", ["before the predictor is built", "after a forecast"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_converted_weights_are_computed_with_in_float32(
    dtype: torch.dtype, part: str, when: str, windows: Windows
) -> None:
    predictor, wanted = make(), make()
    if when == "after a forecast":
        paths(predictor, windows)
        getattr(predictor, part).to(dtype)
    else:
        networks = {"model": make_model(), "tokenizer": make_tokenizer()}
        networks[part].to(dtype)
        predictor = KronosPredictor(**networks, device="cpu", max_context=16)
    rounded(getattr(wanted, part), dtype)
    np.testing.assert_array_equal(paths(predictor, windows), paths(wanted, windows))
    assert {weight.dtype for weight in getattr(predictor, part).parameters()} == {dtype}  # its owner's choice
    getattr(predictor, part).float()
    np.testing.assert_array_equal(paths(predictor, windows), paths(wanted, windows))


def test_weights_of_several_types_are_computed_with(windows: Windows) -> None:
    predictor, wanted = make(), make()
    for one in (predictor.model, wanted.model):
        rounded(one.head, torch.float16)
    paths(predictor, windows)
    predictor.model.head.half()
    predictor.tokenizer.decoder.double()
    np.testing.assert_array_equal(paths(predictor, windows), paths(wanted, windows))


def train(network: nn.Module) -> None:
    network.train()


def freeze(network: nn.Module) -> None:
    network.requires_grad_(False)


def thaw(network: nn.Module) -> None:
    network.requires_grad_(True)


def backward(network: nn.Module) -> None:
    sum(weight.sum() for weight in network.parameters()).backward()  # type: ignore[union-attr]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("change", [train, freeze, thaw, backward], ids=lambda change: change.__name__)
def test_modes_and_gradients_change_nothing(
    change: Callable[[nn.Module], None], part: str, windows: Windows
) -> None:
    predictor = make()
    before = paths(predictor, windows)
    network = getattr(predictor, part)
    change(network)
    mode = network.training
    for _ in range(2):
        np.testing.assert_array_equal(paths(predictor, windows), before)
    assert network.training == mode  # its owner's choice


@pytest.mark.parametrize("part", PARTS)
def test_weights_without_values_are_refused_in_one_sentence(part: str, windows: Windows) -> None:
    predictor = make()
    paths(predictor, windows)
    getattr(predictor, part).to("meta")
    sentence = r"^The weights '\S+' of Kronos\w* are on the meta device, which stores no values\. Load them"
    with pytest.raises(ValueError, match=sentence) as refusal:
        paths(predictor, windows)
    assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match=sentence):
        KronosPredictor(predictor.model, predictor.tokenizer, "cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", PARTS)
def test_weights_that_are_not_finite_are_refused_by_name(part: str, value: float, windows: Windows) -> None:
    predictor = make()
    paths(predictor, windows)
    with torch.no_grad():
        list(getattr(predictor, part).parameters())[-1][0] = value
    last = list(dict(getattr(predictor, part).named_parameters()))[-1]
    with pytest.raises(
        ValueError, match=rf"^The weights '{last}' of Kronos\w* are not finite\. Load other weights\.$"
    ):
        paths(predictor, windows)


def test_weights_that_are_not_floating_point_are_refused_by_name() -> None:
    model = make_model().requires_grad_(False)
    model.head.proj_s1.bias.data = model.head.proj_s1.bias.data.to(torch.int8)
    with pytest.raises(
        ValueError, match=r"^The weights 'head.proj_s1.bias' of Kronos are torch.int8\. Convert"
    ):
        KronosPredictor(model, make_tokenizer(), "cpu")


def flip(network: Any) -> None:
    """Rows and columns permuted without torch noticing: sums do not change."""
    weight = next(w for w in network.parameters() if w.ndim == 2)
    weight.data = weight.data.flip(0, 1)


def negate(network: Any) -> None:
    weight = next(w for w in network.parameters() if w.ndim == 2)
    weight.data.neg_()


def swap(network: Any) -> None:
    """Two weights of one row."""
    weight = next(w for w in network.parameters() if w.ndim == 2)
    weight.data[0, :2] = weight.data[0, :2].flip(0).clone()


@pytest.mark.parametrize("change", [flip, negate, swap], ids=lambda change: change.__name__)
@pytest.mark.parametrize("make_network", [make_model, make_tokenizer])
def test_weights_in_other_places_are_other_weights(
    make_network: Callable[[], Any], change: Callable[[Any], None]
) -> None:
    network = make_network()
    before, digest = weights_signature(network), WeightsDigest(network)
    assert weights_signature(network) == before
    assert digest.matches(network)
    change(network)
    assert weights_signature(network) != before
    assert not digest.matches(network)
    change(network)  # each undoes itself
    assert digest.matches(network)


def test_a_digest_asks_for_weights_alone() -> None:
    network = make_model()
    digest = WeightsDigest(network)
    assert digest.matches(make_model())  # the same weights of another object
    assert digest.matches(network.double())
    assert not digest.matches(make_model(seed=1))
    assert not digest.matches(network.half())
    assert not digest.matches(make_model(n_heads=4))


def test_networks_that_can_be_computed_with_are_not_copied() -> None:
    model = make_model()
    assert as_float32(model, CPU) is model
    assert as_cpu(model) is model
    copied = as_float32(model.double(), CPU)
    assert copied is not model
    assert {weight.dtype for weight in copied.parameters()} == {torch.float32}
    assert {weight.dtype for weight in model.parameters()} == {torch.float64}


# Provenance


@pytest.fixture
def loaded(reference_folder: Path) -> KronosPredictor:
    return KronosPredictor.from_pretrained(reference_folder, device="cpu", max_context=16)


def test_provenance_states_a_checkpoint_while_the_networks_have_its_weights(
    loaded: KronosPredictor, windows: Windows
) -> None:
    origin = loaded.checkpoint_info
    assert origin is not None
    first = loaded.forecast(windows, SAMPLING).provenance
    assert first.weights_sha256 == origin.sha256
    step(loaded.model)
    after = loaded.forecast(windows, SAMPLING).provenance
    assert (after.model, after.revision, after.weights_sha256, after.trained_until) == (
        "Kronos",
        None,
        None,
        None,
    )
    assert loaded.checkpoint_info is None
    loaded.model = type(loaded.model).from_pretrained(origin.name)  # the checkpoint's weights are back
    assert loaded.forecast(windows, SAMPLING).provenance == first


def step(network: nn.Module) -> None:
    """Change the weights by an optimizer, as training does."""
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    torch.optim.SGD(network.parameters(), lr=0.1).step()


@pytest.mark.parametrize("part", PARTS)
def test_a_network_that_was_swapped_is_not_called_by_the_old_ones_name(
    part: str, loaded: KronosPredictor, windows: Windows
) -> None:
    other = type(getattr(loaded, part))(getattr(loaded, part).config)
    setattr(loaded, part, other)
    assert loaded.provenance(SAMPLING, "").weights_sha256 is None


def test_checkpoint_info_refers_to_the_weights_when_it_is_set(loaded: KronosPredictor) -> None:
    origin = loaded.checkpoint_info
    step(loaded.model)
    loaded.checkpoint_info = origin
    assert loaded.checkpoint_info == origin
    step(loaded.model)
    assert loaded.checkpoint_info is None


# Weights


def train_step(network: nn.Module) -> None:
    """Change the weights by an optimizer, as training does."""
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    torch.optim.SGD(network.parameters(), lr=0.3).step()


def load(network: nn.Module) -> None:
    other = make_model(seed=8) if isinstance(network, Kronos) else make_tokenizer(seed=8)
    network.load_state_dict(other.state_dict())


def assign(network: nn.Module) -> None:
    other = make_model(seed=8) if isinstance(network, Kronos) else make_tokenizer(seed=8)
    network.load_state_dict(other.state_dict(), assign=True)


def edit(network: nn.Module) -> None:
    """Change one weight without torch counting a new version."""
    weight = dict(network.named_parameters())[
        "head.proj_s1.bias" if isinstance(network, Kronos) else "head.bias"
    ]
    weight.data[0] += 2.0


@pytest.mark.parametrize("change", [train_step, load, assign, edit], ids=lambda change: change.__name__)
@pytest.mark.parametrize("part", PARTS)
def test_weights_changed_after_a_forecast_change_the_next_one(
    part: str, change: Callable[[nn.Module], None], windows: Windows
) -> None:
    predictor, some = KronosPredictor(make_model(), make_tokenizer(), "cpu", 16), windows[:3]
    before = predictor.forecast(some, SAMPLING).paths
    change(getattr(predictor, part))
    after = predictor.forecast(some, SAMPLING).paths
    fresh = KronosPredictor(predictor.model, predictor.tokenizer, "cpu", 16)
    np.testing.assert_array_equal(after, fresh.forecast(some, SAMPLING).paths)
    assert not np.allclose(after, before)


def test_networks_are_rewritten_only_when_they_changed(windows: Windows) -> None:
    predictor = make()
    predictor.forecast(windows[:1], SAMPLING)
    made = predictor._made
    predictor.forecast(windows[1:3], SAMPLING)
    predictor.embed(windows[:1])
    assert predictor._made is made
