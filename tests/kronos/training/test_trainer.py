from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer
from kronos.training import trainer as trainer_module
from kronos.training.bar_array import return_labels
from kronos.training.config import TrainingConfig
from kronos.training.dataset import Split
from kronos.training.objectives import Losses, PredictorObjective, TokenizerObjective
from kronos.training.trainer import Trainer, evaluate, selection_score
from tests.kronos.builders import make_bars, make_model, make_tokenizer
from tests.kronos.training.builders import (
    HORIZON,
    load_weights,
    make_config,
    make_mapped_bars,
    make_market,
    make_trainer,
    make_waves,
    make_windows,
    noise,
    same,
    train,
    waves,
)
from tests.kronos.training.test_objectives import make_head

pytestmark = pytest.mark.integration

WAVES = Split(waves(120), waves(60, phase=np.pi / 4))
NOISE = Split(noise(60, 0), noise(60, 1))
LEARNING = {"max_steps": 60, "batch_size": 16, "validate_every": 20, "seed": 1}


def score(network: Kronos | KronosTokenizer, split: Split, tokenizer: KronosTokenizer | None = None) -> dict:
    """Held-out losses as the loop takes them."""
    stage = TokenizerObjective(network) if tokenizer is None else PredictorObjective(network, tokenizer)
    return evaluate(stage, split.validation, 40, Accelerator(cpu=True))


def watch(trainer: Trainer, look: Callable[[Optimizer], float]) -> list[float]:
    """Values of `look` before each step of the optimizer."""
    seen: list[float] = []
    trainer.optimizer.optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(look(optimizer)))
    return seen


# Learning


def test_a_tokenizer_learns_to_rebuild_bars(tmp_path: Path) -> None:
    network = make_tokenizer()
    before = score(network, WAVES)
    progress = train(network, WAVES, make_config(tmp_path, **LEARNING))
    history = progress.history
    assert [row["step"] for row in history] == [20, 40, 60]
    assert history[-1]["val_recon"] < 0.5 * before["recon"]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert (progress.step, progress.best) == (60, min(row["val_loss"] for row in history))


def test_a_model_learns_the_order_of_frozen_tokens(tmp_path: Path) -> None:
    tokenizer, network = make_tokenizer(), make_model()
    frozen = {name: weight.clone() for name, weight in tokenizer.state_dict().items()}
    before = score(network, WAVES, tokenizer)
    history = train(network, WAVES, make_config(tmp_path, **LEARNING), tokenizer).history
    assert history[-1]["val_s1"] < 0.5 * before["s1"]
    assert history[-1]["val_s2"] < 0.5 * before["s2"]
    assert same(dict(tokenizer.state_dict()), frozen)


def test_the_training_loss_of_a_row_is_the_mean_since_the_row_before(tmp_path: Path) -> None:
    losses: list[float] = []

    class Noted(TokenizerObjective):
        def forward(self, bars: Tensor, stamps: Tensor) -> Losses:
            given = super().forward(bars, stamps)
            if self.training:
                losses.append(given["loss"].item())
            return given

    config = make_config(tmp_path, max_steps=7, validate_every=3)
    rows = make_trainer(Noted(make_tokenizer()), WAVES, config).run().history
    assert [row["step"] for row in rows] == [3, 6, 7]  # the last step is scored in any case
    means = [np.mean(losses[:3]), np.mean(losses[3:6]), losses[6]]
    assert [row["train_loss"] for row in rows] == pytest.approx(means, rel=1e-6)


def test_dropout_is_on_in_training_steps_and_off_in_validation(tmp_path: Path) -> None:
    modes: list[tuple[bool, bool]] = []

    class Noted(TokenizerObjective):
        def forward(self, bars: Tensor, stamps: Tensor) -> Losses:
            modes.append((torch.is_grad_enabled(), self.network.training))
            return super().forward(bars, stamps)

    config = make_config(tmp_path, max_steps=4, validate_every=2)
    make_trainer(Noted(make_tokenizer(dropout=0.3)), WAVES, config).run()
    learning, scoring = (True, True), (False, False)
    assert modes == [learning, learning, scoring, learning, learning, scoring]


