import csv
import io
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos import utils
from kronos.utils import csv_text, git_commit


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


STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", " =")


@pytest.mark.parametrize("start", STARTS)
def test_no_text_of_a_table_is_a_formula_in_a_spreadsheet(start):
    text = f'{start}HYPERLINK("http://x","y")'
    frame = pd.DataFrame({text: [text, "A"], "kind": pd.Categorical([text, "B"]), "value": [-1.5, 2.0]})
    keys = pd.MultiIndex.from_tuples([("2024-01-02", text), ("2024-01-03", "A")], names=["d", "i"])
    for written in (csv_text(frame), csv_text(frame.set_axis(keys), "d", text)):
        rows = list(csv.reader(io.StringIO(written, newline="")))
        cells = [cell for row in rows for cell in row]
        assert not [cell for cell in cells if cell.lstrip(" ").startswith(STARTS[:-1]) and cell != "-1.5"]
        assert cells.count("'" + text) == (3 if written == csv_text(frame) else 5)
        assert "-1.5" in cells, "numbers stay numbers"


def test_a_harmless_table_is_written_as_pandas_does():
    keys = pd.MultiIndex.from_product([["a"], [1, 2]], names=["x", "y"])
    frame = pd.DataFrame({"name": ["A=B", None], "value": [-1.0, np.nan]}, keys)
    assert csv_text(frame, "x", "y") == frame.to_csv(lineterminator="\n")
    assert csv_text(frame) == frame.to_csv(index=False, lineterminator="\n")
