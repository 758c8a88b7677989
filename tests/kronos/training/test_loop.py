from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from kronos.bars import stamps
from kronos.model import Kronos
from kronos.predictor import KronosPredictor
from kronos.tokenizer import KronosTokenizer
from kronos.training.__main__ import app
from kronos.training.dataset import BarTape, TrainingWindows
from kronos.training.loop import LoopConfig, Losses, evaluate, train
from kronos.training.stages import predictor_step, tokenizer_step
from kronos.windows import Windows
from tests.kronos.builders import make_bars, make_model, make_tokenizer

LOOKBACK, HORIZON = 16, 4
CONFIG = LoopConfig(
    steps=60, batch_size=16, learning_rate=3e-3, validate_every=20, validation_windows=40, seed=1
)


def waves(count: int, phase: float = 0.0) -> TrainingWindows:
    """Bars that rise and fall with a period of eight, which a few dozen steps can learn."""
    index = pd.bdate_range("2020-01-01", periods=count)
    turn = np.arange(count) * (2 * np.pi / 8) + phase
    prices = 20 + np.stack(
        [np.sin(turn - 0.8), np.sin(turn) + 0.5, np.sin(turn) - 0.5, np.sin(turn)], axis=-1
    )
    volume = 100 * (2 + np.cos(turn))
    values = np.column_stack([prices, volume, volume * 20]).astype(np.float32)
    tape = BarTape(values, stamps(index), index.to_numpy("datetime64[ns]"), np.array([0, count]))
    return TrainingWindows(tape, tape.starts(LOOKBACK + HORIZON, None, None), LOOKBACK, HORIZON)


def noise(count: int, seed: int) -> TrainingWindows:
    """Bars of which nothing can be learnt but by heart."""
    bars = make_bars(count, seed)
    tape = BarTape(bars.to_numpy(np.float32), stamps(bars.index), bars.index.to_numpy(), np.array([0, count]))
    return TrainingWindows(tape, tape.starts(LOOKBACK + HORIZON, None, None), LOOKBACK, HORIZON)


def test_a_tokenizer_learns_to_rebuild_bars_and_is_saved(tmp_path: Path) -> None:
    network = make_tokenizer()
    step, held_out = tokenizer_step(network), waves(60, phase=1.0)
    before = evaluate(network, step, held_out, 40)
    history = train(network, step, waves(120), held_out, CONFIG, tmp_path)
    assert [row["step"] for row in history] == [20, 40, 60]
    assert history[-1]["val_recon"] < 0.5 * before["recon"]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert json.loads((tmp_path / "history.json").read_text()) == history
    loaded = KronosTokenizer.from_pretrained(tmp_path)
    scores = evaluate(loaded, tokenizer_step(loaded), held_out, CONFIG.validation_windows)
    assert scores["loss"] == pytest.approx(min(row["val_loss"] for row in history), rel=1e-5)


def test_a_model_learns_the_order_of_frozen_tokens_and_is_saved(tmp_path: Path) -> None:
    tokenizer, network = make_tokenizer(), make_model()
    frozen = {name: weight.clone() for name, weight in tokenizer.state_dict().items()}
    step, held_out = predictor_step(network, tokenizer), waves(60, phase=np.pi / 4)
    before = evaluate(network, step, held_out, 40)
    history = train(network, step, waves(120), held_out, CONFIG, tmp_path)
    assert history[-1]["val_s1"] < 0.5 * before["s1"]
    assert history[-1]["val_s2"] < 0.5 * before["s2"]
    for name, weight in tokenizer.state_dict().items():
        assert torch.equal(weight, frozen[name]), name
    loaded = Kronos.from_pretrained(tmp_path)
    scores = evaluate(loaded, predictor_step(loaded, tokenizer), held_out, CONFIG.validation_windows)
    assert scores["loss"] == pytest.approx(min(row["val_loss"] for row in history), rel=1e-5)


