"""The community's build of Qlib data of Chinese shares: found, verified, unpacked and put in place.

github.com/chenditc/investment_data releases `qlib_bin.tar.gz` each day: bars of all shares with point-in-time
members of the CSI 300 and other indices. Recent releases have a manifest with its sha256.
"""

from __future__ import annotations

import gzip
import json
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote

from rich.filesize import decimal

from kronos.hub import hash_file
from kronos.utils import atomic_folder, explain_write_errors
from kronos_strategies.data.download import (
    Expected,
    Verified,
    download,
    get_json,
    redirect_target,
    trust,
)
from kronos_strategies.data.qlib_bins import read_calendar, read_market
from kronos_strategies.data.qlib_store import INSTEAD
from kronos_strategies.data.simulate import default_store
from kronos_strategies.data.validation import check_symbols
from kronos_strategies.progress import ProgressReport, no_progress

RELEASES = "https://github.com/chenditc/investment_data/releases"
ARCHIVE, MANIFEST_ASSET = "qlib_bin.tar.gz", "qlib_bin.manifest.json"
RECORD = "kronos_download.json"  # source of the data, in their folder
LARGEST = 4 << 30  # bytes of the archive; it had 0.5 GB in 2024
_UNPACKED, _FILES = 32 << 30, 1_000_000  # most bytes and files of its content
_RATIO, _ANY = 100, 64 << 20  # most bytes for each byte of the archive, beyond a size that does no harm
_READ = 4 << 20  # most bytes that an honest archive's headers take at once


@dataclass(frozen=True)
class CommunityBuild:
    """A downloaded data directory.

    Attributes:
        path: the folder, Qlib's `provider_uri`.
        source: address or file of the archive.
        sha256: hash of the archive.
        verified: how the hash was verified, in words.
        markets: number of instruments that were ever a member, by market.
        start: first trading day, ISO.
        end: last trading day, ISO.
        files: number of files.
    """

    path: Path
    source: str
    sha256: str
    verified: str
    markets: dict[str, int]
    start: str
    end: str
    files: int


def find_release(release: str | None) -> tuple[str, Expected]:
    """The address of a release's archive, and what its manifest says of it.

    Args:
        release: its tag, a date such as 2024-09-10; the latest when None.

    Raises:
        OSError: the server cannot be reached, or has no such release.
        ValueError: the manifest has no valid hash.
    """
    if release is None:
        release = unquote(redirect_target(f"{RELEASES}/latest").rpartition("/")[2])
    if not re.fullmatch(r"[\w.-]+", release) or release.strip(".") == "":
        raise ValueError(f"'{release}' is not the tag of a release. Pass one such as 2024-09-10.")
    folder = f"{RELEASES}/download/{release}"
    manifest = get_json(f"{folder}/{MANIFEST_ASSET}")
    return f"{folder}/{ARCHIVE}", Expected() if manifest is None else _published(manifest, release)


def _published(manifest: dict[str, Any], release: str) -> Expected:
    sha256, size = (
        str(manifest.get("archive_sha256")).removeprefix("sha256:"),
        manifest.get("archive_size_bytes"),
    )
    if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not isinstance(size, int) or size <= 0:
        raise ValueError(
            f"{MANIFEST_ASSET} of release {release} has no sha256 and size. Name another --release."
        )
    return Expected(sha256, f"the release's {MANIFEST_ASSET}", size)


def downloads_folder() -> Path:
    """Where unfinished downloads and the hashes of first ones are, in $XDG_CACHE_HOME or ~/.cache."""
    return default_store().parent / "downloads"


def download_archive(url: str, expected: Expected, progress: ProgressReport = no_progress) -> Verified:
    """Download an archive, or the rest of it; see `download`."""
    return download(url, downloads_folder(), expected, limit=LARGEST, progress=progress)


def local_archive(file: Path, sha256: str | None) -> Verified:
    """An archive that was downloaded by other means.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has another hash.
    """
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}. Pass the {ARCHIVE} of a release.")
    found = hash_file(file)
    if sha256 is not None and found != sha256.lower():
        raise ValueError(f"{file} has the sha256 {found}, not {sha256}. Download it again.")
    return Verified(
        file, found, "verified: as --sha256 says" if sha256 else "not verified: pass --sha256 to compare"
    )


