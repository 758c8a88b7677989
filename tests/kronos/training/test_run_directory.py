from __future__ import annotations

import json
import os
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator

from kronos.tokenizer import KronosTokenizer
from kronos.training.config import Stage
from kronos.training.run_directory import RunDirectory, TrainerState, write_curves
from tests.kronos.builders import make_model, make_tokenizer
from tests.kronos.training.builders import load_weights, same

ROWS = [
    {
        "step": step,
        "seconds": 0.5 * step,
        "lr": 1e-3,
        "train_loss": 3 / step,
        "val_loss": 2 / step + step / 90,
    }
    | {"val_s1": 1.0, "val_loss/one": 1.5, "val_loss/two": 2.5}
    for step in (10, 20, 30)
]


def test_the_table_has_one_row_per_validation_and_the_picture_opens(tmp_path: Path) -> None:
    write_curves(ROWS, tmp_path)
    table = pd.read_csv(tmp_path / "losses.csv")
    assert list(table.columns) == list(ROWS[0])
    np.testing.assert_allclose(table.to_numpy(), pd.DataFrame(ROWS).to_numpy())
    picture = matplotlib.image.imread(tmp_path / "losses.png")
    assert picture.shape[:2] == (540, 960)
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 10  # of several colors


@pytest.mark.parametrize("count", [1, 2])
def test_a_few_rows_are_enough(count: int, tmp_path: Path) -> None:
    write_curves(ROWS[:count], tmp_path)
    assert len(pd.read_csv(tmp_path / "losses.csv")) == count
    assert (tmp_path / "losses.png").is_file()


def test_before_the_first_validation_there_is_nothing_to_draw(tmp_path: Path) -> None:
    write_curves([], tmp_path)
    assert not list(tmp_path.iterdir())


def test_losses_that_never_change_are_drawn_too(tmp_path: Path) -> None:
    flat = [{"step": step, "train_loss": 1.0, "val_loss": 1.0} for step in (1, 2)]
    write_curves(flat, tmp_path)
    assert (tmp_path / "losses.png").is_file()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_weights_that_training_started_from_have_no_training_loss(count: int, tmp_path: Path) -> None:
    start = {name: value for name, value in ROWS[0].items() if name != "train_loss"} | {"step": 0}
    write_curves([start, *ROWS][:count], tmp_path)
    table = pd.read_csv(tmp_path / "losses.csv")
    assert list(table.columns) == list(ROWS[0] if count > 1 else start)
    assert table["step"].tolist() == [0, 10, 20, 30][:count]
    assert (tmp_path / "losses.png").is_file()


SETTINGS = {"max_steps": 10, "seed": 0, "data": ["ab"]}
ROW = {"step": 2, "seconds": 0.1, "lr": 1e-3, "train_loss": 2.0, "val_loss": 1.0}


def make_folder(output: Path, part: Stage = "tokenizer", **settings: object) -> RunDirectory:
    folder = RunDirectory(output, part, SETTINGS | settings)
    folder.record = {"origin": "a test", "sha256": "0" * 64, "trained_until": None}
    return folder


def make_accelerator(network: torch.nn.Module) -> Accelerator:
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(network)
    return accelerator


# Progress


def test_the_lowest_loss_is_the_best_and_an_equal_one_is_not() -> None:
    progress = TrainerState()
    better = []
    for step, loss in enumerate((3.0, 2.0, 2.0, 2.5, 1.0, float("nan")), start=1):
        progress.step = step
        better.append(progress.add({"step": step, "val_loss": loss}))
    assert better == [True, True, False, False, True, False]
    assert (progress.best, progress.best_step, progress.stale) == (1.0, 5, 1)
    assert len(progress.history) == 6


# Claiming a folder


def test_an_earlier_result_is_replaced_on_demand_only(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    folder.prepare(resume=False, overwrite=False)
    folder.keep_best(make_tokenizer(), TrainerState(history=[ROW], best_step=2))
    with pytest.raises(
        FileExistsError, match=r"best.tokenizer contains an earlier result\. Pass --resume to"
    ):
        folder.prepare(resume=False, overwrite=False)
    assert (tmp_path / "best" / "tokenizer" / "model.safetensors").is_file()
    folder.prepare(resume=False, overwrite=True)
    assert not (tmp_path / "best" / "tokenizer").exists()
    assert (tmp_path / "run" / "tokenizer" / "settings.json").is_file()


def test_a_new_tokenizer_invalidates_the_old_predictor_but_a_new_predictor_no_tokenizer(
    tmp_path: Path,
) -> None:
    def fill() -> None:
        for which in ("best", "last", "run"):
            for part in ("tokenizer", "predictor"):
                (tmp_path / which / part).mkdir(parents=True, exist_ok=True)

    fill()
    make_folder(tmp_path, "predictor").prepare(resume=False, overwrite=True)
    assert (tmp_path / "best" / "tokenizer").is_dir()
    assert not (tmp_path / "best" / "predictor").exists()
    fill()
    make_folder(tmp_path, "tokenizer").prepare(resume=False, overwrite=True)
    assert not any((tmp_path / which / "predictor").exists() for which in ("best", "last", "run"))
    (tmp_path / "last" / "predictor").mkdir(parents=True)
    (tmp_path / "run" / "tokenizer" / "settings.json").unlink()
    (tmp_path / "run" / "tokenizer").rmdir()
    with pytest.raises(FileExistsError, match=r"last.predictor contains an earlier result"):
        make_folder(tmp_path, "tokenizer").prepare(resume=False, overwrite=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "has seed=0, but now it is 1. Resume with the original settings and bars"),
        ({"data": ["cd"]}, "has data=['ab'], but now it is ['cd']."),
        ({"new": 3}, "has new=None, but now it is 3."),
    ],
    ids=["setting", "bars", "unknown"],
)
def test_a_run_is_resumed_only_with_its_original_settings(
    change: dict[str, object], says: str, tmp_path: Path
) -> None:
    make_folder(tmp_path).prepare(resume=False, overwrite=False)
    make_folder(tmp_path).prepare(resume=True, overwrite=False)
    with pytest.raises(ValueError, match=r"settings\.json has") as caught:
        make_folder(tmp_path, **change).prepare(resume=True, overwrite=False)
    assert says in str(caught.value)
    assert json.loads((tmp_path / "run" / "tokenizer" / "settings.json").read_text()) == SETTINGS


