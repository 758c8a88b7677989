"""Upstream's methods give upstream's numbers; see tests/kronos/test_reference.py for the tolerances."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from kronos.compat import Kronos, KronosPredictor, KronosTokenizer
from kronos.model import Kronos as PlainKronos
from kronos.tokenizer import KronosTokenizer as PlainTokenizer
from kronos.tokenizer import Tokens
from tests.kronos.builders import make_model, make_tokenizer
from tests.kronos.test_reference import close, compare_gradients

Arrays = dict[str, np.ndarray]


def inputs(expected: Arrays) -> tuple[Tensor, Tensor, Tensor]:
    """Coarse ids, fine ids, and stamps as float32, the form that upstream's scripts make."""
    s1, s2, stamps = (torch.from_numpy(expected[f"module_{name}"]) for name in ("s1", "s2", "stamp"))
    return s1, s2, stamps.float()


@torch.no_grad()
def test_ids_are_upstreams_whole_and_in_halves(tokenizer: KronosTokenizer, expected: Arrays) -> None:
    x = torch.from_numpy(expected["module_x"])
    halves = tokenizer.encode(x, half=True)
    assert isinstance(halves, list)  # upstream's scripts assign to its items
    np.testing.assert_array_equal(halves[0], expected["module_s1"])
    np.testing.assert_array_equal(halves[1], expected["module_s2"])
    np.testing.assert_array_equal(tokenizer.encode(x), expected["module_ids"])


@pytest.mark.parametrize(
    "pair", [list, tuple, lambda halves: Tokens(*halves)], ids=["list", "tuple", "Tokens"]
)
@torch.no_grad()
def test_bars_are_decoded_as_upstream_does_from_halves_and_from_whole_ids(
    pair: Callable[[list[Tensor]], Any], tokenizer: KronosTokenizer, expected: Arrays
) -> None:
    halves, whole = pair(list(inputs(expected)[:2])), torch.from_numpy(expected["module_ids"])
    close(tokenizer.decode(halves, half=True), expected["module_decoded"])
    close(tokenizer.decode(whole), expected["module_decoded"])
    torch.testing.assert_close(tokenizer.indices_to_bits(halves, half=True), tokenizer.indices_to_bits(whole))


def test_ids_of_unequal_halves_are_joined_again() -> None:
    config = make_tokenizer(s1_bits=2, s2_bits=6).config
    tokenizer = KronosTokenizer.from_config(config).eval()
    ids = torch.arange(256)[None]
    bits = tokenizer.indices_to_bits(ids) > 0
    assert torch.equal((bits * 2 ** torch.arange(8)).sum(dim=-1), ids)
    assert torch.equal(tokenizer.decode(ids), tokenizer.decode([ids & 3, ids >> 2], half=True))


def test_a_pair_without_half_and_half_without_a_pair_are_refused(tokenizer: KronosTokenizer) -> None:
    ids = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"pair .*needs half=True"):
        tokenizer.decode([ids, ids])
    with pytest.raises(ValueError, match=r"half=True takes a pair"):
        tokenizer.decode(ids, half=True)


def test_the_tokenizers_forward_trains_as_upstreams_loop_does(
    reference_folder: Path, expected: Arrays, reference_losses: dict[str, Any]
) -> None:
    tokenizer = KronosTokenizer.from_pretrained(reference_folder).train()
    x = torch.from_numpy(expected["module_x"])
    (coarse, full), bsq, codes, ids = tokenizer(x)
    close(coarse.detach(), expected["module_recon_s1"])
    close(full.detach(), expected["module_recon"])
    np.testing.assert_array_equal(ids, expected["module_ids"])
    torch.testing.assert_close(codes.detach(), tokenizer.indices_to_bits(ids))
    loss = (F.mse_loss(coarse, x) + F.mse_loss(full, x) + bsq) / 2
    theirs = reference_losses["tokenizer"]
    assert loss.item() == pytest.approx(theirs["loss"], rel=1e-5)
    compare_gradients(tokenizer, loss, theirs["grad_norms"])


@torch.no_grad()
def test_decoding_in_two_steps_gives_upstreams_logits(model: Kronos, expected: Arrays) -> None:
    s1, s2, stamps = inputs(expected)
    logits, context = model.decode_s1(s1, s2, stamps)
    close(logits, expected["module_s1_logits"])
    close(context, expected["module_context"])
    close(model.decode_s2(context, s1[:, -1:]), expected["module_s2_logits_last"])


def test_teacher_forced_logits_losses_and_gradients_are_upstreams(
    reference_folder: Path, expected: Arrays, reference_losses: dict[str, Any]
) -> None:
    model = Kronos.from_pretrained(reference_folder).train()  # dropout is 0 in its config
    s1, s2, stamps = inputs(expected)
    logits = model(s1[:, :-1], s2[:, :-1], stamps[:, :-1], use_teacher_forcing=True, s1_targets=s1[:, 1:])
    close(logits[0].detach(), expected["train_s1_logits"])
    close(logits[1].detach(), expected["train_s2_logits"])
    losses = model.head.compute_loss(*logits, s1[:, 1:], s2[:, 1:])
    theirs = reference_losses["predictor"]
    assert [loss.item() for loss in losses] == pytest.approx(
        [theirs[name] for name in ("loss", "s1", "s2")], rel=1e-5
    )
    compare_gradients(model, losses[0], theirs["grad_norms"])


