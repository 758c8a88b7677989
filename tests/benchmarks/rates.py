"""How fast this machine multiplies matrices of the networks' shapes: the limit that forecasts are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tests.benchmarks.cases import MODELS

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ROWS = (64, 250, 1024, 3000, 8192)  # positions in one product: a few paths, or all of a batch's
AT_LEAST = 0.05  # seconds of one timing


class Rate(NamedTuple):
    """The fastest product of a (rows, inner) and an (inner, outer) matrix."""

    gflops: float
    rows: int
    inner: int
    outer: int
    kind: str  # "mm", or "packed" for weights in oneDNN's own layout


def fastest(size: str, precision: str) -> Rate:
    """Fastest rate over the shapes of a size, as plain products and with packed weights."""
    d, ff = MODELS[size].d_model, MODELS[size].ff_dim
    rates = [
        Rate(_gflops(call, rows, inner, outer), rows, inner, outer, kind)
        for rows in ROWS
        for inner, outer in dict.fromkeys([(d, d), (d, ff), (ff, d)])
        for kind, call in _products(rows, inner, outer, PRECISIONS[precision]).items()
    ]
    return max(rates)


def again(rate: Rate, precision: str) -> float:
    """GFLOPS of the same product now: neighbors on a shared machine come and go."""
    call = _products(rate.rows, rate.inner, rate.outer, PRECISIONS[precision])[rate.kind]
    return _gflops(call, rate.rows, rate.inner, rate.outer)


def _products(rows: int, inner: int, outer: int, dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    x, weight = torch.randn(rows, inner, dtype=dtype), torch.randn(outer, inner, dtype=dtype)
    turned, out = weight.t(), torch.empty(rows, outer, dtype=dtype)
    products: dict[str, Callable[[], Tensor]] = {"mm": lambda: torch.mm(x, turned, out=out)}
    try:  # private to torch, so it may be missing
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
        products["packed"] = lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    except (AttributeError, RuntimeError):
        pass
    return products


def _gflops(call: Callable[[], Tensor], rows: int, inner: int, outer: int) -> float:
    """The best of three timings, in CPU seconds, so that one thread's rate is meant."""
    best = 0.0
    with torch.inference_mode():
        call()
        for _ in range(3):
            count, start = 0, time.process_time()
            while (spent := time.process_time() - start) < AT_LEAST:
                call()
                count += 1
            best = max(best, 2e-9 * rows * inner * outer * count / spent)
    return best
