"""Chunks through the same memory; and that the engine asks the device for nothing, so that a graph can hold it."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kronos.bars import CLOSE
from kronos.config import SampleConfig
from kronos.inference.cuda_graph import MAX_GRAPHS, CudaGraphCache
from kronos.inference.fused import ExecutionConfig, FusedKronos, FusedTokenizer
from kronos.inference.pipeline import Pipeline
from kronos.sampling import sobol_uniforms
from kronos.tokenizer import Tokens
from kronos.windows import Windows
from tests.kronos.builders import make_model, make_panel, make_tokenizer

CPU = torch.device("cpu")
CONTEXT, HORIZON = 16, 6


class Doubling:
    """A function to replay, and the rows it was called with."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        self.rows.append(len(x))
        return 2 * x + y.cumsum(dim=-1)  # row by row


def inputs(rows: int, seed: int = 0, width: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator), torch.randn(rows, width, generator=generator)


@pytest.mark.parametrize(("rows", "bucket"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16)])
def test_rows_are_padded_to_a_power_of_two_and_the_padding_never_comes_out(rows: int, bucket: int) -> None:
    replay, run = CudaGraphCache(CPU), Doubling()
    for seed in (0, 1):
        got = replay(run, "key", *inputs(rows, seed))
        assert torch.equal(got, Doubling()(*inputs(rows, seed)))
    assert set(run.rows) == {bucket}


def test_any_order_of_sizes_gives_what_direct_calls_give() -> None:
    replay, run = CudaGraphCache(CPU), Doubling()
    for seed, rows in enumerate((4, 3, 1, 4, 7, 2, 3, 8, 5)):
        assert torch.equal(replay(run, "key", *inputs(rows, seed)), Doubling()(*inputs(rows, seed)))


def test_an_outcome_survives_the_next_call_and_belongs_to_the_caller() -> None:
    replay, run = CudaGraphCache(CPU), Doubling()
    first = replay(run, "key", *inputs(3, seed=0))
    kept = first.clone()
    replay(run, "key", *inputs(4, seed=1))
    assert torch.equal(first, kept)
    first.zero_()  # nor is it what a later call returns
    assert torch.equal(replay(run, "key", *inputs(3, seed=2)), Doubling()(*inputs(3, seed=2)))


def test_inputs_are_unchanged_and_may_change_after_the_call() -> None:
    replay, run = CudaGraphCache(CPU), Doubling()
    for rows in (4, 3):  # one that fills its bucket and one that is padded
        x, y = inputs(rows)
        before = x.clone(), y.clone()
        replay(run, "key", x, y)
        replay(run, "key", *inputs(rows, seed=1))
        assert torch.equal(x, before[0])
        assert torch.equal(y, before[1])


