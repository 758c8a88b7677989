from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kronos.engine.product import Product, can_pack

DTYPES = [torch.float32, torch.bfloat16]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Normal deviates, kept by seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def product(dtype: torch.dtype, bias: bool, pack: bool) -> Product:
    """From 12 numbers to 20."""
    return Product(numbers(20, 12) / 12**0.5, numbers(20, seed=1) if bias else None, dtype, pack)


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
def test_a_product_is_what_its_name_says(bias: bool, pack: bool) -> None:
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
def test_what_is_added_may_be_one_row_for_many_or_lie_apart(dtype: torch.dtype, pack: bool) -> None:
    ours, x = product(dtype, True, pack), numbers(3, 5, 12)
    for other in (numbers(3, 1, 20).expand(3, 5, 20), numbers(3, 20, 5).transpose(1, 2)):
        close(ours.plus(x, other), other + ours(x).float(), dtype)


@pytest.mark.parametrize("pack", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.no_grad()
def test_products_keep_their_own_type_and_sums_are_float32(dtype: torch.dtype, pack: bool) -> None:
    ours, x, other = product(dtype, True, pack), numbers(4, 12), numbers(4, 20)
    types = [ours(x).dtype, ours.silu(x).dtype, ours.times(x, other.to(dtype)).dtype]
    assert types == [dtype] * 3
    # 1e4 + 1 is no bfloat16: the sum itself must not have been rounded.
    assert ours.plus(x, other).dtype == torch.float32
    torch.testing.assert_close(ours.plus(x, other + 1e4) - 1e4, ours(x) + other, rtol=0, atol=2e-2)


def test_a_product_takes_weights_out_of_training() -> None:
    weight = numbers(20, 12).requires_grad_()
    for pack in (True, False):
        assert not Product(weight, None, torch.float32, pack)(numbers(2, 12)).requires_grad


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
def test_where_packed_products_are_missing_plain_ones_do_the_same(
    missing: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*MISSING[missing])
    weight, bias, x, other = numbers(20, 12), numbers(20), numbers(4, 12), numbers(4, 20)
    ours = Product(weight, bias, dtype)
    assert not ours.packed
    wanted = F.linear(x.to(dtype), weight.to(dtype), bias.to(dtype))
    close(ours(x), wanted, dtype)
    close(ours.silu(x), F.silu(wanted), dtype)
    close(ours.times(x, other.to(dtype)), wanted * other.to(dtype), dtype)
    close(ours.plus(x, other), wanted + other, dtype)


def test_no_weight_off_the_cpu_is_packed() -> None:
    assert not can_pack(torch.ones(2, 2, device="meta"))
