from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from kronos.checkpoint import hash_weights, trained_until
from kronos.model import Kronos
from kronos.predictor import KronosPredictor
from kronos.tokenizer import KronosTokenizer
from kronos.training.config import Source, TrainingConfig
from kronos.training.objectives import TokenizerObjective
from kronos.training.run import all_reduce_mean, run_stage
from kronos.training.run_directory import TrainerState
from kronos.windows import Windows
from tests.kronos.builders import make_bars, make_tokenizer
from tests.kronos.training.builders import (
    PREDICTOR,
    TOKENIZER,
    load_weights,
    make_config,
    make_run,
    same,
    write_bars,
)
from tests.kronos.training.test_evaluation import make_headed

pytestmark = pytest.mark.integration

# Faster and faster, so that the last is not the best.
FORGETTING = {"learning_rate": 0.5, "warmup": 0.9, "max_steps": 8, "validate_every": 2}


@dataclass
class Pair:
    """Both stages' settings and how they went."""

    config: TrainingConfig
    tokenizer: TrainerState
    predictor: TrainerState


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A finished run of both stages. Shared: only look at it."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        config = make_run(folder, **FORGETTING)
        yield Pair(config, run_stage("tokenizer", config), run_stage("predictor", config))


def weights_of(output: Path, *parts: str) -> dict[str, str]:
    """Hashes of the weights of a run."""
    return {
        f"{which}/{part}": hash_weights(output / which / part) for which in ("best", "last") for part in parts
    }


# A finished run


def test_best_and_last_are_pairs_that_load_and_forecast(pair: Pair) -> None:
    windows = Windows.rolling({"A": make_bars(20)}, 16, 3, "B")
    for which in ("best", "last"):
        folder = pair.config.output / which
        assert KronosTokenizer.from_pretrained(folder).config == TOKENIZER
        assert Kronos.from_pretrained(folder).config == PREDICTOR
        predictor = KronosPredictor.from_pretrained(folder, device="cpu")
        forecast = predictor.forecast(windows)
        assert forecast.paths.shape[-2:] == (3, 6)
        assert np.isfinite(forecast.paths).all()


def test_the_pairs_tokenizer_is_the_best_which_the_predictor_was_trained_with(pair: Pair) -> None:
    output = pair.config.output
    assert pair.tokenizer.best_step < pair.tokenizer.step  # so that the last was another one
    assert hash_weights(output / "best" / "tokenizer") == hash_weights(output / "last" / "tokenizer")
    record = json.loads((output / "last" / "tokenizer" / "training.json").read_text())
    assert record["step"] == pair.tokenizer.best_step
    assert pair.predictor.best_step < pair.predictor.step
    assert hash_weights(output / "best" / "predictor") != hash_weights(output / "last" / "predictor")


def test_a_forecast_states_the_last_training_date(pair: Pair) -> None:
    predictor = KronosPredictor.from_pretrained(pair.config.output / "best", device="cpu")
    assert predictor.checkpoint_info is not None
    assert predictor.checkpoint_info.trained_until == "2024-06-10"  # the last date that chose weights
    forecast = predictor.forecast(Windows.rolling({"A": make_bars(20)}, 16, 3, "B"))
    assert forecast.provenance.trained_until == "2024-06-10"


def test_the_record_contains_bars_settings_and_losses(pair: Pair) -> None:
    for part, progress in (("tokenizer", pair.tokenizer), ("predictor", pair.predictor)):
        record = json.loads((pair.config.output / "best" / part / "training.json").read_text())
        (source,) = record["data"]
        assert (source["name"], source["instruments"], source["bars"]) == ("bars", 2, 220)
        assert (source["train_until"], source["validate_until"]) == ("2024-04-19", "2024-06-10")
        assert len(source["sha256"]) == 64
        assert record["settings"]["learning_rate"] == FORGETTING["learning_rate"]
        assert record["settings"]["data"] == [source["sha256"]]
        assert record["losses"]["val_loss"] == progress.best
        assert record["origin"] is None
        assert record["trained_until"] == "2024-06-10"
    card = (pair.config.output / "best" / "README.md").read_text()
    assert source["sha256"][:16] in card
    assert f"{progress.best:.5g}" in card


