"""Which code runs: version and commit, for the records of runs. Knows no torch."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path


def git_commit() -> str | None:
    """The commit of the code that runs, with a + if files differ from it; None outside of a repository."""
    here = Path(__file__)  # in a virtual environment within somebody's repository it is no file of that one
    commands = (
        ["ls-files", "--error-unmatch", here.name],
        ["rev-parse", "HEAD"],
        ["status", "--porcelain", "--untracked-files=no"],
    )
    try:
        _, commit, changed = (
            subprocess.run(
                ["git", "-C", str(here.parent), *command],
                capture_output=True, text=True, check=True, timeout=10,
            ).stdout.strip()
            for command in commands
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def package_version() -> str:
    """Of this distribution."""
    return version("kronos-strategies")
