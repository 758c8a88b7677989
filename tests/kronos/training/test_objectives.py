from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from kronos.head import HEAD_INFO, HEAD_WEIGHTS, HeadInfo, ReturnHead
from kronos.inference.fused import ExecutionConfig, FusedTokenizer
from kronos.model import Kronos
from kronos.tokenizer import Tokens
from kronos.training.bar_array import HORIZONS, LABEL
from kronos.training.dataset import Batch, Split
from kronos.training.objectives import (
    KronosWithHead,
    PredictorObjective,
    RankHead,
    TokenizerObjective,
    WeightAverage,
)
from tests.kronos.builders import make_model, make_tokenizer
from tests.kronos.training.builders import (
    HORIZON,
    LOOKBACK,
    load_weights,
    make_config,
    make_trainer,
    noise,
    same,
    waves,
)


def batch(count: int = 8) -> Batch:
    return waves(60).batch(np.arange(count))


# First stage


def test_the_first_stage_is_the_tokenizers_loss() -> None:
    network = make_tokenizer()
    losses, want = TokenizerObjective(network)(*batch()), network.loss(batch().bars)._asdict()
    assert list(losses) == list(TokenizerObjective.losses) == list(want)
    assert {name: value.item() for name, value in losses.items()} == {
        name: value.item() for name, value in want.items()
    }


def test_processes_pool_what_they_learn_from_but_not_what_they_score_alone() -> None:
    calls: list[Tensor] = []

    def pool(own: Tensor) -> Tensor:
        calls.append(own)
        return own * 0 + 0.5

    stage = TokenizerObjective(make_tokenizer(), pool)
    alone = TokenizerObjective(make_tokenizer())(*batch())["bsq"]
    assert stage.eval()(*batch())["bsq"] == alone
    assert not calls
    assert stage.train()(*batch())["bsq"] < alone  # every bit as often set as not: the most entropy
    assert calls[0].shape == (8,)


# Second stage


def captured(stage: PredictorObjective) -> list[Tokens]:
    """The tokens that the network is asked to learn, as it is asked."""
    seen: list[Tokens] = []
    loss = stage.network.token_loss
    stage.network.token_loss = lambda hidden, tokens, **scored: (
        seen.append(tokens),
        loss(hidden, tokens, **scored),
    )[1]
    return seen


def test_the_second_stage_is_the_models_loss_of_the_tokenizers_tokens() -> None:
    model, tokenizer = make_model(), make_tokenizer()
    bars, stamps = batch()
    losses = PredictorObjective(model, tokenizer)(bars, stamps)
    want = model.loss(tokenizer.encode(bars), stamps)._asdict()
    assert list(losses) == list(PredictorObjective.losses) == list(want)
    for name, value in losses.items():
        torch.testing.assert_close(value, want[name])


def test_the_tokenizer_is_unchanged_while_the_model_learns() -> None:
    tokenizer = make_tokenizer(dropout=0.5).train()
    stage = PredictorObjective(make_model(), tokenizer).train()
    assert stage(*batch())["loss"].item() == stage(*batch())["loss"].item()  # no dropout in the tokens
    assert not any(weight.requires_grad for weight in tokenizer.parameters())
    assert not any("tokenizer" in name or "encode" in name for name in stage.state_dict())


def test_every_weight_of_the_model_learns_and_none_of_the_tokenizer() -> None:
    model, tokenizer = make_model(), make_tokenizer()
    PredictorObjective(model, tokenizer)(*batch())["loss"].backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name
    assert all(weight.grad is None for weight in tokenizer.parameters())


def test_tokens_are_the_same_under_autocast() -> None:
    # With weights this wild and windows this many some latents lie near 0, where rounding flips a sign.
    tokenizer, (bars, stamps) = make_tokenizer(), noise(400, 0).batch(np.arange(300))
    stage = PredictorObjective(make_model(), tokenizer)
    seen = captured(stage)
    stage(bars, stamps)
    with torch.autocast("cpu", torch.bfloat16):
        stage(bars, stamps)
        rounded = FusedTokenizer(tokenizer, ExecutionConfig()).encode(bars)
    for plain, cast, flipped in zip(*seen, rounded, strict=True):
        assert torch.equal(plain, cast)
        assert not torch.equal(plain, flipped)  # so that there was something to guard against


@pytest.mark.parametrize("kind", ["tokenizer", "predictor"])
def test_a_step_changes_the_loss(kind: str) -> None:
    network = make_tokenizer() if kind == "tokenizer" else make_model()
    stage = (
        TokenizerObjective(network) if kind == "tokenizer" else PredictorObjective(network, make_tokenizer())
    )
    before = stage(*batch())["loss"]
    before.backward()
    with torch.no_grad():
        for weight in network.parameters():
            weight -= 1e-3 * weight.grad
    assert stage(*batch())["loss"] < before


