"""How the cost grows with one size of a forecast (N, S, H or L) while the others stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.benchmarks.cases import Case
from tests.benchmarks.flops import plain_flops
from tests.benchmarks.measure import Record, ours, plain, plain_part, timed

SWEEPS: dict[str, tuple[int, ...]] = {
    "samples": (1, 5, 10, 20, 40),
    "horizon": (5, 10, 20, 40, 80),
    "assets": (1, 5, 20, 50, 100, 300),
    "lookback": (64, 90, 120, 240, 360, 480),
}
LETTERS = {"samples": "S", "horizon": "H", "assets": "N", "lookback": "L"}


def points(size: str) -> Iterator[tuple[str, Case]]:
    """Every forecast of every sweep, around one of 5 assets, 5 paths, 90 bars seen and 10 ahead."""
    middle = Case(f"growth-{size}", size, assets=5, lookback=90, horizon=10, samples=5)
    for name, values in SWEEPS.items():
        for value in values:
            yield name, replace(middle, **{name: value})


def grow(name: str, case: Case, variants: list[str], repeats: int, plain_seconds: float) -> Record:
    """Times of one forecast; of the plain loop once, a part of its steps scaled to all."""
    record: Record = {"sweep": LETTERS[name], "value": getattr(case, name), "size": case.size}
    part = plain_part(case, plain_seconds)
    scale = plain_flops(case).total / plain_flops(part).total
    record["plain"] = {clock: seconds * scale for clock, seconds in timed(plain(part)).items()}
    record["ours"] = {variant: [] for variant in variants}
    calls = {variant: ours(case, variant) for variant in variants}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for variant, call in calls.items():
            record["ours"][variant].append(timed(call))
    return record
