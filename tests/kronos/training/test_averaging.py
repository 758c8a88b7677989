from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kronos.training.averaging import WeightAverage
from kronos.training.dataset import Split
from kronos.training.head import HeadedKronos
from kronos.training.stages import PredictorStage, TokenizerStage
from tests.kronos.builders import make_model, make_tokenizer
from tests.kronos.training.builders import load_weights, make_config, make_trainer, same, waves
from tests.kronos.training.test_head import make_head

SPLIT = Split(waves(120), waves(60))


def weights_of(stage: TokenizerStage) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in stage.network.state_dict().items()}


def test_the_average_is_a_plain_recomputation_and_what_is_saved(tmp_path: Path) -> None:
    stage = TokenizerStage(make_tokenizer())
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

    class Noted(TokenizerStage):
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
    stage = TokenizerStage(make_tokenizer())
    average = WeightAverage(stage, 0.0)
    average.update(0)
    with average.applied():
        assert average.weights is stage.network


def test_a_head_is_averaged_with_its_network() -> None:
    stage = PredictorStage(make_model(), make_tokenizer(), 4, head=make_head())
    average = WeightAverage(stage, 0.9)
    assert isinstance(average.weights, HeadedKronos)
    start = stage.head.rank.weight.detach().clone()
    with torch.no_grad():
        stage.head.rank.weight += 1
    average.update(10**6)
    torch.testing.assert_close(average.weights.head.rank.weight, start + 0.1)
    other = WeightAverage(PredictorStage(make_model(seed=1), make_tokenizer(), 4, head=make_head(1)), 0.9)
    other.load_state_dict(average.state_dict())
    assert same(dict(other.weights.state_dict()), dict(average.weights.state_dict()))