@pytest.mark.parametrize("kind", ["tokenizer", "predictor"])
def test_validation_scores_the_last_bars_alone_and_training_all(kind: str) -> None:
    bars, stamps = batch()
    scored = 2
    if kind == "tokenizer":
        network = make_tokenizer()
        stage: TokenizerObjective | PredictorObjective = TokenizerObjective(network, scored=scored)
        whole, rebuilt = network.loss(bars), network.decode(network.encode(bars))
        want = (rebuilt - bars)[:, -scored:].square().mean()
        name, all_bars = "recon", whole.recon
    else:
        model, tokenizer = make_model(), make_tokenizer()
        stage = PredictorObjective(model, tokenizer, scored)
        tokens = tokenizer.encode(bars)
        past = Tokens(tokens.s1[:, :-1], tokens.s2[:, :-1])
        logits = model(past, stamps[:, :-1], tokens.s1[:, 1:])
        late = logits.s1[:, -scored:].log_softmax(-1)
        want = -late.gather(-1, tokens.s1[:, -scored:, None]).mean()
        name, all_bars = "s1", model.loss(tokens, stamps).s1
    torch.testing.assert_close(stage.eval()(bars, stamps)[name], want)
    torch.testing.assert_close(stage.train()(bars, stamps)[name], all_bars)
    assert abs(want - all_bars) > 1e-3


# Weights of positions and columns, and the head


def test_positions_within_the_lookback_have_the_given_weight() -> None:
    model, tokenizer = make_model(), make_tokenizer()
    bars, stamps = batch()
    scored, before = 4, 0.1
    tokens = tokenizer.encode(bars)
    past = Tokens(tokens.s1[:, :-1], tokens.s2[:, :-1])
    logits = model(past, stamps[:, :-1], tokens.s1[:, 1:])
    weights = torch.full((bars.shape[1] - 1,), before)
    weights[-scored:] = 1.0  # those from the last bar of the lookback on
    losses = PredictorObjective(model, tokenizer, scored, before).train()(bars, stamps)
    for name, half, true in zip(("s1", "s2"), logits, tokens, strict=True):
        each = -half.log_softmax(-1).gather(-1, true[:, 1:, None])[..., 0]
        torch.testing.assert_close(losses[name], (each * weights).sum() / (weights.sum() * len(bars)))
    plain = model.loss(tokens, stamps)
    assert abs(losses["s1"] - plain.s1) > 1e-3
    even = PredictorObjective(model, tokenizer, scored, 1.0).train()(bars, stamps)
    torch.testing.assert_close(even["loss"], plain.loss)


@pytest.mark.parametrize("weights", [None, {"close": 3.0, "volume": 0.5, "amount": 0.5}])
def test_columns_have_the_given_weights_scaled_to_mean_one(weights: dict[str, float] | None) -> None:
    network = make_tokenizer()
    bars, stamps = batch()
    losses = TokenizerObjective(network, column_weights=weights)(bars, stamps)
    errors = (network.decode(network.encode(bars)) - bars).square().mean(dim=(0, 1))
    by_column = torch.tensor([1, 1, 1, 3, 0.5, 0.5]) if weights else torch.ones(6)
    torch.testing.assert_close(losses["recon"], (errors * by_column).sum() / by_column.sum())


@pytest.mark.parametrize("weight", [0.0, 1.0, 4.0])
def test_the_head_adds_to_the_objective_and_to_nothing_else(weight: float) -> None:
    model, tokenizer, head = make_model(), make_tokenizer(), make_head()
    bars, stamps = batch()
    labels = torch.randn(len(bars), HORIZON, 3)
    plain = PredictorObjective(model, tokenizer, HORIZON, 0.1).train()(bars, stamps)
    stage = PredictorObjective(model, tokenizer, HORIZON, 0.1, head, head_weight=weight).train()
    losses = stage(bars, stamps, labels)
    assert {name: losses[name].item() for name in plain} == {n: v.item() for n, v in plain.items()}
    tokens = tokenizer.encode(bars)
    hidden = model.hidden(tokens, stamps)[:, LOOKBACK - 1 : LOOKBACK + HORIZON - 1]
    ranks = (head(hidden) - labels).square().mean()
    torch.testing.assert_close(losses["objective"], plain["loss"] + weight * ranks)


def test_the_trunk_learns_from_the_head() -> None:
    gradients = []
    for weight in (0.0, 1.0):
        model = make_model()
        stage = PredictorObjective(
            model, make_tokenizer(), HORIZON, 1.0, make_head(), head_weight=weight
        ).train()
        stage(*batch(), torch.ones(8, HORIZON, 3))["objective"].backward()
        gradients.append(model.norm.weight.grad)
        assert stage.head.rank.weight.grad.any() == bool(weight)
    assert not torch.equal(*gradients)


def test_without_weight_on_the_tokens_the_trunk_learns_from_the_head_alone() -> None:
    labels, (bars, stamps) = torch.ones(8, HORIZON, 3), batch()
    model, tokenizer, head = make_model(), make_tokenizer(), make_head()
    stage = PredictorObjective(model, tokenizer, HORIZON, 1.0, head, token_weight=0.0).train()
    stage(bars, stamps, labels)["objective"].backward()
    learned = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    hidden = model.hidden(tokenizer.encode(bars), stamps)[:, LOOKBACK - 1 : LOOKBACK + HORIZON - 1]
    head.loss(hidden, labels).backward()
    for name, weight in model.named_parameters():
        alone = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(learned[name], alone, msg=name)


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


