"""Helpers of both packages: version, extras, CSV for people, atomic writes, and error reports of commands."""

from __future__ import annotations

import errno
import gc
import glob
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal

if TYPE_CHECKING:
    import pandas as pd
    from cyclopts import App


class MissingExtra(ImportError):
    """An optional dependency is not installed; the message gives the command that installs it."""


# Printed as one line: user errors, missing extras, diverged training, too little memory. Others keep tracebacks.
USER_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, MemoryError, MissingExtra)


def package_version() -> str:
    """Version of the installed distribution."""
    return version("kronos-strategies")


def collect_less() -> None:
    """Look for garbage less often: a command's libraries create a million objects that stay until its end."""
    gc.set_threshold(50_000, 20, 20)


def usable_cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def git_commit() -> str | None:
    """Commit of the code that runs, with a + if tracked files differ from it; None outside a repository."""
    # Installed into a virtual environment inside another repository, it is not tracked there.
    here = Path(__file__)
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


# A spreadsheet takes a cell of text that begins with one of these for a formula.
FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")


def closest(word: str, known: Iterable[str]) -> str | None:
    """The closest of the known words, whichever letters are capital; None if none is close."""
    folded = {each.casefold(): each for each in known}
    close = get_close_matches(word.casefold(), list(folded), 1)
    return folded[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question with the closest of the known words; empty if none is close."""
    found = closest(word, known)
    return f"Did you mean '{found}'?" if found else ""


def load_yaml(text: str) -> Any:
    """The value of a YAML document of plain types, whose mappings name each key once.

    Raises:
        yaml.YAMLError: it is not YAML, or a key occurs twice in a mapping: YAML would keep the last value silently.
    """
    import yaml  # takes time to load, which --help does without

    for node in _nodes(yaml.compose(text)):  # nodes are text: composing them constructs nothing
        keys = [key.value for key, _ in node.value if key.id == "scalar"] if node.id == "mapping" else []
        if twice := [key for place, key in enumerate(keys) if key in keys[:place]]:
            raise yaml.YAMLError(f"'{twice[0]}' occurs twice in the mapping{node.start_mark}")
    return yaml.safe_load(text)


def _nodes(root: Any) -> list[Any]:
    """All nodes of a YAML document, each once, since an anchor may be used many times."""
    found, due = dict[int, Any](), [root] if root is not None else []
    while due:
        node = due.pop()
        if id(node) not in found:
            found[id(node)] = node
            if node.id == "mapping":
                due += [each for pair in node.value for each in pair]
            elif node.id == "sequence":
                due += node.value
    return list(found.values())


def csv_text(frame: pd.DataFrame, *index: str) -> str:
    """A table as CSV for people: no spreadsheet runs a cell of it as a formula.

    Text that begins with one of FORMULA_STARTS has an apostrophe before it, in cells, the index and column names
    alike. Numbers stay as they are. Parquet and JSON files keep all text unchanged.

    Args:
        frame: any table.
        index: names of the index levels, which are left out when omitted.
    """
    from pandas import MultiIndex  # takes time to load, which --help does without

    safe = frame.rename(columns=_defused)
    for position, kind in enumerate(frame.dtypes):
        if kind.kind == "O":  # text and categories
            safe.isetitem(position, _defused_values(safe.iloc[:, position]))
    if index:
        levels = [_defused_values(frame.index.get_level_values(i)) for i in range(frame.index.nlevels)]
        safe.index = levels[0] if len(levels) == 1 else MultiIndex.from_arrays(levels)
    return safe.to_csv(
        index=bool(index), index_label=[_defused(name) for name in index] or None, lineterminator="\n"
    )


def _defused(value: Any) -> Any:
    """Text that no spreadsheet runs; anything else unchanged."""
    if isinstance(value, str) and value.lstrip(" ").startswith(FORMULA_STARTS):
        return "'" + value
    return value


def _defused_values(values: Any) -> Any:
    """A column or index level with text that no spreadsheet runs."""
    harmful = {value: _defused(value) for value in values.unique() if _defused(value) is not value}
    return values.map(lambda value: harmful.get(value, value)) if harmful else values


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
        text = str(error) or "There is not enough memory."  # Python's own MemoryError has no text
        Console(stderr=True, soft_wrap=True).print(f"[red]{escape(text)}[/red]")
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

    The draft is on the disk before it is renamed, so that a crash leaves the old file or the new one. Its path is
    absolute: Arrow would read a relative one with a colon as a URL.
    """
    draft = _draft_of(path.absolute())
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

    The path of the draft is absolute, see `atomic_file`.

    Args:
        path: path of the folder; its parent is made.
        replace: whether a folder that is there by then is replaced.

    Raises:
        FileExistsError: another process has put a folder there meanwhile, and it is not to be replaced.
    """
    recover_folder(path)
    draft = _draft_of(path.absolute())
    try:
        draft.mkdir(parents=True)
        yield draft
        replace_folder(draft, path, replace=replace)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Put a folder back that a process had moved aside to replace it, before it was killed."""
    if not path.exists():
        for replaced in sorted(path.parent.glob(_drafts(path) + _REPLACED)):
            with suppress(OSError):  # another process recovers it
                replaced.rename(path)


def _draft_of(path: Path) -> Path:
    """A name for a draft next to `path`, after removing drafts that killed processes left more than a day ago."""
    for old in path.parent.glob(_drafts(path)):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _ABANDONED:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
    return path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}{DRAFT}")


def _drafts(path: Path) -> str:
    """Pattern of the names of a path's drafts, and of no other path's."""
    return f".{glob.escape(path.name[:100])}.{'[0-9a-f]' * 8}{DRAFT}"


def replace_folder(draft: Path, path: Path, *, replace: bool = True) -> None:
    """Move a finished folder to its place, see `atomic_folder`."""
    with suppress(OSError):
        path.rmdir()  # succeeds only if it is empty; Windows renames onto nothing else
    replaced = path.with_name(f"{_draft_of(path).name}{_REPLACED}")
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
