"""Downloads over HTTP from a server on this machine that misbehaves."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kronos_strategies.data import download as module
from kronos_strategies.data.download import Expected, download, get_json, redirect_target, trust

from .file_server import FileServer, serving

CONTENT = bytes(range(256)) * 4000  # 1 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KNOWN = Expected(SHA256, "the test")
LIMIT = 1 << 30


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as files:
        files.files["/bars.tar.gz"] = CONTENT
        yield files


def test_a_file_arrives_whole_and_its_progress_ends_at_its_size(server: FileServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    got = download(
        f"{server.address}/bars.tar.gz",
        tmp_path,
        KNOWN,
        limit=LIMIT,
        progress=lambda *each: seen.append(each),
    )
    assert got.path.read_bytes() == CONTENT
    assert (got.sha256, got.how) == (SHA256, "verified: as the test says")
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "without a length"])
def test_a_download_that_breaks_off_is_resumed_where_it_was(
    chunked: bool, server: FileServer, tmp_path: Path
) -> None:
    server.breaks = [300_000, 200_000]
    server.announced = None if chunked else 0
    got = download(f"{server.address}/bars.tar.gz", tmp_path, KNOWN, limit=LIMIT)
    assert got.path.read_bytes() == CONTENT
    starts = [asked for _, asked in server.asked]
    assert starts[0] is None
    assert all(start is not None for start in starts[1:])
    assert len(starts) == 3


def test_the_next_call_resumes_what_an_earlier_one_left(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [400_000, 0, 0]
    with pytest.raises(OSError, match=r"broke off after 400.*Run the same command again to resume"):
        download(f"{server.address}/bars.tar.gz", tmp_path, KNOWN, limit=LIMIT)
    server.asked.clear()
    server.breaks = []
    assert (
        download(f"{server.address}/bars.tar.gz", tmp_path, KNOWN, limit=LIMIT).path.read_bytes() == CONTENT
    )
    assert [asked for _, asked in server.asked] == ["bytes=400000-"]


def test_without_support_for_ranges_the_download_starts_over(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    server.breaks = [300_000]
    assert (
        download(f"{server.address}/bars.tar.gz", tmp_path, KNOWN, limit=LIMIT).path.read_bytes() == CONTENT
    )


@pytest.mark.parametrize("tags", [True, False], ids=["ETag", "no ETag"])
def test_parts_of_two_versions_of_a_file_are_never_joined(
    tags: bool, server: FileServer, tmp_path: Path
) -> None:
    server.tags = tags
    server.breaks = [300_000, 0, 0]
    with pytest.raises(OSError, match="broke off"):
        download(f"{server.address}/bars.tar.gz", tmp_path, limit=LIMIT)
    server.breaks = []
    server.files["/bars.tar.gz"] = CONTENT[::-1]
    assert download(f"{server.address}/bars.tar.gz", tmp_path, limit=LIMIT).path.read_bytes() == CONTENT[::-1]


def test_a_file_that_became_shorter_than_its_part_is_downloaded_again(
    server: FileServer, tmp_path: Path
) -> None:
    server.tags = False
    server.breaks = [300_000, 0, 0]
    short = Expected(hashlib.sha256(CONTENT[:1000]).hexdigest(), "the test")
    with pytest.raises(OSError, match="broke off"):
        download(f"{server.address}/bars.tar.gz", tmp_path, short, limit=LIMIT)
    server.breaks = []
    server.files["/bars.tar.gz"] = CONTENT[:1000]
    for _ in range(2):  # the first call may only find out
        try:
            got = download(f"{server.address}/bars.tar.gz", tmp_path, short, limit=LIMIT)
        except OSError:
            continue
    assert got.path.read_bytes() == CONTENT[:1000]


def test_a_length_that_is_too_short_never_gives_a_file(server: FileServer, tmp_path: Path) -> None:
    server.announced = -5000
    with pytest.raises(ValueError, match="has the sha256"):
        download(f"{server.address}/bars.tar.gz", tmp_path, KNOWN, limit=LIMIT)


@pytest.mark.parametrize("expected", [KNOWN, None], ids=["known hash", "unknown hash"])
def test_a_length_that_is_too_long_is_a_download_that_broke_off(
    expected: Expected | None, server: FileServer, tmp_path: Path
) -> None:
    server.announced, server.ranges = 5000, False
    with pytest.raises(OSError, match="broke off"):
        download(f"{server.address}/bars.tar.gz", tmp_path, expected, limit=LIMIT)


def test_a_wrong_hash_deletes_the_file_and_names_both(server: FileServer, tmp_path: Path) -> None:
    server.files["/bars.tar.gz"] = CONTENT[:-1] + b"!"
    with pytest.raises(ValueError, match=rf"has the sha256 [0-9a-f]{{64}} and the test says {SHA256}"):
        download(f"{server.address}/bars.tar.gz", tmp_path, KNOWN, limit=LIMIT)
    assert not list(tmp_path.glob("*.part"))
    server.files["/bars.tar.gz"] = CONTENT
    assert download(f"{server.address}/bars.tar.gz", tmp_path, KNOWN, limit=LIMIT).sha256 == SHA256


def test_an_endless_body_ends_at_the_limit(server: FileServer, tmp_path: Path) -> None:
    server.endless = True
    with pytest.raises(ValueError, match=r"sends more than 3\.0 MB"):
        download(f"{server.address}/bars.tar.gz", tmp_path, limit=3_000_000)
    assert not list(tmp_path.glob("*.part"))


def test_an_endless_body_ends_at_the_published_size(server: FileServer, tmp_path: Path) -> None:
    server.endless = True
    with pytest.raises(ValueError, match=r"sends more than 1\.0 MB"):
        download(f"{server.address}/bars.tar.gz", tmp_path, Expected(SHA256, "x", len(CONTENT)), limit=LIMIT)


def test_a_size_beyond_the_limit_or_the_published_one_is_refused_before_the_transfer(
    server: FileServer, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"more than 1\.0 kB"):
        download(f"{server.address}/bars.tar.gz", tmp_path, limit=1000)
    with pytest.raises(ValueError, match=r"has 1,024,000 bytes and the test says 7"):
        download(f"{server.address}/bars.tar.gz", tmp_path, Expected(SHA256, "the test", 7), limit=LIMIT)
    assert not list(tmp_path.glob("*.part"))


def test_redirects_are_followed_but_not_in_a_circle(server: FileServer, tmp_path: Path) -> None:
    server.moved = {"/latest": "/now", "/now": f"{server.address}/bars.tar.gz", "/a": "/b", "/b": "/a"}
    assert download(f"{server.address}/latest", tmp_path, KNOWN, limit=LIMIT).sha256 == SHA256
    assert redirect_target(f"{server.address}/latest") == "/now"
    with pytest.raises(OSError, match="redirects in a circle"):
        download(f"{server.address}/a", tmp_path, KNOWN, limit=LIMIT)


@pytest.mark.parametrize(
    "target", ["http://example.com/bars", "ftp://example.com/bars", "file:///etc/passwd"]
)
def test_plain_http_and_other_schemes_need_a_hash_or_are_refused(
    target: str, server: FileServer, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="is not https"):
        download(target, tmp_path, limit=LIMIT)
    with pytest.raises(ValueError, match="is not https"):
        get_json(target)
    assert not server.asked


def test_an_error_of_the_server_is_one_sentence(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"/nothing answered 404 .*Check the address") as refused:
        download(f"{server.address}/nothing", tmp_path, KNOWN, limit=LIMIT)
    assert "\n" not in str(refused.value)


def test_an_unreachable_server_is_one_sentence_that_names_the_proxy(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(OSError, match=r"127\.0\.0\.1 cannot be reached \(.*refused.*HTTPS_PROXY") as gone:
        download(f"http://127.0.0.1:{port}/x", tmp_path, KNOWN, limit=LIMIT)
    assert "\n" not in str(gone.value)


def test_offline_asks_no_server(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match="forbids downloads"):
        download(f"{server.address}/bars.tar.gz", tmp_path, KNOWN, limit=LIMIT)
    assert not server.asked


def test_the_proxy_of_the_environment_is_used(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    server.files["http://bars.invalid/bars.tar.gz"] = CONTENT  # a proxy is asked for the whole address
    got = download("http://bars.invalid/bars.tar.gz", tmp_path, KNOWN, limit=LIMIT)
    assert got.sha256 == SHA256
    assert [path for path, _ in server.asked] == ["http://bars.invalid/bars.tar.gz"]


def test_the_hash_of_the_first_download_counts_where_none_is_known(
    server: FileServer, tmp_path: Path
) -> None:
    url = f"{server.address}/bars.tar.gz"
    first = download(url, tmp_path, limit=LIMIT)
    assert first.how.startswith("not verified")
    trust(tmp_path, url, first.sha256)
    first.path.unlink()
    assert "as the first download on 20" in download(url, tmp_path, limit=LIMIT).how
    server.files["/bars.tar.gz"] = CONTENT[::-1]
    (tmp_path / first.path.name).unlink()
    with pytest.raises(ValueError, match=rf"the first download on .* says {SHA256}"):
        download(url, tmp_path, limit=LIMIT)


def test_a_json_answer_is_small_and_an_object(server: FileServer) -> None:
    server.files |= {
        "/ok": b'{"a": 1}',
        "/list": b"[1]",
        "/html": b"<html>",
        "/big": b" " * (1 << 21) + b"{}",
    }
    assert get_json(f"{server.address}/ok") == {"a": 1}
    assert get_json(f"{server.address}/none") is None
    for path in ("/list", "/html", "/big"):
        with pytest.raises(ValueError, match="is not a JSON object"):
            get_json(f"{server.address}{path}")


def test_a_second_process_does_not_write_into_the_same_download(server: FileServer, tmp_path: Path) -> None:
    url = f"{server.address}/bars.tar.gz"
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    with (
        module.FileLock(tmp_path / f"{name}.lock"),
        pytest.raises(OSError, match="Another process is downloading"),
    ):
        download(url, tmp_path, KNOWN, limit=LIMIT)
