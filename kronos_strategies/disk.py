"""Failures to write, told with the path and with what to do. Knows no torch."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.filesize import decimal

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # how numpy tells of a full disk


@contextmanager
def writing(where: Path, instead: str) -> Iterator[None]:
    """Whatever keeps files from being written below `where` becomes one sentence.

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
            raise  # of ours, which says what is in the way
        raise OSError(_told(where, error, instead)) from error


def _told(where: Path, error: OSError, instead: str) -> str:
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
