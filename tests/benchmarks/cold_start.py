"""Cold start of `kronos forecast one.csv --plot out.html`: CPU seconds from the first import to the picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.kronos.builders import make_bars

BARS, GOAL = 500, 5.0  # CPU seconds in addition to the model's own
# A process of its own, as a user starts it. `torch` is counted, since every forecast loads it.
PROGRAM = """
import contextlib, io, json, resource, sys, time
from kronos_strategies.cli import main
from kronos.predictor import KronosPredictor
model, forecast = 0.0, KronosPredictor.forecast
def timed(self, *given, **named):
    global model
    started = time.process_time()
    made = forecast(self, *given, **named)
    model += time.process_time() - started
    return made
KronosPredictor.forecast = timed
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"model": model, "others": used.ru_utime + used.ru_stime - model, "peak_gb": peak / 2**20}))
"""


def measure(repeats: int = 3) -> list[dict[str, Any]]:
    """CPU seconds of the model and of everything else, and peak memory, by picture; medians of processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_bars(BARS, freq="5min").to_csv(folder / "one.csv")
        return [
            {"picture": suffix, "bars": BARS, "repeats": repeats, **_median(folder, suffix, repeats)}
            for suffix in ("none", "html", "png")
        ]


def _median(folder: Path, suffix: str, repeats: int) -> dict[str, float]:
    plot = [] if suffix == "none" else ["--plot", str(folder / f"out.{suffix}")]
    words = ["forecast", str(folder / "one.csv"), "--device", "cpu", *plot]
    runs = []
    for _ in range(repeats):
        command = [sys.executable, "-c", PROGRAM, *words]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        if plot and not Path(plot[1]).is_file():
            raise RuntimeError(f"kronos forecast wrote no picture: {done.stderr.strip()}")
        runs.append(json.loads(done.stdout))
    return {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
