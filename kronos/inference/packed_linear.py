"""Linear layers with fixed weights: packed once where the backend supports it, with elementwise operations fused.

Rows of packed products come in tiles of a few sizes. oneDNN generates and keeps kernels for each number of rows,
a third of a megabyte per layer, so that memory would grow with each new number. Since an output row depends on
its input row only, rows can be split and padded. Large numbers of rows gain, too: the output of a tile stays in
the cache for the next product.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor


class PackedLinear:
    """x W' + b for a fixed W and float32 x; products in `dtype`, other operations in float32.

    On a CPU with oneDNN the weights are packed into its blocked layout once, which saves a tenth of the time of a
    large product and half of a small one. The operators are those that `torch.compile` emits for frozen weights;
    without them, ordinary ones compute the same.

    Args:
        weight: (out, in) float32.
        bias: (out,) float32 or None.
        dtype: dtype of the products, float32 or bfloat16.
        pack: pack the weights if oneDNN is available.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, pack: bool = True) -> None:
        self.weight = weight.detach().to(dtype).contiguous()
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.packed = pack and can_pack(self.weight)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, None)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in `dtype`."""
        return self._linear(x, "none")

    def silu(self, x: Tensor) -> Tensor:
        """SiLU of x W' + b, in `dtype`."""
        return self._linear(x, "swish") if self.packed else F.silu(self._linear(x, "none"))

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """(x W' + b) * other, in `dtype`, which `other` also has."""
        return self._joined(x, other, "mul") if self.packed else self._linear(x, "none") * other

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """Compute x W' + b + other, in float32 like `other`."""
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
    """Whether oneDNN has packed products for this weight: on CPUs, in builds that include them."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


# Each at most a third larger than the previous, including common numbers of paths; speed is flat beyond the
# largest.
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
_UNTILED = frozenset((0, *TILE_SIZES))

RowWise = Callable[..., Tensor]


def tiled(function: RowWise) -> RowWise:
    """`function`, called with numbers of rows in `TILE_SIZES` only.

    Args:
        function: tensors (M, ...) each -> (M, ...); row i depends on row i of the inputs only.

    Returns:
        The same function of tensors (..., d) with equal leading axes -> (..., d).
    """

    def in_tiles(*inputs: Tensor) -> Tensor:
        lead = inputs[0].shape[:-1]
        rows = lead.numel()
        if rows in _UNTILED:
            return function(*inputs)
        flat = [x.flatten(0, -2) for x in inputs]
        out: Tensor | None = None
        for part, size in _parts(rows):
            result = function(*(_padded(x[part], size) for x in flat))
            if out is None:
                out = result.new_empty(rows, result.shape[-1])
            out[part] = result[: part.stop - part.start]
        assert out is not None
        return out.view(*lead, -1)

    return in_tiles


def _parts(rows: int) -> Iterator[tuple[slice, int]]:
    """Slice and padded size of each tile; only the last is smaller than the largest size."""
    for start in range(0, rows, TILE_SIZES[-1]):
        stop = min(start + TILE_SIZES[-1], rows)
        yield slice(start, stop), TILE_SIZES[bisect_left(TILE_SIZES, stop - start)]


def _padded(x: Tensor, rows: int) -> Tensor:
    return x if len(x) == rows else F.pad(x, (0, 0, 0, rows - len(x)))