def test_the_tokenizer_rests_while_the_model_learns() -> None:
    tokenizer, network = make_tokenizer(dropout=0.5).train(), make_model()
    step = predictor_step(network, tokenizer)
    x, s = map(torch.from_numpy, waves(60).batch(np.arange(8)))
    assert step(x, s)["loss"].item() == step(x, s)["loss"].item()  # no dropout in the tokens
    assert not any(weight.requires_grad for weight in tokenizer.parameters())


def test_the_weights_kept_are_those_of_the_best_held_out_loss_not_the_last(tmp_path: Path) -> None:
    # Few noisy windows learnt by heart: the held-out loss soon gets worse.
    network, tokenizer = make_model(d_model=32, ff_dim=64), make_tokenizer()
    step, held_out = predictor_step(network, tokenizer), noise(40, 1)
    config = LoopConfig(steps=80, batch_size=8, learning_rate=1e-2, validate_every=10, validation_windows=20)
    history = train(network, step, noise(30, 0), held_out, config, tmp_path)
    losses = [row["val_loss"] for row in history]
    assert min(losses) < losses[-1] - 0.01
    loaded = Kronos.from_pretrained(tmp_path)
    kept = evaluate(loaded, predictor_step(loaded, tokenizer), held_out, config.validation_windows)["loss"]
    assert kept == pytest.approx(min(losses), rel=1e-5)


def test_the_same_seed_trains_the_same_weights(tmp_path: Path) -> None:
    networks = []
    for run in range(2):
        network = make_tokenizer()
        config = LoopConfig(steps=6, batch_size=8, validate_every=6)
        train(network, tokenizer_step(network), waves(60), waves(40), config, tmp_path / str(run))
        networks.append(network)
    for name, weight in networks[0].state_dict().items():
        assert torch.equal(weight, networks[1].state_dict()[name]), name


def test_an_empty_validation_set_is_refused_before_any_step(tmp_path: Path) -> None:
    network = make_tokenizer()
    nothing = TrainingWindows(waves(60).tape, np.array([], int), LOOKBACK, HORIZON)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"no validation window.*Move the split"):
        train(network, tokenizer_step(network), waves(60), nothing, CONFIG, tmp_path)
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


def test_a_held_out_loss_that_is_no_number_stops_the_run_and_names_the_step(tmp_path: Path) -> None:
    network = make_tokenizer()
    with torch.no_grad():
        network.head.bias.fill_(torch.nan)
    with pytest.raises((ValueError, ArithmeticError), match=r"step 20"):
        train(network, tokenizer_step(network), waves(60), waves(40), CONFIG, tmp_path / "new")


def test_dropout_works_in_training_steps_and_rests_in_validation(tmp_path: Path) -> None:
    network, modes = make_tokenizer(dropout=0.3), []

    def step(x: Tensor, s: Tensor) -> Losses:
        modes.append((torch.is_grad_enabled(), network.training))
        return tokenizer_step(network)(x, s)

    config = LoopConfig(steps=4, batch_size=8, validate_every=2)
    train(network, step, waves(60), waves(40), config, tmp_path)
    learning, scoring = (True, True), (False, False)
    assert modes == [learning, learning, scoring, learning, learning, scoring]


def test_held_out_losses_are_means_over_windows_however_they_are_batched() -> None:
    network = make_tokenizer()
    step, windows = tokenizer_step(network), noise(60, 0)
    whole = evaluate(network, step, windows, count=10**6)
    pieces = evaluate(network, step, windows, count=10**6, batch=7)  # 41 windows: the last batch has 6
    network.eval()
    rows = [step(*map(torch.from_numpy, windows.batch(np.array([i])))) for i in range(len(windows))]
    by_hand = torch.stack([row["recon"] for row in rows]).mean().item()
    # float32 means of a few thousand squares
    assert whole["recon"] == pytest.approx(by_hand, rel=1e-5)
    assert pieces["recon"] == pytest.approx(by_hand, rel=1e-5)


