import json

import pytest
import yaml

from kronos.predictor import KronosPredictor

from .conftest import run

SIZE = {"d_model": 16, "n_heads": 2, "ff_dim": 24, "s1_bits": 4, "s2_bits": 4}
SETTINGS = {
    "pretrained": "none",
    "tokenizer_size": SIZE | {"n_enc_layers": 2, "n_dec_layers": 2},
    "predictor_size": SIZE | {"n_layers": 1},
    "lookback": 16,
    "horizon": 4,
    "batch_size": 8,
    "validation_windows": 20,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def settings(tmp_path):
    """A file of settings, with changes."""

    def write(**changes):
        file = tmp_path / "settings.yaml"
        file.write_text(yaml.safe_dump(SETTINGS | changes))
        return file

    return write


def record(output, which, part):
    return json.loads((output / which / part / "training.json").read_text())


def test_both_stages_train_on_the_simulated_market_to_a_pair(settings, tmp_path, capsys):
    output = tmp_path / "out"
    stages = {"predictor": {"seed": 5}}
    code, _, _ = run(
        capsys, "train", "--config", settings(stages=stages), "--max-steps", 2, "--output", output
    )
    assert code == 0
    for which in ("best", "last"):
        assert [record(output, which, part)["step"] for part in ("tokenizer", "predictor")] == [2, 2]
        assert [record(output, which, part)["settings"]["seed"] for part in ("tokenizer", "predictor")] == [
            0,
            5,
        ]
        assert record(output, which, "predictor")["data"][0]["name"] == "simulated"
        predictor = KronosPredictor.from_pretrained(output / which, device="cpu")
        assert predictor.checkpoint_info.trained_until == "2023-12-29"
    code, _, err = run(capsys, "train", "--config", settings(), "--max-steps", 2, "--output", output)
    assert code == 2
    assert "contains an earlier result" in err


def test_a_mistake_in_the_second_stage_is_found_before_the_first_begins(settings, tmp_path, capsys):
    for stage, says in (
        ({"predictor": {"max_steps": 0}}, "max_steps=0 is too small"),
        ({"predictor": {"max_stepz": 3}}, "max_stepz"),
    ):
        command = ["train", "--config", settings(stages=stage), "--output", tmp_path / "out"]
        code, _, err = run(capsys, *command)
        assert code == 2
        assert says in err
        assert len(err.strip().splitlines()) == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ([], "--output"),
        (["--output", "out", "--max-stepz", "3"], "--max-stepz"),
        (["--output", "out", "--config", "nowhere.yaml"], "nowhere.yaml is not a file. Check --config."),
        (["--output", "out", "--data", "nowhere"], "nowhere is neither a file nor a folder of bars."),
        (["--output", "out", "--resume", "--overwrite"], "Both --resume and --overwrite"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tokens, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "train", *tokens)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_flags_of_the_stages(flag, capsys):
    code, out, _ = run(capsys, "train", flag)
    assert code == 0
    for part in ("For example: kronos train --config", "--learning-rate", "--resume", "--tokenizer"):
        assert part in out


@pytest.mark.parametrize("stage", ["tokenizer", "predictor", "evaluate"])
def test_help_of_one_stage_is_that_of_the_stage(stage, capsys):
    code, out, _ = run(capsys, "train", stage, "--help")
    assert code == 0
    assert f"Usage: python -m kronos.training {stage}" in out
