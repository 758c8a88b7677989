"""The plain step learns the same function as ours, with the same gradients; only then is a ratio fair."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kronos.model import Kronos
from kronos.training.objectives import PredictorObjective, TokenizerObjective
from tests.benchmarks import plain_training
from tests.benchmarks.training import random_batch
from tests.kronos.builders import make_model, make_tokenizer
from tests.kronos.oracle import rotated_loss

BATCH = random_batch(seed=0, count=4)


def gradients(network: nn.Module, loss: Tensor) -> Tensor:
    network.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def same(network: nn.Module, plain: Tensor, ours: Tensor) -> None:
    torch.testing.assert_close(plain, ours)
    # Sums over 400 positions in float32, in another order.
    torch.testing.assert_close(gradients(network, plain), gradients(network, ours), rtol=1e-3, atol=1e-5)


def test_the_plain_predictor_loss_is_ours_when_the_true_coarse_half_is_given_and_nothing_is_rotated() -> None:
    model, tokenizer = make_model(), make_tokenizer()
    tokens = plain_training.plain_encode(tokenizer, BATCH.bars)
    plain = plain_training.predictor_loss(model, tokens, BATCH.stamps, lambda _, true: true, rotated=False)
    same(model, plain, PredictorObjective(model, tokenizer)(*BATCH)["loss"])


def test_the_plain_predictor_loss_with_rotation_has_the_gradients_of_upstream() -> None:
    model, tokenizer = make_model(), make_tokenizer()
    tokens = plain_training.plain_encode(tokenizer, BATCH.bars)
    plain = plain_training.predictor_loss(model, tokens, BATCH.stamps, lambda _, true: true, rotated=True)
    same(model, plain, rotated_loss(model, tokens, BATCH.stamps).loss)


def test_the_plain_tokenizer_loss_is_ours() -> None:
    tokenizer = make_tokenizer()
    plain = plain_training.tokenizer_loss(tokenizer, BATCH.bars)
    same(tokenizer, plain, TokenizerObjective(tokenizer)(*BATCH)["loss"])


def test_the_plain_step_draws_the_coarse_half_by_its_probabilities() -> None:
    sure = torch.full((2, 3, 5), -torch.inf)
    true = torch.zeros(2, 3, dtype=torch.int64)
    sure[..., 4] = 0.0
    assert torch.equal(plain_training.draw(sure, true), true + 4)


def test_plain_steps_lower_the_loss() -> None:
    model: Kronos = make_model()
    step = plain_training.predictor_step(model, make_tokenizer())
    torch.manual_seed(0)
    before = step.loss(BATCH).item()
    for _ in range(20):
        step(BATCH)
    assert step.loss(BATCH).item() < before - 0.02
