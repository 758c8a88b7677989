"""CUDA graphs: single decode steps, or whole chunks of compiled networks, are recorded once and replayed.

A step of Kronos-small takes about 440 kernels, with few rows of some microseconds each; launching them one by one
takes several times as long as running them. `StepRecorder` lets the device count the steps: cache slot, calendar
fields and random numbers of a step are looked up by a number in device memory, so that every step is the same
sequence of kernels and one graph serves all of them. Recording takes some tenths of a second (without
torch.compile), so that a graph is recorded only after about as much time went into launching its steps one by
one. `CudaGraphCache` records a whole chunk.

On other devices the same functions run in the same memory without a graph, which is how this is tested.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from kronos.config import SampleConfig
from kronos.inference.fused import FusedKronos
from kronos.inference.generate import DecodeState, append_bar, sample_next
from kronos.inference.kv_cache import PrefixCache
from kronos.sampling import SobolSampler
from kronos.tokenizer import Tokens

MAX_PATHS = 1024  # per chunk: with more, kernels take longer than their launches
MIN_STEPS = 4  # per chunk: with fewer, copying inputs costs more than it saves
STEPS_BEFORE_RECORDING = 16  # of a shape: about as long as recording takes
MAX_RECORDINGS = 8  # kept at once
MAX_BYTES = 2**30  # memory that recordings keep between chunks

log = logging.getLogger(__name__)


class DecodeSteps:
    """The steps of a chunk after the first, each with the same kernels and the same memory.

    Args:
        model: the model.
        state: state of the chunk's windows; its caches become the memory for all chunks of this shape.
        future: (N, H, 5) calendar fields of the bars to forecast.
        draws: sampler of this chunk.
        tokens: (N, S, H) each; the first bar is already sampled.
        config: temperature and filters.
        max_context: maximum number of tokens that the model sees.
    """

    def __init__(
        self,
        model: FusedKronos,
        state: DecodeState,
        future: Tensor,
        draws: SobolSampler,
        tokens: Tokens,
        config: SampleConfig,
        max_context: int,
    ) -> None:
        self.model, self.state, self.config, self.max_context = model, state, config, max_context
        state.cursor.lengths = state.cursor.lengths.clone()  # a copy of the caller's
        self.future, self.uniforms = future.clone(), draws.uniforms.clone()
        self.order, self.tokens = (Tokens(*(half.clone() for half in both)) for both in (draws.order, tokens))
        self.at = state.cursor.lengths.new_ones(1)  # the bar to sample
        # Graphs refer to memory addresses, so that this mask is kept even while the cursor has another one.
        self.mask = state.cursor.prefix

    def restart(self, state: DecodeState, future: Tensor, draws: SobolSampler, tokens: Tokens) -> None:
        """Start another chunk of the same shape in the same memory."""
        for kept, new in zip(self._caches(self.state), self._caches(state), strict=True):
            kept.restart(new)
        cursor = self.state.cursor
        cursor.lengths.copy_(state.cursor.lengths)
        cursor.prefix = self.mask
        if (
            self.mask is not None and state.cursor.prefix is not None
        ):  # both or neither, since the recorder's key contains it
            self.mask.copy_(state.cursor.prefix)
        self.future.copy_(future)
        self.uniforms.copy_(draws.uniforms)
        for half, new_half in zip((*self.order, *self.tokens), (*draws.order, *tokens), strict=True):
            half.copy_(new_half)
        self.at.fill_(1)

    def step(self, slides: bool) -> None:
        """Sample one more bar of every path; `slides` if the oldest bars must be masked."""
        cursor, before = self.state.cursor, self.at - 1
        if slides:
            cursor.mask_oldest(cursor.lengths + self.at - self.max_context)
        last = Tokens(*(half.index_select(2, before)[..., 0] for half in self.tokens))  # (N, S)
        state = append_bar(self.model, self.state, last, self.future.index_select(1, before)[:, 0], before)
        draws = SobolSampler(self.uniforms.index_select(2, self.at), self.order)  # of this bar only
        new = sample_next(self.model, state, len(self.future), self.config, draws, step=0)
        for half, new_half in zip(self.tokens, new, strict=True):
            half.index_copy_(2, self.at, new_half[..., None])
        self.at.add_(1)

    def memory(self) -> int:
        """Memory of its caches in bytes."""
        held = (
            x
            for cache in self._caches(self.state)
            for x in (cache.keys, cache.values, cache.own_keys, cache.own_values)
        )
        return sum(x.nbytes for x in held)

    @staticmethod
    def _caches(state: DecodeState) -> list[PrefixCache]:
        return [*state.trunk, state.dependency]


class StepRecorder:
    """Runs the steps of chunks; chunks of one shape share memory and, on CUDA, recorded graphs.

    At most `MAX_RECORDINGS` shapes and about `MAX_BYTES` of memory are kept, the most recent ones. Chunks of two
    threads run one after the other.

    Args:
        device: device of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.records = device.type == "cuda"  # until recording fails
        self.kept: OrderedDict[Hashable, _Recording] = OrderedDict()
        self._turn = threading.Lock()

    def is_faster(self, rows: int, cached: int) -> bool:
        """Whether a chunk of N * S rows has enough steps on caches, and few enough rows."""
        return rows <= MAX_PATHS and cached - 1 >= MIN_STEPS

    def run(
        self,
        model: FusedKronos,
        state: DecodeState,
        future: Tensor,
        draws: SobolSampler,
        config: SampleConfig,
        out: Tokens,
        cached: int,
        fitting: int,
        max_context: int,
        on_step: Callable[[], None],
    ) -> None:
        """Fill bars 0 to `cached` - 1 of `out`, (N, S, H) each; see `generate`.

        Args:
            model, future, draws, config, max_context: as in `generate`.
            state: state after reading the windows; not to be used afterwards.
            out: tokens to fill.
            cached: number of steps on caches.
            fitting: number of steps before the longest window exceeds the context.
            on_step: called after each bar is launched.
        """
        out.s1[:, :, 0], out.s2[:, :, 0] = sample_next(model, state, len(future), config, draws, 0)
        on_step()
        # Streams of a device do not wait for each other, so that they must not share memory.
        stream = torch.cuda.current_stream(self.device).cuda_stream if self.device.type == "cuda" else None
        widths = len(state.cursor.positions), state.cursor.prefix is None, out.s1.shape
        key = (id(model), stream, *widths, cached, fitting, max_context, replace(config, seed=0))
        with self._turn:
            recording = self.kept.pop(key, None)
            if recording is None:
                steps = DecodeSteps(model, state, future, draws, out, config, max_context)
                recording = _Recording(steps)
            else:
                recording.steps.restart(state, future, draws, out)
            for step in range(1, cached):
                self._play(recording, slides=step >= fitting)
                on_step()
            for half, drawn in zip(out, recording.steps.tokens, strict=True):
                half.copy_(drawn)
            self._keep(key, recording)

    def _play(self, recording: _Recording, slides: bool) -> None:
        """Run one more step."""
        if (
            self.records
            and slides not in recording.graphs
            and recording.launched[slides] >= STEPS_BEFORE_RECORDING
        ):
            try:
                recording.graphs[slides] = _recorded(lambda: recording.steps.step(slides), self.device)
            except RuntimeError as error:  # without a graph a forecast is slower, but the same
                self.records = False
                reason = str(error).strip().splitlines()[0]
                log.warning(
                    "A decode step could not be recorded as a CUDA graph (%s). Kernels are launched one by one.",
                    reason,
                )
        if slides in recording.graphs:
            recording.graphs[slides].replay()
        else:
            recording.steps.step(slides)
            recording.launched[slides] += 1

    def _keep(self, key: Hashable, recording: _Recording) -> None:
        self.kept[key] = recording
        while (
            len(self.kept) > MAX_RECORDINGS
            or sum(one.steps.memory() for one in self.kept.values()) > MAX_BYTES
        ):
            self.kept.popitem(last=False)


