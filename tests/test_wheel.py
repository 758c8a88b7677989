"""The built wheel in an environment of its own, outside of the repository: what a user of pip gets."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = "Scripts" if os.name == "nt" else "bin"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling")
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="session")
def environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel, which finds its dependencies where this one has them."""
    venv = tmp_path_factory.mktemp("user") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / BIN / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, text=True)
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True)
    # A line of a .pth file adds a folder without reading the .pth files in it, so an editable install stays out.
    Path(packages.stdout.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return venv / BIN


def run(environment: Path, folder: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command in the user's folder, with nothing of this process's settings that names the repository."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("KRONOS_", "PYTHON", "MLFLOW"))}
    return subprocess.run(
        [environment / command[0], *command[1:]],
        cwd=folder,
        env={**ours, "XDG_CACHE_HOME": str(folder / "cache"), **settings},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_the_wheel_holds_the_two_packages_their_data_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"kronos", "kronos_strategies"}
    configs = {Path(name).name for name in names if name.startswith("kronos_strategies/configs/")}
    assert configs == {file.name for file in (ROOT / "configs").glob("*.yaml")}
    for name in (
        "kronos/py.typed",
        "kronos_strategies/py.typed",
        "kronos_strategies/report/templates/page.css",
        *(f"kronos_strategies/serve/static/{file}" for file in ("index.html", "serve.css", "serve.js")),
    ):
        assert name in names


def test_it_is_what_runs_and_has_the_pretrained_checkpoint(environment, tmp_path):
    script = (
        "import kronos, kronos_strategies; print(kronos.__file__, kronos_strategies.__file__)\n"
        "from kronos import KronosPredictor\n"
        "print(KronosPredictor.from_pretrained('kronos-nano', device='cpu').max_context)"
    )
    done = run(environment, tmp_path, "python", "-c", script)
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout
    assert done.stdout.split()[-1] == "512"


def test_the_command_runs(environment, tmp_path):
    done = run(environment, tmp_path, "kronos", "--help")
    assert done.returncode == 0, done.stderr
    assert "init" in done.stdout


def test_a_workflow_file_that_init_wrote_runs_in_qlib(environment, tmp_path):
    pytest.importorskip("qlib")
    done = run(environment, tmp_path, "kronos", "init", "configs")
    assert done.returncode == 0, done.stderr
    settings = {
        "KRONOS_SAMPLES": "0",
        "KRONOS_DEVICE": "cpu",
        "KRONOS_TEST_START": "2023-05-08",
        "KRONOS_TEST_END": "2023-06-09",
    }
    script = (
        "from qlib.cli.run import run; run()"  # the command `qrun`, which stays with Qlib's own environment
    )
    done = run(environment, tmp_path, "python", "-c", script, "configs/kronos_csi300.yaml", **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Kronos" in done.stdout
    (report,) = tmp_path.glob("mlruns/*/*/artifacts/kronos/report.html")
    assert report.stat().st_size > 100_000
