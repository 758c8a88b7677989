"""Where a store lies: a local folder, or the URL of an object store that fsspec knows.

A URL becomes a `upath.UPath`, which has the methods of `pathlib.Path`. An object store has neither locks nor
renames, and needs neither: an object is written whole or not at all, and its name is the hash of the windows and of
its bytes, so that two processes that compute the same date write the same object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from kronos.utils import MissingExtra

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # protocol -> extra of this package


def is_url(folder: str | Path) -> bool:
    """Whether this is the URL of a file system, such as s3://bucket/forecasts."""
    return isinstance(folder, str) and _URL.match(folder) is not None


def as_location(folder: str | Path) -> Path:
    """A folder as a path: a local one, or that of a URL.

    Raises:
        MissingExtra: the package of that file system is not installed.
        ValueError: nothing reads such URLs.
    """
    if not is_url(folder):
        return Path(folder).expanduser() if isinstance(folder, str) else _expanded(folder)
    protocol, _, path = str(folder).partition("://")
    protocol = protocol.lower()
    if protocol == "file":
        return Path(path).expanduser()
    extra = EXTRAS.get(protocol)
    install = f"pip install 'kronos-strategies[{extra or 's3'}]'"
    try:
        from upath import UPath
    except ImportError as error:
        raise MissingExtra(f"{folder} needs universal_pathlib: {install}.") from error
    try:
        location = UPath(folder, use_listings_cache=False)  # other processes write there, too
        location.fs  # noqa: B018 (imports the package of the file system)
    except ImportError as error:
        how = install if extra else "install the package that fsspec names"
        raise MissingExtra(f"{folder} needs a package that is not installed ({error}): {how}.") from error
    except ValueError as error:
        raise ValueError(
            f"{folder} cannot be opened: {error}. Pass a folder, or a URL that fsspec knows, e.g. s3://bucket/name."
        ) from None
    return cast(Path, location)


def _expanded(folder: Path) -> Path:
    return folder.expanduser() if isinstance(folder, Path) else folder


def is_remote(folder: Path) -> bool:
    """Whether a location is on a file system of fsspec, which has no locks and no renames."""
    return not isinstance(folder, Path)


def absolute(folder: Path) -> Path:
    """The location as another process with another working directory finds it."""
    return folder if is_remote(folder) else folder.absolute()


def find_objects(folder: Path) -> dict[Path, int]:
    """Every object below a remote folder, with its bytes: one listing instead of one per date."""
    remote = cast("object", folder)
    found = remote.fs.find(remote.path, detail=True)  # type: ignore[attr-defined]
    root = remote.path.rstrip("/") + "/"  # type: ignore[attr-defined]
    return {folder / name.removeprefix(root): int(info["size"]) for name, info in sorted(found.items())}


@contextmanager
def explain_remote_errors(folder: Path) -> Iterator[None]:
    """Turn a failure of a remote file system, whose packages have errors of their own, into one sentence."""
    try:
        yield
    except Exception as error:
        if not is_remote(folder) or isinstance(error, ValueError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OSError(
            f"{folder} cannot be reached: {reason}. Check the URL, the credentials and the endpoint of that file "
            "system."
        ) from error
