"""What was measured and where, as one JSON file that is written after every measurement."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).parents[2]
SOURCES = ("kronos", "kronos_strategies")


class Ratio(NamedTuple):
    """One variant and the plain loop, CPU seconds."""

    plain: float  # median, scaled to all rows and steps
    ours: float  # median
    times: float  # ratio of the medians
    low: float  # of the ratios of neighboring runs
    high: float
    wall: float  # as `times`, of wall-clock seconds
    limit: float  # share of the rate of matrix products


def environment(options: dict[str, Any]) -> dict[str, Any]:
    """The machine, the versions and the settings."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "uncommitted": _git("status", "--porcelain", "--untracked-files=no", "--", *SOURCES).splitlines(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{library.__name__: library.__version__ for library in (np, pd, torch)},
        "threads": torch.get_num_threads(),
        "options": options,
    }


def save(results: dict[str, Any], path: Path) -> None:
    """Replace the file at once, so that an interrupted run leaves the last complete state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(results, indent=1))
    draft.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Results of an earlier run."""
    return json.loads(path.read_text())


def ratio(record: dict[str, Any], variant: str) -> Ratio | None:
    """Plain against ours of one case; None before both were measured."""
    fast, scale = record["ours"][variant], record["plain"]["scale"]
    pairs = list(zip(record["plain"]["runs"], fast["runs"], strict=False))
    if not pairs:
        return None
    plain, ours = middle(record["plain"]["runs"]) * scale, middle(fast["runs"])
    each = [slow["cpu"] * scale / quick["cpu"] for slow, quick in pairs]
    wall = middle(record["plain"]["runs"], "wall") * scale / middle(fast["runs"], "wall")
    share = fast["flops"] / ours / 1e9 / median(fast["limits"]) if fast["limits"] else float("nan")
    return Ratio(plain, ours, plain / ours, min(each), max(each), wall, share)


def middle(runs: list[dict[str, float]], clock: str = "cpu") -> float:
    """Median seconds of some runs."""
    return median(run[clock] for run in runs)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:  # an image without git
        return ""
    return done.stdout.strip()


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
