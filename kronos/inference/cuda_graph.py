"""A decode step as one function over fixed memory, recorded as a CUDA graph and replayed for each bar.

A step of Kronos-small takes about 440 kernels, for few rows of some microseconds each; launching them one by one
takes several times as long as running them. Here the device itself counts the steps: the place in the caches, the
calendar and the draws of a step are looked up by a number in device memory, so that every step is the same sequence
of kernels and one recorded graph serves them all. Recording takes some tenths of a second (torch.compile is not
involved), so that a graph is recorded once as much has been spent on launching its steps one by one.

On other devices the same function runs over the same memory without a graph, which is how this is tested.
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

MAX_PATHS = 1024  # paths of a chunk at most: with more, kernels outlast their launches
MIN_STEPS = 4  # steps of a chunk at least: with fewer, copying into place costs more than it saves
STEPS_BEFORE_RECORDING = (
    16  # steps of a shape that run without a graph first: about as long as recording one takes
)
MAX_RECORDINGS = 8  # recordings that are kept
MAX_BYTES = 2**30  # of memory that recordings may keep between chunks

log = logging.getLogger(__name__)


class DecodeSteps:
    """The steps of a chunk after the first, each by the same kernels over the same memory.

    Args:
        model: fused.
        past: of the chunk's windows; its caches become the memory that all chunks of this shape use.
        future: (N, H, 5) calendar fields of the bars to forecast.
        draws: of this chunk.
        tokens: (N, S, H) each; the first bar is there already.
        config: temperature and filters.
        max_context: tokens that the model sees at most.
    """

    def __init__(
        self,
        model: FusedKronos,
        past: DecodeState,
        future: Tensor,
        draws: SobolSampler,
        tokens: Tokens,
        config: SampleConfig,
        max_context: int,
    ) -> None:
        self.model, self.past, self.config, self.max_context = model, past, config, max_context
        past.cursor.lengths = past.cursor.lengths.clone()  # they were the caller's
        self.future, self.uniforms = future.clone(), draws.uniforms.clone()
        self.order, self.tokens = (Tokens(*(half.clone() for half in both)) for both in (draws.order, tokens))
        self.at = past.cursor.lengths.new_ones(1)  # the bar to draw
        # Graphs hold addresses, so that what they read has to be kept even while the cursor shows another mask.
        self.mask = past.cursor.prefix

    def restart(self, past: DecodeState, future: Tensor, draws: SobolSampler, tokens: Tokens) -> None:
        """Begin another chunk of the same shape in the same memory."""
        for kept, new in zip(self._caches(self.past), self._caches(past), strict=True):
            kept.restart(new)
        cursor = self.past.cursor
        cursor.lengths.copy_(past.cursor.lengths)
        cursor.prefix = self.mask
        if self.mask is not None and past.cursor.prefix is not None:  # both or neither, by the recorder's key
            self.mask.copy_(past.cursor.prefix)
        self.future.copy_(future)
        self.uniforms.copy_(draws.uniforms)
        for half, new_half in zip((*self.order, *self.tokens), (*draws.order, *tokens), strict=True):
            half.copy_(new_half)
        self.at.fill_(1)

    def step(self, slides: bool) -> None:
        """Draw one more bar of every path; `slides` where the oldest bars have to be hidden for it."""
        cursor, before = self.past.cursor, self.at - 1
        if slides:
            cursor.mask_oldest(cursor.lengths + self.at - self.max_context)
        last = Tokens(*(half.index_select(2, before)[..., 0] for half in self.tokens))  # (N, S)
        past = append_bar(self.model, self.past, last, self.future.index_select(1, before)[:, 0], before)
        draws = SobolSampler(self.uniforms.index_select(2, self.at), self.order)  # of this bar alone
        new = sample_next(self.model, past, len(self.future), self.config, draws, step=0)
        for half, new_half in zip(self.tokens, new, strict=True):
            half.index_copy_(2, self.at, new_half[..., None])
        self.at.add_(1)

    def memory(self) -> int:
        """Bytes of its caches."""
        held = (
            x
            for cache in self._caches(self.past)
            for x in (cache.keys, cache.values, cache.own_keys, cache.own_values)
        )
        return sum(x.nbytes for x in held)

    @staticmethod
    def _caches(past: DecodeState) -> list[PrefixCache]:
        return [*past.trunk, past.dependency]


class StepRecorder:
    """Runs the steps of chunks, those of a shape over the same memory and, on CUDA, by the same recorded graphs.

    At most `MAX_RECORDINGS` shapes and about `MAX_BYTES` of memory are kept, the latest ones. Chunks of two threads take rope_rotations.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.records = device.type == "cuda"  # until a graph is refused
        self.kept: OrderedDict[Hashable, _Recording] = OrderedDict()
        self._turn = threading.Lock()

    def pays(self, rows: int, cached: int) -> bool:
        """Whether a chunk of N * S rows has as many steps on caches as it takes, and few enough rows."""
        return rows <= MAX_PATHS and cached - 1 >= MIN_STEPS

    def run(
        self,
        model: FusedKronos,
        past: DecodeState,
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
            model, future, draws, config, max_context: as there.
            past: of the windows once they are read; not to be used afterwards.
            out: tokens to fill.
            cached: steps that caches serve.
            fitting: steps before the longest window outgrows the context.
            on_step: called after each bar is under way.
        """
        out.s1[:, :, 0], out.s2[:, :, 0] = sample_next(model, past, len(future), config, draws, 0)
        on_step()
        # One stream of the device does not wait for another, so that they share no memory.
        stream = torch.cuda.current_stream(self.device).cuda_stream if self.device.type == "cuda" else None
        widths = len(past.cursor.positions), past.cursor.prefix is None, out.s1.shape
        key = (id(model), stream, *widths, cached, fitting, max_context, replace(config, seed=0))
        with self._turn:
            recording = self.kept.pop(key, None)
            if recording is None:
                steps = DecodeSteps(model, past, future, draws, out, config, max_context)
                recording = _Recording(steps)
            else:
                recording.steps.restart(past, future, draws, out)
            for step in range(1, cached):
                self._play(recording, slides=step >= fitting)
                on_step()
            for half, drawn in zip(out, recording.steps.tokens, strict=True):
                half.copy_(drawn)
            self._keep(key, recording)

    def _play(self, recording: _Recording, slides: bool) -> None:
        """One more step."""
        if (
            self.records
            and slides not in recording.graphs
            and recording.launched[slides] >= STEPS_BEFORE_RECORDING
        ):
            try:
                recording.graphs[slides] = _recorded(lambda: recording.steps.step(slides), self.device)
            except RuntimeError as error:  # without a graph a forecast is slower and otherwise the same
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
    """Steps and, on CUDA, their graphs: one of steps that fit the context, one of steps that slide."""

    def __init__(self, steps: DecodeSteps) -> None:
        self.steps = steps
        self.launched = {False: 0, True: 0}  # steps of each kind whose kernels were launched one by one
        self.graphs: dict[bool, torch.cuda.CUDAGraph] = {}


def _recorded(step: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    """The kernels of a step that has run before. None of them runs now."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    # What other threads ask of the device meanwhile does not matter to this graph.
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        step()
    return graph


Run = Callable[..., Tensor]
MAX_GRAPHS = 16  # kept at once: each holds its inputs, its output and, on CUDA, a graph


class CudaGraphCache:
    """Calls of `run` with equal key and shapes share inputs, output and, on CUDA, a recorded graph.

    Of many shapes the `MAX_GRAPHS` used last are kept; one that comes back later is recorded again.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Graphs never run at the same time, and what one leaves is copied before the next: they share memory.
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._calls: dict[Hashable, _RecordedCall] = {}

    def __call__(self, run: Run, key: Hashable, *inputs: Tensor) -> Tensor:
        """`run(*inputs)`, padded to the next power of two of rows.

        Args:
            run: a function of tensors with N rows each, that asks the device for nothing; row i of its outcome
                depends on row i of its inputs alone.
            key: what `run` depends on besides its inputs.
            inputs: (N, ...) each.

        Returns:
            (N, ...) that the next call leaves alone.
        """
        rows = len(inputs[0])
        bucket = 1 << (rows - 1).bit_length()
        place = (key, bucket, *((x.shape[1:], x.dtype) for x in inputs))
        call = self._calls.pop(place, None)
        if call is None:
            while len(self._calls) >= MAX_GRAPHS:
                # The one used longest ago: its memory serves the new one.
                del self._calls[next(iter(self._calls))]
            padded = [torch.cat([x, x[-1:].expand(bucket - rows, *x.shape[1:])]) for x in inputs]
            call = self._record(run, padded)
        self._calls[place] = call  # the last one: a dict keeps the order of insertion
        for held, x in zip(call.inputs, inputs, strict=True):
            held[:rows].copy_(x)
        call.play()
        return call.output[:rows].clone()

    def _record(self, run: Run, inputs: list[Tensor]) -> _RecordedCall:
        if self.device.type != "cuda":
            output = run(*inputs)
            return _RecordedCall(inputs, output, lambda: output.copy_(run(*inputs)))
        # As torch's notes on CUDA graphs ask: warm up on a stream of its own, then capture.
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            run(*inputs)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # The device is named: a capture of its own choice would be on the first one.
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(graph, pool=self._pool, stream=stream),
        ):
            output = run(*inputs)
        return _RecordedCall(inputs, output, graph.replay)


class _RecordedCall(NamedTuple):
    """A recorded call: where its inputs and its output lie, and how to run it again."""

    inputs: list[Tensor]
    output: Tensor
    play: Callable[[], object]
