"""Atomic writes of files and folders, with one-sentence errors."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.filesize import decimal

DRAFT = ".tmp"  # suffix of a file that is being written; its name begins with a dot
_REPLACED = "-replaced"  # follows the name of a folder that is being replaced
_ABANDONED = 24 * 3600  # seconds after which a draft belongs to no process
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
# How numpy, torch and safetensors report a full disk, without an OSError or its number.
_SHORT_WRITE = re.compile(
    r"\d+ requested and \d+ written|PytorchStreamWriter failed|unexpected pos \d+ vs|file write failed"
    r"|os error (?:28|27|122)\b|No space left on device|File too large|Disk quota exceeded"
)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A draft next to `path` to write to; it replaces `path` at the end, and is removed if writing fails.

    The draft is on the disk before it is renamed, so that a crash leaves the old file or the new one.
    """
    draft = _draft_of(path)
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> Path:
    """Write a file whole or not at all; text as UTF-8 with its line ends as they are."""
    with atomic_file(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@contextmanager
def atomic_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """An empty draft next to `path` to write into; it takes that place at the end, and is removed if writing fails.

    Args:
        path: of the folder; its parent is made.
        replace: whether a folder that is there by then is replaced.

    Raises:
        FileExistsError: another process has put a folder there meanwhile, and it is not to be replaced.
    """
    recover_folder(path)
    draft = _draft_of(path)
    try:
        draft.mkdir(parents=True)
        yield draft
        replace_folder(draft, path, replace=replace)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Put a folder back that a process had moved aside to replace it, before it was killed."""
    if not path.exists():
        for replaced in sorted(path.parent.glob(f".{glob.escape(path.name[:100])}.*{DRAFT}{_REPLACED}")):
            with suppress(OSError):  # another process recovers it
                replaced.rename(path)


def _draft_of(path: Path) -> Path:
    """A name for a draft next to `path`, after removing drafts that killed processes left more than a day ago."""
    name = f".{path.name[:100]}"
    for old in path.parent.glob(f"{glob.escape(name)}.*{DRAFT}"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _ABANDONED:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
    return path.with_name(f"{name}.{uuid.uuid4().hex[:8]}{DRAFT}")


def replace_folder(draft: Path, path: Path, *, replace: bool = True) -> None:
    """Move a finished folder to its place, see `atomic_folder`."""
    with suppress(OSError):
        path.rmdir()  # succeeds only if it is empty; Windows renames onto nothing else
    replaced = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}{DRAFT}{_REPLACED}")
    if replace and path.exists():
        path.rename(replaced)
    try:
        draft.rename(path)
    except OSError as error:
        if not path.exists():
            raise
        raise FileExistsError(
            f"{path} was filled by another process meanwhile. Use it or choose another."
        ) from error
    finally:
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        elif replaced.exists():  # also when the user stops the process at this moment
            replaced.rename(path)


@contextmanager
def explain_write_errors(where: Path, instead: str) -> Iterator[None]:
    """Turn a failure to write below `where` into one sentence.

    Args:
        where: the file or folder that is written.
        instead: what to do, e.g. "Choose another folder with --to.".

    Raises:
        OSError: names the path, the reason and the remedy. An OSError of our own, without a number, stays.
    """
    try:
        yield
    except OSError as error:
        ours = error.errno is None and not _SHORT_WRITE.search(str(error))  # it says all of this
        if ours or not _concerns(where, error.filename):
            raise
        raise OSError(_explained(where, error, instead)) from error
    except Exception as error:  # of torch, safetensors and pyarrow, which have types of their own
        if not _SHORT_WRITE.search(str(error)):
            raise
        raise OSError(_explained(where, error, instead)) from error


def _concerns(where: Path, file: object) -> bool:
    """Whether the file of an error is below the folder of `where`, or one of the folders that contain it."""
    if not isinstance(file, str | os.PathLike):
        return True  # an error of writing to an open file has none
    one, other = Path(os.path.abspath(where)), Path(os.path.abspath(file))
    return one.parent in other.parents or other in (one, *one.parents)


def _explained(where: Path, error: Exception, instead: str) -> str:
    number = getattr(error, "errno", None)
    if number in _FULL or _SHORT_WRITE.search(str(error)):
        return f"The disk is full ({_free(where)}): {where} cannot be written. Make room. {instead}"
    if number == errno.ENAMETOOLONG:
        longest = max(Path(getattr(error, "filename", None) or where).parts, key=len)
        return f"The name '{longest[:40]}...' of {len(longest)} characters is too long for a file. {instead}"
    if number in _DENIED:
        return f"{where} cannot be written: {os.strerror(number)}. {instead}"
    return f"{where} cannot be written: {error}. {instead}"


def _free(where: Path) -> str:
    existing = next((each for each in (where, *where.parents) if each.exists()), Path("/"))
    return f"{decimal(shutil.disk_usage(existing).free)} free"
