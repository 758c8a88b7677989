"""Versions, tables that no spreadsheet runs, files and folders that are whole or absent, errors with a remedy."""

import csv
import errno
import io
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos import utils
from kronos.utils import (
    atomic_file,
    atomic_folder,
    csv_text,
    explain_write_errors,
    git_commit,
    write_atomic,
)
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.validation import check_symbols, listing_spans
from kronos_strategies.store.files import make_folder, write_record


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
    assert git_commit() is None  # another repository, which does not hold the code
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


FULL = """
import resource, sys
from pathlib import Path
import pandas as pd
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.validation import listing_spans
days = pd.bdate_range("2015-01-01", periods=2000)
prices = dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0)
bars = pd.DataFrame({"instrument": "A", "datetime": days, **prices})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # as if the disk ended there
write_store(bars, Path(sys.argv[1]), membership={"m": listing_spans(bars)}, source={})
"""


def bars() -> pd.DataFrame:
    days = pd.bdate_range("2024-01-01", periods=5)
    prices = dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0)
    return pd.DataFrame({"instrument": "A", "datetime": days, **prices})


def store(to):
    return write_store(bars(), to, membership={"m": listing_spans(bars())}, source={})


@pytest.mark.integration
@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are of Unix")
def test_a_full_disk_is_reported_with_the_store_and_the_free_space(tmp_path):
    command = [sys.executable, "-c", FULL, str(tmp_path / "store")]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("OSError: The disk is full (")
    assert (
        f"free): {tmp_path / 'store'} cannot be written. Make room. Choose another folder, with --to." in last
    )
    assert not (tmp_path / "store").exists()
    assert not list(tmp_path.iterdir())  # nothing half-made stays


def test_a_folder_that_cannot_be_written_is_reported_with_a_remedy(tmp_path):
    (tmp_path / "file").touch()
    for to in (tmp_path / "file" / "store", "/proc/store"):
        with pytest.raises(OSError, match=r"cannot be written: .*Choose another folder, with --to"):
            store(type(tmp_path)(to))
    with pytest.raises(OSError, match=r"cannot be written: .*Choose another folder for the forecasts"):
        write_record(tmp_path / "file" / "x", {})
    with pytest.raises(OSError, match=r"cannot be written: .*Choose another folder for the forecasts"):
        make_folder(tmp_path / "file" / "deep")


def test_names_that_are_too_long_are_reported_with_their_length(tmp_path):
    with pytest.raises(OSError, match=r"The name 'aaaa.*' of 300 characters is too long for a file"):
        store(tmp_path / ("a" * 300))
    with pytest.raises(ValueError, match=r"has 300 characters and cannot name a folder. Use at most 100"):
        check_symbols(["A" * 300])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_known_by_its_number(tmp_path, number):
    with (
        pytest.raises(OSError, match=r"The disk is full \(.* free\)"),
        explain_write_errors(tmp_path, "Wait."),
    ):
        raise OSError(number, "No space left on device")


def test_an_existing_target_keeps_its_own_sentence(tmp_path):
    with pytest.raises(FileExistsError, match="stays"), explain_write_errors(tmp_path, "Wait."):
        raise FileExistsError("it stays")


def test_a_tracking_store_that_cannot_be_created_names_alternatives():
    pytest.importorskip("qlib")
    from kronos_strategies.qlib.experiment import prepare_database

    with pytest.raises(
        OSError, match=r"/proc/mlflow.db cannot be written: .*--tracking, MLFLOW_TRACKING_URI"
    ):
        prepare_database("sqlite:////proc/mlflow.db")


def stop(writing: AbstractContextManager[Path]) -> None:
    """Stop before the end of writing."""
    with writing as draft:
        (draft / "half" if draft.is_dir() else draft).write_bytes(b"half")
        raise RuntimeError("stopped")


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "file.txt"
    assert write_atomic(path, "déjà\nvu") == path
    assert path.read_bytes() == "déjà\nvu".encode()
    with pytest.raises(RuntimeError, match="stopped"):
        stop(atomic_file(path))
    assert path.read_bytes() == "déjà\nvu".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "deep" / "folder"
    for name in ("old", "new"):
        with atomic_folder(path) as draft:
            (draft / name).touch()
        assert [each.name for each in path.iterdir()] == [name]
    with pytest.raises(RuntimeError, match="stopped"):
        stop(atomic_folder(path))
    assert [each.name for each in path.iterdir()] == ["new"]
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_another_process_has_filled_meanwhile_stays(tmp_path):
    path = tmp_path / "folder"
    refused = pytest.raises(FileExistsError, match=r"folder was filled by another process meanwhile")
    with refused, atomic_folder(path, replace=False) as draft:
        (draft / "ours").touch()
        path.mkdir()
        (path / "theirs").touch()
    assert [each.name for each in path.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError])
def test_a_folder_stays_when_its_replacement_is_stopped_between_the_two_renames(tmp_path, monkeypatch, kind):
    path, rename = tmp_path / "folder", Path.rename
    with atomic_folder(path) as draft:
        (draft / "old").touch()

    def stopped(self, target):
        if target == path and not self.name.endswith("-replaced"):
            raise kind
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(kind), atomic_folder(path) as draft:
        (draft / "new").touch()
    assert [each.name for each in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_a_killed_process_moved_aside_is_restored(tmp_path):
    to = tmp_path / "store"
    store(to)
    to.rename(tmp_path / ".store.0123abcd.tmp-replaced")  # kill -9 between the two renames
    other = tmp_path / ".store.old.0123abcd.tmp-replaced"  # that of a folder called store.old
    other.mkdir()
    with pytest.raises(FileExistsError, match="already contains a data directory"):
        store(to)
    assert (to / "kronos_store.json").is_file()
    assert sorted(tmp_path.iterdir()) == [other, to]


def test_drafts_that_killed_processes_left_are_removed_after_a_day(tmp_path):
    abandoned, recent = tmp_path / ".file.txt.0123abcd.tmp", tmp_path / ".file.txt.4567abcd.tmp"
    folder = tmp_path / ".store.0123abcd.tmp"
    (folder / "features").mkdir(parents=True)
    for path in (abandoned, recent):
        path.write_text("half")
    for path in (abandoned, folder):
        os.utime(path, (1e9, 1e9))
    write_atomic(tmp_path / "file.txt", "whole")
    store(tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == [recent.name, "file.txt", "store"]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_known_by_the_words_of_other_libraries(tmp_path, error):
    with (
        pytest.raises(OSError, match=r"^The disk is full \(.* free\): .* Wait\.$"),
        explain_write_errors(tmp_path, "Wait."),
    ):
        raise error


def test_errors_that_are_not_of_writing_stay_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), explain_write_errors(tmp_path / "a", "Wait."):
        raise RuntimeError("shapes differ")
    missing = tmp_path / "elsewhere" / "bars.csv"
    with pytest.raises(FileNotFoundError) as found, explain_write_errors(tmp_path / "cache" / "a", "Wait."):
        missing.read_text()
    assert found.value.filename == str(missing)