def test_only_matrices_decay(tmp_path: Path) -> None:
    network = make_tokenizer()
    before = {name: weight.clone() for name, weight in network.named_parameters()}

    def idle(x: Tensor, s: Tensor) -> Losses:
        return {"loss": sum((0 * weight).sum() for weight in network.parameters())}

    config = LoopConfig(steps=3, batch_size=8, learning_rate=0.1, weight_decay=0.5, validate_every=3)
    train(network, idle, waves(60), waves(40), config, tmp_path)
    for name, weight in network.named_parameters():
        shrunk = weight.norm() < 0.99 * before[name].norm()
        assert shrunk == (weight.ndim > 1), name


def test_both_stages_run_from_the_command_line_to_a_pair_that_is_scored_and_forecasts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bars = pd.concat(
        make_bars(160, seed).reset_index().assign(instrument=name) for seed, name in enumerate("AB")
    )
    file, pair = str(tmp_path / "bars.parquet"), tmp_path / "pair"
    bars.to_parquet(file)
    shared = [
        *("--data", file, "--train-until", "2024-05-31"),
        *("--validate-until", "2024-12-31", "--lookback", "16", "--horizon", "4"),
        *("--steps", "4", "--batch-size", "8", "--validate-every", "2"),
        *("--d-model", "16", "--n-heads", "2", "--ff-dim", "16", "--s1-bits", "4", "--s2-bits", "4"),
    ]
    command(["tokenizer", *shared, "--output", str(pair / "tokenizer")])
    tokenizer = ["--tokenizer", str(pair / "tokenizer")]
    command(["predictor", *shared, *tokenizer, "--n-layers", "1", "--output", str(pair / "predictor")])
    predictor = KronosPredictor.from_pretrained(pair, device="cpu")
    assert predictor.model.config.n_layers == 1
    forecast = predictor.forecast(Windows.rolling({"A": make_bars(20)}, 16, 3, "B"))
    assert np.isfinite(forecast.paths).all()

    capsys.readouterr()
    spans = ("--train-until", "2024-06-10", "--since", "2024-07-01", "--until", "2024-08-01")
    command(["evaluate", str(pair), "--train", file, "--data", file, *spans])
    scores = json.loads(capsys.readouterr().out)
    ends = bars["datetime"].between("2024-07-01", "2024-08-01").sum()
    assert scores["nll"]["s1"]["kronos"] == pytest.approx(np.log(16), rel=0.5)  # barely trained: near chance
    assert scores["tokens"] == ends * 100  # a window of 101 bars behind every one of them


def command(arguments: list[str]) -> None:
    """Run the command line in this process."""
    try:
        app(arguments)
    except SystemExit as end:
        assert not end.code  # noqa: PT017 (a clean exit)


@pytest.fixture(autouse=True)
def _own_stream() -> Iterator[None]:
    """The command line seeds torch's global stream: give it back."""
    with torch.random.fork_rng():
        yield


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "nowhere.parquet"], "nowhere.parquet is no file"),
        (["--train-until", "soon"], "train_until='soon' is no date"),
        (["--validate-until", "2000-01-01"], "validate_until=2000-01-01 is not after train_until"),
        (["--frequency", "tick"], "frequency=tick has no cleaning rule"),
        (["--batch-siez", "3"], "--batch-siez"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence_and_no_traceback(
    tmp_path: Path, flags: list[str], message: str
) -> None:
    good = {
        "--data": "x.parquet",
        "--train-until": "2018-12-31",
        "--validate-until": "2019-12-31",
        "--output": "out",
    }
    given = {**good, **dict(zip(flags[::2], flags[1::2], strict=True))}
    command = [
        sys.executable,
        "-m",
        "kronos.training",
        "tokenizer",
        *(part for pair in given.items() for part in pair),
    ]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert message in process.stderr
    assert "Traceback" not in process.stderr
