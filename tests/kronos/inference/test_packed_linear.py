from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kronos.inference.packed_linear import TILE_SIZES, PackedLinear, can_pack, tiled

DTYPES = [torch.float32, torch.bfloat16]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal deviates, kept by seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def product(dtype: torch.dtype, bias: bool, pack: bool) -> PackedLinear:
    """A layer from 12 features to 20."""
    return PackedLinear(numbers(20, 12) / 12**0.5, numbers(20, seed=1) if bias else None, dtype, pack)


def close(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> None:
    """Equal but for rounding: sums of 12 products in float32, or results rounded to 8 bits."""
    tolerance = 1e-5 if dtype == torch.float32 else 2**-6
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def needs_packing(dtype: torch.dtype) -> None:
    if not can_pack(torch.ones(2, 2, dtype=dtype)):
        pytest.skip(f"no oneDNN products of {dtype} on this machine")


INPUTS = {
    "one row": numbers(1, 12),
    "a window of bars": numbers(3, 5, 12),
    "three leading axes": numbers(2, 3, 4, 12),
    "no leading axis": numbers(12),
    "no rows": numbers(0, 12),
    "every other row": numbers(3, 10, 12)[:, ::2],
    "columns first": numbers(3, 12, 5).transpose(1, 2),
    "one row for all": numbers(3, 1, 12).expand(3, 5, 12),
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
@torch.no_grad()
def test_packed_products_and_what_is_fused_into_them_are_the_plain_ones(
    x: Tensor, dtype: torch.dtype, bias: bool
) -> None:
    needs_packing(dtype)
    packed, plain = (product(dtype, bias, pack) for pack in (True, False))
    assert packed.packed
    assert not plain.packed
    other = numbers(*x.shape[:-1], 20, seed=2)
    before = x.clone(), other.clone()
    close(packed(x), plain(x), dtype)
    close(packed.silu(x), plain.silu(x), dtype)
    close(packed.times(x, other.to(dtype)), plain.times(x, other.to(dtype)), dtype)
    close(packed.plus(x, other), plain.plus(x, other), dtype)
    assert torch.equal(x, before[0])
    assert torch.equal(other, before[1])  # a fused sum does not sum in place


@pytest.mark.parametrize("pack", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@torch.no_grad()
def test_each_product_has_the_terms_in_its_name(bias: bool, pack: bool) -> None:
    weight, x, other = numbers(20, 12) / 12**0.5, numbers(4, 12, seed=3), numbers(4, 20, seed=2)
    ours, wanted = product(torch.float32, bias, pack), x @ weight.T
    if bias:
        wanted = wanted + numbers(20, seed=1)
    close(ours(x), wanted, torch.float32)
    close(ours.silu(x), wanted / (1 + (-wanted).exp()), torch.float32)
    close(ours.times(x, other), wanted * other, torch.float32)
    close(ours.plus(x, other), wanted + other, torch.float32)


@pytest.mark.parametrize("pack", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.no_grad()
def test_the_added_tensor_may_be_broadcast_or_not_contiguous(dtype: torch.dtype, pack: bool) -> None:
    ours, x = product(dtype, True, pack), numbers(3, 5, 12)
    for other in (numbers(3, 1, 20).expand(3, 5, 20), numbers(3, 20, 5).transpose(1, 2)):
        close(ours.plus(x, other), other + ours(x).float(), dtype)


@pytest.mark.parametrize("pack", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.no_grad()
def test_products_keep_their_dtype_and_sums_are_float32(dtype: torch.dtype, pack: bool) -> None:
    ours, x, other = product(dtype, True, pack), numbers(4, 12), numbers(4, 20)
    types = [ours(x).dtype, ours.silu(x).dtype, ours.times(x, other.to(dtype)).dtype]
    assert types == [dtype] * 3
    # 1e4 + 1 is not a bfloat16: the sum itself must not have been rounded.
    assert ours.plus(x, other).dtype == torch.float32
    torch.testing.assert_close(ours.plus(x, other + 1e4) - 1e4, ours(x) + other, rtol=0, atol=2e-2)


def test_a_product_takes_weights_out_of_training() -> None:
    weight = numbers(20, 12).requires_grad_()
    for pack in (True, False):
        assert not PackedLinear(weight, None, torch.float32, pack)(numbers(2, 12)).requires_grad


MISSING = {
    "no oneDNN": ("torch.backends.mkldnn.is_available", lambda: False),
    "no such operator": (
        "torch.ops.mkldnn",
        SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True),
    ),
    "no bfloat16": (
        "torch.ops.mkldnn",
        SimpleNamespace(_is_mkldnn_bf16_supported=lambda: False, _linear_pointwise=None),
    ),
}


@pytest.mark.parametrize(
    ("missing", "dtype"),
    [
        ("no oneDNN", torch.float32),
        ("no oneDNN", torch.bfloat16),
        ("no such operator", torch.float32),
        ("no such operator", torch.bfloat16),
        ("no bfloat16", torch.bfloat16),
    ],
)
@torch.no_grad()
def test_without_packed_products_plain_ones_give_the_same(
    missing: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*MISSING[missing])
    weight, bias, x, other = numbers(20, 12), numbers(20), numbers(4, 12), numbers(4, 20)
    ours = PackedLinear(weight, bias, dtype)
    assert not ours.packed
    wanted = F.linear(x.to(dtype), weight.to(dtype), bias.to(dtype))
    close(ours(x), wanted, dtype)
    close(ours.silu(x), F.silu(wanted), dtype)
    close(ours.times(x, other.to(dtype)), wanted * other.to(dtype), dtype)
    close(ours.plus(x, other), wanted + other, dtype)


def test_no_weight_off_the_cpu_is_packed() -> None:
    assert not can_pack(torch.ones(2, 2, device="meta"))


COUNTS = [0, 1, 7, 11, 30, 31, 100, 101, 511, 512, 513, 1023, 1024, 1100, 2000]


class Cumulated:
    """A function of rows, and the counts of rows that it was called with."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        self.counts.append(x.shape[:-1].numel())
        return torch.cat([x.cumsum(-1), 2 * y], dim=-1)


def inputs(*lead: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*lead, 3, generator=generator), torch.randn(*lead, 2, generator=generator)


@pytest.mark.parametrize("rows", COUNTS)
def test_rows_are_those_of_one_call_although_only_a_few_batch_sizes_are_used(rows: int) -> None:
    function, given = Cumulated(), inputs(rows)
    assert torch.equal(tiled(function)(*given), Cumulated()(*given))
    assert set(function.counts) <= {0, *TILE_SIZES}
    assert len(function.counts) == max(1, -(-rows // TILE_SIZES[-1]))


@pytest.mark.parametrize("lead", [(), (7,), (3, 9), (2, 3, 171), (5, 0, 4)], ids=str)
def test_leading_axes_are_unchanged(lead: tuple[int, ...]) -> None:
    given = inputs(*lead)
    got = tiled(Cumulated())(*given)
    assert got.shape == (*lead, 5)
    assert torch.equal(got, Cumulated()(*given))


def test_inputs_may_be_not_contiguous_and_are_unchanged() -> None:
    x, y = inputs(26, 7)
    x, y = x.transpose(0, 1), y[::2].repeat_interleave(2, 0).transpose(0, 1)
    before = x.clone(), y.clone()
    assert torch.equal(tiled(Cumulated())(x, y), Cumulated()(x, y))
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize("rows", range(1, 1200, 13))
def test_only_a_small_part_of_a_tile_is_padding(rows: int) -> None:
    function = Cumulated()
    tiled(function)(*inputs(rows))
    assert sum(function.counts) <= 4 / 3 * rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_a_row_of_a_packed_product_is_the_same_to_the_bit_in_any_tile(dtype: torch.dtype) -> None:
    if not can_pack(torch.ones(2, 2, dtype=dtype)):
        pytest.skip(f"no oneDNN products of {dtype} on this machine")
    (x, other), generator = inputs(1200), torch.Generator().manual_seed(1)
    product = PackedLinear(torch.randn(2, 3, generator=generator), None, dtype)
    whole = product.plus(x, other)
    for rows in COUNTS[1:]:
        assert torch.equal(product.plus(x[:rows], other[:rows]), whole[:rows])


# 300 shapes that no forecast had before, of networks so small that all memory is the engine's own.
GROWTH = """
import sys
import torch
from kronos.config import SampleConfig
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.kronos.builders import make_model, make_panel, make_tokenizer

def resident() -> float:
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 2**20

kind, precision = sys.argv[1:]
torch.set_num_threads(1)
predictor = KronosPredictor(make_model(), make_tokenizer(), "cpu", precision=precision)
panel = make_panel(340, "A")
def forecast(bars: int, windows: int, horizon: int, samples: int) -> None:
    some = Windows.rolling(panel, bars, horizon, "B")[:windows]
    predictor.forecast(some, SampleConfig(samples))

forecast(330, 1, 2, 1)
before = resident()
for i in range(1, 301):
    forecast(20 + i if kind == "length" else 20, i if kind == "windows" else 1, 2, i if kind == "samples" else 1)
print(resident() - before)
"""

OTHERS = [("length", "bfloat16"), ("windows", "float32"), ("samples", "float32")]


@pytest.mark.skipif(
    not Path("/proc/self/statm").is_file(), reason="resident memory is read from Linux's /proc"
)
@pytest.mark.integration
@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("length", "float32"),
        *(pytest.param(*case, marks=[pytest.mark.slow, pytest.mark.long]) for case in OTHERS),
    ],
)
def test_three_hundred_shapes_take_little_memory(kind: str, precision: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, kind, precision],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 160  # MB; kernels for every shape took more than 500
