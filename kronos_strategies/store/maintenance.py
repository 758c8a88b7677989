"""What a store contains, whether its files are intact, and what can be deleted.

Three kinds of folders are known by the file that describes them:

    <model>-<sha>/<settings sha>/_manifest.json           forecasts
    <model>-<sha>/heads/<head>-<sha>-<sha>/_rows.json     outputs of a return head
    <model>-<sha>/embeddings/<settings sha>/_rows.json    hidden states
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kronos.utils import DRAFT, explain_write_errors
from kronos_strategies.progress import ProgressReport, no_progress
from kronos_strategies.store.files import (
    SUFFIX,
    CorruptFileError,
    find_file,
    stored_file,
    try_lock,
)
from kronos_strategies.store.settings import FORMAT, MANIFEST, read_manifest, read_settings, update_manifest
from kronos_strategies.store.window_outputs import DESCRIPTION, read_description

FORECASTS, HEADS, EMBEDDINGS = "forecasts", "heads", "embeddings"
_WHERE = {
    FORECASTS: f"*/*/{MANIFEST}",
    HEADS: f"*/heads/*/{DESCRIPTION}",
    EMBEDDINGS: f"*/embeddings/*/{DESCRIPTION}",
}


@dataclass(frozen=True)
class StoredFolder:
    """A folder with one file per date.

    Attributes:
        folder: its path.
        kind: FORECASTS, HEADS or EMBEDDINGS.
    """

    folder: Path
    kind: str

    @property
    def model(self) -> str:
        """Name of the model's folder, its first part."""
        return (self.folder.parent if self.kind == FORECASTS else self.folder.parents[1]).name

    @property
    def settings(self) -> dict[str, Any]:
        """Settings as written; empty if the file that describes the folder cannot be read."""
        try:
            written = read_manifest(self.folder) if self.kind == FORECASTS else read_description(self.folder)
        except (FileNotFoundError, ValueError):
            written = None
        settings = (written or {}).get("settings")
        return dict(settings) if isinstance(settings, dict) else {}

    @property
    def is_outdated(self) -> bool:
        """Whether an earlier version wrote it in a format that this one does not read."""
        written = self.settings.get("format")
        return self.kind == FORECASTS and isinstance(written, int) and written < FORMAT

    def date_folders(self) -> list[Path]:
        """Folders of dates, ascending; links to elsewhere are none."""
        return sorted(path for path in self.folder.glob("date=*") if path.is_dir() and not path.is_symlink())


@dataclass(frozen=True)
class Contents:
    """Size of a stored folder.

    Attributes:
        dates: dates with a file, ascending.
        windows: rows of all files that can be read.
        size: bytes of all files.
    """

    dates: pd.DatetimeIndex
    windows: int
    size: int


