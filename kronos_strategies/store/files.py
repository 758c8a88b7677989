"""The file of a date: its name, its checksum, its lock, and how it is written atomically, locally or by a URL.

    date=2024-01-02/<address>-<checksum>.parquet

The address is the hash of the forecast windows, and the checksum that of the file's bytes. The folder listing shows
whether a date is complete and from which bars; reading the bytes shows whether the file is intact.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pandas as pd
from filelock import FileLock, Timeout

from kronos.utils import DRAFT, atomic_file, explain_write_errors, write_atomic
from kronos_strategies.store.location import explain_remote_errors, find_objects, is_remote

log = logging.getLogger(__name__)

SUFFIX = ".parquet"
LOCKS = "_locks"  # engines that read a folder as one data set skip names with an underscore
INSTEAD = "Choose another folder for the forecasts (KRONOS_STORE, kronos store fill FOLDER)."
_DIGITS = 16  # characters of each hash in a name: 64 bits
_NAME = re.compile(rf"([0-9a-f]{{{_DIGITS}}})-([0-9a-f]{{{_DIGITS}}}){re.escape(SUFFIX)}")


class CorruptFileError(ValueError):
    """A stored file is damaged.

    Args:
        path: path of the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}. Fill the store again, which recomputes that date.")
        self.path, self.reason = path, reason


class StoredFile(NamedTuple):
    """The file of a date, not yet read."""

    path: Path
    address: str
    checksum: str

    def read(self) -> bytes:
        """Read the bytes.

        Raises:
            CorruptFileError: they do not match the checksum.
        """
        content = self.path.read_bytes()
        if _short(hashlib.sha256(content).hexdigest()) != self.checksum:
            raise CorruptFileError(self.path, "its bytes do not match its checksum")
        return content

    def holds(self, digest: str) -> bool:
        """Whether it was computed from windows with this digest."""
        return self.address == _short(digest)


def date_label(date: pd.Timestamp) -> str:
    """A forecast date as part of a path, in alphabetical as in chronological order: 2024-01-02T093000."""
    if date == date.normalize():
        return f"{date:%Y-%m-%d}"
    fraction = date.microsecond * 1000 + date.nanosecond
    return f"{date:%Y-%m-%dT%H%M%S}" + (f".{fraction:09d}" if fraction else "")


def date_folder(folder: Path, date: pd.Timestamp) -> Path:
    """Folder of a date's file, as a hive partition."""
    return folder / f"date={date_label(date)}"


def find_file(folder: Path, date: pd.Timestamp) -> StoredFile | None:
    """The file of a date, None if there is none.

    Raises:
        CorruptFileError: there are several files, or one with another name.
    """
    where = date_folder(folder, date)
    names = sorted(path.name for path in where.glob(f"*{SUFFIX}"))
    if not names:
        return None
    file = stored_file(where / names[0])
    # Without locks, two processes with different processors may have stored the same windows with other roundings.
    equal = is_remote(folder) and len({name.partition("-")[0] for name in names}) == 1
    if file is None or (len(names) > 1 and not equal):
        raise CorruptFileError(where, f"it contains {names} instead of one file")
    return file


def stored_file(path: Path) -> StoredFile | None:
    """The file at a path; None if its name is not that of a stored file."""
    match = _NAME.fullmatch(path.name)
    return StoredFile(path, *match.groups()) if match else None


def date_state(folder: Path, date: pd.Timestamp, digest: str) -> str:
    """Whether a date of windows with that digest is present, missing, changed or damaged, see `StoreStatus`."""
    try:
        file = find_file(folder, date)
        if file is None:
            return "missing"
        if not file.holds(digest):
            return "changed"
        file.read()
    except FileNotFoundError:  # replaced by another process
        return "changed"
    except CorruptFileError:
        return "damaged"
    return "present"


def warn_of_damage(folder: Path, dates: Sequence[pd.Timestamp]) -> None:
    """Log that damaged dates are computed again."""
    if dates:
        more = f" and {len(dates) - 1} more dates" if len(dates) > 1 else ""
        log.warning(
            "%s is damaged (its file does not match its checksum)%s: computed again.",
            date_folder(folder, dates[0]), more,
        )  # fmt: skip