def test_a_run_leaves_its_losses_and_nothing_unfinished(pair: Pair) -> None:
    for part in ("tokenizer", "predictor"):
        run = pair.config.output / "run" / part
        names = sorted(path.name for path in run.iterdir())
        assert names == ["losses.csv", "losses.png", "settings.json", "state-00000008"]
    assert not list(pair.config.output.rglob("*unfinished*"))


def test_a_finished_run_that_is_resumed_does_nothing(pair: Pair) -> None:
    output = pair.config.output
    files = [
        *output.glob("*/*/model.safetensors"),
        *output.glob("*/*/training.json"),
        *output.rglob("state*"),
    ]
    before = {file: file.stat().st_mtime_ns for file in files}
    for stage, progress in (("tokenizer", pair.tokenizer), ("predictor", pair.predictor)):
        assert run_stage(stage, replace(pair.config, resume=True)) == progress
    assert {file: file.stat().st_mtime_ns for file in files} == before


# The second stage's tokenizer


@pytest.mark.parametrize("spec", ["{out}", "{out}/best"])
def test_the_second_stage_takes_another_runs_tokenizer(spec: str, pair: Pair, tmp_path: Path) -> None:
    config = make_run(tmp_path, tokenizer=spec.format(out=pair.config.output), max_steps=2)
    run_stage("predictor", config)
    tokenizer = hash_weights(pair.config.output / "best" / "tokenizer")
    for which in ("best", "last"):
        assert hash_weights(config.output / which / "tokenizer") == tokenizer
        assert KronosPredictor.from_pretrained(config.output / which).tokenizer.config == TOKENIZER


def test_the_second_stage_takes_a_bundled_tokenizer(tmp_path: Path) -> None:
    size = replace(PREDICTOR, s1_bits=10, s2_bits=10)
    config = make_run(tmp_path, tokenizer="kronos-nano", predictor_size=size, max_steps=2)
    run_stage("predictor", config)
    nano = KronosTokenizer.from_pretrained("kronos-nano")
    loaded = KronosPredictor.from_pretrained(config.output / "best")
    assert same(dict(loaded.tokenizer.state_dict()), dict(nano.state_dict()))
    record = json.loads((config.output / "best" / "tokenizer" / "training.json").read_text())
    assert record["trained_until"] == trained_until("kronos-nano", "tokenizer")
    assert "## Tokenizer" in (config.output / "best" / "README.md").read_text()


def test_a_second_stage_without_a_first_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Train the first stage with the same --output"):
        run_stage("predictor", make_run(tmp_path))
    assert not (tmp_path / "out").exists()


# The last date


def start(tmp_path: Path, pretrained: str, first: str) -> str | None:
    """The last date of a short first stage that refines weights, on 60 bars from `first`."""
    file = write_bars(tmp_path / "bars.parquet", make_bars(60, start=first))
    sizes = {"tokenizer_size": None, "predictor_size": None}
    config = make_config(
        tmp_path / "out", data=file, pretrained=pretrained, max_steps=1, batch_size=2, **sizes
    )
    run_stage("tokenizer", config)
    dates = {trained_until(config.output / which, "tokenizer") for which in ("best", "last")}
    assert len(dates) == 1
    return dates.pop()


def test_the_last_date_is_the_latest_of_the_bars_and_of_what_training_started_from(tmp_path: Path) -> None:
    assert start(tmp_path / "early", "kronos-nano", "2010-01-04") == trained_until("kronos-nano", "tokenizer")
    assert start(tmp_path / "late", "kronos-nano", "2040-01-02") == "2040-03-23"
    assert start(tmp_path / "none", "none", "2010-01-04") == "2010-03-26"


def test_unknown_initial_weights_leave_the_last_date_unknown(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path / "unknown")
    assert start(tmp_path, str(tmp_path / "unknown"), "2024-01-02") is None
    assert "is unknown" in (tmp_path / "out" / "best" / "README.md").read_text()


