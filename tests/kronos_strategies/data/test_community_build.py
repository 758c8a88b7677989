"""The community's build of Qlib data, from a local server that plays GitHub, and archives that do harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.data import community_build as module
from kronos_strategies.data.community_build import (
    ARCHIVE,
    MANIFEST_ASSET,
    RECORD,
    Expected,
    download_archive,
    find_release,
    install,
    local_archive,
    unpack,
)
from kronos_strategies.data.qlib_bins import read_bars, read_calendar, read_market
from kronos_strategies.data.qlib_store import write_store

from .file_server import FileServer, serving

TAG = "2024-09-10"


def store_files(folder: Path) -> Path:
    """A Qlib data directory of two shares, as the community packs it: without our manifest."""
    days = pd.bdate_range("2023-01-02", periods=30)
    close = 10 + np.arange(30) / 100
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    frames = [
        pd.DataFrame({"instrument": name, "datetime": days, "volume": 5.0} | prices)
        for name in ("SH600000", "SZ000001")
    ]
    spans = pd.DataFrame({"instrument": ["SH600000"], "start": days[:1], "end": days[-1:]})
    write_store(pd.concat(frames), folder, membership={"csi300": spans}, source={})
    (folder / "kronos_store.json").unlink()
    return folder


def pack(folder: Path, top: str = "qlib_bin") -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as tar:
        tar.add(folder, arcname=top)
    return memory.getvalue()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return pack(store_files(tmp_path_factory.mktemp("made") / "data"))


@pytest.fixture
def github(archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server with one release, and no cache."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving() as server:
        monkeypatch.setattr(module, "RELEASES", f"{server.address}/releases")
        server.moved = {"/releases/latest": f"/releases/tag/{TAG}"}
        manifest = {
            "archive_sha256": f"sha256:{hashlib.sha256(archive).hexdigest()}",
            "archive_size_bytes": len(archive),
        }
        server.files[f"/releases/download/{TAG}/{ARCHIVE}"] = archive
        server.files[f"/releases/download/{TAG}/{MANIFEST_ASSET}"] = json.dumps(manifest).encode()
        yield server


def test_the_latest_release_is_verified_by_its_manifest_and_put_in_place(
    github: FileServer, tmp_path: Path
) -> None:
    url, expected = find_release(None)
    assert url.endswith(f"/{TAG}/{ARCHIVE}")
    build = install(download_archive(url, expected), tmp_path / "csi300")
    assert build.verified == f"verified: as the release's {MANIFEST_ASSET} says"
    assert build.markets == {"all": 2, "csi300": 1}
    assert (build.start, build.end) == ("2023-01-02", "2023-02-10")
    bars = read_bars(build.path)
    assert len(bars) == 60
    assert len(read_calendar(build.path)) == 30
    assert read_market(build.path, "csi300")["instrument"].tolist() == ["SH600000"]
    assert json.loads((build.path / RECORD).read_text())["sha256"] == build.sha256
    assert not list((tmp_path / "cache").rglob("*.part"))  # the archive is not kept
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_release_without_a_manifest_is_trusted_on_first_use(
    github: FileServer, archive: bytes, tmp_path: Path
) -> None:
    del github.files[f"/releases/download/{TAG}/{MANIFEST_ASSET}"]
    url, expected = find_release(TAG)
    assert expected == Expected()
    assert install(download_archive(url, expected), tmp_path / "a").verified.startswith("not verified")
    again = install(download_archive(url, expected), tmp_path / "b")
    assert again.verified.startswith("verified: as the first download on 20")
    github.files[f"/releases/download/{TAG}/{ARCHIVE}"] = archive[:-8] + bytes(8)
    with pytest.raises(ValueError, match="the first download"):
        download_archive(url, expected)


def test_an_archive_cut_short_is_neither_installed_nor_trusted(
    github: FileServer, archive: bytes, tmp_path: Path
) -> None:
    url = f"{github.address}/mirror.tar.gz"
    github.files["/mirror.tar.gz"] = archive[: len(archive) // 2]
    with pytest.raises(ValueError, match="is damaged or unsafe"):
        install(download_archive(url, Expected()), tmp_path / "csi300")
    assert not (tmp_path / "csi300").exists()
    github.files["/mirror.tar.gz"] = archive
    assert install(download_archive(url, Expected()), tmp_path / "csi300").files > 10


@pytest.mark.parametrize("manifest", ["{}", '{"archive_sha256": "sha256:12", "archive_size_bytes": 3}'])
def test_a_manifest_without_a_hash_is_refused(manifest: str, github: FileServer) -> None:
    github.files[f"/releases/download/{TAG}/{MANIFEST_ASSET}"] = manifest.encode()
    with pytest.raises(ValueError, match="has no sha256 and size"):
        find_release(TAG)


@pytest.mark.parametrize("release", ["../../../evil", "..", "a/b", ""])
def test_a_tag_cannot_change_the_address(release: str, github: FileServer) -> None:
    with pytest.raises(ValueError, match="is not the tag of a release"):
        find_release(release)
    assert not github.asked


def test_an_existing_folder_is_replaced_only_on_request_and_only_if_it_was_downloaded(
    archive: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "a.tar.gz"
    file.write_bytes(archive)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="not made by `kronos data download`"):
            install(local_archive(file, None), mine, overwrite=overwrite)
    to = tmp_path / "csi300"
    install(local_archive(file, None), to)
    (to / "calendars" / "day.txt").write_text("damaged")
    with pytest.raises(FileExistsError, match="--overwrite"):
        install(local_archive(file, None), to)
    install(local_archive(file, None), to, overwrite=True)
    assert len(read_calendar(to)) == 30
    file.write_bytes(archive[:1000])
    with pytest.raises(ValueError, match="damaged"):
        install(local_archive(file, None), to, overwrite=True)
    assert len(read_calendar(to)) == 30  # the old data is still there
    assert file.exists()


def test_a_file_of_the_user_is_compared_with_the_hash_that_was_passed(archive: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.tar.gz"
    file.write_bytes(archive)
    assert local_archive(file, hashlib.sha256(archive).hexdigest().upper()).how.startswith("verified")
    with pytest.raises(ValueError, match="has the sha256"):
        local_archive(file, "0" * 64)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        local_archive(tmp_path / "b.tar.gz", None)


# Archives that do harm


def member(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content) if kind == tarfile.REGTYPE else 0
    return info, content


def evil(path: Path, *members: tuple) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    "harm",
    [
        member("qlib_bin/../../escaped"),
        member("/etc/escaped"),
        member("qlib_bin/a/../../../escaped"),
        member("qlib_bin/..\\..\\escaped"),
        member("qlib_bin/C:escaped"),
        member("qlib_bin/link", kind=tarfile.SYMTYPE, link="/etc"),
        member("qlib_bin/link", kind=tarfile.SYMTYPE, link="inside"),
        member("qlib_bin/link", kind=tarfile.LNKTYPE, link="qlib_bin/x"),
        member("qlib_bin/pipe", kind=tarfile.FIFOTYPE),
        member("qlib_bin/device", kind=tarfile.CHRTYPE),
    ],
    ids=lambda each: f"{each[0].name}-{each[0].type.decode()}-{each[0].linkname}",
)
def test_a_member_that_leaves_the_folder_or_is_not_a_file_is_refused(harm: tuple, tmp_path: Path) -> None:
    archive = evil(tmp_path / "evil.tar.gz", harm)
    to = tmp_path / "deep" / "er" / "to"
    to.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"leads out of its folder|neither a file nor a folder"):
        unpack(archive, to)
    assert list(to.iterdir()) == []
    assert not list(tmp_path.rglob("*escaped*"))


def test_names_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    archive = evil(tmp_path / "evil.tar.gz", member("qlib_bin/a"), member("qlib_bin/A"))
    with pytest.raises(ValueError, match="twice"):
        unpack(archive, tmp_path / "to")


def zeros(path: Path, header: Callable[[], bytes], count: int) -> Path:
    """An archive whose one member has `count` zeros."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header())
        block = bytes(1 << 20)
        for _ in range(count >> 20):
            file.write(block)
    return path


