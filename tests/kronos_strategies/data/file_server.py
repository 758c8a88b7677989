"""A local HTTP server of files that misbehaves on request."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer(ThreadingHTTPServer):
    """Files by path, and how they are sent.

    Attributes:
        files: content by path.
        moved: redirects by path.
        ranges: whether Range is supported.
        tags: whether files have an ETag.
        breaks: numbers of bytes after which answers break off, first to last; then answers are complete.
        announced: added to the Content-Length; None sends chunks without one.
        endless: the file is followed by zeros without end.
        asked: (path, Range) of all requests.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.moved: dict[str, str] = {}
        self.ranges = self.tags = True
        self.breaks: list[int] = []
        self.announced: int | None = 0
        self.endless = False
        self.asked: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        if self.path in server.moved:
            return self.empty(302, {"Location": server.moved[self.path]})
        content = server.files.get(self.path)
        if content is None:
            return self.empty(404, {})
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start, asked = 0, self.headers.get("Range")
        if asked and server.ranges and self.headers.get("If-Range", tag) == tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self.empty(416, {"Content-Range": f"bytes */{len(content)}"})
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.tags:
            self.send_header("ETag", tag)
        return self.body(content[start:])

    def body(self, content: bytes) -> None:
        server, chunked = self.server, self.server.announced is None
        if chunked or server.endless:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(content) + (server.announced or 0)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        cut = server.breaks.pop(0) if server.breaks else None
        try:
            if not (chunked or server.endless):
                self.wfile.write(content[:cut])
                return
            self.chunk(content[:cut])
            while server.endless:
                self.chunk(bytes(1 << 16))
            if cut is None:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the client has seen enough
            pass

    def chunk(self, content: bytes) -> None:
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")

    def empty(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[FileServer]:
    """A server that answers until the end of the block."""
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