def test_the_last_date_is_that_of_the_latest_source(tmp_path: Path) -> None:
    spans = ("2020-01-01", "2022-01-03", "2021-01-01")
    sources = tuple(
        Source(write_bars(tmp_path / f"{first}.parquet", make_bars(60, start=first))) for first in spans
    )
    config = make_config(tmp_path / "out", sources=sources, max_steps=1)
    run_stage("tokenizer", config)
    latest = make_bars(60, start="2022-01-03").index[-1]
    assert trained_until(config.output / "best", "tokenizer") == f"{latest:%Y-%m-%d}"
    header = (config.output / "run" / "tokenizer" / "losses.csv").read_text().splitlines()[0]
    assert all(f"val_loss/{first}" in header for first in spans)


# Going on, or not


def test_an_earlier_result_is_neither_replaced_nor_resumed_without_a_flag(tmp_path: Path) -> None:
    config = make_run(tmp_path, max_steps=2)
    run_stage("tokenizer", config)
    before = weights_of(config.output, "tokenizer")
    with pytest.raises(FileExistsError, match="Pass --resume to continue it, --overwrite to replace it"):
        run_stage("tokenizer", replace(config, seed=1))
    assert weights_of(config.output, "tokenizer") == before
    run_stage("tokenizer", replace(config, seed=1, overwrite=True))
    assert weights_of(config.output, "tokenizer") != before


def test_resuming_with_other_settings_or_bars_is_refused_by_name(tmp_path: Path) -> None:
    config = make_run(tmp_path, max_steps=2)
    run_stage("tokenizer", config)
    before = weights_of(config.output, "tokenizer")
    for change, says in (
        ({"seed": 1}, r"has seed=0, but now it is 1\."),
        ({"learning_rate": 1.0}, r"has learning_rate=0\.003, but now it is 1\.0\."),
        ({"train_until": "2024-04-18"}, "has train_until=2024-04-19, but now it is 2024-04-18"),
        ({"data": write_bars(tmp_path / "other.parquet", make_bars(120, 5))}, "has data="),
    ):
        with pytest.raises(ValueError, match=says):
            run_stage("tokenizer", replace(config, **change, resume=True))
    assert weights_of(config.output, "tokenizer") == before
    moved = (tmp_path / "bars.parquet").rename(tmp_path / "moved.parquet")
    run_stage("tokenizer", replace(config, data=moved, resume=True))  # the same bars elsewhere
    assert weights_of(config.output, "tokenizer") == before


def test_a_run_is_resumed_with_more_steps_and_records_both_schedules(tmp_path: Path) -> None:
    config = make_run(tmp_path, max_steps=4, validate_every=2)
    run_stage("tokenizer", config)
    more = replace(config, resume=True, max_steps=8, save_every=1, device="auto", tracker="none")
    progress = run_stage("tokenizer", more)
    assert [row["step"] for row in progress.history] == [2, 4, 6, 8]
    record = json.loads((config.output / "last" / "tokenizer" / "training.json").read_text())
    assert (record["step"], record["settings"]["max_steps"]) == (8, 8)
    assert record["schedules"] == [[0, 4], [4, 8]]
    card = (config.output / "last" / "README.md").read_text()
    assert "learning-rate schedules: from step 0 the one of 4 steps, from step 4 the one of 8 steps" in card
    before = weights_of(config.output, "tokenizer")
    with pytest.raises(ValueError, match=r"is already at step 8, after 7\. Pass --max-steps 8 or more"):
        run_stage("tokenizer", replace(config, resume=True, max_steps=7))
    with pytest.raises(ValueError, match=r"has seed=0, but now it is 1\."):
        run_stage("tokenizer", replace(more, max_steps=10, seed=1))
    assert weights_of(config.output, "tokenizer") == before