@dataclass(frozen=True)
class Problem:
    """A damaged file or description.

    Attributes:
        path: which.
        reason: what is wrong with it.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class Verification:
    """Result of reading every file of a store.

    Attributes:
        folders: number of folders.
        files: number of files read.
        size: their bytes.
        problems: what is damaged; empty if the store is intact.
    """

    folders: int
    files: int
    size: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Garbage:
    """A file or folder that can be deleted.

    Attributes:
        path: which.
        reason: why.
        size: bytes.
    """

    path: Path
    reason: str
    size: int


def find_folders(store: Path) -> list[StoredFolder]:
    """All folders of a store, by path.

    Raises:
        FileNotFoundError: there is no such store.
    """
    if not store.is_dir():
        raise FileNotFoundError(f"{store} is not a folder. Pass the folder of a forecast store.")
    found = [StoredFolder(path.parent, kind) for kind, where in _WHERE.items() for path in store.glob(where)]
    found = [each for each in found if not each.folder.is_symlink()]
    return sorted(found, key=lambda each: each.folder)


def contents(stored: StoredFolder) -> Contents:
    """Dates, windows and bytes of a folder; only the footers of files are read."""
    files = [path for folder in stored.date_folders() for path in folder.glob(f"*{SUFFIX}")]
    labels = sorted({path.parent.name.removeprefix("date=") for path in files})
    dates = pd.DatetimeIndex([pd.to_datetime(label, errors="coerce") for label in labels]).dropna()
    return Contents(dates, sum(map(_rows, files)), sum(path.stat().st_size for path in files))


def verify_store(store: Path, progress: ProgressReport = no_progress) -> Verification:
    """Read every file of a store and compare it with its checksum.

    Args:
        store: folder of the store.
        progress: called as progress(dates done, dates in total).

    Raises:
        FileNotFoundError: there is no such store.
    """
    folders = find_folders(store)
    total = sum(len(each.date_folders()) for each in folders)
    files = size = done = 0
    problems: list[Problem] = []
    for each in folders:
        present = 0
        for folder in each.date_folders():
            try:
                file = find_file(each.folder, pd.Timestamp(folder.name.removeprefix("date=")))
                if file is not None:
                    size += len(file.read())
                    present += 1
            except FileNotFoundError:  # another process replaces it
                pass
            except CorruptFileError as error:
                present += 1
                problems.append(Problem(error.path, error.reason))
            except ValueError:
                problems.append(Problem(folder, "its name is not a date"))
            done += 1
            progress(done, total)
        files += present
        problems += _problems_of_description(each, present)
    return Verification(len(folders), files, size, tuple(problems))


def collect_garbage(store: Path, dry_run: bool, progress: ProgressReport = no_progress) -> list[Garbage]:
    """Delete what no reader uses: unfinished files, damaged files, empty dates, folders of earlier formats.

    What another process is writing is left alone. Locks stay: a process may hold one.

    Args:
        store: folder of the store.
        dry_run: delete nothing.
        progress: called as progress(folders done, folders in total).

    Returns:
        What was, or would be, deleted.

    Raises:
        FileNotFoundError: there is no such store.
        OSError: a file cannot be deleted.
    """
    found: list[Garbage] = []
    folders = find_folders(store)
    with explain_write_errors(store, "Make it writable, or use --dry-run."):
        for done, each in enumerate(folders, start=1):
            if each.is_outdated:
                reason = f"written in format {each.settings['format']}, this version reads {FORMAT}"
                found.append(Garbage(each.folder, reason, _size(each.folder)))
                if not dry_run:
                    shutil.rmtree(each.folder)
            else:
                found += _collect_in(each, dry_run)
            progress(done, len(folders))
    return found


def _collect_in(stored: StoredFolder, dry_run: bool) -> list[Garbage]:
    """Delete garbage of each date, and next to the description, under its lock."""
    found: list[Garbage] = []
    own = "manifest" if stored.kind == FORECASTS else "rows"
    for name, folder in [(own, stored.folder), *((each.name[5:], each) for each in stored.date_folders())]:
        lock = try_lock(stored.folder, name)
        if lock is None:  # a process writes there
            continue
        try:
            garbage = list(_unfinished(folder)) if folder == stored.folder else _garbage_of_date(folder)
            for each in () if dry_run else garbage:
                if each.path.is_dir():
                    each.path.rmdir()
                else:
                    each.path.unlink()
        finally:
            lock.release()
        found += garbage
    if found and not dry_run and stored.kind == FORECASTS and not _unusable(stored):
        update_manifest(stored.folder, read_settings(stored.folder))
    return found


def _garbage_of_date(folder: Path) -> list[Garbage]:
    found, intact = list(_unfinished(folder)), []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        reason = _damage(path)
        if reason is None:
            intact.append(path)
        else:
            found.append(Garbage(path, reason, path.stat().st_size))
    newest = max(intact, key=lambda path: path.stat().st_mtime_ns, default=None)
    older = [path for path in intact if path != newest]
    found += [Garbage(path, "another file of the date is newer", path.stat().st_size) for path in older]
    if not set(folder.iterdir()) - {each.path for each in found}:
        found.append(Garbage(folder, "no file of the date is left", 0))
    return found


def _unfinished(folder: Path) -> Iterator[Garbage]:
    for path in sorted(folder.glob(f".*{DRAFT}")):
        if path.is_file():
            yield Garbage(path, "unfinished, left by a process that was killed", path.stat().st_size)


def _damage(path: Path) -> str | None:
    """Why a file is unusable; None if it is intact."""
    file = stored_file(path)
    if file is None:
        return "its name is not that of a stored file"
    try:
        file.read()
    except CorruptFileError as error:
        return error.reason
    return None


def _problems_of_description(stored: StoredFolder, present: int) -> Iterator[Problem]:
    if stored.kind != FORECASTS:
        if not stored.settings:
            yield Problem(stored.folder / DESCRIPTION, "it cannot be read")
        return
    reason = _unusable(stored)
    if reason is not None:
        yield Problem(stored.folder / MANIFEST, reason)
        return
    recorded = read_manifest(stored.folder).get("data", {}).get("dates", 0)
    if recorded > present:
        yield Problem(stored.folder, f"{recorded - present} of {recorded} dates in its manifest are missing")


def _unusable(stored: StoredFolder) -> str | None:
    """Why the manifest cannot be used; None if it can."""
    if stored.is_outdated:
        return f"it has format {stored.settings['format']}, this version reads {FORMAT}"
    try:
        read_settings(stored.folder)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def _rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path.absolute()).num_rows)
    except (OSError, pa.ArrowException):
        return 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
