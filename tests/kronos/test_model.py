from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kronos.config import ModelConfig
from kronos.model import STAMP_SIZES, Kronos, Logits
from kronos.tokenizer import Tokens
from tests.kronos.builders import make_model, make_stamps, make_tokens
from tests.kronos.oracle import rotated_logits, rotated_loss

B, T = 3, 10


def inputs(model: Kronos, seed: int = 0) -> tuple[Tokens, Tensor, Tensor]:
    """Tokens, stamps and the coarse halves that come next."""
    return (
        make_tokens(model, B, T, seed=seed),
        make_stamps(B, T, seed=seed),
        make_tokens(model, B, T, seed=seed + 100).s1,
    )


def until(now: int, old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old[:, : now + 1], new[:, now + 1 :]], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("logits", [Kronos.__call__, rotated_logits], ids=["decoding", "upstream's training"])
@pytest.mark.parametrize("now", range(T))
def test_no_logit_up_to_now_moves_when_later_tokens_stamps_and_choices_change(
    now: int, logits: Callable[..., Logits]
) -> None:
    model = make_model()
    (tokens, stamps, chosen), (others, later, choices) = inputs(model), inputs(model, seed=1)
    changed = Tokens(*(until(now, old, new) for old, new in zip(tokens, others, strict=True)))
    before = logits(model, tokens, stamps, chosen)
    after = logits(model, changed, until(now, stamps, later), until(now, chosen, choices))
    for half, other in zip(before, after, strict=True):
        # equal up to the order of summation, which the masked future may change
        torch.testing.assert_close(half[:, : now + 1], other[:, : now + 1], rtol=0, atol=1e-5)
        if now < T - 1:
            assert (half - other)[:, now + 1 :].abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("now", [0, 4, T - 2])
def test_hidden_states_up_to_now_do_not_move_when_the_future_changes(now: int) -> None:
    model = make_model()
    (tokens, stamps, _), (others, later, _) = inputs(model), inputs(model, seed=1)
    changed = Tokens(*(until(now, old, new) for old, new in zip(tokens, others, strict=True)))
    before, after = model.hidden(tokens, stamps), model.hidden(changed, until(now, stamps, later))
    torch.testing.assert_close(before[:, : now + 1], after[:, : now + 1], rtol=0, atol=1e-5)


@torch.no_grad()
def test_causality_holds_in_training_mode_as_in_evaluation() -> None:
    model = make_model()
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.train()(*inputs(model)), model.eval()(*inputs(model)), strict=True)
    )


@torch.no_grad()
def test_the_coarse_half_affects_the_fine_logits_of_its_position_only() -> None:
    model = make_model()
    tokens, stamps, chosen = inputs(model)
    other = chosen.clone()
    other[:, 4] ^= 1
    before, after = model(tokens, stamps, chosen), model(tokens, stamps, other)
    assert torch.equal(before.s1, after.s1)
    moved = (before.s2 - after.s2).abs().amax(dim=(0, 2))
    assert moved[4] > 0.01
    moved[4] = 0
    assert moved.max() < 1e-5  # float noise


@torch.no_grad()
@pytest.mark.parametrize("field", range(5))
def test_every_calendar_field_matters(field: int) -> None:
    model = make_model()
    tokens, stamps, chosen = inputs(model)
    other = stamps.clone()
    other[:, -1, field] = (other[:, -1, field] + 1) % list(STAMP_SIZES.values())[field]
    moved = (model(tokens, stamps, chosen).s1 - model(tokens, other, chosen).s1).abs()
    assert moved[:, -1].max() > 0.01


@torch.no_grad()
def test_calendar_fields_are_looked_up_each_in_its_own_table_and_summed() -> None:
    model, stamps = make_model(), make_stamps(2, 3)
    tables = [
        getattr(model.time_emb, f"{name}_embed").weight
        for name in ("minute", "hour", "weekday", "day", "month")
    ]
    assert [len(table) for table in tables] == [60, 24, 7, 32, 13]
    wanted = sum(table[stamps[..., i]] for i, table in enumerate(tables))
    torch.testing.assert_close(model.time_emb(stamps), wanted)


def test_fixed_calendar_tables_are_sines_and_cosines_that_do_not_learn() -> None:
    model = make_model(learn_te=False)
    table = model.time_emb.day_embed.emb.weight
    width = model.config.d_model
    for day in (0, 1, 31):
        for i in range(width // 2):
            angle = day / 10_000 ** (2 * i / width)
            assert table[day, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[day, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)
    assert not table.requires_grad
    model.train().loss(make_tokens(model, B, T), make_stamps(B, T)).loss.backward()
    assert table.grad is None


@torch.no_grad()
def test_embeddings_are_scaled_in_the_trunk() -> None:
    model = make_model()
    tokens = make_tokens(model, B, T)
    halves = [model.embedding.emb_s1(tokens.s1), model.embedding.emb_s2(tokens.s2)]
    wanted = model.embedding.fusion_proj(torch.cat(halves, -1) * math.sqrt(model.config.d_model))
    torch.testing.assert_close(model.embedding(tokens), wanted)


@torch.no_grad()
def test_the_loss_is_the_mean_surprise_of_both_halves_of_every_next_token() -> None:
    model = make_model()
    tokens, stamps = make_tokens(model, B, T), make_stamps(B, T)
    past = Tokens(tokens.s1[:, :-1], tokens.s2[:, :-1])
    logits = model(past, stamps[:, :-1], tokens.s1[:, 1:])
    surprise = []
    for half, scores in zip(tokens, logits, strict=True):
        chances = scores.double().softmax(-1)
        picked = [chances[b, t, half[b, t + 1]] for b in range(B) for t in range(T - 1)]
        surprise.append(-torch.stack(picked).log().mean().item())
    losses = model.loss(tokens, stamps)
    assert losses.s1.item() == pytest.approx(surprise[0], rel=1e-5)
    assert losses.s2.item() == pytest.approx(surprise[1], rel=1e-5)
    assert losses.loss.item() == pytest.approx(sum(surprise) / 2, rel=1e-5)


def test_every_weight_of_the_model_learns() -> None:
    model = make_model().train()
    rotated_loss(model, make_tokens(model, B, 40), make_stamps(B, 40)).loss.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("name", "sizes", "parameters"),
    [
        ("mini", {"n_layers": 4, "d_model": 256, "n_heads": 4, "ff_dim": 512}, 4_108_032),
        ("small", {"n_layers": 8, "d_model": 512, "n_heads": 8, "ff_dim": 1024}, 24_741_376),
        ("base", {"n_layers": 12, "d_model": 832, "n_heads": 16, "ff_dim": 2048}, 102_310_592),
        ("large", {"n_layers": 18, "d_model": 1664, "n_heads": 32, "ff_dim": 3072}, 499_246_976),
    ],
)
def test_released_sizes_have_the_released_number_of_parameters(
    name: str, sizes: dict[str, int], parameters: int
) -> None:
    with torch.device("meta"):  # shapes without memory
        model = Kronos(ModelConfig(**sizes))
    assert sum(p.numel() for p in model.parameters()) == parameters, name


def test_the_same_seed_gives_the_same_new_model_and_every_token_is_equally_likely_at_first() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(Kronos(ModelConfig(s1_bits=4, s2_bits=4, n_layers=1, d_model=16, n_heads=2, ff_dim=16)))
    for a, b in zip(*(m.parameters() for m in models), strict=True):
        assert torch.equal(a, b)
    loss = models[0].loss(make_tokens(models[0], 4, 20), make_stamps(4, 20)).loss
    assert loss.item() == pytest.approx(math.log(16), rel=0.25)
