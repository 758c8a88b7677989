"""One chunk after another through the same memory, so that a CUDA device can be handed a whole chunk at once.

A chunk takes some ten thousand kernels of a few microseconds each; launching them one by one takes longer than
running them. On CUDA a chunk of a new shape is recorded as a graph, and chunks of that shape replay it.
Elsewhere the same function runs over the same memory, which is how this is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

Run = Callable[..., Tensor]
MAX_TAPES = 16  # kept at once: each holds its inputs, its output and, on CUDA, a graph


class Replay:
    """Calls of `run` with equal key and shapes share inputs, output and, on CUDA, a recorded graph.

    Of many shapes the `MAX_TAPES` used last are kept; one that comes back later is recorded again.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Graphs never run at the same time, and what one leaves is copied before the next: they share memory.
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._tapes: dict[Hashable, _Tape] = {}

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
        tape = self._tapes.pop(place, None)
        if tape is None:
            while len(self._tapes) >= MAX_TAPES:
                # The one used longest ago: its memory serves the new one.
                del self._tapes[next(iter(self._tapes))]
            padded = [torch.cat([x, x[-1:].expand(bucket - rows, *x.shape[1:])]) for x in inputs]
            tape = self._record(run, padded)
        self._tapes[place] = tape  # the last one: a dict keeps the order of insertion
        for held, x in zip(tape.inputs, inputs, strict=True):
            held[:rows].copy_(x)
        tape.play()
        return tape.output[:rows].clone()

    def _record(self, run: Run, inputs: list[Tensor]) -> _Tape:
        if self.device.type != "cuda":
            output = run(*inputs)
            return _Tape(inputs, output, lambda: output.copy_(run(*inputs)))
        # As torch's notes on CUDA graphs ask: warm up on a stream of its own, then capture.
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            run(*inputs)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # The device is named: a capture of its own choice would be on the first one.
        with torch.cuda.device(self.device), torch.cuda.graph(graph, pool=self._pool, stream=stream):
            output = run(*inputs)
        return _Tape(inputs, output, graph.replay)


class _Tape(NamedTuple):
    """A recorded call: where its inputs and its output lie, and how to run it again."""

    inputs: list[Tensor]
    output: Tensor
    play: Callable[[], object]
