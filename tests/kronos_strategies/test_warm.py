"""Processes that are forked behave as those that are started."""

import os
import sys
from pathlib import Path

import pytest

from .warm import Script, run_warm

pytestmark = pytest.mark.integration
SHOWS = """
import atexit, os, sys
atexit.register(print, "ended")
print(__name__, sys.argv, os.getcwd(), os.environ["MINE"], sys.path[0])
os.environ["MINE"] = "changed"
"""


def script(folder: Path, code: str, name: str = "script.py") -> Path:
    (folder / name).write_text(code)
    return folder / name


def test_a_script_has_its_own_words_folder_environment_and_exit_hooks(tmp_path: Path) -> None:
    file = script(tmp_path, SHOWS)
    for mine in ("1", "2"):
        done = run_warm([file, "a", 1], tmp_path, {**os.environ, "MINE": mine})
        shown = f"__main__ ['{file}', 'a', '1'] {tmp_path} {mine} {tmp_path}"
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{shown}\nended\n", "")


@pytest.mark.parametrize(
    ("code", "returncode", "says"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('a mistake')", 1, "a mistake\n"),
        ("raise ValueError('no')", 1, "ValueError: no\n"),
        ("import sys; sys.excepthook = lambda *e: sys.stderr.write('hook'); 1 / 0", 1, "hook"),
    ],
)
def test_exit_codes_and_errors_are_those_of_python(
    tmp_path: Path, code: str, returncode: int, says: str
) -> None:
    done = run_warm([script(tmp_path, code)], tmp_path, os.environ)
    assert done.returncode == returncode
    assert done.stderr.endswith(says)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_scripts_run_at_the_same_time_and_can_be_killed(tmp_path: Path) -> None:
    waits = "import time\nfrom pathlib import Path\nwhile not Path('go').exists(): time.sleep(0.01)"
    first, second = (Script([script(tmp_path, waits)], tmp_path, os.environ) for _ in range(2))
    assert first.poll() is None
    first.kill()
    assert first.finished().returncode == -9
    assert second.poll() is None
    (tmp_path / "go").touch()
    assert second.finished().returncode == 0
    assert second.poll() == 0
