"""Shared and even draws reduce noise on a real market; a small run of `backtests/sampling_noise.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

BACKTESTS = Path(__file__).parents[2] / "backtests"
SEPARATE, SHARED, EVEN = "separate, plain", "shared, plain", "shared, Sobol, by price"
SAMPLES = 32


@pytest.fixture(scope="module")
def table(shared_data: Path) -> pd.DataFrame:
    """One row per variant: two dates, 80 instruments, four seeds, two versions of kronos-nano."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BACKTESTS), *sys.path])
        import sampling_noise
    study = sampling_noise.Study(
        dates=2, instruments=80, samples=(SAMPLES,), reference=128, draws=(SHARED, EVEN)
    )
    rows = study.run(shared_data / "csi300_2020_2023.parquet")
    return sampling_noise.summarize(rows).xs(SAMPLES, level="samples")


@pytest.mark.slow
@pytest.mark.parametrize("other", [SEPARATE, SHARED])
def test_even_draws_by_price_are_worth_more_samples(table: pd.DataFrame, other: str) -> None:
    assert table["worth"][EVEN] > 1.4 * table["worth"][other]


@pytest.mark.slow
@pytest.mark.parametrize("other", [SEPARATE, SHARED])
def test_even_draws_by_price_leave_less_noise_in_a_rank_ic(table: pd.DataFrame, other: str) -> None:
    assert table["noise"][EVEN] < 0.92 * table["noise"][other]


@pytest.mark.slow
@pytest.mark.parametrize("variant", [SEPARATE, SHARED, EVEN])
def test_two_versions_are_told_apart_better_by_the_same_draws(table: pd.DataFrame, variant: str) -> None:
    assert table["noise of difference"][variant] < 0.8 * table["own draws"][variant]


@pytest.mark.slow
def test_even_draws_spoil_no_other_column_of_the_signal(table: pd.DataFrame) -> None:
    for column in ("rmse_score", "rmse_volatility", "rmse_q05", "rmse_q95"):
        assert table[column][EVEN] < 1.05 * table[column][SEPARATE]