class Recorded(CudaGraphCache):
    """A replay that remembers what it recorded."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.records: list[list[tuple[int, ...]]] = []

    def _record(self, run: Any, inputs: list[Tensor]) -> Any:
        self.records.append([tuple(x.shape) for x in inputs])
        return super()._record(run, inputs)


def test_each_shape_is_recorded_once() -> None:
    replay, run = Recorded(), Doubling()
    for rows, width in ((3, 3), (4, 3), (3, 3), (8, 3), (5, 3), (3, 2), (4, 2), (4, 3)):
        x, y = inputs(rows, width=width)
        assert torch.equal(replay(run, "key", x, y), Doubling()(x, y))
    assert replay.records == [[(4, 3)] * 2, [(8, 3)] * 2, [(4, 2)] * 2]


def test_another_type_is_another_shape() -> None:
    replay, run = Recorded(), Doubling()
    for dtype in (torch.float32, torch.float64, torch.float32):
        x, y = (z.to(dtype) for z in inputs(4))
        got = replay(run, "key", x, y)
        assert got.dtype == dtype
        assert torch.equal(got, Doubling()(x, y))
    assert len(replay.records) == 2


def test_a_key_includes_everything_else_that_a_function_depends_on() -> None:
    replay = Recorded()
    x, y = inputs(4)
    for factor in (1, 2, 1, 3, 2):
        got = replay(lambda x, y, factor=factor: factor * x + y, ("times", factor), x, y)
        assert torch.equal(got, factor * x + y)
    assert len(replay.records) == 3


def test_only_the_shapes_used_last_are_kept_and_one_that_was_dropped_is_recorded_again() -> None:
    replay, run = Recorded(), Doubling()

    def call(width: int) -> int:
        given = inputs(4, width=width)
        assert torch.equal(replay(run, "key", *given), Doubling()(*given))
        assert len(replay._calls) <= MAX_GRAPHS
        return len(replay.records)

    for width in range(1, MAX_GRAPHS + 1):
        assert call(width) == width
    assert call(1) == MAX_GRAPHS  # still there, and now the one used last
    assert call(300) == MAX_GRAPHS + 1
    assert call(1) == MAX_GRAPHS + 1
    assert call(2) == MAX_GRAPHS + 2  # it was the one used longest ago


def test_what_a_dropped_shape_held_is_freed() -> None:
    replay, run, held = CudaGraphCache(CPU), Doubling(), []
    for width in range(1, 3 * MAX_GRAPHS):
        replay(run, "key", *inputs(4, width=width))
        call = next(reversed(replay._calls.values()))
        held.append(weakref.ref(call.output))
    del call
    assert sum(output() is not None for output in held) == MAX_GRAPHS


# The engine


class Asked(AssertionError):
    """The device was asked for a value, or something was sent to it or fetched from it."""


# A value for the host, or a shape that depends on values: either makes the host wait for the device.
WAITING = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "_unique2",
    "unique_dim",
    "bincount",
    "histc",
    "lift_fresh",  # torch.tensor(...): numbers of the host, sent
    "_pin_memory",
}


class Silent(TorchDispatchMode):
    """Refuses what would make the host wait for the device, or move data between them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket._qualified_op_name.split("::")[-1]
        self.names.add(name)
        if name in WAITING:
            raise Asked(name)
        with self:  # in inference mode composite operators arrive whole: see what they are made of
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        if func is torch.ops.aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
            raise Asked("repeat_interleave by a tensor of counts")
        masks = [x for x in torch.utils._pytree.tree_leaves(args[1:2]) if isinstance(x, Tensor)]
        if name in {"index", "index_put", "index_put_"} and any(x.dtype == torch.bool for x in masks):
            raise Asked("an index by a mask")
        if name == "_to_copy" and kwargs.get("device") is not None:
            raise Asked("a copy to another device")
        out = func(*args, **kwargs)
        devices = {
            x.device for x in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)
        }
        if len(devices) > 1:
            raise Asked(f"{name} between {devices}")
        return out


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: x.new_tensor([1.0]),
        lambda x: x + torch.tensor(2.0),
        lambda x: x.repeat_interleave((x > 0).long()),
        lambda x: x.to("meta"),
        lambda x: torch.equal(x, x),
    ],
)
def test_what_would_make_the_host_wait_is_noticed_by_these_tests(ask: Any) -> None:
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            x = torch.tensor([1.0, -2.0, 3.0, 4.0])
            with pytest.raises(Asked), Silent():
                ask(x)


class Spy:
    """Replaces a replay: takes the function and its inputs, and leaves the call to the test."""

    def __call__(self, run: Any, key: Any, *inputs: Tensor) -> Tensor:
        self.run, self.inputs = run, inputs
        return run(*inputs)


def some_windows(ragged: bool) -> Windows:
    """Four windows; the longest lookback is 12 bars."""
    panel = make_panel(14, "A", "B")
    if ragged:
        panel["B"] = panel["B"].iloc[7:]
    return Windows.rolling(panel, 12, HORIZON, "B", start=panel["A"].index[12], min_bars=3)


def pipeline(context_overflow: Any, context: int, form: ExecutionConfig = ExecutionConfig()) -> Pipeline:  # noqa: B008 (immutable)
    return Pipeline(make_model(), make_tokenizer(), CPU, context, 5, context_overflow, form)


def uniforms_of(windows: Windows, samples: int) -> Tensor:
    dates = windows.index.get_level_values("datetime")
    return torch.from_numpy(sobol_uniforms(0, dates, samples, HORIZON))