def test_resuming_a_run_that_has_not_begun_begins_it(tmp_path: Path) -> None:
    make_folder(tmp_path).prepare(resume=True, overwrite=False)
    assert json.loads((tmp_path / "run" / "tokenizer" / "settings.json").read_text()) == SETTINGS


# Weights


def test_weights_are_kept_whole_with_a_record_and_a_card(tmp_path: Path) -> None:
    folder, network = make_folder(tmp_path), make_tokenizer()
    folder.prepare(resume=False, overwrite=False)
    later = ROW | {"step": 4, "val_loss": 3.0}
    folder.keep_best(network, TrainerState(step=4, history=[ROW, later], best=1.0, best_step=2))
    assert sorted(file.name for file in (tmp_path / "best").iterdir()) == ["README.md", "tokenizer"]
    kept = tmp_path / "best" / "tokenizer"
    assert sorted(file.name for file in kept.iterdir()) == [
        "config.json",
        "model.safetensors",
        "training.json",
    ]
    loaded = KronosTokenizer.from_pretrained(tmp_path / "best")
    assert same(dict(loaded.state_dict()), dict(network.state_dict()))
    record = json.loads((kept / "training.json").read_text())
    assert record == folder.record | {"step": 2, "losses": ROW}
    folder.keep_best(make_tokenizer(1), TrainerState(step=6, history=[ROW], best=0.5, best_step=6))
    assert not same(load_weights(kept), dict(network.state_dict()))


# States


def test_a_state_restores_everything_and_only_the_last_is_kept(tmp_path: Path) -> None:
    folder, network = make_folder(tmp_path), make_tokenizer()
    folder.prepare(resume=False, overwrite=False)
    accelerator = make_accelerator(network)
    progress = TrainerState(step=2, history=[ROW], best=1.0, best_step=2, running=0.25, seconds=3.5)
    folder.save_state(accelerator, network, progress)
    progress.step = 4
    folder.save_state(accelerator, network, progress)
    assert [path.name for path in (tmp_path / "run" / "tokenizer").glob("state*")] == ["state-00000004"]
    drawn, weights = torch.rand(3), {n: w.clone() for n, w in network.state_dict().items()}
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    assert folder.load_state(accelerator) == progress
    assert same(dict(network.state_dict()), weights)
    assert torch.equal(torch.rand(3), drawn)
    assert same(dict(KronosTokenizer.from_pretrained(tmp_path / "last").state_dict()), weights)
    assert (tmp_path / "run" / "tokenizer" / "losses.csv").is_file()


def test_without_a_state_a_run_begins(tmp_path: Path) -> None:
    assert make_folder(tmp_path).load_state(make_accelerator(make_tokenizer())) == TrainerState()


@pytest.mark.parametrize("moment", ["state", "rename"])
def test_a_run_that_is_killed_while_it_saves_has_the_state_before(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = make_folder(tmp_path), make_tokenizer()
    folder.prepare(resume=False, overwrite=False)
    accelerator = make_accelerator(network)
    folder.save_state(accelerator, network, TrainerState(step=2))
    save = accelerator.save_state

    def killed(*where: str) -> None:
        if moment == "state":
            save(*where)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((accelerator, "save_state") if moment == "state" else (Path, "rename")), killed)
        with pytest.raises(KeyboardInterrupt):
            folder.save_state(accelerator, network, TrainerState(step=4))
    assert folder.load_state(accelerator).step == 2
    folder.save_state(accelerator, network, TrainerState(step=4))
    assert folder.load_state(accelerator).step == 4
    # the weights of the last step are written before its state, so that no state is without them
    assert json.loads((tmp_path / "last" / "tokenizer" / "training.json").read_text())["step"] == 4


def test_the_last_weights_are_never_older_than_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = make_folder(tmp_path, "predictor"), make_model()
    folder.prepare(resume=False, overwrite=False)
    accelerator = make_accelerator(network)
    folder.save_state(accelerator, network, TrainerState(step=2))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "_keep", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.save_state(accelerator, network, TrainerState(step=4))
    assert folder.load_state(accelerator).step == 2


class Harmful:
    """Runs code as it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("import os; os.environ['KRONOS_HARMED'] = '1'",)


@pytest.mark.parametrize("name", ["custom_checkpoint_0.pkl", "random_states_0.pkl", "optimizer.bin"])
def test_a_state_from_elsewhere_runs_no_code(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KRONOS_HARMED", raising=False)
    folder, network = make_folder(tmp_path), make_tokenizer()
    folder.prepare(resume=False, overwrite=False)
    accelerator = make_accelerator(network)
    optimizer = torch.optim.AdamW(network.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    accelerator.register_for_checkpointing(scheduler)
    accelerator.prepare(optimizer)
    folder.save_state(accelerator, network, TrainerState(step=2))
    assert folder.load_state(accelerator).step == 2
    (file,) = tmp_path.rglob(name)
    torch.save(Harmful(), file)
    with pytest.raises(Exception, match=r"(?i)not a training state|weights.only|GLOBAL"):
        folder.load_state(accelerator)
    assert "KRONOS_HARMED" not in os.environ
