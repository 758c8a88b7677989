"""`make demo` as make would run it; the runs themselves are tested with the Qlib adapter."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    shutil.which("make") is None or not (ROOT / "Makefile").is_file(),
    reason="there is no make or no Makefile",
)


def make(*arguments: str, **settings: str) -> str:
    """Output of make with no KRONOS_* setting except those given."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("KRONOS_", "MAKE"))}
    done = subprocess.run(
        ["make", *arguments], cwd=ROOT, env=ours | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings_of(tmp_path: Path, **given: str) -> dict[str, str]:
    """The KRONOS_* variables that the first command of the demo is run with."""
    for tool in ("qrun", "kronos"):
        fake = tmp_path / "bin" / tool
        fake.parent.mkdir(exist_ok=True)
        fake.write_text("#!/bin/sh\nenv | grep ^KRONOS_\necho end\n")
        fake.chmod(0o755)
    (tmp_path / ".run").touch()
    first, *_ = make("demo", "-s", f"VENV={tmp_path}", "-o", f"{tmp_path}/.run", **given).split("end\n")
    return dict(line.split("=", 1) for line in first.splitlines())


def test_the_demo_compares_the_experiments_of_its_two_files() -> None:
    commands = make("demo", "-n")
    configs = re.findall(r"qrun (?:\.\./)(configs/\S+)", commands)
    experiments = [
        re.search(r"^experiment_name: (\S+)$", (ROOT / config).read_text(), re.MULTILINE)[1]
        for config in configs
    ]
    (compared,) = re.findall(r"kronos compare (.*)", commands)
    assert [word.split("=")[1] for word in compared.split() if "=" in word] == experiments


def test_the_demo_ranks_by_paths_and_holds_a_day(tmp_path: Path) -> None:
    assert settings_of(tmp_path) == {"KRONOS_HOLD": "1", "KRONOS_SAMPLES": "8", "KRONOS_SCORE": "paths"}


def test_without_paths_the_checkpoints_own_head_ranks(tmp_path: Path) -> None:
    assert settings_of(tmp_path, KRONOS_SAMPLES="0")["KRONOS_SCORE"] == "auto"


def test_the_environment_overrides_the_demos_settings(tmp_path: Path) -> None:
    given = {"KRONOS_HOLD": "5", "KRONOS_SAMPLES": "20", "KRONOS_SCORE": "head", "KRONOS_SEED": "3"}
    assert settings_of(tmp_path, **given) == given
