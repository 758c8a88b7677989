"""Cost of a whole market: 5,000 instruments over ten years, from bars to a report. Linux only.

`python -m tests.benchmarks.size PART` runs `import`, `head` or `report` in a process of its own, and prints seconds
and peak memory; `--profile` adds where the time goes. What a part reads is made once, in `--folder`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

NAMES, DATES = 5000, 2500
HEAD_DATES = (
    4  # that are computed, of the 237 that every tenth date gives: dates are computed one after the other
)

# Each runs in a process of its own, whose peak is its own. Imports are counted: a user waits for them too.
PROGRAMS = {
    "import": """
from kronos_strategies.cli import main
main(["data", "import", str(folder / "bars.parquet"), "--to", str(folder / "store"), "--overwrite"])
""",
    "head": """
from tests.benchmarks.size import head_outputs
head_outputs(folder)
""",
    "report": """
from kronos_strategies.report.export import save_report
from kronos_strategies.report.report import build_report
from kronos_strategies.run_artifacts import RunArtifacts
save_report(build_report(RunArtifacts.read(folder / "artifacts")), folder / "report")
""",
}
MEASURED = """
import cProfile, json, pstats, resource, sys, time
from pathlib import Path
folder, profiled = Path(sys.argv[1]), len(sys.argv) > 2
start, profile = time.perf_counter(), cProfile.Profile()
if profiled:
    profile.enable()
try:
{program}
except SystemExit as stop:
    assert not stop.code, stop.code
profile.disable()
used = resource.getrusage(resource.RUSAGE_SELF)
# ru_maxrss would begin with what the parent held when it started this process.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
if profiled:
    pstats.Stats(profile, stream=sys.stderr).sort_stats("cumulative").print_stats(70)
print(json.dumps({{"seconds": time.perf_counter() - start, "cpu_seconds": used.ru_utime + used.ru_stime,
                  "peak_gib": peak / 2**20}}))
"""


def measure(part: str, folder: Path, profiled: bool = False) -> dict[str, float]:
    """Seconds, CPU seconds and peak GiB of one part."""
    MAKERS[part](folder)
    body = "\n".join("    " + line for line in PROGRAMS[part].strip().splitlines())
    command = [
        sys.executable,
        "-c",
        MEASURED.format(program=body),
        str(folder),
        *(["profile"] if profiled else []),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def make_bars(folder: Path) -> None:
    """One parquet file of bars, sorted by date as an export of a data base is."""
    file = folder / "bars.parquet"
    if file.is_file():
        return
    random, names = np.random.default_rng(0), [f"SH{600000 + i}" for i in range(NAMES)]
    days = pd.bdate_range("2014-01-02", periods=DATES, name="datetime")
    close = 20 * np.exp((0.02 * random.standard_normal((DATES, NAMES), np.float32)).cumsum(axis=0))
    wide = {
        "open": close * (1 + 0.002 * random.standard_normal(close.shape, np.float32)),
        "high": close * 1.02,
        "low": close * 0.98,
        "close": close,
        "volume": 1e6 * random.random(close.shape, np.float32),
    }
    bars = pd.DataFrame({name: values.reshape(-1).astype(float) for name, values in wide.items()})
    bars.insert(0, "datetime", np.repeat(days.to_numpy(), NAMES))
    bars.insert(
        1, "instrument", pd.Categorical.from_codes(np.tile(np.arange(NAMES, dtype=np.int16), DATES), names)
    )
    bars.to_parquet(file, index=False)


def make_store(folder: Path) -> None:
    """A Qlib data directory, by the import."""
    if not (folder / "store").is_dir():
        measure("import", folder)


def head_outputs(folder: Path) -> None:
    """Windows of every tenth date of ten years; outputs of kronos-nano's own head for the first of them."""
    from kronos.predictor import KronosPredictor
    from kronos_strategies.heads.selection import load_readers
    from kronos_strategies.qlib.data_access import init_qlib, member_windows
    from kronos_strategies.store import ForecastStore, WindowSpec

    predictor = KronosPredictor.from_pretrained("kronos-nano", device="cpu")
    init_qlib(folder / "store")
    spec = WindowSpec("all", 90, 6, min_bars=90)
    windows = member_windows(spec, pd.Timestamp("2014-06-01"), pd.Timestamp("2023-07-01"), every=10)
    (reader,) = load_readers(predictor, (), lambda spec: predictor)
    first = windows[: HEAD_DATES * NAMES]
    ForecastStore.temporary().head_outputs(reader.predictor, reader.head, first, spec)


def make_artifacts(folder: Path) -> None:
    """Artifacts of a run on 12.5 million rows, without paths."""
    from dataclasses import replace

    from tests.benchmarks import report

    if not (folder / "artifacts").is_dir():
        report._paths = lambda keys, random: None  # type: ignore[assignment]
        artifacts = report.evidence_of_years(DATES, NAMES)
        replace(artifacts, provenance=None).write(folder / "artifacts")


MAKERS: dict[str, Callable[[Path], None]] = {
    "import": make_bars,
    "head": make_store,
    "report": make_artifacts,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PROGRAMS)
    parser.add_argument("--folder", type=Path, default=Path("out/size"))
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"{json.dumps(measure(options.part, options.folder, options.profile))}\n")
