"""Marks: which tests `make test-fast` runs; and what the garbage collector skips."""

import gc
import subprocess
import sys

import pytest


def test_a_test_without_a_mark_starts_no_process():
    with pytest.raises(RuntimeError, match="mark it `integration`"):
        subprocess.run([sys.executable, "--version"], check=True)


@pytest.mark.integration
def test_a_test_with_a_mark_may_start_one():
    subprocess.run([sys.executable, "--version"], check=True, capture_output=True)


def test_the_garbage_collector_skips_what_was_imported_and_still_finds_garbage():
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000
    garbage: list[object] = []
    garbage.append(garbage)
    del garbage
    assert gc.collect() > 0