class _Recording:
    """Steps and, on CUDA, their graphs: one for steps that fit the context, one for steps that slide."""

    def __init__(self, steps: DecodeSteps) -> None:
        self.steps = steps
        self.launched = {False: 0, True: 0}  # number of steps of each kind without a graph
        self.graphs: dict[bool, torch.cuda.CUDAGraph] = {}


def _recorded(step: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    """Record the kernels of a step that has run before, without running them."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    # Work of other threads on the device does not affect this graph.
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        step()
    return graph


Run = Callable[..., Tensor]
MAX_GRAPHS = 16  # kept at once: each holds inputs, output and, on CUDA, a graph


class CudaGraphCache:
    """Calls of `run` with equal key and shapes share inputs, output and, on CUDA, a recorded graph.

    The `MAX_GRAPHS` most recently used shapes are kept; other shapes are recorded again.

    Args:
        device: device of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Graphs never run at the same time, and outputs are copied before the next one: they share memory.
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._calls: dict[Hashable, _RecordedCall] = {}

    def __call__(self, run: Run, key: Hashable, *inputs: Tensor) -> Tensor:
        """`run(*inputs)`, padded to the next power of two of rows.

        Args:
            run: a function of tensors with N rows each, without device synchronization; row i of its result depends
                on row i of its inputs only.
            key: everything else that `run` depends on.
            inputs: (N, ...) each.

        Returns:
            (N, ...) that the next call does not overwrite.
        """
        rows = len(inputs[0])
        bucket = 1 << (rows - 1).bit_length()
        place = (key, bucket, *((x.shape[1:], x.dtype) for x in inputs))
        call = self._calls.pop(place, None)
        if call is None:
            while len(self._calls) >= MAX_GRAPHS:
                # The least recently used one: its memory is reused.
                del self._calls[next(iter(self._calls))]
            padded = [torch.cat([x, x[-1:].expand(bucket - rows, *x.shape[1:])]) for x in inputs]
            call = self._record(run, padded)
        self._calls[place] = call  # moved to the end: a dict keeps the order of insertion
        for held, x in zip(call.inputs, inputs, strict=True):
            held[:rows].copy_(x)
        call.play()
        return call.output[:rows].clone()

    def _record(self, run: Run, inputs: list[Tensor]) -> _RecordedCall:
        if self.device.type != "cuda":
            output = run(*inputs)
            return _RecordedCall(inputs, output, lambda: output.copy_(run(*inputs)))
        # As torch's notes on CUDA graphs require: warm up on a separate stream, then capture.
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            run(*inputs)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # With an explicit device, since the default capture would be on the first one.
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(graph, pool=self._pool, stream=stream),
        ):
            output = run(*inputs)
        return _RecordedCall(inputs, output, graph.replay)


class _RecordedCall(NamedTuple):
    """A recorded call: its inputs and output in memory, and how to run it again."""

    inputs: list[Tensor]
    output: Tensor
    play: Callable[[], object]
