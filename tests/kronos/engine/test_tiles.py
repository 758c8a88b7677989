"""Rows by tiles of a few sizes: the same rows come out, and memory stays bounded whatever the shapes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kronos.engine.product import Product, can_pack
from kronos.engine.tiles import SIZES, tiled

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
def test_rows_come_out_as_from_one_call_though_only_a_few_sizes_go_in(rows: int) -> None:
    function, given = Cumulated(), inputs(rows)
    assert torch.equal(tiled(function)(*given), Cumulated()(*given))
    assert set(function.counts) <= {0, *SIZES}
    assert len(function.counts) == max(1, -(-rows // SIZES[-1]))


@pytest.mark.parametrize("lead", [(), (7,), (3, 9), (2, 3, 171), (5, 0, 4)], ids=str)
def test_leading_axes_stay_as_they_are(lead: tuple[int, ...]) -> None:
    given = inputs(*lead)
    got = tiled(Cumulated())(*given)
    assert got.shape == (*lead, 5)
    assert torch.equal(got, Cumulated()(*given))


def test_inputs_may_lie_apart_and_are_left_alone() -> None:
    x, y = inputs(26, 7)
    x, y = x.transpose(0, 1), y[::2].repeat_interleave(2, 0).transpose(0, 1)
    before = x.clone(), y.clone()
    assert torch.equal(tiled(Cumulated())(x, y), Cumulated()(x, y))
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize("rows", range(1, 1200, 13))
def test_little_of_a_tile_is_padding(rows: int) -> None:
    function = Cumulated()
    tiled(function)(*inputs(rows))
    assert sum(function.counts) <= 4 / 3 * rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_a_row_of_a_packed_product_is_the_same_to_the_bit_in_any_tile(dtype: torch.dtype) -> None:
    if not can_pack(torch.ones(2, 2, dtype=dtype)):
        pytest.skip(f"no oneDNN products of {dtype} on this machine")
    (x, other), generator = inputs(1200), torch.Generator().manual_seed(1)
    product = Product(torch.randn(2, 3, generator=generator), None, dtype)
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
@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("length", "float32"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS),
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
