"""The formulas count what torch counts."""

from __future__ import annotations

import pytest
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks import measure
from tests.benchmarks.cases import Case
from tests.benchmarks.flops import least_flops, plain_flops


@pytest.mark.parametrize("size", ["mini", "small"])
def test_the_plain_loop_computes_what_its_formula_says(size: str) -> None:
    case = Case("short", size, assets=2, lookback=8, horizon=2, samples=2)
    run = measure.plain(case)
    with FlopCounterMode(display=False) as counter:
        run()
    # torch counts no fused attention, which is 1 % of the work on windows this short.
    assert counter.get_total_flops() == pytest.approx(plain_flops(case).total, rel=0.01)


def test_one_step_of_one_path_has_little_to_share() -> None:
    case = Case("short", "mini", assets=1, lookback=8, horizon=1, samples=1)
    assert plain_flops(case).total / 2 < least_flops(case).total < plain_flops(case).total


def test_the_least_work_grows_by_single_positions_while_the_plain_loop_reads_all_again() -> None:
    one = Case("one", "small", assets=1, lookback=200, horizon=10, samples=1)
    ten = Case("ten", "small", assets=1, lookback=200, horizon=10, samples=10)
    assert plain_flops(ten).total == pytest.approx(10 * plain_flops(one).total)
    assert least_flops(ten).total < 1.6 * least_flops(one).total