def test_the_same_seed_trains_the_same_weights_with_any_number_of_workers(tmp_path: Path) -> None:
    networks = []
    for workers, seed in ((0, 0), (2, 0), (0, 1)):
        network = make_tokenizer()
        train(network, WAVES, make_config(tmp_path / str(len(networks)), workers=workers, seed=seed))
        networks.append(dict(network.state_dict()))
    assert same(networks[0], networks[1])
    assert not same(networks[0], networks[2])


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize("headed", [False, True])
def test_parts_of_a_batch_give_the_predictors_gradient_of_the_whole(
    accumulate: int, headed: bool, tmp_path: Path
) -> None:
    gradients = []
    market = make_market(24, 50)
    headed_windows = replace(make_windows(market), labels=(return_labels(market, None),))
    split = Split(headed_windows, WAVES.validation) if headed else WAVES
    for parts in (1, accumulate):
        head = make_head() if headed else None
        stage = PredictorObjective(make_model(), make_tokenizer(), HORIZON, 0.1, head)
        trainer = make_trainer(
            stage, split, make_config(tmp_path / str(parts), accumulate=parts, max_steps=1)
        )
        seen = watch(
            trainer, lambda o: [weight.grad.clone() for g in o.param_groups for weight in g["params"]]
        )
        losses = trainer.run().history
        gradients.append((seen[0], losses[0]["train_loss"]))
    for whole, summed in zip(gradients[0][0], gradients[1][0], strict=True):
        # float32 sums in another order
        torch.testing.assert_close(summed, whole, rtol=1e-4, atol=1e-6)
    assert gradients[1][1] == pytest.approx(gradients[0][1], rel=1e-6)


def test_a_batch_that_does_not_split_into_parts_is_refused(tmp_path: Path) -> None:
    class Three(Accelerator):
        num_processes = 3

    config = make_config(tmp_path)
    trainer = make_trainer(TokenizerObjective(make_tokenizer()), WAVES, config)
    with pytest.raises(
        ValueError, match=r"batch_size=8 does not split into 3 processes .* a multiple of 6\."
    ):
        Trainer(trainer.stage, WAVES, replace(config, accumulate=2), trainer.folder, Three(cpu=True))


# The optimizer


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_the_learning_rate_rises_from_a_tenth_of_the_peak_and_falls_to_zero(
    schedule: str, tmp_path: Path
) -> None:
    config = make_config(
        tmp_path, schedule=schedule, max_steps=40, warmup=0.25, learning_rate=2e-3, validate_every=40
    )
    trainer = make_trainer(TokenizerObjective(make_tokenizer()), WAVES, config)
    rates = watch(trainer, lambda optimizer: optimizer.param_groups[0]["lr"])
    trainer.run()
    assert len(rates) == 40
    peak = int(np.argmax(rates))
    assert peak in (9, 10)
    assert rates[peak] == pytest.approx(2e-3)
    assert rates[0] == pytest.approx(2e-4)
    assert rates[-1] < 0.01 * 2e-3
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
    steps = np.diff(rates[: peak + 1])
    assert np.allclose(steps, steps[0]) == (schedule == "cosine")  # in a straight line


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.1), (2, 0.0), (3, 0.9)])
def test_a_few_steps_are_enough_for_any_schedule(
    schedule: str, steps: int, warmup: float, tmp_path: Path
) -> None:
    config = make_config(tmp_path, schedule=schedule, max_steps=steps, warmup=warmup)
    assert train(make_tokenizer(), WAVES, config).step == steps


@pytest.mark.parametrize("clip", [0.01, 100.0])
def test_the_gradient_is_clipped_to_its_norm(clip: float, tmp_path: Path) -> None:
    config = make_config(tmp_path, clip_norm=clip, max_steps=3)
    trainer = make_trainer(TokenizerObjective(make_tokenizer()), WAVES, config)
    norms = watch(
        trainer,
        lambda o: nn.utils.get_total_norm([w.grad for g in o.param_groups for w in g["params"]]).item(),
    )
    trainer.run()
    if clip == 0.01:
        assert norms == pytest.approx([0.01] * 3, rel=1e-3)
    else:
        assert 0.1 < min(norms) <= max(norms) < 100


def test_only_matrices_decay(tmp_path: Path) -> None:
    class Idle(TokenizerObjective):
        losses = ("loss",)

        def forward(self, bars: Tensor, stamps: Tensor) -> Losses:
            return {"loss": sum((0 * weight).sum() for weight in self.network.parameters())}

    network = make_tokenizer()
    before = {name: weight.clone() for name, weight in network.named_parameters()}
    config = make_config(tmp_path, max_steps=3, learning_rate=0.1, weight_decay=0.5)
    make_trainer(Idle(network), WAVES, config).run()
    for name, weight in network.named_parameters():
        shrunk = weight.norm() < 0.99 * before[name].norm()
        assert shrunk == (weight.ndim > 1), name


