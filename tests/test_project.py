"""Make targets, versions and the length of the README agree with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def commands(file: Path) -> list[str]:
    """The shell commands of a workflow."""
    jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("file", [*WORKFLOWS, ROOT / ".ci" / "run"], ids=lambda file: file.name)
def test_ci_calls_make_targets_that_exist(file: Path) -> None:
    text = "\n".join(commands(file)) if file.suffix == ".yml" else file.read_text(encoding="utf-8")
    called = {word for line in re.findall(r"^make (.*)$", text, re.MULTILINE) for word in line.split()}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    called = {word for word in called if "=" not in word}
    assert called
    assert called <= targets


def test_ci_runs_the_python_versions_that_the_package_claims() -> None:
    claimed = set(re.findall(r"Programming Language :: Python :: (3\.\d+)", PYPROJECT))
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    assert set(matrix["python"]) == claimed
    assert {"macos-latest", "windows-latest"} <= {row["os"] for row in matrix["include"]}


def test_no_version_of_python_is_shut_out_but_by_qlib() -> None:
    assert 'requires-python = ">=3.10"\n' in PYPROJECT
    limited = re.findall(r'"(\w+)[^"]*python_version < \'3\.13\'', PYPROJECT)
    assert set(limited) == {
        "pyqlib",
        "mlflow",
        "ecos",
    }  # Qlib, its records, and a solver that only Qlib needs


def test_the_hooks_use_the_ruff_of_the_constraints() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]
    assert f"ruff=={hooks['rev'].removeprefix('v')}\n" in (ROOT / "constraints.txt").read_text(
        encoding="utf-8"
    )


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


# What runs code of a file that comes from elsewhere, or leaves text unescaped, and the only files that may call it.
UNSAFE = {
    r"pickle\.loads?\(|(?<!_)Unpickler\(": (
        "qlib_runs.py",  # Qlib's artifacts of one's own runs
        "pickles.py",
        "processes.py",  # what the parent process sends through a pipe
    ),
    r"read_pickle|joblib|dill|cloudpickle|shelve\.|marshal\.": (),
    r"torch\.load\((?!.*weights_only=True)": (),
    r"allow_pickle=True": (),
    r"yaml\.(?!safe_load|safe_dump|compose|YAMLError)\w+": (),
    r"(?<![.\w])(?:eval|exec)\(": (),
    r"(?<!Sandboxed)Environment\(": (),
    r"\|\s*safe\b|autoescape=False|autoescape false": (),
    r"\.to_csv\(": ("utils.py",),
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write": (),
    r"shell=True|os\.system|os\.popen": (),
}


SUFFIXES = (".py", ".j2", ".yaml", ".js", ".html")


@pytest.mark.parametrize("pattern", UNSAFE, ids=str)
def test_nothing_runs_code_of_a_foreign_file(pattern: str) -> None:
    folders = [ROOT / name for name in ("kronos", "kronos_strategies", "backtests")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in SUFFIXES]
    assert len(files) > 150
    found = {path.name for path in files if re.search(pattern, path.read_text(encoding="utf-8"))}
    assert found == set(UNSAFE[pattern]), f"{pattern} in {found}"
