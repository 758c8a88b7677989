"""Rows of a packed product in tiles of a few sizes, so that memory does not grow with each new count of rows.

oneDNN generates kernels for each count of rows, a third of a megabyte for each product, and keeps them. A row of an
outcome depends on the same row of the inputs alone, so that rows may be split and padded at will. Large counts gain
from it too: what a tile leaves stays in the processor's cache for the next product.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

# Each at most a third above the last, with the usual numbers of paths among them; speed is flat beyond the largest.
SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 30, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512)
_AS_THEY_ARE = frozenset((0, *SIZES))

RowWise = Callable[..., Tensor]


def tiled(function: RowWise) -> RowWise:
    """`function`, called with row counts in `SIZES` only.

    Args:
        function: of tensors (M, ...) each -> (M, ...); row i depends on row i of the inputs alone.

    Returns:
        The same function of tensors (..., d) with equal leading axes, or without any -> (..., d).
    """

    def in_tiles(*inputs: Tensor) -> Tensor:
        lead = inputs[0].shape[:-1]
        rows = lead.numel()
        if rows in _AS_THEY_ARE:
            return function(*inputs)
        flat = [x.flatten(0, -2) for x in inputs]
        out: Tensor | None = None
        for part, size in _parts(rows):
            outcome = function(*(_padded(x[part], size) for x in flat))
            if out is None:
                out = outcome.new_empty(rows, outcome.shape[-1])
            out[part] = outcome[: part.stop - part.start]
        assert out is not None
        return out.view(*lead, -1)

    return in_tiles


def _parts(rows: int) -> Iterator[tuple[slice, int]]:
    """Where each tile lies, and its size once padded; only the last is smaller than the largest."""
    for start in range(0, rows, SIZES[-1]):
        stop = min(start + SIZES[-1], rows)
        yield slice(start, stop), SIZES[bisect_left(SIZES, stop - start)]


def _padded(x: Tensor, rows: int) -> Tensor:
    return x if len(x) == rows else F.pad(x, (0, 0, 0, rows - len(x)))