def listed_states(folder: Path, digests: Mapping[pd.Timestamp, str]) -> dict[pd.Timestamp, str]:
    """The state of each date, see `date_state`.

    A local file is read, which shows whether it is intact. A remote folder is listed once and nothing is read: its
    objects are written whole, and they are checked when they are read.
    """
    if not is_remote(folder):
        return {date: date_state(folder, date, digest) for date, digest in digests.items()}
    names: dict[str, list[str]] = {}
    for path in date_files(folder):
        names.setdefault(path.parent.name, []).append(path.name)
    states = {}
    for date, digest in digests.items():
        found = names.get(f"date={date_label(date)}", [])
        matches = [match for name in found if (match := _NAME.fullmatch(name))]
        addresses = {match[1] for match in matches}
        if not found:
            states[date] = "missing"
        elif len(matches) < len(found) or len(addresses) > 1:
            states[date] = "damaged"
        else:
            states[date] = "present" if addresses == {_short(digest)} else "changed"
    return states


def date_files(folder: Path) -> dict[Path, int]:
    """The files of all dates in alphabetical order, with their bytes."""
    if is_remote(folder):
        found = find_objects(folder)
        return {
            path: size
            for path, size in found.items()
            if path.suffix == SUFFIX and path.parent.name.startswith("date=") and path.parent.parent == folder
        }
    return {path: path.stat().st_size for path in sorted(folder.glob(f"date=*/*{SUFFIX}"))}


def find_dates(folder: Path) -> pd.DatetimeIndex:
    """Dates that have a file, ascending; no file is opened."""
    labels = {path.parent.name.removeprefix("date=") for path in date_files(folder)}
    return pd.DatetimeIndex(sorted(pd.Timestamp(label) for label in labels), name="datetime")


def publish(folder: Path, date: pd.Timestamp, digest: str, content: bytes) -> Path:
    """Write the file of a date and replace an existing one; the caller holds the date's lock.

    The old file is removed first, so that a crash leaves the date missing rather than duplicated. An object is
    written whole, and older ones are removed after it.
    """
    where = date_folder(folder, date)
    path = where / f"{_short(digest)}-{_short(hashlib.sha256(content).hexdigest())}{SUFFIX}"
    if is_remote(folder):
        with explain_remote_errors(folder):
            path.write_bytes(content)
            for old in where.glob(f"*{SUFFIX}"):
                if old.name != path.name:
                    old.unlink(missing_ok=True)
        return path
    with explain_write_errors(folder, INSTEAD):
        where.mkdir(parents=True, exist_ok=True)
        for remnant in where.glob(f".*{DRAFT}"):  # left by a killed process, because we hold the lock
            remnant.unlink()
        with atomic_file(path) as draft:
            draft.write_bytes(content)
            for old in where.glob(f"*{SUFFIX}"):
                old.unlink()
    return path


def make_folder(folder: Path) -> None:
    """Make a folder of the store; an object store has none."""
    if is_remote(folder):
        return
    with explain_write_errors(folder, INSTEAD):
        folder.mkdir(parents=True, exist_ok=True)


def write_record(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file that describes a folder."""
    text = json.dumps(content, indent=2, default=str) + "\n"
    if is_remote(path):
        with explain_remote_errors(path):
            path.write_bytes(text.encode())
        return
    with explain_write_errors(path, INSTEAD):
        write_atomic(path, text)


class Lock(Protocol):
    """A lock that is held."""

    def release(self) -> object:
        """Let others have it."""
        ...


class NoLock:
    """The lock of a remote folder: two processes may compute a date, and then write the same object."""

    def release(self) -> None:
        """Do nothing."""


def try_lock(folder: Path, name: str) -> Lock | None:
    """Lock `name` within a folder, between processes; None while another process holds it.

    The operating system releases the lock of a process that is killed.
    """
    if is_remote(folder):
        return NoLock()
    with suppress(Timeout):
        lock = _lock(folder, name)
        lock.acquire(timeout=0)
        return lock
    return None


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock `name`, after waiting for it; a remote folder has no locks."""
    if is_remote(folder):
        yield
        return
    with _lock(folder, name):
        yield


def _lock(folder: Path, name: str) -> FileLock:
    with explain_write_errors(folder, INSTEAD):
        (folder / LOCKS).mkdir(parents=True, exist_ok=True)
        file = folder / LOCKS / f"{name}.lock"
        file.open("a").close()  # without permission, a lock would wait forever
    return FileLock(file)


def _short(digest: str) -> str:
    return digest[:_DIGITS]
