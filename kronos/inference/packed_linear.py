"""Matrix products with fixed weights: packed once where the backend can, with the sums around them fused in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor


class PackedLinear:
    """x W' + b for one W, x of float32; products in `dtype`, everything around them in float32.

    On a CPU with oneDNN the weights are laid out in its blocks beforehand, which saves a tenth of a large
    product and half of a small one. The operators are those that `torch.compile` itself emits for frozen
    weights; where they are missing, plain ones do the same. Rows of packed products come in `tiles`.

    Args:
        weight: (out, in) float32.
        bias: (out,) float32 or None.
        dtype: of the products, float32 or bfloat16.
        pack: lay the weights out in oneDNN's blocks where it is there.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, pack: bool = True) -> None:
        self.weight = weight.detach().to(dtype).contiguous()
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.packed = pack and can_pack(self.weight)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, None)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the product's own dtype."""
        return self._linear(x, "none")

    def silu(self, x: Tensor) -> Tensor:
        """The SiLU of x W' + b, in the product's own dtype."""
        return self._linear(x, "swish") if self.packed else F.silu(self._linear(x, "none"))

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """(x W' + b) * other, in the product's own dtype, which `other` has too."""
        return self._joined(x, other, "mul") if self.packed else self._linear(x, "none") * other

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """X W' + b + other, in float32 as `other` is."""
        if self.packed and self.weight.dtype == other.dtype:
            return self._joined(x, other, "add")
        return other + self._linear(x, "none")

    def _linear(self, x: Tensor, then: str) -> Tensor:
        x = x.to(self.weight.dtype)
        if not self.packed:
            return F.linear(x, self.weight, self.bias)
        linear = torch.ops.mkldnn._linear_pointwise
        return tiled(lambda x: linear(x, self.weight, self.bias, then, [], ""))(x)

    def _joined(self, x: Tensor, other: Tensor, how: str) -> Tensor:
        x = x.to(self.weight.dtype)
        joined = torch.ops.mkldnn._linear_pointwise.binary
        return tiled(lambda x, other: joined(x, other, self.weight, self.bias, how))(x, other)


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN's packed products are there for this weight: on CPUs, in builds that have them."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


# Each at most a third above the last, with the usual numbers of paths among them; speed is flat beyond the largest.
TILE_SIZES = (
    1,
    2,
    3,
    4,
    5,
    6,
    8,
    10,
    12,
    16,
    20,
    24,
    30,
    40,
    50,
    64,
    80,
    100,
    128,
    160,
    200,
    256,
    320,
    400,
    512,
)
_AS_THEY_ARE = frozenset((0, *TILE_SIZES))

RowWise = Callable[..., Tensor]


def tiled(function: RowWise) -> RowWise:
    """`function`, called with row counts in `TILE_SIZES` only.

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
    for start in range(0, rows, TILE_SIZES[-1]):
        stop = min(start + TILE_SIZES[-1], rows)
        yield slice(start, stop), TILE_SIZES[bisect_left(TILE_SIZES, stop - start)]


def _padded(x: Tensor, rows: int) -> Tensor:
    return x if len(x) == rows else F.pad(x, (0, 0, 0, rows - len(x)))
