"""Download of one large file: verified by sha256, resumed where it broke off, limited in size.

requests does the HTTP: it honors proxies (HTTPS_PROXY, NO_PROXY), follows redirects and checks certificates, and
the libraries of Qlib and of the data vendors depend on it anyway.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import requests
from filelock import FileLock, Timeout
from rich.filesize import decimal
from urllib3.exceptions import HTTPError

from kronos.hub import OFFLINE, hash_file, is_offline
from kronos.utils import explain_write_errors, write_atomic
from kronos_strategies.progress import ProgressReport, no_progress

TRUSTED = "sha256.json"  # hashes of first downloads, in the folder of downloads
_TIMEOUT = (15, 60)  # seconds to connect, and between two blocks
_BLOCK = 1 << 18
_SMALL = 1 << 20  # bytes of a JSON answer, at most
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_AGENT = {"User-Agent": "kronos-strategies", "Accept-Encoding": "identity"}
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class Expected:
    """Size and hash of a file, as far as known before it is downloaded.

    Attributes:
        sha256: hexadecimal; None if unknown: then that of the first download from the URL counts.
        source: who gave the hash, for messages.
        size: bytes; None if unknown.
    """

    sha256: str | None = None
    source: str = "unknown"
    size: int | None = None


@dataclass(frozen=True)
class Verified:
    """A complete file.

    Attributes:
        path: the file.
        sha256: its hash.
        how: how the hash was verified, in words.
        url: address that it was downloaded from; None for a file of the user's.
    """

    path: Path
    sha256: str
    how: str
    url: str | None = None


class _BrokenOff(Exception):
    """The connection ended early; what arrived is kept."""


def get_json(url: str) -> dict[str, Any] | None:
    """A small JSON object; None where the server has none (404).

    Raises:
        OSError: the server cannot be reached or refuses; a ValueError if the answer is not a JSON object.
    """
    with _answer(url, secure=True) as response:
        if response.status_code == 404:
            return None
        _check_status(response, url)
        content = response.raw.read(_SMALL + 1)
    try:
        value = json.loads(content) if len(content) <= _SMALL else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{url} is not a JSON object of at most {decimal(_SMALL)}. Check the address.")
    return value


def redirect_target(url: str) -> str:
    """The address that a URL redirects to.

    Raises:
        OSError: the server cannot be reached, or does not redirect.
    """
    with _answer(url, secure=True, follow=False) as response:
        target = response.headers.get("Location")
    if target is None:
        raise OSError(f"{url} answered {response.status_code} and not a redirect. Pass --release.")
    return target


def download(
    url: str,
    folder: Path,
    expected: Expected | None = None,
    *,
    limit: int,
    progress: ProgressReport = no_progress,
) -> Verified:
    """Download a file, or the rest of one that broke off.

    Args:
        url: https; also http if the hash is known.
        folder: folder of downloads; the file gets a name by its URL. It also keeps the hashes of first downloads.
        expected: hash and size, as far as known.
        limit: bytes that the file may have.
        progress: called as progress(done, total) in bytes; total is 0 if the server does not say it.

    Raises:
        OSError: the server cannot be reached or refuses, or the connection broke off; or the disk is full.
        ValueError: the content is not what was expected.
    """
    expected = expected or Expected()
    if expected.sha256 is None and (known := _trusted(folder).get(url)):
        expected = Expected(known["sha256"], f"the first download on {known['date']}", expected.size)
    with explain_write_errors(folder, "Set XDG_CACHE_HOME to a folder with room."):
        folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    transfer = _Transfer(url, folder / f"{name}.part", expected, limit, progress)
    lock = FileLock(folder / f"{name}.lock")
    try:
        with lock.acquire(timeout=0):
            return transfer.complete()
    except Timeout:
        raise OSError(f"Another process is downloading {url}. Wait until it has finished.") from None


@dataclass
class _Transfer:
    url: str
    part: Path
    expected: Expected
    limit: int
    progress: ProgressReport

    def complete(self) -> Verified:
        before = -1
        while True:
            try:
                self._attempt()
                return self._verify()
            except _BrokenOff as error:
                done = self._done()
                if done <= before:  # the last try brought nothing
                    raise OSError(
                        f"{self.url} broke off after {decimal(done)} ({error}). Run the same command again to "
                        "resume."
                    ) from error
                before = done

    def _done(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _attempt(self) -> None:
        """Transfer what is missing."""
        done, tag = self._done(), self._tag()
        if done == self.expected.size:
            return
        headers = {}
        if done and (tag or self.expected.sha256):
            headers = {"Range": f"bytes={done}-"} | ({"If-Range": tag} if tag else {})
        with _answer(self.url, secure=self.expected.sha256 is None, headers=headers) as response:
            if headers and response.status_code == 416:  # complete, or no longer the same file
                if response.headers.get("Content-Range", "").rpartition("/")[2] == str(done):
                    return
                self.part.unlink()
                raise _BrokenOff("the file has changed")
            _check_status(response, self.url)
            start, total = _extent(response)
            if start != (done if start else 0):
                raise OSError(
                    f"{self.url} answered with bytes from {start:,} on, not from {done:,}. Try a mirror."
                )
            self._check_total(total)
            write_atomic(self._tag_file, response.headers.get("ETag", ""))
            with self.part.open("ab" if start else "wb") as file:
                self._receive(response, file, start, total)

    def _receive(self, response: requests.Response, file: BinaryIO, start: int, total: int | None) -> None:
        most = min(x for x in (self.limit, self.expected.size, total) if x is not None)
        done = start
        try:
            for block in response.raw.stream(_BLOCK, decode_content=False):
                done += len(block)
                if done > most:
                    file.close()
                    self._discard()
                    raise ValueError(f"{self.url} sends more than {decimal(most)}. Check the address.")
                with explain_write_errors(self.part, "Set XDG_CACHE_HOME to a folder with room."):
                    file.write(block)
                self.progress(done, total or self.expected.size or 0)
        except (HTTPError, requests.RequestException, ConnectionError, TimeoutError) as error:
            raise _BrokenOff(_reason(error)) from error
        if total is not None and done < total:
            raise _BrokenOff(f"{decimal(total)} were announced")

    def _check_total(self, total: int | None) -> None:
        if total is None:
            return
        if self.expected.size is not None and total != self.expected.size:
            self._discard()
            raise ValueError(
                f"{self.url} has {total:,} bytes and {self.expected.source} says {self.expected.size:,}. Try again "
                "later, or name another release."
            )
        if total > self.limit:
            raise ValueError(
                f"{self.url} has {decimal(total)}, more than {decimal(self.limit)}. Check the address."
            )
        free = shutil.disk_usage(self.part.parent).free
        if total - self._done() > free:
            raise OSError(
                f"{self.part.parent} has {decimal(free)} free and {self.url} needs {decimal(total)}. Make room, or "
                "set XDG_CACHE_HOME."
            )

    def _verify(self) -> Verified:
        found = hash_file(self.part)
        if self.expected.sha256 is None:
            how = "not verified, as none is published: it is recorded, and later downloads must have the same"
            return Verified(self.part, found, how, self.url)
        if found != self.expected.sha256.lower():
            self._discard()
            raise ValueError(
                f"{self.url} has the sha256 {found} and {self.expected.source} says {self.expected.sha256}. The "
                "file was deleted; download it again, or from another place."
            )
        return Verified(self.part, found, f"verified: as {self.expected.source} says", self.url)

    @property
    def _tag_file(self) -> Path:
        return self.part.with_suffix(".etag")

    def _tag(self) -> str | None:
        """The strong ETag of the file that the part is of."""
        tag = self._tag_file.read_text(encoding="utf-8") if self._tag_file.is_file() else ""
        return tag if tag and not tag.startswith("W/") else None

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self._tag_file.unlink(missing_ok=True)


def trust(folder: Path, url: str, sha256: str) -> None:
    """Record the hash of a first download, which later ones must have; once its content is known to be whole."""
    known = _trusted(folder)
    known.setdefault(url, {"sha256": sha256, "date": date.today().isoformat()})
    write_atomic(folder / TRUSTED, json.dumps(known, indent=1) + "\n")


@contextmanager
def _answer(
    url: str, *, secure: bool, follow: bool = True, headers: dict[str, str] | None = None
) -> Iterator[requests.Response]:
    """The server's answer, whose body has not been read.

    Args:
        url: address.
        secure: whether plain http is refused, except from this machine.
        follow: whether redirects are followed.
        headers: more headers of the request.
    """
    if is_offline():
        raise OSError(f"{url} is not downloaded, because --offline or {OFFLINE} forbids downloads. Unset it.")
    _check_scheme(url, secure)
    with requests.Session() as session:
        try:
            response = session.get(
                url, headers=_AGENT | (headers or {}), stream=True, timeout=_TIMEOUT, allow_redirects=follow
            )
        except requests.TooManyRedirects:
            raise OSError(f"{url} redirects in a circle. Check the address.") from None
        except (requests.ConnectionError, requests.Timeout) as error:
            host = urlsplit(url).hostname
            raise OSError(
                f"{host} cannot be reached ({_reason(error)}). Check the connection, or HTTPS_PROXY behind a proxy."
            ) from error
        except (requests.RequestException, ValueError) as error:
            raise ValueError(f"{url} is not an address to download from ({_reason(error)}).") from error
        with response:
            for each in response.history:
                _check_scheme(each.headers.get("Location", ""), secure, relative=True)
            yield response


def _check_scheme(url: str, secure: bool, relative: bool = False) -> None:
    parts = urlsplit(url)
    allowed = ("https", "http", *([""] if relative else []))
    plain = parts.scheme == "http" and parts.hostname not in _LOCAL
    if parts.scheme not in allowed or (secure and plain):
        raise ValueError(
            f"'{url}' is not https, so that the file could be changed in transit. Use an https address, or pass "
            "its --sha256."
        )


def _check_status(response: requests.Response, url: str) -> None:
    if response.status_code not in (200, 206):
        raise OSError(
            f"{url} answered {response.status_code} {response.reason}. Check the address, or try later."
        )


def _extent(response: requests.Response) -> tuple[int, int | None]:
    """The first byte of an answer, and the bytes of the whole file, None if unknown."""
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    if response.status_code == 200:
        return 0, total
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    start = int(found[1]) if found else 0
    if found and found[2] != "*":
        return start, int(found[2])
    return start, None if total is None else start + total


def _reason(error: BaseException) -> str:
    """The innermost reason of an error of requests, in one line."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _trusted(folder: Path) -> dict[str, dict[str, str]]:
    file = folder / TRUSTED
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