# Validation


def test_held_out_losses_are_means_over_windows_however_they_are_batched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage, windows, accelerator = TokenizerObjective(make_tokenizer()), noise(60, 0), Accelerator(cpu=True)
    whole = evaluate(stage, windows, 10**6, accelerator)
    monkeypatch.setattr(trainer_module, "VALIDATION_BATCH", 7)  # 41 windows: the last batch has 6
    pieces = evaluate(stage, windows, 10**6, accelerator)
    rows = [stage.eval()(*windows.batch(np.array([i]))) for i in range(len(windows))]
    by_hand = torch.stack([row["recon"] for row in rows]).mean().item()
    # float32 means of a few thousand squares
    assert whole["recon"] == pytest.approx(by_hand, rel=1e-5)
    assert pieces["recon"] == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("weights", [None, (1.0, 3.0)])
def test_each_source_has_its_loss_and_a_share_in_the_mean(weights: tuple[float, ...] | None) -> None:
    stage, accelerator = TokenizerObjective(make_tokenizer()), Accelerator(cpu=True)
    one, two = make_mapped_bars(make_waves(100), name="one"), make_mapped_bars(make_bars(50, 0), name="two")
    windows = make_windows(one, two, weights=weights)
    losses = evaluate(stage, windows, 20, accelerator)
    counts = [len(part) for part in windows.sample(20)]
    assert counts == ([14, 6] if weights is None else [5, 15])
    own = [losses["loss/one"], losses["loss/two"]]
    assert own[1] != pytest.approx(own[0], rel=0.05)
    assert losses["loss"] == pytest.approx(np.average(own, weights=counts), rel=1e-6)
    chosen = windows.sample(20)[1]
    with torch.no_grad():
        assert losses["loss/two"] == pytest.approx(stage(*windows.batch(chosen))["loss"].item(), rel=1e-6)


def test_a_single_source_has_one_loss() -> None:
    losses = evaluate(TokenizerObjective(make_tokenizer()), waves(60), 20, Accelerator(cpu=True))
    assert list(losses) == list(TokenizerObjective.losses)


def test_a_source_without_held_out_windows_has_no_share() -> None:
    windows = make_windows(
        make_mapped_bars(make_waves(100), name="one"), make_mapped_bars(make_bars(50, 0), name="two")
    )
    windows = replace(windows, start_rows=(windows.start_rows[0], windows.start_rows[1][:0]))
    losses = evaluate(TokenizerObjective(make_tokenizer()), windows, 20, Accelerator(cpu=True))
    assert losses["loss"] == losses["loss/one"]
    assert "loss/two" not in losses


@pytest.mark.parametrize("steps", [20, 1])
def test_a_validation_loss_that_is_not_finite_stops_the_run_and_states_the_step(
    steps: int, tmp_path: Path
) -> None:
    network = make_tokenizer()
    with torch.no_grad():
        network.head.bias.fill_(torch.nan)
    config = make_config(tmp_path, max_steps=60, validate_every=steps)
    with pytest.raises(FloatingPointError, match=rf"loss is nan at step {steps}\. Lower the learning rate\."):
        train(network, WAVES, config)
    assert not (tmp_path / "best").exists()  # weights that are not numbers are not kept


# Best, last, patience

FORGETTING = {"max_steps": 80, "learning_rate": 1e-2, "validate_every": 10}


def test_best_is_the_lowest_held_out_loss_and_last_the_last(tmp_path: Path) -> None:
    # Few noisy windows learned by heart: the held-out loss soon gets worse.
    network, tokenizer = make_model(d_model=32, ff_dim=64), make_tokenizer()
    progress = train(network, NOISE, make_config(tmp_path, **FORGETTING, ema=0.0), tokenizer)
    losses = [row["val_loss"] for row in progress.history]
    assert min(losses) < losses[-1] - 0.01
    assert progress.best == min(losses)
    assert progress.best_step == 10 * (1 + int(np.argmin(losses)))
    for which, loss in (("best", min(losses)), ("last", losses[-1])):
        loaded = Kronos.from_pretrained(tmp_path / which)
        assert score(loaded, NOISE, tokenizer)["loss"] == pytest.approx(loss, rel=1e-5)
    assert same(dict(Kronos.from_pretrained(tmp_path / "last").state_dict()), dict(network.state_dict()))


