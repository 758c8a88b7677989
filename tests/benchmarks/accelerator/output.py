"""What was measured so far, as JSON and as Markdown; both are written again after each measurement."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import results
from tests.benchmarks.accelerator.checks import CLOSE_TO, Check
from tests.benchmarks.accelerator.times import Timing, record

PARTS = {1: "all", 10: "a tenth", 20: "a twentieth", 100: "a hundredth"}


class Output:
    """The folder that a run writes to.

    Args:
        folder: gets results.json and results.md.
        environment: of the run.
    """

    def __init__(self, folder: Path, environment: dict[str, Any]) -> None:
        self.folder, self.environment = folder, environment
        self.checks: list[Check] = []
        self.timings: list[Timing] = []
        self.left_out: list[str] = []

    def save(self) -> None:
        """Replace both files."""
        found = {
            "environment": self.environment,
            "checks": [check.record() for check in self.checks],
            "timings": [record(timing) for timing in self.timings],
            "left_out": self.left_out,
        }
        results.save(found, self.folder / "results.json")
        part = self.folder / "results.md.part"
        part.write_text(self.markdown())
        part.replace(self.folder / "results.md")

    def markdown(self) -> str:
        """Tables of checks and times."""
        there = self.environment
        lines = [f"# Forecasts on {there['device']}", ""]
        lines += [
            f"{there['date']}, commit {there['commit'] or 'unknown'}, torch {there['torch']}; random weights.",
            "",
        ]
        lines += ["## Correctness", "", *_checks(self.checks), ""]
        for size in dict.fromkeys(timing.size for timing in self.timings):
            lines += [f"## Kronos-{size}", "", *_times([t for t in self.timings if t.size == size]), ""]
        if self.left_out:
            lines += ["Not measured within the time limit: " + "; ".join(self.left_out) + ".", ""]
        return "\n".join(lines)


def environment(device: torch.device, options: dict[str, Any]) -> dict[str, Any]:
    """The machine, the versions and the settings; `device` by the name its maker gave it."""
    found = results.environment(options)
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {"device": card.name, "memory_gib": round(card.total_memory / 2**30, 1)}
        return found | {"cuda": torch.version.cuda}
    return found | {"device": f"{found['cpu']} ({device.type})"}


def _checks(checks: list[Check]) -> Iterator[str]:
    yield "| compared | largest relative difference of a close | paths that differ | equal bits | demanded | |"
    yield "|---|---|---|---|---|---|"
    for one in checks:
        bits = "yes" if one.equal_bits else "no"
        found = (f"{one.largest:.1e}", f"{one.other_paths} of {one.paths}", bits)
        demand = one.demand if one.demand == "equal bits" else f"to {CLOSE_TO:g}"
        verdict = "holds" if one.holds else f"**FAILS** {one.error}".strip()
        yield f"| {' | '.join((one.name, *(('', '', '') if one.error else found), demand, verdict))} |"


def _times(timings: list[Timing]) -> Iterator[str]:
    variants = list(dict.fromkeys(timing.variant for timing in timings))
    yield f"| | {' | '.join(variants)} | upstream's algorithm | best ratio |"
    yield "|---" * (len(variants) + 3) + "|"
    for case in dict.fromkeys(timing.case for timing in timings):
        found = {timing.variant: timing for timing in timings if timing.case == case}
        one = next(iter(found.values()))
        cells = [_ours(found[variant]) if variant in found else "" for variant in variants]
        ratios = [timing.ratio for timing in found.values() if timing.ratio is not None]
        best = f"{max(ratios):.3g}" if ratios else ""
        yield f"| {_shape(one)} | {' | '.join(cells)} | {_plain(one)} | {best} |"


def _shape(timing: Timing) -> str:
    assets, lookback, horizon, samples = timing.shape
    return f"{assets:,} asset{'s' if assets > 1 else ''}, {lookback}+{horizon}, {samples} paths"


def _ours(timing: Timing) -> str:
    if timing.error:
        return f"failed: {timing.error}"
    if timing.seconds is None:
        return "" if timing.first is None else f"{timing.first:.3g} s (first)"
    notes = [] if timing.peak is None else [f"{timing.peak / 2**30:.1f} GiB"]
    if timing.shape[0] == 1:
        notes.append(f"{1000 * timing.seconds / timing.shape[2]:.1f} ms a bar")
    if "compiled" in timing.variant and timing.first is not None:
        notes.append(f"first {timing.first:.0f} s")
    return f"{timing.seconds:.3g} s" + (f" ({', '.join(notes)})" if notes else "")


def _plain(timing: Timing) -> str:
    if timing.plain_seconds is None:
        return ""
    share = round(timing.scale)
    part = "" if share == 1 else f" (from {PARTS.get(share, f'1/{share}')})"
    return f"{timing.plain_seconds:.3g} s{part}"
