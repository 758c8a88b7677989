"""The application on a few files of bars and the tiny reference checkpoint, with the real engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("plotly")
pytest.importorskip("jinja2")
import uvicorn
from starlette.testclient import TestClient

from kronos.predictor import KronosPredictor
from kronos_strategies.serve.app import make_app
from kronos_strategies.serve.data import offer_data
from kronos_strategies.serve.forecasts import Forecasts
from kronos_strategies.serve.jobs import Job, JobRunner
from kronos_strategies.serve.reports import Reports
from kronos_strategies.serve.server import open_socket
from tests.kronos.builders import make_bars

TINY = str(Path(__file__).parents[2] / "reference" / "kronos_tiny")
PORT = 8765
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"
NAMES = ("AAA", "BBB", "CCC", HOSTILE)
LIMIT = 120  # seconds to wait for what a busy machine does at last


class HeldPredictor(KronosPredictor):
    """The real predictor, which waits before the end of a chunk of several instruments while `go` is not set."""

    go = threading.Event()
    go.set()

    def forecast(
        self, windows: Any, sampling: Any = None, progress: Any = None, candles: Any = "valid"
    ) -> Any:
        """Sample futures; the gate is between the work and its report."""

        def held(done: int) -> None:
            if len(windows) > 1:
                assert self.go.wait(LIMIT)
            progress(done)

        return super().forecast(windows, sampling, held, candles)


def load(name: str) -> KronosPredictor:
    predictor = HeldPredictor.from_pretrained(name, device="cpu")
    predictor.memory = 1  # a chunk per instrument
    return predictor


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until the condition is true."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def gate() -> threading.Event:
    """Closed by tests that look at a running forecast."""
    HeldPredictor.go.set()
    return HeldPredictor.go


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Daily bars of four instruments, one of which has a hostile name, and another folder of 5-minute bars."""
    place = tmp_path_factory.mktemp("bars")
    parts = [make_bars(80, seed).assign(instrument=name) for seed, name in enumerate(NAMES)]
    daily = pd.concat(parts).rename_axis("datetime").reset_index()
    (place / "daily").mkdir()
    daily.to_csv(place / "daily" / "prices.csv", index=False)
    (place / "intraday").mkdir()
    times = pd.date_range("2024-07-01 09:30", periods=80, freq="5min", name="datetime")
    make_bars(80, 9).set_axis(times).to_csv(place / "intraday" / "EEE.csv")
    return place


@pytest.fixture(scope="session")
def forecasts(folder: Path) -> Forecasts:
    return Forecasts(offer_data([folder / "daily", folder / "intraday"]), [TINY], load)


@pytest.fixture
def runner() -> JobRunner:
    return JobRunner()


@pytest.fixture
def client(forecasts: Forecasts, runner: JobRunner) -> TestClient:
    """A client that sends the requests of the page."""
    app = make_app(forecasts, Reports(), runner, PORT)
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}")


@pytest.fixture
def served(forecasts: Forecasts, runner: JobRunner, tmp_path: Path) -> Iterator[str]:
    """Address of the application on a free port of this machine, with an empty folder of reports."""
    listener = open_socket(0)
    port = listener.getsockname()[1]
    (tmp_path / "reports").mkdir()
    app = make_app(forecasts, Reports(None, [tmp_path / "reports"]), runner, port)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", ws="none", log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    HeldPredictor.go.set()
    runner.close()
    server.should_exit = True
    thread.join(LIMIT)
    listener.close()
    assert not thread.is_alive()


def asked(**more: Any) -> dict[str, Any]:
    """The body of a small forecast."""
    return {
        "data": "0",
        "instrument": "AAA",
        "model": TINY,
        "horizon": 5,
        "samples": 19,
        "lookback": 30,
        **more,
    }


@pytest.fixture
def forecast(client: TestClient, runner: JobRunner) -> Callable[..., str]:
    """A function that makes a forecast and returns its id."""

    def make(**more: Any) -> str:
        answer = client.post("/api/forecasts", json=asked(**more))
        assert answer.status_code == 202, answer.text
        key: str = answer.json()["id"]
        ended(runner, key)
        return key

    return make


def ended(runner: JobRunner, key: str) -> Job:
    """The job, once it has ended."""
    job = runner.get(key)
    assert job is not None
    with suppress(AssertionError):
        wait_for(lambda: job.ended)
    assert job.ended
    return job
