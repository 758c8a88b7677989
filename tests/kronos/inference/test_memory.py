"""A chunk that does not fit in memory is run in halves, with the same results and one note."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kronos.config import SampleConfig
from kronos.inference.memory import MemoryGuard, is_out_of_memory
from kronos.inference.pipeline import Pipeline
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.kronos.builders import make_model, make_panel, make_tokenizer

ERRORS = [
    getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)(
        "CUDA out of memory. Tried to allocate 2 GiB."
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to"
    ),
    RuntimeError("std::bad_alloc"),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((10**9,), np.dtype(float))
    if hasattr(np, "_core")
    else MemoryError(),
]


@pytest.fixture
def predictor() -> KronosPredictor:
    return KronosPredictor(make_model(), make_tokenizer(), "cpu")


@pytest.fixture(scope="module")
def windows() -> Windows:
    panel = make_panel(40, "A", "B", "C")
    return Windows.rolling(panel, 20, 3, "B", start="2024-02-12", end="2024-02-20")


SAMPLING = SampleConfig(samples=4, seed=1)


def limit_rows(monkeypatch: pytest.MonkeyPatch, error: Exception, most: int) -> list[int]:
    """Let chunks of more windows fail; returns the sizes that were tried."""
    tried: list[int] = []
    for name in ("sample_shared", "embed"):
        real = getattr(Pipeline, name)

        def work(self, windows, *more, real=real):
            tried.append(len(windows))
            if len(windows) > most:
                raise error
            return real(self, windows, *more)

        monkeypatch.setattr(Pipeline, name, work)
    return tried


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error)[:40] or "MemoryError")
def test_chunks_are_halved_until_they_fit_and_forecasts_are_the_same(
    error, predictor, windows, monkeypatch, caplog
):
    assert is_out_of_memory(error)
    whole, hidden = predictor.forecast(windows, SAMPLING), predictor.embed(windows)
    tried, done = limit_rows(monkeypatch, error, 6), []
    with caplog.at_level(logging.WARNING):
        halved = predictor.forecast(windows, SAMPLING, done.append)
        np.testing.assert_allclose(predictor.embed(windows), hidden, rtol=1e-4, atol=1e-5)
    assert tried[:3] == [21, 11, 6]
    assert sum(done) == len(windows) == 21
    assert max(done) <= 6
    np.testing.assert_allclose(halved.paths, whole.paths, rtol=1e-4)
    assert halved.provenance == whole.provenance
    assert [record.message for record in caplog.records] == [
        "Memory does not suffice for 21 windows at once: they are computed in chunks of at most 11."
    ]


def test_later_forecasts_begin_with_what_fits(predictor, windows, monkeypatch):
    tried = limit_rows(monkeypatch, ERRORS[0], 6)
    predictor.forecast(windows, SAMPLING)
    tried.clear()
    predictor.forecast(windows, SAMPLING)
    assert max(tried) <= 6
    tried.clear()
    predictor.forecast(windows, SampleConfig(samples=1, seed=1))
    assert tried[0] > 6, "fewer samples take less memory"


def test_a_window_that_does_not_fit_alone_is_one_sentence(predictor, windows, monkeypatch):
    limit_rows(monkeypatch, ERRORS[1], 0)
    with pytest.raises(
        MemoryError, match=r"^One window of 20 bars does not fit in memory \(.*\)\. Pass fewer samples"
    ):
        predictor.forecast(windows, SAMPLING)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), ValueError("out of memory of names"), KeyError()]
)
def test_other_errors_are_raised_at_once(error, predictor, windows, monkeypatch):
    tried = limit_rows(monkeypatch, error, 0)
    with pytest.raises(type(error)):
        predictor.forecast(windows, SAMPLING)
    assert tried == [21]


def test_every_window_is_in_one_chunk_whatever_fits(monkeypatch):
    monkeypatch.setattr("kronos.inference.memory.gc.collect", int)  # slow among the objects of a whole suite
    lengths = np.random.default_rng(0).integers(2, 60, 200)
    for most in (1, 2, 7, 50, 200):
        seen: list[np.ndarray] = []

        def work(rows: np.ndarray, most: int = most, seen: list[np.ndarray] = seen) -> None:
            if len(rows) > most:
                raise MemoryError
            seen.append(rows)

        guard = MemoryGuard()
        guard.run(lengths, lambda length: 10 * length, 10**9, work)
        np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(200))
        assert (guard.limit is None) == (most == 200)


LIMITED = """
import logging, resource, sys
import numpy as np
import torch
from kronos.config import SampleConfig
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.kronos.builders import make_panel

logging.basicConfig(level=logging.WARNING, format="%(message)s")
torch.set_num_threads(1)
predictor = KronosPredictor.from_pretrained("kronos-nano", device="cpu", memory=2**40)
windows = Windows.rolling(make_panel(120, *"ABCDEFGH"), 90, 10, "B", start="2024-05-20")
sampling = SampleConfig(samples=48, seed=1)
whole = predictor.forecast(windows[:8], sampling)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[1]), resource.RLIM_INFINITY))
halved = predictor.forecast(windows, sampling)
np.testing.assert_allclose(halved.paths[:8], whole.paths, rtol=1e-3)
assert np.isfinite(halved.paths).all()
print(len(windows), predictor._guard.limit is not None)
"""


# Freed tensors go back to the system at once, so that the address space is not used up by free memory.
GLIBC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs Linux")
def test_with_little_address_space_a_forecast_takes_smaller_chunks_and_ends():
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(96 * 2**20)], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[3], env=os.environ | {"OMP_NUM_THREADS": "1"} | GLIBC,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["168", "True"]
    assert done.stderr.count("Memory does not suffice for 168 windows at once") == 1
