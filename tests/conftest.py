"""What all tests share."""

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(os.environ.get("KRONOS_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real bars, which is no part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real bars in {SHARED_DATA}; set KRONOS_SHARED_DATA")
    return SHARED_DATA