def test_a_tokenizer_whose_tokens_a_predictor_has_learned_is_trained_no_further(tmp_path: Path) -> None:
    config = make_run(tmp_path, max_steps=2)
    run_stage("tokenizer", config)
    run_stage("predictor", config)
    before = weights_of(config.output, "tokenizer", "predictor")
    with pytest.raises(
        ValueError, match=r"was trained on the tokens of this tokenizer.*Resume only the predictor"
    ):
        run_stage("tokenizer", replace(config, resume=True, max_steps=4))
    assert weights_of(config.output, "tokenizer", "predictor") == before
    run_stage("tokenizer", replace(config, resume=True))  # which does nothing
    assert run_stage("predictor", replace(config, resume=True, max_steps=4)).step == 4
    assert weights_of(config.output, "tokenizer") == {
        k: v for k, v in before.items() if k.endswith("tokenizer")
    }


def test_a_predictor_is_not_resumed_on_another_tokenizer(tmp_path: Path) -> None:
    config = make_run(tmp_path, max_steps=2)
    run_stage("tokenizer", config)
    run_stage("predictor", config)
    other = make_tokenizer(seed=9, s1_bits=4, s2_bits=4)
    for which in ("best", "last"):
        other.save_pretrained(config.output / which / "tokenizer")
    with pytest.raises(ValueError, match="has tokenizer_sha256="):
        run_stage("predictor", replace(config, resume=True, max_steps=4))


def test_the_best_weights_are_never_worse_than_those_that_training_started_from(tmp_path: Path) -> None:
    sizes = {"tokenizer_size": None, "predictor_size": None, "pretrained": "kronos-nano"}
    config = make_run(
        tmp_path, **sizes, learning_rate=3.0, max_steps=2, validate_every=1, validation_windows=8
    )
    for stage, kind in (("tokenizer", KronosTokenizer), ("predictor", Kronos)):
        progress = run_stage(stage, config)
        assert (progress.best_step, progress.history[0]["step"]) == (0, 0)
        found, nano = (
            dict(kind.from_pretrained(p).state_dict()) for p in (config.output / "best", "kronos-nano")
        )
        assert same(found, nano)
    card = (config.output / "best" / "README.md").read_text()
    assert card.count("no later validation was better, so these are the initial weights.") == 2
    assert KronosPredictor.from_pretrained(config.output / "best", device="cpu").checkpoint_info is not None


