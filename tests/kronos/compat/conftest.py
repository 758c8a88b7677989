"""The reference pair, loaded as upstream's scripts load it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kronos.compat import Kronos, KronosTokenizer


@pytest.fixture(scope="session")
def tokenizer(reference_folder: Path) -> KronosTokenizer:
    """Shared: never train it."""
    return KronosTokenizer.from_pretrained(reference_folder)


@pytest.fixture(scope="session")
def model(reference_folder: Path) -> Kronos:
    """Shared: never train it."""
    return Kronos.from_pretrained(reference_folder)
