"""Upstream's reference outputs, and two guarantees: no test reaches the network or takes more than its core."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # networks this small only wait for a second one


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    """A pair in upstream's own save format: tokenizer/ and predictor/."""
    return REFERENCE / "kronos_tiny"


@pytest.fixture(scope="session")
def expected(reference_folder: Path) -> dict[str, np.ndarray]:
    """Results of upstream, by name; see tests/reference/README.md."""
    with np.load(reference_folder / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def reference_losses(reference_folder: Path) -> dict[str, Any]:
    """Upstream's training losses and gradient norms."""
    return json.loads((reference_folder / "cases.json").read_text())["train"]


@pytest.fixture(scope="session")
def reference_bars() -> pd.DataFrame:
    """The bars that the reference was computed on, five minutes each, `timestamps` as a column."""
    return pd.read_csv(REFERENCE / "bars.csv", parse_dates=["timestamps"])


@pytest.fixture(scope="session")
def tokenizer(reference_folder: Path) -> KronosTokenizer:
    """The reference tokenizer. Shared: never train it."""
    return KronosTokenizer.from_pretrained(reference_folder)


@pytest.fixture(scope="session")
def model(reference_folder: Path) -> Kronos:
    """The reference predictor. Shared: never train it."""
    return Kronos.from_pretrained(reference_folder)
