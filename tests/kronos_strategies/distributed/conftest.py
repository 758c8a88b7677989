"""The small panel and the settings of the store's tests, and what a store holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.kronos.builders import make_panel
from tests.kronos_strategies.store.conftest import NAMES, windows_of


def content(store: Path) -> dict[str, str]:
    """Hash of each file of forecasts, by its path within the store."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.glob("*/*/date=*/*")
    }


@pytest.fixture(scope="session")
def predictor() -> KronosPredictor:
    return KronosPredictor.from_pretrained("kronos-nano", device="cpu")


@pytest.fixture
def windows() -> Windows:
    """15 dates of four instruments."""
    return windows_of(make_panel(60, *NAMES))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard holds two dates of four windows; and a worker has one thread."""
    monkeypatch.setattr("kronos_strategies.forecasting.CHUNK_WINDOWS", 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
