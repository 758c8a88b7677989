"""kill -9 at random moments: what is left is whole, and resuming gives the content of an undisturbed attempt.

KRONOS_KILLS is the number of kills of each task; `make test-long` sets it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

KILLS = int(os.environ.get("KRONOS_KILLS", "1"))
LONG = KILLS > 1


def survive(folder: Path, *tasks: str) -> dict[str, int]:
    """The number of kills of each task."""
    command = [sys.executable, "-m", "tests.faults.kills", str(folder), str(KILLS), "0", *tasks]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_store_a_head_and_an_import_survive_kill_9(tmp_path):
    assert survive(tmp_path, "fill", "head", "import") == dict.fromkeys(("fill", "head", "import"), KILLS)


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="`make test-long` kills these")
@pytest.mark.parametrize("task", ["train", "report"])
def test_a_training_and_a_report_survive_kill_9(task, tmp_path):
    for package in ("accelerate", "plotly", "jinja2", "arch", "statsmodels"):
        pytest.importorskip(package)
    assert survive(tmp_path, task) == {task: KILLS}
