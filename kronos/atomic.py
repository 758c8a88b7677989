"""Atomic writes of files and folders, with one-sentence errors."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.filesize import decimal

DRAFT = ".tmp"  # suffix of a file that is being written; its name begins with a dot
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # how numpy reports a full disk


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A draft next to `path` to write to; it replaces `path` at the end, and is removed if writing fails.

    The draft is on the disk before it is renamed, so that a crash leaves the old file or the new one.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{DRAFT}")
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
    draft = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}{DRAFT}")
    try:
        draft.mkdir(parents=True)
        yield draft
        replace_folder(draft, path, replace=replace)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def replace_folder(draft: Path, path: Path, *, replace: bool = True) -> None:
    """Move a finished folder to its place, see `atomic_folder`."""
    with suppress(OSError):
        path.rmdir()  # succeeds only if it is empty; Windows renames onto nothing else
    replaced = draft.with_name(f"{draft.name}-replaced")
    if replace and path.exists():
        path.rename(replaced)
    try:
        draft.rename(path)
    except OSError as error:
        if not path.exists():
            if replaced.exists():
                replaced.rename(path)
            raise
        raise FileExistsError(
            f"{path} was filled by another process meanwhile. Use it or choose another."
        ) from error
    finally:
        shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def explain_write_errors(where: Path, instead: str) -> Iterator[None]:
    """Turn a failure to write below `where` into one sentence.

    Args:
        where: the file or folder that is written.
        instead: what to do, e.g. "Choose another folder with --to.".

    Raises:
        OSError: names the path, the reason and the remedy. A FileExistsError of our own is left as it is.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FileExistsError) and error.errno is None:
            raise  # our own, which says what already exists
        raise OSError(_explained(where, error, instead)) from error


def _explained(where: Path, error: OSError, instead: str) -> str:
    if error.errno in _FULL or _SHORT_WRITE.search(str(error)):
        return f"The disk is full ({_free(where)}): {where} cannot be written. Make room. {instead}"
    if error.errno == errno.ENAMETOOLONG:
        longest = max(Path(error.filename or where).parts, key=len)
        return f"The name '{longest[:40]}...' of {len(longest)} characters is too long for a file. {instead}"
    if error.errno in _DENIED:
        return f"{where} cannot be written: {error.strerror}. {instead}"
    return f"{where} cannot be written: {error}. {instead}"


def _free(where: Path) -> str:
    existing = next((each for each in (where, *where.parents) if each.exists()), Path("/"))
    return f"{decimal(shutil.disk_usage(existing).free)} free"