def test_training_ends_when_patience_does(tmp_path: Path) -> None:
    config = make_config(tmp_path, **FORGETTING, patience=2)
    stopped = train(make_model(d_model=32, ff_dim=64), NOISE, config, make_tokenizer())
    losses = [row["val_loss"] for row in stopped.history]
    assert stopped.step == stopped.best_step + 20 < config.max_steps
    assert min(losses) == losses[-3]
    last = Kronos.from_pretrained(tmp_path / "last")
    assert score(last, NOISE, make_tokenizer())["loss"] == pytest.approx(losses[-1], rel=1e-5)
    again = train(last, NOISE, replace(config, resume=True), make_tokenizer())
    assert again.step == stopped.step  # it has stopped for good


# The weights that training starts from


def test_starting_weights_are_scored_first_and_stay_the_best_if_nothing_beats_them(tmp_path: Path) -> None:
    network, tokenizer = make_model(), make_tokenizer()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    start = score(network, NOISE, tokenizer)["loss"]
    harmful = {"max_steps": 6, "validate_every": 3, "learning_rate": 30.0, "pretrained": "some weights"}
    config = make_config(tmp_path, **harmful, tokenizer_size=None, predictor_size=None)
    progress = train(network, NOISE, config, tokenizer)
    first = progress.history[0]
    assert (first["step"], first["val_loss"], "train_loss" in first) == (
        0,
        pytest.approx(start, rel=1e-5),
        False,
    )
    assert [row["step"] for row in progress.history] == [0, 3, 6]
    assert (progress.best_step, progress.best, progress.stale) == (0, first["val_loss"], 2)
    assert same(dict(Kronos.from_pretrained(tmp_path / "best").state_dict()), before)
    assert not same(dict(Kronos.from_pretrained(tmp_path / "last").state_dict()), before)
    assert progress.outcome().startswith("no step was better than the initial weights")
    assert (tmp_path / "run" / "predictor" / "losses.png").is_file()
    assert pd.read_csv(tmp_path / "run" / "predictor" / "losses.csv")["train_loss"].isna().tolist() == [
        True,
        False,
        False,
    ]


def test_scoring_the_starting_weights_changes_no_step(tmp_path: Path) -> None:
    networks = []
    for pretrained in ("none", "some weights"):
        torch.manual_seed(3)
        network = make_tokenizer(dropout=0.2)
        sizes = {"tokenizer_size": None, "predictor_size": None}
        progress = train(network, WAVES, make_config(tmp_path / pretrained, pretrained=pretrained, **sizes))
        networks.append(dict(network.state_dict()))
    assert same(*networks)
    assert progress.best_step == 6
    assert re.fullmatch(r"the best validation loss is \S+, at step 6 \(initially \S+\)", progress.outcome())


def test_random_weights_are_not_scored_first(tmp_path: Path) -> None:
    progress = train(make_tokenizer(), WAVES, make_config(tmp_path))
    assert progress.start is None
    assert [row["step"] for row in progress.history] == [3, 6]


def test_initial_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = make_tokenizer()
    with torch.no_grad():
        network.head.bias.fill_(torch.nan)
    config = make_config(tmp_path, pretrained="some weights", tokenizer_size=None, predictor_size=None)
    with pytest.raises(FloatingPointError, match="initial weights have a validation loss of nan"):
        train(network, WAVES, config)


# Going on


def test_a_run_that_is_resumed_with_more_steps_follows_the_longer_schedule_from_there(tmp_path: Path) -> None:
    def rates(where: str, **changes: object) -> tuple[list[float], Trainer]:
        torch.manual_seed(3)
        config = make_config(tmp_path / where, validate_every=4, **changes)
        trainer = make_trainer(TokenizerObjective(make_tokenizer()), WAVES, config)
        seen = watch(trainer, lambda optimizer: optimizer.param_groups[0]["lr"])
        trainer.run()
        return seen, trainer

    short, _ = rates("resumed", max_steps=8)
    more, resumed = rates("resumed", max_steps=20, resume=True)
    whole, _ = rates("whole", max_steps=20)
    assert (len(short), len(more), len(whole)) == (8, 12, 20)
    assert more == whole[8:]
    assert more[0] > 10 * short[-1]  # it rises again, as the end of the shorter schedule is low
    assert resumed.progress.step == 20
    assert [row["step"] for row in resumed.progress.history] == [4, 8, 12, 16, 20]
    assert resumed.progress.history[2]["lr"] == whole[12]
    assert resumed.progress.schedules == [[0, 8], [8, 20]]


