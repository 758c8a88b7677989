"""What a run refuses, it refuses before anything in its folder has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kronos.extras import MissingExtra
from kronos.training.run import run_stage
from tests.kronos.builders import make_tokenizer
from tests.kronos.training.builders import make_run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and what is in it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_refused_first_attempt_leaves_the_folder_free(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not fill one batch of 100000"):
        run_stage("tokenizer", make_run(tmp_path, batch_size=100_000, max_steps=1))
    run_stage("tokenizer", make_run(tmp_path, max_steps=1))  # neither --resume nor --overwrite is asked for


def test_a_refused_overwrite_deletes_nothing(tmp_path: Path) -> None:
    config = make_run(tmp_path, max_steps=1)
    run_stage("tokenizer", config)
    before = contents(config.output)
    with pytest.raises(ValueError, match="do not fill one batch"):
        run_stage("tokenizer", make_run(tmp_path, max_steps=1, batch_size=100_000, overwrite=True))
    other = make_tokenizer(seed=3).save_pretrained(tmp_path / "other")
    with pytest.raises(FileExistsError, match="another tokenizer"):
        run_stage("predictor", make_run(tmp_path, max_steps=1, tokenizer=str(other), overwrite=True))
    assert contents(config.output) == before


def test_weights_to_start_from_are_not_overwritten(tmp_path: Path) -> None:
    config = make_run(tmp_path, max_steps=1)
    run_stage("tokenizer", config)
    before = contents(config.output)
    again = make_run(
        tmp_path,
        pretrained=str(config.output / "best"),
        tokenizer_size=None,
        predictor_size=None,
        overwrite=True,
    )
    with pytest.raises(ValueError, match="would delete the weights to start from"):
        run_stage("tokenizer", again)
    assert contents(config.output) == before


def test_a_bundled_name_is_no_folder_in_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_run(
        tmp_path,
        output=Path(),
        overwrite=True,
        pretrained="kronos-nano",
        tokenizer_size=None,
        predictor_size=None,
        max_steps=1,
    )
    assert run_stage("tokenizer", config).step == 1


def test_a_tracker_that_is_not_installed_is_missed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kronos.training.run.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="tensorboard is not installed: pip install tensorboard"):
        run_stage("tokenizer", make_run(tmp_path, tracker="tensorboard"))


@pytest.mark.parametrize("max_steps", [1, 2, 10, 20])
def test_short_runs_have_a_schedule(max_steps: int, tmp_path: Path) -> None:
    progress = run_stage("tokenizer", make_run(tmp_path, max_steps=max_steps, warmup=0.1))
    assert progress.step == max_steps