def test_an_untrained_head_scores_zero() -> None:
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


def test_a_predictor_and_its_head_are_saved_in_one_folder(tmp_path: Path) -> None:
    network, head = make_model(), make_head()
    KronosWithHead(network, head).save_pretrained(tmp_path / "predictor")
    weights = load_file(tmp_path / "predictor" / HEAD_WEIGHTS)
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "rank.weight": (3, 16),
        "rank.bias": (3,),
    }
    head_info = json.loads((tmp_path / "predictor" / HEAD_INFO).read_text())
    assert head_info["horizons"] == [1, 5, 10]
    assert (head_info["lookback"], head_info["frequency"], head_info["d_model"]) == (16, "1day", 16)
    assert head_info["trained_until"] == "2018-12-31"
    loaded = Kronos.from_pretrained(tmp_path)
    assert all(torch.equal(w, loaded.state_dict()[name]) for name, w in network.state_dict().items())


@pytest.mark.parametrize("width", [16, 32])
def test_a_head_loads_weights_of_matching_shape(width: int, tmp_path: Path) -> None:
    KronosWithHead(make_model(), make_head()).save_pretrained(tmp_path)
    head = RankHead(replace(INFO, d_model=width))
    head.load(tmp_path)
    assert bool(head.rank.weight.any()) == (width == 16)
    RankHead(INFO).load(tmp_path / "nowhere")  # weights without a head
    assert np.isfinite(head.rank.weight.detach().numpy()).all()


def test_a_saved_head_is_read_without_torch_as_it_was_trained(tmp_path: Path) -> None:
    head, hidden = make_head(), torch.randn(7, 16)
    KronosWithHead(make_model(), head).save_pretrained(tmp_path / "predictor")
    read = ReturnHead.from_pretrained(tmp_path)
    assert (read.info.horizons, read.info.markets, read.info.lookback) == (HORIZONS, INFO.markets, 16)
    assert (read.info.kind, read.info.trained_until) == ("linear", INFO.trained_until)
    with torch.no_grad():
        np.testing.assert_allclose(read(hidden.numpy()), head(hidden).numpy(), rtol=1e-5, atol=1e-6)


SPLIT = Split(waves(120), waves(60))


def weights_of(stage: TokenizerObjective) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in stage.network.state_dict().items()}


def test_the_average_is_a_plain_recomputation_and_what_is_saved(tmp_path: Path) -> None:
    stage = TokenizerObjective(make_tokenizer())
    trainer = make_trainer(stage, SPLIT, make_config(tmp_path, max_steps=12, validate_every=4, ema=0.6))
    want = weights_of(stage)
    update = trainer.average.update

    def noted(step: int) -> None:
        update(step)
        decay = min(0.6, (1 + step) / (10 + step))
        for name, weight in weights_of(stage).items():
            want[name] = decay * want[name] + (1 - decay) * weight

    trainer.average.update = noted
    trainer.run()
    saved = load_weights(tmp_path / "last" / "tokenizer")
    for name, weight in want.items():
        torch.testing.assert_close(saved[name], weight, rtol=1e-5, atol=1e-6)
    assert not same({name: saved[name] for name in want}, weights_of(stage))


def test_validation_scores_the_averages_and_gives_the_weights_back(tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []

    class Noted(TokenizerObjective):
        def forward(self, bars: Tensor, stamps: Tensor) -> dict[str, Tensor]:
            if not self.training:
                seen.append(weights_of(self))
            return super().forward(bars, stamps)

    stage = Noted(make_tokenizer())
    trainer = make_trainer(stage, SPLIT, make_config(tmp_path, max_steps=6, validate_every=6, ema=0.9))
    trainer.run()
    (scored,) = seen
    averages = dict(trainer.average.weights.state_dict())
    assert same(scored, averages)
    assert not same(weights_of(stage), averages)
    before = weights_of(stage)
    with pytest.raises(KeyboardInterrupt), trainer.average.applied():
        raise KeyboardInterrupt
    assert same(weights_of(stage), before)


def test_without_decay_the_weights_are_their_own_average() -> None:
    stage = TokenizerObjective(make_tokenizer())
    average = WeightAverage(stage, 0.0)
    average.update(0)
    with average.applied():
        assert average.weights is stage.network


def test_a_head_is_averaged_with_its_network() -> None:
    stage = PredictorObjective(make_model(), make_tokenizer(), 4, head=make_head())
    average = WeightAverage(stage, 0.9)
    assert isinstance(average.weights, KronosWithHead)
    start = stage.head.rank.weight.detach().clone()
    with torch.no_grad():
        stage.head.rank.weight += 1
    average.update(10**6)
    torch.testing.assert_close(average.weights.head.rank.weight, start + 0.1)
    other = WeightAverage(PredictorObjective(make_model(seed=1), make_tokenizer(), 4, head=make_head(1)), 0.9)
    other.load_state_dict(average.state_dict())
    assert same(dict(other.weights.state_dict()), dict(average.weights.state_dict()))