def test_what_cleaning_removed_is_reported_before_training_and_in_the_card(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bars = make_bars(160)
    bars.iloc[100:, :4] *= 2
    file = write_bars(tmp_path / "mine.csv", bars)
    config = make_config(tmp_path / "out", data=file, max_steps=1, train_until="2024-05-17")
    for _ in range(2):  # from a cached mapped, too
        caplog.clear()
        with caplog.at_level("INFO", logger="kronos"):
            run_stage("tokenizer", replace(config, overwrite=True))
        assert "bars of 1day by their timestamps, cleaned by the rule for 1day" in caplog.text
        assert "open more than 30% from the previous close" in caplog.text
        assert caplog.text.index("training windows") < caplog.text.index("val_loss")
    (data,) = json.loads((config.output / "best" / "tokenizer" / "training.json").read_text())["data"]
    assert (data["frequency"], data["inferred"], data["cleaning"]["places"]) == ("1day", "1day", {"gap": 1})
    assert (data["training_windows"], data["validation_windows"]) == (80, 41)
    assert "- mine: bars of 1day" in (config.output / "best" / "README.md").read_text()


@pytest.mark.parametrize("change", [{"weight": 2.0}, {"train_until": "2024-03-28"}], ids=str)
def test_resuming_with_a_source_that_is_used_in_another_way_is_refused(
    change: dict[str, object], tmp_path: Path
) -> None:
    sources = [Source(write_bars(tmp_path / f"{i}.parquet", make_bars(100, i)), weight=1.0) for i in range(2)]
    config = make_config(tmp_path / "out", sources=tuple(sources), max_steps=1)
    run_stage("tokenizer", config)
    sources[1] = replace(sources[1], **change)
    with pytest.raises(ValueError, match="has sources="):
        run_stage("tokenizer", replace(config, sources=tuple(sources), resume=True))


def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    # The first state comes in the midst of an epoch of 13 steps and between validations.
    settings = {"dropout": 0.2, "max_steps": 240, "save_every": 40, "validate_every": 60}
    whole = make_run(tmp_path, output=tmp_path / "whole", **settings)
    config = make_run(tmp_path, output=tmp_path / "killed", **settings)
    flags = {name: getattr(config, name) for name in ("output", "data", "train_until", "validate_until")}
    flags |= {name: getattr(config, name) for name in ("lookback", "horizon", "learning_rate", "batch_size")}
    flags |= {
        "validation_windows": config.validation_windows,
        "pretrained": "none",
        "device": "cpu",
    } | settings
    sizes = tmp_path / "sizes.yaml"
    sizes.write_text(json.dumps({"tokenizer_size": vars(TOKENIZER), "predictor_size": vars(PREDICTOR)}))
    command = [sys.executable, "-m", "kronos.training", "tokenizer", "--config", str(sizes)]
    command += [str(part) for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", value)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    states = config.output / "run" / "tokenizer"
    end = time.monotonic() + 60
    while not list(states.glob("state-*/progress.json")) and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (state,) = states.glob("state-*")
    assert 0 < json.loads((state / "progress.json").read_text())["step"] < 240

    resumed = run_stage("tokenizer", replace(config, resume=True))
    unbroken = run_stage("tokenizer", whole)
    for which in ("best", "last"):
        one, other = (load_weights(c.output / which / "tokenizer") for c in (whole, config))
        assert same(one, other), which
    rows = [[row | {"seconds": 0} for row in progress.history] for progress in (resumed, unbroken)]
    assert rows[0] == rows[1]
    assert resumed.history[-1]["seconds"] > resumed.history[0]["seconds"] > 0


# Precision and compilation


def test_bfloat16_trains_and_stays_finite(tmp_path: Path) -> None:
    found = {}
    for precision in ("float32", "bfloat16"):  # one after the other in one process, as `kronos train` may
        config = make_run(tmp_path, output=tmp_path / precision, precision=precision, max_steps=12)
        histories = [run_stage(stage, config).history for stage in ("tokenizer", "predictor")]
        found[precision] = [rows[-1]["val_loss"] for rows in histories]
        assert all(np.isfinite(list(row.values())).all() for rows in histories for row in rows)
        assert all(rows[-1]["val_loss"] < rows[0]["val_loss"] for rows in histories)
        for part in ("tokenizer", "predictor"):
            weights = load_weights(config.output / "last" / part)
            assert all(w.dtype in (torch.float32, torch.int64) for w in weights.values())
            assert all(w.isfinite().all() for w in weights.values())
    assert found["bfloat16"] != found["float32"]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.05)


def test_a_compiled_network_learns_the_same_and_is_saved_under_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real backend takes minutes; this one captures the same graphs and runs them as they are.
    calls: list[nn.Module] = []
    trained: list[bool] = []  # whether each captured graph has gradients

    def run_as_is(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        trained.append(torch.is_grad_enabled())
        return graph.forward

    def captured(stage: nn.Module) -> None:
        calls.append(stage)
        nn.Module.compile(stage, backend=run_as_is)

    monkeypatch.setattr(TokenizerObjective, "compile", captured)
    histories = []
    for compiled in (False, True):
        config = make_run(tmp_path, output=tmp_path / str(compiled), compile=compiled, max_steps=3)
        histories.append(run_stage("tokenizer", config).history)
    plain, fast = histories
    assert len(calls) == 1
    assert trained
    assert all(trained)  # validations are not compiled: each size of a batch would be compiled again
    for name in ("train_loss", "val_loss"):
        assert fast[-1][name] == pytest.approx(plain[-1][name], rel=1e-4)
    kept = [load_weights(tmp_path / name / "best" / "tokenizer").keys() for name in ("True", "False")]
    assert kept[0] == kept[1]


# Processes


def test_one_process_averages_with_no_other() -> None:
    assert all_reduce_mean(Accelerator(cpu=True)) is None


# Trackers


def test_tensorboard_gets_every_row(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = make_run(tmp_path, tracker="tensorboard")
    history = run_stage("tokenizer", config).history
    (events,) = (config.output / "run" / "tokenizer").glob("*/events.out.tfevents.*")
    reader = accumulator.EventAccumulator(str(events.parent)).Reload()
    scalars = reader.Scalars("val_loss")
    assert [event.step for event in scalars] == [3, 6]
    assert [event.value for event in scalars] == pytest.approx([row["val_loss"] for row in history], rel=1e-6)
    assert set(history[0]) <= set(reader.Tags()["scalars"])


@pytest.fixture
def mlflow_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow as in a new process, whatever Qlib has set in this one."""
    pytest.importorskip("mlflow")
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # so that the variable is restored after the test
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("mlflow_unset")
def test_mlflow_gets_every_row_in_a_database_of_the_run(tmp_path: Path) -> None:
    config = make_run(tmp_path, tracker="mlflow")
    history = run_stage("tokenizer", config).history
    query = "select step, value from metrics where key = 'val_loss' order by step"
    with sqlite3.connect(config.output / "run" / "tokenizer" / "mlflow.db") as database:
        rows = database.execute(query).fetchall()
        (rate,) = database.execute("select value from params where key = 'learning_rate'").fetchone()
    assert rows == [(row["step"], pytest.approx(row["val_loss"])) for row in history]
    assert float(rate) == config.learning_rate
    assert "MLFLOW_TRACKING_URI" not in os.environ  # the next stage has a database of its own
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars.parquet", "cache", "out"]


@pytest.mark.usefixtures("mlflow_unset")
def test_mlflow_keeps_the_database_that_the_process_has_set(tmp_path: Path) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'team.db'}")  # as Qlib does in `R.start`
    config = make_run(tmp_path, tracker="mlflow")
    history = run_stage("tokenizer", config).history
    (run,) = mlflow.search_runs(experiment_names=["kronos tokenizer"], output_format="list")
    assert run.data.metrics["val_loss"] == pytest.approx(history[-1]["val_loss"])
    assert not (config.output / "run" / "tokenizer" / "mlflow.db").exists()


# The return head


def test_a_head_is_saved_with_the_predictor_and_validated_by_rank_ic(tmp_path: Path) -> None:
    config = make_headed(tmp_path, max_steps=4, validate_every=2, rank_dates=3)
    run_stage("tokenizer", config)
    history = run_stage("predictor", config).history
    assert all(np.isfinite(list(row.values())).all() for row in history)
    assert "val_neutral_rank_t/market/10" in history[0]
    for which in ("best", "last"):
        folder = config.output / which / "predictor"
        info = json.loads((folder / "head.json").read_text())
        record = json.loads((folder / "training.json").read_text())
        assert info["trained_until"] == record["trained_until"] == "2024-08-12"
        assert info["markets"] == ["market"]
        assert KronosPredictor.from_pretrained(config.output / which).model.config == PREDICTOR
        assert load_file(folder / "head.safetensors")["rank.weight"].any()
    assert run_stage("predictor", replace(config, resume=True)).history == history


def test_with_weight_0_there_is_no_head_and_tokens_are_learned_as_without_it(tmp_path: Path) -> None:
    config = make_headed(tmp_path, max_steps=4)
    run_stage("tokenizer", config)
    plain = replace(config.sources[0], head=False)
    histories = []
    for name, changes in (("none", {"sources": (plain,)}), ("weightless", {"head_weight": 0.0})):
        own = replace(config, output=tmp_path / name, tokenizer=str(config.output), **changes)
        histories.append([row | {"seconds": 0} for row in run_stage("predictor", own).history])
        assert not (own.output / "best" / "predictor" / "head.json").exists()
    assert histories[0] == histories[1]


def test_without_a_head_the_tokens_need_a_weight(tmp_path: Path) -> None:
    config = make_run(tmp_path, token_weight=0.0, max_steps=2)
    run_stage("tokenizer", config)
    with pytest.raises(ValueError, match=r"token_weight=0 leaves nothing to train without a return head\."):
        run_stage("predictor", config)


def test_choosing_by_rank_ic_needs_a_head(tmp_path: Path) -> None:
    config = make_run(tmp_path, select_by="rank", max_steps=2)
    run_stage("tokenizer", config)
    with pytest.raises(ValueError, match=r"select_by=rank needs a return head and validation dates\."):
        run_stage("predictor", config)
