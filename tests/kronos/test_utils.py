import subprocess
from pathlib import Path

import pytest

from kronos import utils
from kronos.utils import git_commit


@pytest.mark.integration
def test_the_commit_is_that_of_the_code_with_a_plus_where_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*command: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *who, *command], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    file = tmp_path / "code.py"
    file.write_text("1")
    monkeypatch.setattr(utils, "__file__", str(file))
    assert git_commit() is None  # no repository
    git("init")
    (tmp_path / "other.py").write_text("1")
    git("add", "other.py")
    git("commit", "-m", "a")
    assert git_commit() is None  # somebody's repository, which does not hold the code
    git("add", "code.py")
    git("commit", "-m", "b")
    assert git_commit() == git("rev-parse", "HEAD")
    file.write_text("2")
    assert git_commit() == git("rev-parse", "HEAD") + "+"


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None
