"""The server on a real socket, and `kronos serve` as a process."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kronos_strategies.serve.server import open_socket

from .conftest import LIMIT, TINY, wait_for

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]


def raw(address: str, request: str) -> bytes:
    """The answer to a request written by hand, which no client corrects."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode("latin-1"))
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/../../etc/passwd", "//etc/passwd",
        "/reports/../../etc/passwd", "/reports/x/../../../../etc/passwd", "/static/%00", "/static/page.css%2f..",
    ],
)  # fmt: skip
def test_raw_paths_outside_of_the_folder_are_not_found(path: str, served: str) -> None:
    host = served.removeprefix("http://")
    answer = raw(served, f"GET {path} HTTP/1.1\nHost: {host}\nConnection: close\n\n")
    assert answer.split(b" ", 2)[1] in (b"404", b"400")
    assert b"root:" not in answer


@pytest.mark.parametrize(
    "lines",
    [
        "Host: evil.example", "Host: {host}\nHost: evil.example", "Host: evil.example\nHost: {host}", "X: y",
        "Host: {host}\nOrigin: http://evil.example", "Host: {host}\nOrigin: http://{host}\nOrigin: null",
        "Host: evil.example\nX-Forwarded-Host: {host}", "Host: {host}\nSec-Fetch-Site: cross-site",
    ],
)  # fmt: skip
def test_raw_requests_of_other_hosts_and_origins_are_refused(lines: str, served: str) -> None:
    host = served.removeprefix("http://")
    request = f"GET /api/choices HTTP/1.1\n{lines.format(host=host)}\nConnection: close\n\n"
    answer = raw(served, request)
    assert answer.split(b" ", 2)[1] in (b"403", b"400")
    assert b"models" not in answer
    absolute = f"GET http://evil.example/ HTTP/1.1\n{lines.format(host=host)}\nConnection: close\n\n"
    assert raw(served, absolute).split(b" ", 2)[1] in (b"403", b"400")


def test_an_upgrade_to_a_websocket_is_not_accepted(served: str) -> None:
    host = served.removeprefix("http://")
    upgrade = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: eA=="
    answer = raw(served, f"GET / HTTP/1.1\nHost: {host}\nOrigin: http://evil.example\n{upgrade}\n\n")
    assert b"101" not in answer.split(b"\r\n", 1)[0]


def test_it_listens_on_this_machine_only() -> None:
    with open_socket(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        port = listener.getsockname()[1]
        with pytest.raises(
            OSError, match=rf"Port {port} of 127\.0\.0\.1 cannot be used .*--port, or 0 for any"
        ):
            open_socket(port)
    with pytest.raises(OSError, match="Port 99999 of 127"):
        open_socket(99999)


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = "from kronos_strategies.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", command, "serve", str(folder / "daily"), "--port", "0", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


@pytest.fixture
def process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`kronos serve` and its address."""
    made = start(folder, "--models", TINY, "--device", "cpu")
    assert made.stdout is not None
    line = made.stdout.readline()
    found = re.search(r"Open http://(127\.0\.0\.1:\d+) ", line)
    if found is None:
        made.kill()
        pytest.fail(f"{line}{made.communicate()[1]}")
    yield made, found[1]
    made.kill()
    made.communicate()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_the_command_serves_forecasts_and_ends_by_ctrl_c_while_one_is_followed(process) -> None:
    made, host = process
    connection = http.client.HTTPConnection(host, timeout=LIMIT)
    body = {"data": "0", "instrument": "AAA", "model": TINY, "samples": 500, "horizon": 100, "rank": True}
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/api/forecasts", json.dumps(body), headers)
    key = json.loads(connection.getresponse().read())["id"]
    events = http.client.HTTPConnection(host, timeout=LIMIT)
    events.request("GET", f"/api/forecasts/{key}/events")
    stream = events.getresponse()
    assert stream.readline() == b"id: 0\n"
    made.send_signal(signal.SIGINT)
    wait_for(lambda: made.poll() is not None)
    assert made.returncode == 0
    assert "Traceback" not in made.communicate()[1]


def test_wrong_arguments_are_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.kronos_strategies.cli.conftest import run

    daily = folder / "daily"
    code, _, err = run(capsys, "serve", folder / "nowhere")
    assert (code, err.count("\n")) == (2, 1)
    assert "nowhere is neither a file nor a folder of bars" in err
    code, _, err = run(capsys, "serve", daily, "--reports", folder / "nowhere")
    assert (code, "is not a folder of reports" in err) == (2, True)
    code, _, err = run(capsys, "serve", daily, "--tracking", f"sqlite:///{folder / 'no.db'}")
    assert (code, "There is no record of runs at" in err) == (2, True)
    with open_socket(0) as taken:
        port = taken.getsockname()[1]
        code, _, err = run(capsys, "serve", daily, "--port", port)
        assert (code, err.count("\n")) == (2, 1)
        assert f"Port {port} of 127.0.0.1 cannot be used" in err


def test_without_the_extra_one_sentence_names_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "fastapi.py").write_text("raise ImportError('hidden')")
    command = "from kronos_strategies.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "serve", str(folder / "daily")],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip() == "The page needs FastAPI: pip install 'kronos-strategies[serve]'"
