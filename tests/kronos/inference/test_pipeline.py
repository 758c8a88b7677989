"""Chunks hold every window once, and as many as the budget does; the estimate is held to what is allocated.

A chunk that does not fit in memory is halved, and forecasts are the same.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from kronos.config import SampleConfig
from kronos.inference.fused import ExecutionConfig
from kronos.inference.pipeline import MemoryGuard, Pipeline, WindowBytes, is_out_of_memory, split_chunks
from kronos.model import Kronos
from kronos.predictor import KronosPredictor
from kronos.sampling import sobol_uniforms
from kronos.tokenizer import KronosTokenizer
from kronos.windows import Windows
from tests.kronos.builders import make_bars, make_model, make_panel, make_tokenizer

LENGTHS = st.lists(st.integers(2, 60), min_size=1, max_size=50)
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


@settings(deadline=None, max_examples=100)
@given(lengths=LENGTHS, budget=st.integers(1, 10_000))
def test_chunks_contain_every_window_once_the_longest_first_and_as_many_as_fit(
    lengths: list[int], budget: int
) -> None:
    lengths_of = np.array(lengths)

    def bytes_of(length: int) -> int:
        return 10 * length + 7

    parts = split_chunks(lengths_of, bytes_of, budget)  # type: ignore[arg-type]  # any estimate will do
    order = np.concatenate(parts)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(lengths)))
    assert (np.diff(lengths_of[order]) <= 0).all()
    for i, part in enumerate(parts):
        room = budget // bytes_of(lengths_of[part[0]])  # all are laid out as long as the longest
        assert len(part) <= max(1, room)
        assert len(part) == max(1, room) or i == len(parts) - 1


def test_windows_of_one_length_keep_a_fixed_order() -> None:
    once, again = (split_chunks(np.full(20, 7), lambda length: 1, 6) for _ in range(2))  # type: ignore[arg-type]
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_with_a_budget_of_one_byte_each_chunk_has_one_window() -> None:
    parts = split_chunks(np.array([4, 9, 2]), lambda length: 10**9, 1)  # type: ignore[arg-type]
    assert [part.tolist() for part in parts] == [[1], [0], [2]]


# The estimate


class Regime(NamedTuple):
    """Windows to forecast."""

    windows: int
    length: int
    samples: int
    horizon: int
    context: int
    context_overflow: str = "recompute"


REGIMES = {
    "long windows, one path": Regime(6, 200, 1, 3, 512),
    "long windows, some paths": Regime(6, 200, 10, 4, 512),
    "short windows, many paths": Regime(3, 16, 100, 8, 512),
    "short windows, long paths": Regime(3, 10, 12, 30, 512),
    "two bars ahead, many paths": Regime(2, 8, 200, 2, 512),
    "windows beyond the context": Regime(6, 300, 2, 2, 100),
    "sliding": Regime(12, 120, 12, 2, 120),
    "sliding, one path": Regime(300, 48, 1, 2, 48),
    "rolling": Regime(6, 100, 10, 5, 100, "rolling"),
}
BITS = {"s1_bits": 10, "s2_bits": 6}
PAIRS = {
    "a large tokenizer": (
        make_model(d_model=64, n_heads=4, n_layers=3, ff_dim=128, **BITS),
        make_tokenizer(d_model=64, n_heads=4, ff_dim=128, **BITS),
    ),
    "a small tokenizer": (
        make_model(d_model=96, n_heads=4, n_layers=6, ff_dim=192, **BITS),
        make_tokenizer(d_model=8, n_heads=2, ff_dim=8, n_dec_layers=2, **BITS),
    ),
}


def storages(tree: Any) -> list[torch.UntypedStorage]:
    """Storages of all tensors within; packed weights have none."""
    leaves = torch.utils._pytree.tree_leaves(tree)
    return [x.untyped_storage() for x in leaves if isinstance(x, Tensor) and x.layout == torch.strided]


class Peak(TorchDispatchMode):
    """Bytes of all tensors made within and alive at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.bytes = self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with self:  # in inference mode composite operators arrive whole: see what they are made of
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        out = func(*args, **kwargs)
        old = {storage._cdata for storage in storages((args, kwargs))}
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        for storage in storages(out):
            if storage._cdata not in old:
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.most = max(self.most, sum(size for _, size in self.alive.values()))
        return out


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("regime", REGIMES.values(), ids=REGIMES)
def test_the_estimate_is_what_is_alive_at_the_peak_and_a_little_more(
    regime: Regime, pair: tuple[Kronos, KronosTokenizer]
) -> None:
    count, length, samples, horizon, context, window = regime
    windows = Windows.rolling({"A": make_bars(length + count)}, length, horizon, "B")[:count]
    dates = pd.DatetimeIndex(windows.index.get_level_values("datetime"))
    uniforms = torch.from_numpy(sobol_uniforms(0, dates, samples, horizon))
    pipeline = Pipeline(*pair, torch.device("cpu"), context, 5, window, ExecutionConfig())  # type: ignore[arg-type]
    # Made once for a tokenizer: no chunk pays for it.
    assert [len(half) for half in pipeline.order] == [2**10, 2**6]
    with Peak() as peak:
        pipeline.sample_shared(windows, SampleConfig(samples, T=1.0), uniforms)
    model, tokenizer = pair
    bytes_of = WindowBytes(model.config, tokenizer.config, samples, horizon, context, window)
    assert 0.85 < count * bytes_of(length) / peak.most < 1.7


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_later_forecasts_begin_with_what_fits(predictor, windows, monkeypatch):
    tried = limit_rows(monkeypatch, ERRORS[0], 6)
    predictor.forecast(windows, SAMPLING)
    tried.clear()
    predictor.forecast(windows, SAMPLING)
    assert max(tried) <= 6
    tried.clear()
    predictor.forecast(windows, SampleConfig(samples=1, seed=1))
    assert tried[0] > 6, "fewer samples take less memory"


@pytest.mark.slow
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
    monkeypatch.setattr(
        "kronos.inference.pipeline.gc.collect", int
    )  # slow among the objects of a whole suite
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


# Freed tensors go back to the system at once, so that the address space is not used up by free memory; small ones
# stay, since half of the time would be the system's otherwise.
GLIBC = {
    "MALLOC_ARENA_MAX": "1",
    **dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**22)),
}


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
