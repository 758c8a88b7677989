"""Who is answered and with which headers; requests are those that other pages could make."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from kronos_strategies.serve.forecasts import ForecastRequest
from kronos_strategies.serve.jobs import JobRunner
from kronos_strategies.serve.server import LocalOnly

from .conftest import HOSTILE, LIMIT, NAMES, PORT, TINY, asked, ended, wait_for

OWN = f"127.0.0.1:{PORT}"


@pytest.mark.parametrize("host", [OWN, f"localhost:{PORT}", f"LOCALHOST:{PORT}", f"[::1]:{PORT}"])
def test_the_names_of_this_machine_are_answered(host: str, client: TestClient) -> None:
    assert client.get("/api/choices", headers={"host": host}).status_code == 200
    same = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    assert client.get("/api/choices", headers=same).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", f"evil.example:{PORT}", "127.0.0.1", "localhost", "[::1]", "127.0.0.1:80",
        f"localhost:{PORT}0", f"127.0.0.1.evil.example:{PORT}", f"{OWN}.evil.example", f"localhost.:{PORT}",
        f"user@{OWN}", f"0.0.0.0:{PORT}", f"127.0.0.2:{PORT}", f"[::]:{PORT}", f"[::2]:{PORT}", f"::1:{PORT}",
        f"2130706433:{PORT}", f"{OWN},{OWN}", "",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/api/choices", "/static/serve.js", "/nothing"])
def test_any_other_host_is_refused(host: str, path: str, client: TestClient) -> None:
    answer = client.get(path, headers={"host": host})
    assert answer.status_code == 403
    assert answer.json() == {
        "error": "This server answers only under its own local address, which the terminal shows."
    }


@pytest.mark.parametrize("hosts", [[OWN, "evil.example"], ["evil.example", OWN], [OWN, OWN], []])
def test_several_hosts_and_none_are_refused(hosts: list[str], client: TestClient) -> None:
    local = client.app
    assert isinstance(local, LocalOnly)
    headers = [(b"host", host.encode()) for host in hosts]
    assert local.refuse({"type": "http", "method": "GET", "headers": headers}) is not None


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "", f"https://{OWN}", "http://127.0.0.1", "http://127.0.0.1:3000",
        f"http://{OWN}.evil.example", f"http://localhost:{PORT}", f"http://[::1]:{PORT}", f"http://{OWN}/", "file://",
    ],
)  # fmt: skip
def test_any_other_origin_is_refused_whatever_it_asks(
    origin: str, client: TestClient, runner: JobRunner
) -> None:
    headers = {"origin": origin}
    for answer in (
        client.get("/api/choices", headers=headers),
        client.post("/api/forecasts", json=asked(), headers=headers),
        client.delete("/api/forecasts/x", headers=headers),
        client.options("/api/forecasts", headers={**headers, "access-control-request-method": "POST"}),
    ):
        assert (answer.status_code, answer.json()) == (
            403,
            {"error": "This server answers only its own page."},
        )
        assert "access-control-allow-origin" not in answer.headers
    assert not runner._jobs


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_page_can_link_here_and_embed_nothing(site: str, client: TestClient) -> None:
    def get(mode: str, kind: str, path: str = "/") -> int:
        headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": kind}
        return client.get(path, headers=headers).status_code

    assert get("navigate", "document") == 200
    assert get("navigate", "iframe") == 403
    assert get("no-cors", "image", "/api/choices") == 403
    assert get("no-cors", "script", "/static/serve.js") == 403
    assert client.get("/api/choices", headers={"sec-fetch-site": site}).status_code == 403
    assert client.get("/", headers={"sec-fetch-site": "none"}).status_code == 200


PATHS = (
    "/", "/static/page.css", "/static/serve.css", "/static/serve.js", "/static/plotly.js", "/api/choices",
    "/api/data/0", "/api/data/9", "/api/reports", "/nothing", "/docs", "/redoc", "/openapi.json",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", [OWN, "evil.example"])
def test_every_answer_has_the_security_headers(path: str, host: str, client: TestClient) -> None:
    answer = client.get(path, headers={"host": host})
    headers = answer.headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self' 'sha256-")
    for part in ("connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


def test_the_page_loads_its_own_files_only(client: TestClient) -> None:
    page = client.get("/").text
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith("/static/") or link in ("data:,", "") for link in links)
    assert not re.search(r"<script(?! src)|<style| on\w+=| style=", page)
    assert "http" not in client.get("/static/serve.js").text


@pytest.mark.parametrize(
    "path",
    [
        "/static/app.py", "/static/index.html", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static/../app.py",
        "/static/..%5capp.py", "/static/%2fetc%2fpasswd", "//etc/passwd", "/static/", "/static/page.css/",
        "/static/page.css%00", "/api/data/..%2f0", "/api/data/%2fetc",
    ],
)  # fmt: skip
def test_only_the_named_files_are_sent(path: str, client: TestClient) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}


def test_only_two_addresses_change_anything_and_none_by_get(client: TestClient) -> None:
    routes = [route for route in client.app.app.routes if isinstance(route, APIRoute)]
    changing = {(route.path, *sorted(route.methods)) for route in routes if route.methods - {"GET", "HEAD"}}
    assert changing == {("/api/forecasts", "POST"), ("/api/forecasts/{key}", "DELETE")}
    assert client.get("/api/forecasts").status_code == 405
    assert client.head("/api/forecasts").status_code == 405


def test_reading_everything_leaves_a_running_forecast_alone(
    client: TestClient, runner: JobRunner, gate: threading.Event
) -> None:
    gate.clear()
    job = runner.start(lambda job: gate.wait(LIMIT) and job.progress(1, 1))
    for path in (*PATHS, f"/api/forecasts/{job.id}", f"/api/forecasts/{job.id}/table.csv"):
        client.get(path)
    answer = client.post("/api/forecasts", json=asked())
    assert (answer.status_code, answer.json()) == (
        409, {"error": "Another forecast is running. Wait for its end, or cancel it."},
    )  # fmt: skip
    gate.set()
    ended(runner, job.id)
    assert client.get(f"/api/forecasts/{job.id}/events").text.rstrip().endswith("event: done\ndata: {}")
    assert len(runner._jobs) == 1


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
def test_a_form_of_another_page_starts_nothing(
    kind: str | None, client: TestClient, runner: JobRunner
) -> None:
    body = ForecastRequest(**asked()).model_dump_json().encode()
    headers = {"content-type": kind} if kind else {}
    assert client.post("/api/forecasts", content=body, headers=headers).status_code in (415, 422)
    assert not runner._jobs


def test_choices_and_instruments_are_those_of_the_command_line(client: TestClient) -> None:
    choices = client.get("/api/choices").json()
    assert [each["key"] for each in choices["data"]] == ["0", "1"]
    assert (choices["models"], choices["calibrations"]) == ([TINY], ["auto", "none"])
    listed = client.get("/api/data/0").json()
    assert sorted(name for name, _, _ in listed["instruments"]) == sorted(NAMES)
    assert (listed["intraday"], client.get("/api/data/1").json()["intraday"]) == (False, True)
    times = client.get("/api/data/0/times", params={"instrument": HOSTILE}).json()
    assert (len(times), times[-1]) == (80, f"{listed['instruments'][0][2]}")
    assert client.get("/api/data/0/times", params={"instrument": "ZZZ"}).status_code == 422


def test_events_can_be_followed_from_where_a_connection_broke(
    client: TestClient, forecast: Callable[..., str]
) -> None:
    address = f"/api/forecasts/{forecast(rank=True)}/events"
    whole = client.get(address)
    assert whole.headers["content-type"].startswith("text/event-stream")
    names = [line.removeprefix("event: ") for line in whole.text.splitlines() if line.startswith("event: ")]
    assert names == ["progress", "progress", "drawn", *["progress"] * 4, "done"]
    rest = client.get(address, headers={"last-event-id": "4"}).text
    assert rest == whole.text[whole.text.index("id: 5") :]


def test_a_forecast_is_canceled_between_instruments_while_the_rest_answers(
    client: TestClient, runner: JobRunner, gate: threading.Event
) -> None:
    gate.clear()
    key = client.post("/api/forecasts", json=asked(rank=True)).json()["id"]
    wait_for(lambda: runner.get(key).result)
    assert client.get("/api/data/0").status_code == 200
    assert [row[0] for row in client.get(f"/api/forecasts/{key}").json()["rows"]] == ["AAA"]
    assert client.delete(f"/api/forecasts/{key}").status_code == 202
    gate.set()
    ended(runner, key)
    assert client.get(f"/api/forecasts/{key}/events").text.rstrip().endswith("event: canceled\ndata: {}")
    assert [row[0] for row in client.get(f"/api/forecasts/{key}").json()["rows"]] == ["AAA"]


@pytest.mark.parametrize("path", ["", "/events", "/chart?instrument=AAA", "/table.csv", "/steps.csv"])
def test_an_unknown_forecast_is_not_found(path: str, client: TestClient) -> None:
    answer = client.get(f"/api/forecasts/unknown{path}")
    assert (answer.status_code, answer.json()) == (
        404, {"error": "This forecast is no longer kept. Make it again."},
    )  # fmt: skip
    assert client.delete("/api/forecasts/unknown").status_code == 404
