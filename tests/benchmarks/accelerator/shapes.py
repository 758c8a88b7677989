"""What is forecast on the device: sizes of the model, shapes of a forecast, and ways to ask for it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pandas as pd
import torch

from kronos.panels import KEYS
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.benchmarks.cases import MAX_CONTEXT, VARIANTS, Case

SIZES = ("mini", "small", "base")
# (N, L, H, S)
SHAPES = {
    "50 assets": (50, 90, 10, 5),
    "300 assets": (300, 90, 10, 10),
    "5000 assets": (5000, 90, 10, 20),
    "1 asset": (1, 400, 120, 30),
}
TINY_SIZES = ("tiny",)
TINY_SHAPES = {"6 assets": (6, 12, 3, 2), "1 asset": (1, 20, 12, 3)}

VARIANTS_HERE = {
    **{name: VARIANTS[name] for name in ("float32", "bfloat16")},
    "bfloat16 compiled": {"precision": "bfloat16", "compile": True},
}
DISTINCT = 250  # assets that are simulated; of more, the same bars come again


def make_case(name: str, size: str, shape: tuple[int, int, int, int]) -> Case:
    """A forecast of one shape by a model of one size."""
    assets, lookback, horizon, samples = shape
    return Case(name, size, assets, lookback, horizon, samples)


def make_predictor(
    size: str, device: torch.device, variant: str = "float32", **options: int
) -> KronosPredictor:
    """Random weights of a size, the same each time; `options` of the constructor."""
    networks = Case("weights", size, 1, 2, 1, 1).networks()
    return KronosPredictor(
        *networks, device=device, max_context=MAX_CONTEXT, **VARIANTS_HERE[variant], **options
    )


@lru_cache
def make_windows(assets: int, lookback: int, horizon: int) -> Windows:
    """One window of each asset, all of the same date."""
    one = Case("windows", "mini", min(assets, DISTINCT), lookback, horizon, 1).windows()
    dates = one.index.get_level_values("datetime")
    parts = [
        replace(
            one,
            index=pd.MultiIndex.from_arrays([dates, [f"A{i + j:05}" for j in range(len(one))]], names=KEYS),
        )
        for i in range(0, assets, len(one))
    ]
    return Windows.stack(parts)[:assets]
