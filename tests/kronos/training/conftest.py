"""Every test has a cache, a random stream and an accelerator of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _own_state() -> Iterator[None]:
    """Training seeds torch's global stream: give it back; and forget the device and precision of the last one."""
    AcceleratorState._reset_state(reset_partial_state=True)
    with torch.random.fork_rng():
        yield
