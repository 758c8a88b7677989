"""The server: listens on this machine only, and answers its own page only."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import sys
from contextlib import suppress
from types import FrameType

from kronos.utils import MissingExtra
from kronos_strategies.report.figures.base import plotly_js
from kronos_strategies.serve.jobs import JobRunner

try:
    import uvicorn
    from starlette.responses import JSONResponse
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise MissingExtra("The page needs FastAPI: pip install 'kronos-strategies[serve]'") from error

ADDRESS = "127.0.0.1"
GRACE = 5.0  # seconds that a canceled forecast has to end, before the process does
NAMES = (ADDRESS, "localhost", "[::1]")  # of this machine, as a Host header has them
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' {styles}; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class LocalOnly:
    """Refuses requests that a page of another origin, or of another name for this address, could have made.

    Args:
        app: answers the others, with HEADERS unless it has its own.
        port: port of the server, which Host and Origin must name.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app = app
        self.headers = {**HEADERS, "content-security-policy": POLICY.format(styles=_plotly_styles())}
        self.hosts = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                added = [(name.encode(), value.encode()) for name, value in self.headers.items()]
                message["headers"] = [*message["headers"], *(each for each in added if each[0] not in own)]
            await send(message)

        refused = self.refuse(scope)
        answer: ASGIApp = self.app if refused is None else JSONResponse({"error": refused}, 403)
        await answer(scope, receive, send_with_headers)

    def refuse(self, scope: Scope) -> str | None:
        """Why a request is refused; None if it is not."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return "This server answers only under its own local address, which the terminal shows."
        if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in headers.get("origin", [])):
            return "This server answers only its own page."
        # What browsers say of requests without an Origin, such as those of images, scripts and links.
        foreign = set(headers.get("sec-fetch-site", [])) - {"same-origin", "none"}
        followed = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == (
            ["navigate"],
            ["document"],
        )
        if foreign and not (followed and scope["method"] == "GET"):
            return "This server answers only its own page."
        return None


def open_socket(port: int) -> socket.socket:
    """Listen on a port of this machine, 0 for a free one.

    Raises:
        OSError: the port is taken or not allowed.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere the option would let two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise OSError(
            f"Port {port} of {ADDRESS} cannot be used ({getattr(error, 'strerror', None) or error}). Choose "
            "another with --port, or 0 for any that is free."
        ) from None
    return listener


def run_server(app: ASGIApp, listener: socket.socket, runner: JobRunner) -> None:
    """Answer until Ctrl-C, which also cancels what runs."""
    config = uvicorn.Config(
        app, lifespan="off", ws="none", log_level="warning", access_log=False, proxy_headers=False,
        server_header=False,
    )  # fmt: skip
    with suppress(KeyboardInterrupt):  # which uvicorn raises again after its shutdown
        _Server(config, runner).run(sockets=[listener])
    if not runner.wait(GRACE):
        sys.stdout.flush()
        os._exit(0)  # an interpreter that ends while a thread is inside of torch aborts


class _Server(uvicorn.Server):
    """Lets streams of events go when it is asked to stop: it would wait for their end."""

    def __init__(self, config: uvicorn.Config, runner: JobRunner) -> None:
        super().__init__(config)
        self._runner = runner

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop."""
        self._runner.close()
        super().handle_exit(sig, frame)


def _plotly_styles() -> str:
    """The style elements that plotly makes, as sources of a policy: one is empty at first, others have a text."""
    texts = ["", *re.findall(r"\.textContent=`([^`]*)`", plotly_js())]
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