SAMPLINGS = {
    "nucleus": SampleConfig(3, T=1.0, top_p=0.9),
    "top-k": SampleConfig(3, T=1.0, top_k=3),
    "all": SampleConfig(2, T=1.0, top_p=1.0),
    "greedy": SampleConfig(1, T=0),
}


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("ragged", [False, True], ids=["even", "ragged"])
@pytest.mark.parametrize(
    ("context_overflow", "context", "precision"),
    [
        ("recompute", 64, "float32"),
        ("recompute", CONTEXT, "float32"),
        ("recompute", 8, "float32"),
        ("rolling", CONTEXT, "float32"),
        ("rolling", 8, "bfloat16"),
    ],
)
def test_a_chunk_needs_no_device_synchronization(
    context_overflow: str, context: int, precision: Any, ragged: bool, sampling: SampleConfig
) -> None:
    windows = some_windows(ragged)
    ours, spy = pipeline(context_overflow, context, ExecutionConfig(precision)), Spy()
    ours.graphs = spy  # type: ignore[assignment]
    wanted = ours.sample_shared(windows, sampling, uniforms_of(windows, sampling.samples))
    with torch.inference_mode(), Silent() as silent:
        got = spy.run(*spy.inputs)
    assert {"bmm", "searchsorted", "cumsum"} <= silent.names  # all of it went past
    bars = windows.scale().invert(got.numpy())  # of all paths, then the last bar of each window
    np.testing.assert_array_equal(bars[:, :-1].reshape(wanted.paths.shape), wanted.paths)
    np.testing.assert_array_equal(bars[:, -1, CLOSE], wanted.decoded_close)


class Elsewhere:
    """Replaces a replay on a device without values: it returns only the shape of the result."""

    def __call__(self, run: Any, key: Any, *inputs: Tensor) -> Tensor:
        assert {x.device.type for x in inputs} == {"meta"}
        with Silent():
            paths = run(*inputs)
        return torch.zeros(paths.shape)


@pytest.mark.parametrize("ragged", [False, True], ids=["even", "ragged"])
@pytest.mark.parametrize("context_overflow", ["recompute", "rolling"])
def test_no_tensor_of_the_host_takes_part_in_what_a_device_computes(
    context_overflow: Any, ragged: bool
) -> None:
    # The meta device holds no values, so that none can be asked for.
    windows, meta = some_windows(ragged), torch.device("meta")
    there = pipeline(context_overflow, CONTEXT)
    there.model = FusedKronos(make_model().to(meta), ExecutionConfig())
    there.tokenizer = FusedTokenizer(make_tokenizer().to(meta), ExecutionConfig())
    there.order = Tokens(*(half.to(meta) for half in there.order))
    there.device, there.graphs = meta, Elsewhere()  # type: ignore[assignment]
    paths = there.sample_shared(windows, SAMPLINGS["nucleus"], uniforms_of(windows, 3)).paths
    assert paths.shape == (len(windows), 3, HORIZON, 6)


@pytest.mark.parametrize("ragged", [False, True], ids=["even", "ragged"])
@pytest.mark.parametrize(
    ("context_overflow", "context"), [("recompute", 64), ("recompute", 8), ("rolling", 8)]
)
def test_chunks_of_any_size_replayed_are_the_chunks_computed_directly(
    context_overflow: Any, context: int, ragged: bool
) -> None:
    windows = some_windows(ragged)
    direct, replayed = pipeline(context_overflow, context), pipeline(context_overflow, context)
    replayed.graphs = recorded = Recorded()
    for rows in (slice(0, 4), slice(0, 3), slice(1, 4), slice(2, 3), slice(0, 4)):
        some = windows[rows]
        for sampling in (SAMPLINGS["nucleus"], SAMPLINGS["top-k"]):
            inputs = some, sampling, uniforms_of(some, sampling.samples)
            got, wanted = replayed.sample_shared(*inputs).paths, direct.sample_shared(*inputs).paths
            # To 1e-4 of a normalized bar: rows of a product round differently next to others.
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * some.scale().width.max())
    assert 2 * 2 <= len(recorded.records) < 2 * 5  # for each sampling: some shapes occurred twice