def test_a_bomb_of_one_large_file_is_refused_before_it_is_written(tmp_path: Path) -> None:
    info = tarfile.TarInfo("qlib_bin/features/bomb.bin")
    info.size = 1 << 40
    archive = zeros(tmp_path / "bomb.tar.gz", info.tobuf, 1 << 20)
    to = tmp_path / "to"
    to.mkdir()
    with pytest.raises(ValueError, match=r"it has more than .* of content"):
        unpack(archive, to)
    assert list(to.iterdir()) == []


def test_a_bomb_of_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANY", 1 << 20)
    bomb = [member(f"qlib_bin/features/{i}", bytes(400_000)) for i in range(20)]
    with pytest.raises(ValueError, match=r"it has more than .* of content"):
        unpack(evil(tmp_path / "bomb.tar.gz", *bomb), tmp_path / "to")
    monkeypatch.setattr(module, "_FILES", 10)
    small = [member(f"qlib_bin/features/{i}") for i in range(11)]
    with pytest.raises(ValueError, match="it has more than 10 files"):
        unpack(evil(tmp_path / "many.tar.gz", *small), tmp_path / "to")


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 1 << 31
    archive = zeros(tmp_path / "bomb.tar.gz", lambda: info.tobuf(tarfile.USTAR_FORMAT), 1 << 20)
    with pytest.raises(ValueError, match="it has a header of"):
        unpack(archive, tmp_path / "to")


@pytest.mark.parametrize("bad", ["../../x", "a/b", "nan", "."])
def test_an_instrument_that_cannot_name_a_folder_is_refused(bad: str, tmp_path: Path) -> None:
    made = store_files(tmp_path / "made")
    (made / "instruments" / "csi300.txt").write_text(f"{bad}\t2023-01-02\t2023-02-10\n")
    file = tmp_path / "a.tar.gz"
    file.write_bytes(pack(made))
    with pytest.raises(ValueError, match=r"damaged or unsafe .*instrument"):
        install(local_archive(file, None), tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("gone", ["calendars/day.txt", "instruments/all.txt"])
def test_an_archive_of_something_else_is_refused(gone: str, tmp_path: Path) -> None:
    made = store_files(tmp_path / "made")
    (made / gone).unlink()
    file = tmp_path / "a.tar.gz"
    file.write_bytes(pack(made))
    with pytest.raises(ValueError, match=rf"it has no {gone}, so it is not Qlib data"):
        install(local_archive(file, None), tmp_path / "to")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", gzip.compress(b"no tar", mtime=0)])
def test_a_file_that_is_not_an_archive_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.tar.gz"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or unsafe") as refused:
        install(local_archive(file, None), tmp_path / "to")
    assert "\n" not in str(refused.value)


def test_a_flipped_bit_is_found_by_the_checksum_of_gzip(archive: bytes, tmp_path: Path) -> None:
    plain = gzip.decompress(archive)
    whole = gzip.compress(plain, compresslevel=0)  # stored blocks: only the checksum can tell
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    file = tmp_path / "a.tar.gz"
    file.write_bytes(flipped)
    with pytest.raises(ValueError, match="is damaged or unsafe"):
        install(local_archive(file, None), tmp_path / "to")
