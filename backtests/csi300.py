"""Kronos on real CSI 300 bars: import, forecast, rank, trade, report.

    python backtests/csi300.py csi300.parquet index.parquet --start 2022-01-04 --end 2023-12-29

The bars are tidy daily ones (instrument, datetime, open, high, low, close, volume[, amount, factor]); the index
file has SH000300. Results go to the working directory, as with qrun.
"""

import os
import subprocess
import sys
from pathlib import Path

import cyclopts

CONFIG = Path(__file__).parents[1] / "configs" / "kronos_csi300.yaml"
SCRIPTS = Path(sys.executable).parent


def csi300(
    bars: Path,
    index: Path,
    *,
    start: str = "2022-01-04",
    end: str = "2023-12-29",
    model: str = "kronos-nano",
    samples: int = 10,
    store: Path = Path("out/csi300"),
) -> None:
    """Run configs/kronos_csi300.yaml on real bars.

    Args:
        bars: file of the members' bars.
        index: file of the benchmark SH000300.
        start: first signal date.
        end: last signal date.
        model: bundled name, folder or hub id.
        samples: paths per window.
        store: Qlib data directory, created once.
    """
    if not store.exists():
        command = [SCRIPTS / "kronos", "data", "import", bars, "--benchmark", index, "--to", store]
        run(command, {})
    settings = {
        "KRONOS_QLIB_DATA": str(store.resolve()),
        "KRONOS_TEST_START": start,
        "KRONOS_TEST_END": end,
        "KRONOS_MODEL": model,
        "KRONOS_SAMPLES": str(samples),
    }
    run([SCRIPTS / "qrun", CONFIG], settings)


def run(command: list[str | Path], settings: dict[str, str]) -> None:
    """Run one command, which reports its own errors."""
    done = subprocess.run(command, env={**os.environ, **settings}, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    cyclopts.run(csi300)
