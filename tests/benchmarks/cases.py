"""What is measured: network sizes of the released checkpoints, and shapes of a forecast. Weights are random."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from kronos.config import ModelConfig, SampleConfig, TokenizerConfig
from kronos.model import Kronos
from kronos.predictor import KronosPredictor
from kronos.tokenizer import KronosTokenizer
from kronos.windows import Windows
from tests.kronos.builders import make_bars

MAX_CONTEXT = 512  # upstream's default, also for mini, whose weights could see 2,048

MODELS = {
    "mini": ModelConfig(n_layers=4, d_model=256, n_heads=4, ff_dim=512),
    "small": ModelConfig(n_layers=8, d_model=512, n_heads=8, ff_dim=1024),
    "base": ModelConfig(n_layers=12, d_model=832, n_heads=16, ff_dim=2048),
    "tiny": ModelConfig(n_layers=2, d_model=32, n_heads=2, ff_dim=64),  # to try the benchmarks themselves
}
TOKENIZER = TokenizerConfig()  # mini's differs in `group_size` alone, which sizes a stored constant


@dataclass(frozen=True)
class Case:
    """One forecast: N assets of L bars, S paths of H bars each, by a model of a size."""

    name: str
    size: str
    assets: int
    lookback: int
    horizon: int
    samples: int
    targets: dict[str, float] = field(default_factory=dict)  # variant -> how many times faster than plain

    @property
    def rows(self) -> int:
        """Paths: what the plain loop's cost is proportional to."""
        return self.assets * self.samples

    @property
    def sampling(self) -> SampleConfig:
        """Upstream's defaults, T=1 and top_p=.9."""
        return SampleConfig(self.samples, T=1.0, top_p=0.9)

    def windows(self) -> Windows:
        """N windows of random walks on business days, all of the same date."""
        panel = {f"A{i:04}": make_bars(self.lookback, seed=i) for i in range(self.assets)}
        return Windows.rolling(panel, self.lookback, self.horizon, "B")

    def networks(self) -> tuple[Kronos, KronosTokenizer]:
        """Model and tokenizer of this size with torch's own random weights, in eval mode."""
        torch.manual_seed(0)
        return Kronos(MODELS[self.size]).eval(), KronosTokenizer(TOKENIZER).eval()

    def part(self, rows: int) -> Case:
        """The same forecast of about `rows` paths: fewer assets, or of a single one fewer samples."""
        if rows >= self.rows:
            return self
        if self.assets > 1:
            return replace(self, assets=max(1, round(rows / self.samples)))
        return replace(self, samples=max(1, rows))

    def middle(self, steps: int) -> Case:
        """Only these many steps, the middle ones of the horizon, so that windows are of average length."""
        before = (self.horizon - steps) // 2
        return replace(self, lookback=self.lookback + before, horizon=steps)

    def last(self) -> Case:
        """Only the last step, whose window is the longest."""
        return replace(self, lookback=self.lookback + self.horizon - 1, horizon=1)


# (N, L, H, S) of the five cases, and the sizes each was first measured at.
SHAPES = {
    "a": (1, 400, 120, 1),  # slides past the context of 512
    "b": (1, 360, 120, 1),
    "c": (50, 90, 10, 5),
    "d": (300, 90, 10, 10),
    "e": (1, 256, 24, 30),
}
USUAL = ("a-small", "b-small", "c-mini", "c-small", "d-mini", "e-small")
TARGETS: dict[str, dict[str, float]] = {
    "a-small": {"float32": 11, "bfloat16": 20, "rolling": 25.8, "rolling bfloat16": 30},
    "b-small": {"float32": 28, "bfloat16": 60},
    "c-mini": {"float32": 28, "bfloat16": 48},
    "c-small": {"float32": 50, "bfloat16": 95},
    "d-mini": {"float32": 65, "bfloat16": 110},
    "e-small": {"float32": 180, "bfloat16": 300},
}
TARGET_SHARE = {"d-mini": 0.75}  # of the measured rate of matrix products
TARGET_MEMORY = {"d-mini": 200.0}  # MiB in addition to weights and windows

# Ways to ask a predictor for more speed, as arguments of its constructor.
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "rolling": {"window": "rolling"},
    "rolling bfloat16": {"window": "rolling", "precision": "bfloat16"},
    "compiled": {"compile": True},
}


def find_cases(names: str) -> list[Case]:
    """Cases by name, e.g. "a,c-mini": a letter alone means the sizes it was first measured at.

    Raises:
        ValueError: there is no such case.
    """
    known = {f"{letter}-{size}": (letter, size) for letter in SHAPES for size in MODELS}
    found = []
    for name in names.split(","):
        full = [name] if name in known else [usual for usual in USUAL if usual[0] == name]
        if not full:
            raise ValueError(f"There is no case {name!r}. Name some of {', '.join([*SHAPES, *known])}.")
        found += [Case(one, known[one][1], *_shape(known[one][0]), TARGETS.get(one, {})) for one in full]
    return found


def available(variant: str) -> bool:
    """Whether the predictor of this checkout takes the variant's arguments."""
    return set(VARIANTS[variant]) <= set(inspect.signature(KronosPredictor).parameters)


def slides(case: Case) -> bool:
    """Whether the window outgrows the context, so that a rolling cache could help."""
    return case.lookback + case.horizon - 1 > MAX_CONTEXT


def _shape(letter: str) -> tuple[int, int, int, int]:
    return SHAPES[letter]
