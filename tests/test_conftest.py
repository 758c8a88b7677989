"""Marks: which tests `make test-fast` runs."""

import subprocess
import sys

import pytest


def test_a_test_without_a_mark_starts_no_process():
    with pytest.raises(RuntimeError, match="mark it `integration`"):
        subprocess.run([sys.executable, "--version"], check=True)


@pytest.mark.integration
def test_a_test_with_a_mark_may_start_one():
    subprocess.run([sys.executable, "--version"], check=True, capture_output=True)
