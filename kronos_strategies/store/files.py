"""A date's file on disk: its name, its checksum, its lock, and how it comes to be there whole or not at all.

    date=2024-01-02/<address>-<checksum>.parquet

The address is of the windows that were forecast, the checksum of the file's bytes, so that one look into a folder
tells whether a date is done and from which bars, and one pass over the bytes whether they are still those written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from filelock import FileLock, Timeout

from kronos.atomic import DRAFT, atomic_file, explain_write_errors, write_atomic

SUFFIX = ".parquet"
LOCKS = "_locks"  # engines that read a folder as one data set skip names with an underscore
INSTEAD = "Name another folder for the forecasts (KRONOS_STORE, kronos store fill FOLDER)."
_DIGITS = 16  # of each hash in a name: 64 bits against accidents
_NAME = re.compile(rf"([0-9a-f]{{{_DIGITS}}})-([0-9a-f]{{{_DIGITS}}}){re.escape(SUFFIX)}")


class CorruptFileError(ValueError):
    """A stored file is not what was written.

    Args:
        path: of the file.
        reason: what does not fit.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}. Fill the store again, which recomputes that date.")


class StoredFile(NamedTuple):
    """A date's file, not yet read."""

    path: Path
    address: str
    checksum: str

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            CorruptFileError: they do not fit the checksum.
        """
        content = self.path.read_bytes()
        if _short(hashlib.sha256(content).hexdigest()) != self.checksum:
            raise CorruptFileError(self.path, "its bytes do not fit its checksum")
        return content

    def holds(self, digest: str) -> bool:
        """Whether it was forecast from windows of this digest."""
        return self.address == _short(digest)


def date_label(date: pd.Timestamp) -> str:
    """A forecast date as part of a path, in alphabetical as in chronological order: 2024-01-02T093000."""
    if date == date.normalize():
        return f"{date:%Y-%m-%d}"
    fraction = date.microsecond * 1000 + date.nanosecond
    return f"{date:%Y-%m-%dT%H%M%S}" + (f".{fraction:09d}" if fraction else "")


def date_folder(folder: Path, date: pd.Timestamp) -> Path:
    """Where a date's file lies, as a hive partition."""
    return folder / f"date={date_label(date)}"


def find_file(folder: Path, date: pd.Timestamp) -> StoredFile | None:
    """A date's file, None if there is none.

    Raises:
        CorruptFileError: there is more than one, or one that is not ours.
    """
    where = date_folder(folder, date)
    names = sorted(path.name for path in where.glob(f"*{SUFFIX}"))
    if not names:
        return None
    match = _NAME.fullmatch(names[0])
    if len(names) > 1 or match is None:
        raise CorruptFileError(where, f"it holds {names} where one file belongs")
    return StoredFile(where / names[0], *match.groups())


def date_state(folder: Path, date: pd.Timestamp, digest: str) -> str:
    """Whether a date of windows with that digest is present, missing, changed or damaged, see `StoreStatus`."""
    try:
        file = find_file(folder, date)
        if file is None:
            return "missing"
        if not file.holds(digest):
            return "changed"
        file.read()
    except FileNotFoundError:  # replaced while we looked
        return "changed"
    except CorruptFileError:
        return "damaged"
    return "present"


def find_dates(folder: Path) -> pd.DatetimeIndex:
    """Dates that have a file, ascending; no file is opened."""
    labels = {path.parent.name.removeprefix("date=") for path in folder.glob(f"date=*/*{SUFFIX}")}
    return pd.DatetimeIndex(sorted(pd.Timestamp(label) for label in labels), name="datetime")


def publish(folder: Path, date: pd.Timestamp, digest: str, content: bytes) -> Path:
    """Write a date's file in the place of any other; the caller holds the date's lock.

    The old file is removed first, so that a crash leaves the date missing rather than there twice.
    """
    where = date_folder(folder, date)
    path = where / f"{_short(digest)}-{_short(hashlib.sha256(content).hexdigest())}{SUFFIX}"
    with explain_write_errors(folder, INSTEAD):
        where.mkdir(parents=True, exist_ok=True)
        for remnant in where.glob(f".*{DRAFT}"):  # of a process that was killed, since the lock is ours
            remnant.unlink()
        with atomic_file(path) as draft:
            draft.write_bytes(content)
            for old in where.glob(f"*{SUFFIX}"):
                old.unlink()
    return path


def make_folder(folder: Path) -> None:
    """Make a folder of the store."""
    with explain_write_errors(folder, INSTEAD):
        folder.mkdir(parents=True, exist_ok=True)


def write_record(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file that describes a folder."""
    with explain_write_errors(path, INSTEAD):
        write_atomic(path, json.dumps(content, indent=2, default=str) + "\n")


def try_lock(folder: Path, name: str) -> FileLock | None:
    """Lock `name` within a folder, between processes; None while another process holds it.

    The operating system releases the lock of a process that is killed.
    """
    with suppress(Timeout):
        lock = _lock(folder, name)
        lock.acquire(timeout=0)
        return lock
    return None


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock `name`, after waiting for it."""
    with _lock(folder, name):
        yield


def _lock(folder: Path, name: str) -> FileLock:
    with explain_write_errors(folder, INSTEAD):
        (folder / LOCKS).mkdir(parents=True, exist_ok=True)
        file = folder / LOCKS / f"{name}.lock"
        file.open("a").close()  # where that is denied, a lock would wait for ever
    return FileLock(file)


def _short(digest: str) -> str:
    return digest[:_DIGITS]
