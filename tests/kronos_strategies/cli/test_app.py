"""Help has examples and loads nothing heavy; `kronos init` writes the files of the repository and keeps changes."""

import gc
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from kronos_strategies.cli import app, main

from .conftest import run


def commands_below(parent, *words):
    """All commands, groups and the program itself, as lists of words."""
    names = [name for name in parent if not name.startswith("-")]
    return [words, *(each for name in names for each in commands_below(parent[name], *words, name))]


@pytest.mark.parametrize("command", commands_below(app), ids=" ".join)
def test_every_help_has_an_example_with_flags_that_exist(command, capsys):
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    example = " ".join(out.split("For example: kronos ")[1].split("\n\n")[0].split())
    words = shlex.split(example.partition(" ╭")[0])
    assert words[: len(command)] == list(command)
    app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("command", commands_below(app), ids=" ".join)
def test_help_shows_defaults_as_one_would_type_them(command, capsys):
    _, out, _ = run(capsys, *command, "--help")
    text = " ".join(out.replace("│", " ").split())
    assert not re.findall(r"\[default: (?:[(\[{\"\'\]]|None|True|False).*?\]", text)


def test_help_loads_nothing_heavy():
    script = (
        "import sys\nfrom kronos_strategies.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(f'{heavy}' if (heavy := {'pandas', 'torch', 'qlib', 'pyarrow'} & set(sys.modules)) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_command_looks_for_garbage_less_often_but_not_within_another_program(capsys, monkeypatch):
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)
        run(capsys, "--help")
        assert gc.get_threshold() == (700, 10, 10)
        monkeypatch.setattr(sys, "argv", ["kronos", "--help"])
        with suppress(SystemExit):
            main()
        assert gc.get_threshold()[0] > 700
    finally:
        gc.set_threshold(*before)


def test_offline_forbids_downloads_with_any_command(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # set back after the test
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    bars = tmp_path / "bars.csv"
    days = pd.bdate_range("2024-01-01", periods=40)
    price = dict.fromkeys(("open", "high", "low", "close"), 10.0)
    pd.DataFrame({"datetime": days, "instrument": "A", "volume": 1.0} | price).to_csv(bars, index=False)
    code, _, err = run(
        capsys, "forecast", bars, "--horizon", 2, "--model", "acme/tiny", "--tokenizer", "acme/t", "--offline"
    )
    assert code == 2
    assert "downloads are off: --offline" in err
    assert "hf download" in err


CONFIGS = Path(__file__).parents[3] / "configs"


def test_the_files_written_are_those_of_the_repository(capsys, tmp_path):
    code, out, _ = run(capsys, "init", tmp_path / "new" / "configs")
    assert code == 0
    written = {file.name: file.read_bytes() for file in (tmp_path / "new" / "configs").iterdir()}
    assert written == {file.name: file.read_bytes() for file in CONFIGS.glob("*.yaml")}
    assert f"Next: qrun {tmp_path / 'new' / 'configs' / 'kronos_csi300.yaml'}" in out


def test_a_file_that_a_user_changed_is_kept_unless_it_may_be_replaced(capsys, tmp_path):
    run(capsys, "init", tmp_path)
    mine = tmp_path / "kronos_us.yaml"
    mine.write_text("mine")
    code, _, err = run(capsys, "init", tmp_path)
    assert code == 2
    assert "kronos_us.yaml" in err
    assert "--overwrite" in err
    assert mine.read_text() == "mine"
    assert run(capsys, "init", tmp_path, "--overwrite")[0] == 0
    assert mine.read_bytes() == (CONFIGS / "kronos_us.yaml").read_bytes()


def test_writing_the_same_files_again_changes_nothing(capsys, tmp_path):
    run(capsys, "init", tmp_path)
    assert run(capsys, "init", tmp_path)[0] == 0
