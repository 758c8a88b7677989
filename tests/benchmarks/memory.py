"""Peak memory of one forecast in addition to weights and windows, in its own process. Linux only.

`python -m tests.benchmarks.memory CASE ROWS WAY` prints MiB; WAY is "plain" or a variant.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.benchmarks import measure
from tests.benchmarks.cases import Case, find_cases

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SUPPORTED = CLEAR.exists()


def extra_memory(case: Case, way: str) -> float:
    """MiB that one forecast needs at its peak beyond what stood there before, after a small one."""
    command = [sys.executable, "-m", "tests.benchmarks.memory", case.name, str(case.rows), way]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"The memory of {case.name} ({way}) was not measured: {done.stderr.strip()}")
    return float(done.stdout)


def _measured(case: Case, way: str) -> float:
    """Peak memory of a case, measured in this process."""
    make = measure.plain if way == "plain" else lambda some: measure.ours(some, way)
    make(case.part(1).middle(1))()  # libraries load and start their pools
    call = make(case.last() if way == "plain" else case)  # the plain loop's longest window is its largest
    _give_back()
    CLEAR.write_text("5")  # forgets the peak
    before = _kib("VmRSS")
    call()
    return (_kib("VmHWM") - before) / 1024


def _give_back() -> None:
    """Return what was freed to the system, where the C library can: kept, it would hide part of the peak."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _kib(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, rows, way = sys.argv[1:]
    sys.stdout.write(f"{_measured(find_cases(name)[0].part(int(rows)), way)}\n")