def test_a_run_that_stopped_early_is_continued_by_more_patience_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(tmp_path, **FORGETTING, patience=2)

    def make(config: TrainingConfig) -> Trainer:
        return make_trainer(
            PredictorObjective(make_model(d_model=32, ff_dim=64), make_tokenizer()), NOISE, config
        )

    stopped = make(config).run().step
    with caplog.at_level("INFO", logger="kronos"):
        assert make(replace(config, resume=True, max_steps=200)).run().step == stopped
    assert f"stopped early at step {stopped}, after 2 validations without improvement" in caplog.text
    assert make(replace(config, resume=True, patience=3)).run().step > stopped
    caplog.clear()
    with caplog.at_level("INFO", logger="kronos"):
        finished = make(replace(config, resume=True, patience=0)).run()
        make(replace(config, resume=True, patience=0)).run()
    assert finished.step == config.max_steps
    assert "is complete with all of its 80 steps. A larger --max-steps continues it." in caplog.text


class Stopped(Exception):
    """Raised to end training as a failure of the machine does."""


@pytest.mark.parametrize(
    "settings",
    [{"schedule": "onecycle"}, {"schedule": "cosine", "accumulate": 2, "workers": 1, "save_every": 4}],
    ids=["onecycle", "cosine"],
)
def test_a_stopped_run_resumes_bit_for_bit(settings: dict[str, object], tmp_path: Path) -> None:
    def make(where: str, **changes: object) -> Trainer:
        torch.manual_seed(3)
        config = make_config(tmp_path / where, max_steps=20, validate_every=5, **settings, **changes)
        return make_trainer(TokenizerObjective(make_tokenizer(dropout=0.2)), WAVES, config)

    whole = make("whole")
    whole.run()
    stopped = make("stopped")
    steps = stopped._step

    def step(batches: object) -> Tensor:
        if stopped.progress.step == 11:  # states were kept after step 10, or 8
            raise Stopped
        return steps(batches)

    stopped._step = step
    with pytest.raises(Stopped):
        stopped.run()
    resumed = make("stopped", resume=True)
    resumed.run()
    for which in ("best", "last"):
        one, other = (load_weights(tmp_path / where / which / "tokenizer") for where in ("whole", "stopped"))
        assert same(one, other)
    rows = [[row | {"seconds": 0} for row in trainer.progress.history] for trainer in (whole, resumed)]
    assert rows[0] == rows[1]


def test_a_run_that_stops_early_keeps_its_learning_rates_and_resumes_to_the_end(tmp_path: Path) -> None:
    def make(where: str, **changes: object) -> tuple[Trainer, list[float]]:
        config = make_config(tmp_path / where, max_steps=20, validate_every=5, **changes)
        trainer = make_trainer(TokenizerObjective(make_tokenizer()), WAVES, config)
        return trainer, watch(trainer, lambda optimizer: optimizer.param_groups[0]["lr"])

    whole, rates = make("whole")
    whole.run()
    stopped, early = make("stopped", stop_after=10)
    assert stopped.run().step == 10
    assert early == rates[:10]
    resumed, late = make("stopped", resume=True)
    assert resumed.run().step == 20
    assert early + late == rates
    one, other = (load_weights(tmp_path / where / "last" / "tokenizer") for where in ("whole", "stopped"))
    assert same(one, other)


# What chooses the best


@pytest.mark.parametrize(("by", "want"), [("loss", 2.2), ("rank", -0.07), ("both", 2.13)])
def test_validations_are_chosen_by_loss_by_rank_or_by_both(by: str, want: float) -> None:
    assert selection_score({"val_loss": 2.2, "val_rank": 0.07}, by) == pytest.approx(want)
    assert selection_score({"val_loss": 2.2}, by) == 2.2  # nothing is ranked


@pytest.mark.parametrize(("by", "best"), [("loss", 1), ("rank", 3)])
def test_best_is_selected_by_the_given_criterion(by: str, best: int, tmp_path: Path) -> None:
    ranks = iter([0.1, 0.2, 0.3])

    class Ranking:
        def score(self, stage: nn.Module, accelerator: Accelerator) -> dict[str, float]:
            return {"rank": next(ranks)}

    config = make_config(tmp_path, max_steps=3, validate_every=1, learning_rate=1.0, select_by=by)
    trainer = make_trainer(TokenizerObjective(make_tokenizer()), NOISE, config)
    trainer.ranking = Ranking()
    progress = trainer.run()
    losses = [row["val_loss"] for row in progress.history]
    assert progress.best_step == (1 + int(np.argmin(losses)) if by == "loss" else best)
    assert progress.best == (min(losses) if by == "loss" else -0.3)