def install(
    archive: Verified, to: Path, *, overwrite: bool = False, progress: ProgressReport = no_progress
) -> CommunityBuild:
    """Unpack a complete archive next to `to`, and put it there when it is whole. A downloaded archive is deleted.

    Args:
        archive: result of `download_archive` or `local_archive`.
        to: folder to create.
        overwrite: replace a folder that this function made.
        progress: called in bytes of the archive.

    Raises:
        FileExistsError: `to` exists.
        ValueError: the archive is not Qlib data, or unsafe; see `unpack`.
    """
    to = to.expanduser().resolve()
    check_folder(to, overwrite)
    source = archive.url or str(archive.path)
    try:
        with explain_write_errors(to, INSTEAD), atomic_folder(to, replace=overwrite) as draft:
            with _say_which(source):
                files = unpack(archive.path, draft, progress)
                markets, days = _check_content(draft)
            first, last = f"{days[0]:%Y-%m-%d}", f"{days[-1]:%Y-%m-%d}"
            record = {"source": source, "sha256": archive.sha256, "verified": archive.how}
            (draft / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except ValueError:
        if archive.url is not None:
            archive.path.unlink()  # a second attempt downloads it again
        raise
    if archive.url is not None:
        trust(downloads_folder(), archive.url, archive.sha256)
        archive.path.unlink()
    return CommunityBuild(to, source, archive.sha256, archive.how, markets, first, last, files)


def check_folder(to: Path, overwrite: bool) -> None:
    """Check, before anything is downloaded, that the data can be put at `to`.

    Raises:
        FileExistsError: it exists.
    """
    to = to.expanduser()
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not (to / RECORD).is_file():
        raise FileExistsError(
            f"{to} exists and was not made by `kronos data download`. Choose another folder."
        )
    if not overwrite:
        raise FileExistsError(
            f"{to} already contains downloaded data. Choose another folder, or pass --overwrite."
        )


def unpack(archive: Path, to: Path, progress: ProgressReport = no_progress) -> int:
    """Unpack regular files of a .tar.gz without its topmost folder, and return their number.

    Raises:
        ValueError: the archive is damaged, has a name outside of its folder, a link, a device or a name twice, or
            more files or bytes than Qlib data may have.
    """
    if not hasattr(tarfile, "data_filter"):
        raise ValueError("This Python unpacks no archives safely. Update it: 3.10.12, 3.11.4 or later.")
    seen: set[str] = set()
    whole = archive.stat().st_size
    most = min(_UNPACKED, _ANY + _RATIO * whole)
    with (
        archive.open("rb") as raw,
        _Limited(raw, most) as content,
        tarfile.open(fileobj=content, mode="r:") as tar,
    ):
        for count, member in enumerate(tar):
            if count >= _FILES:
                raise ValueError(f"it has more than {_FILES:,} files")
            name = _safe_name(member)
            if member.isdir() or name is None:
                continue
            if name.lower() in seen:
                raise ValueError(f"it has the name '{name}' twice")
            seen.add(name.lower())
            if member.offset_data + member.size > most:
                raise ValueError(f"it has more than {decimal(most)} of content")
            member.name, member.mode = name, 0o644
            tar.extract(member, to, set_attrs=False, filter="data")
            progress(raw.tell(), whole)
        while content.read(1 << 20):  # the end has the checksum
            pass
    return len(seen)


class _Limited(gzip.GzipFile):
    """A gzip file that refuses to become larger than Qlib data, or to be read at once into much memory."""

    def __init__(self, raw: BinaryIO, most: int) -> None:
        super().__init__(fileobj=raw, mode="rb")
        self.most = most

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _READ:
            raise ValueError(f"it has a header of {size} bytes")
        block = super().read(size)
        if self.tell() > self.most:
            raise ValueError(f"it has more than {decimal(self.most)} of content")
        return block


def _safe_name(member: tarfile.TarInfo) -> str | None:
    """The name below the topmost folder; None for that folder itself."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name:
        raise ValueError(f"the name '{member.name[:80]}' leads out of its folder")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise ValueError(f"'{member.name[:80]}' is neither a file nor a folder")
    inner = path.parts[1:]
    return "/".join(inner) if inner else None


def _check_content(folder: Path) -> tuple[dict[str, int], Any]:
    """Members by market, and the trading days, of unpacked data."""
    for needed in ("calendars/day.txt", "instruments/all.txt", "features"):
        if not (folder / needed).exists():
            raise ValueError(f"it has no {needed}, so it is not Qlib data")
    markets = {}
    for file in sorted((folder / "instruments").glob("*.txt")):
        names = read_market(folder, file.stem)["instrument"].unique()
        check_symbols(names)
        markets[file.stem] = len(names)
    days = read_calendar(folder)
    if not len(days) or not days.is_monotonic_increasing:
        raise ValueError("its calendar has no days, or not in order")
    return markets, days


@contextmanager
def _say_which(source: str) -> Iterator[None]:
    """Turn errors of an archive into one sentence that names it."""
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError) as error:
        raise ValueError(
            f"The archive {source} is damaged or unsafe ({str(error).rstrip('.')}). Nothing was unpacked; download "
            "it from another place, or pass another --release."
        ) from error