@torch.no_grad()
def test_without_teacher_forcing_the_next_s1_is_drawn_from_its_logits(
    model: Kronos, expected: Arrays
) -> None:
    s1, s2, stamps = inputs(expected)
    torch.manual_seed(0)
    s1_logits, s2_logits = model(s1, s2, stamps)
    torch.manual_seed(0)
    drawn = torch.multinomial(s1_logits.softmax(-1).flatten(0, 1), 1).view(s1.shape)
    torch.testing.assert_close(s2_logits, model.decode_s2(model.decode_s1(s1, s2, stamps)[1], drawn))


@torch.no_grad()
def test_no_position_of_a_full_sequence_sees_a_later_one_in_evaluation_either(
    model: Kronos, expected: Arrays
) -> None:
    s1, s2, stamps = inputs(expected)
    other = torch.where(torch.arange(s1.shape[1]) < 40, s1, s1.flip(0))
    logits = [
        model(ids, s2, stamps, use_teacher_forcing=True, s1_targets=ids)[1][:, :40] for ids in (s1, other)
    ]
    torch.testing.assert_close(*logits)
    assert not torch.equal(s1, other)


def test_a_mask_of_the_loss_counts_positions_where_it_is_zero(model: Kronos) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(2, 5, 64, generator=generator) for _ in range(2)]
    targets = [torch.randint(64, (2, 5), generator=generator) for _ in range(2)]
    mask = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 1, 1]])
    whole = model.head.compute_loss(*(x[:, :2] for x in logits), *(y[:, :2] for y in targets))
    torch.testing.assert_close(model.head.compute_loss(*logits, *targets, mask), whole)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, ids, s: m.decode_s1(ids, ids), "stamp=None, .*calc_time_stamps"),
        (lambda m, ids, s: m.decode_s1(ids, ids, s, torch.zeros(1, 4)), "padding_mask is not supported"),
        (lambda m, ids, s: m.decode_s2(torch.zeros(1, 4, 48), ids[:, :2]), "s1_ids has 2 positions.* 4"),
        (lambda m, ids, s: m(ids, ids, s, use_teacher_forcing=True), "needs s1_targets"),
    ],
    ids=["no stamps", "mask", "lengths", "no targets"],
)
def test_unsupported_arguments_are_refused_in_one_sentence(
    call: Callable[..., Any], message: str, model: Kronos
) -> None:
    with pytest.raises(ValueError, match=message):
        call(model, torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, 5))


@pytest.mark.parametrize(
    ("kind", "part"), [(Kronos, "predictor"), (KronosTokenizer, "tokenizer")], ids=["model", "tokenizer"]
)
def test_a_network_is_built_from_the_keys_of_a_released_config_and_saved_as_upstream_saves_it(
    kind: type[Kronos] | type[KronosTokenizer], part: str, reference_folder: Path, tmp_path: Path
) -> None:
    sizes = json.loads((reference_folder / part / "config.json").read_text())
    network = kind(**sizes)
    loaded = kind.from_pretrained(reference_folder / part)
    assert type(loaded) is kind
    network.load_state_dict(loaded.state_dict())
    saved = network.save_pretrained(tmp_path)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (saved, reference_folder / part))
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_networks_train_with_this_projects_losses_too(
    model: Kronos, tokenizer: KronosTokenizer, expected: Arrays, reference_folder: Path
) -> None:
    plain = PlainKronos.from_pretrained(reference_folder)
    tokens, stamps = Tokens(*inputs(expected)[:2]), inputs(expected)[2].long()
    assert model.loss(tokens, stamps) == plain.loss(tokens, stamps)
    x = torch.from_numpy(expected["module_x"])
    assert tokenizer.loss(x) == PlainTokenizer.from_pretrained(reference_folder).loss(x)


@pytest.mark.parametrize("name", ["decode_s1", "decode_s2", "indices_to_bits"])
def test_this_projects_networks_point_to_replacements_of_upstreams_methods(name: str) -> None:
    network = make_tokenizer() if name == "indices_to_bits" else make_model()
    with pytest.raises(AttributeError, match=rf"has no {name}\. Use .*\(\), or load kronos\.compat\."):
        getattr(network, name)


def test_a_loaded_predictor_has_networks_with_upstreams_methods(reference_folder: Path) -> None:
    predictor = KronosPredictor.from_pretrained(reference_folder, device="cpu")
    assert type(predictor) is KronosPredictor
    assert isinstance(predictor.model, Kronos)
    assert isinstance(predictor.tokenizer, KronosTokenizer)
