"""What all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run, so that a change is judged by its own faults alone; search for new ones with
# `pytest --hypothesis-profile=explore`.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("repeatable")

SHARED_DATA = Path(os.environ.get("KRONOS_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real bars, which is no part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real bars in {SHARED_DATA}; set KRONOS_SHARED_DATA")
    return SHARED_DATA
