"""Helpers of both packages: version, missing extras, atomic writes, and error reports of commands."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import subprocess
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal

if TYPE_CHECKING:
    from cyclopts import App


class MissingExtra(ImportError):
    """An optional dependency is not installed; the message gives the command that installs it."""


# Printed as one line: user errors, missing extras and diverged training. Everything else keeps its traceback.
USER_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, MissingExtra)


def package_version() -> str:
    """Version of the installed distribution."""
    return version("kronos-strategies")


def git_commit() -> str | None:
    """Commit of the code that runs, with a + if tracked files differ from it; None outside a repository."""
    here = Path(
        __file__
    )  # installed into a virtual environment inside another repository, it is not tracked there
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


def show_log() -> None:
    """Log to stderr; with several processes only the first one logs more than errors."""
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for verbose in ("accelerate", "matplotlib"):
        logging.getLogger(verbose).setLevel(logging.WARNING)


def run_command(app: App, tokens: Sequence[str] | None = None) -> None:
    """Run `app` on the command line; a user error is printed in red, and the exit code is 2."""
    from cyclopts import CycloptsError
    from rich.console import Console
    from rich.markup import escape

    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            app(tokens, exit_on_error=False, print_error=False)
    except (CycloptsError, *USER_ERRORS) as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]{escape(str(error))}[/red]")
        sys.exit(2)


def _show_warning(
    default: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any
) -> None:
    """Print a warning about the user's bars as one line, without the place in this code."""
    from rich.console import Console
    from rich.markup import escape

    from kronos.bars import BarsWarning  # loads pandas, which --help does without

    if issubclass(category, BarsWarning):
        Console(stderr=True, soft_wrap=True).print(f"[yellow]Warning: {escape(str(message))}[/yellow]")
    else:
        default(message, category, *where)


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
