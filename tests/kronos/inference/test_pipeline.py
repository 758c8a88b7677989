"""Chunks hold every window once, and as many as the budget does; the estimate is held to what is allocated."""

from __future__ import annotations

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
from kronos.inference.pipeline import Pipeline, WindowBytes, split_chunks
from kronos.model import Kronos
from kronos.sampling import sobol_uniforms
from kronos.tokenizer import KronosTokenizer
from kronos.windows import Windows
from tests.kronos.builders import make_bars, make_model, make_tokenizer

LENGTHS = st.lists(st.integers(2, 60), min_size=1, max_size=50)


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
