"""A disk that is full or read-only: one clear error, nothing half-made, and the next attempt gives all content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="limits of file sizes are of Unix")
for package in ("plotly", "jinja2", "matplotlib", "accelerate", "arch", "statsmodels"):
    pytest.importorskip(package)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
LIMITS = (100, 6000)  # bytes of a file
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
# Files whose content depends on the time or on the number of files so far.
VARYING = ("_locks", "run", "cache", "training.json", "info.json", "_manifest.json")


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def contents(folder: Path) -> dict[str, str]:
    """sha256 of each file whose content does not depend on the time."""
    names = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if not set(VARYING) & set(name.parts) and path.suffix not in (".md", ".lock")
    }


def check_error(name: str, ended: dict, start: str, place: Path) -> None:
    """Check that an OSError is one sentence that names the place."""
    assert "OSError" in ended["error"], (name, ended)
    assert ended["text"].startswith(start), (name, ended["text"])
    assert str(place) in ended["text"], (name, ended["text"])
    assert "\n" not in ended["text"], (name, ended["text"])


@pytest.fixture(scope="module")
def attempts(tmp_path_factory) -> tuple[Path, dict[str, dict[str, list[dict]]]]:
    """The folder that everything was written to, and how it ended by limit and name."""
    folder = tmp_path_factory.mktemp("full")
    done = run(sys.executable, "-m", "tests.faults.writers", folder, 0, *LIMITS)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.long
@pytest.mark.parametrize("limit", LIMITS)
def test_a_full_disk_is_one_sentence_and_the_next_attempt_gives_the_same_content(limit, attempts):
    folder, ended = attempts
    assert {name: first["text"] for name, (first,) in ended["0"].items() if first["error"]} == {}
    for name, (first, again) in ended[str(limit)].items():
        check_error(name, first, "The disk is full (", folder / str(limit))
        assert not [path for path in first["left"] if ".tmp" in path or "unfinished" in path], (name, first)
        assert again["error"] is None, (name, again)
        whole, found = (contents(folder / part / name) for part in ("0", str(limit)))
        if name == "training_cache":  # the name of its folder depends on the place of the bars
            whole, found = (dict(enumerate(sorted(each.values()))) for each in (whole, found))
        assert found == whole, name
        assert whole, name


def test_a_place_that_cannot_be_written_is_one_sentence():
    place = Path("/proc/kronos")
    if not place.parent.is_dir():
        pytest.skip("no /proc")
    done = run(sys.executable, "-m", "tests.faults.writers", place, 0)
    for name, (first,) in json.loads(done.stdout)["0"].items():
        if not name.startswith("training"):  # they write their bars there first
            check_error(name, first, str(place / "0" / name), place)


NAMESPACE = """
mount -t tmpfs -o size=64k tmpfs {folder} || exit 77
echo ready
head -c 200000 /dev/zero > {folder}/fill 2>/dev/null
exec {python} -m tests.faults.writers {folder} 0
"""


def test_a_small_file_system_that_is_full_is_one_sentence(tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    done = run("unshare", "-rm", "sh", "-c", NAMESPACE.format(folder=tmp_path, python=sys.executable))
    if not done.stdout.startswith("ready"):
        pytest.skip("no permission to mount a small file system")
    for name, (first,) in json.loads(done.stdout.removeprefix("ready\n"))["0"].items():
        if not name.startswith("training"):
            check_error(name, first, "The disk is full (0 bytes free)", tmp_path)
            assert not [path for path in first["left"] if not path.endswith(".lock")], (name, first)
