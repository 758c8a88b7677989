"""Any file of bars is read or refused by a sentence, from the import to the report, in constant memory.

KRONOS_FUZZ is the number of files, KRONOS_FUZZ_SECONDS the time after which the rest is left out; `make test-long`
sets both. The same number gives the same files.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from kronos.windows import Windows
from tests.faults import fuzz
from tests.kronos.builders import make_panel

pytestmark = [pytest.mark.integration, pytest.mark.slow]
for package in ("plotly", "jinja2", "arch", "statsmodels"):
    pytest.importorskip(package)

COUNT = int(os.environ.get("KRONOS_FUZZ", "30"))
SECONDS = float(os.environ.get("KRONOS_FUZZ_SECONDS", "inf"))
REPORT_EVERY = 20  # files, because a report takes a hundred times as long as a refusal
BATCHES, WARM_UP = 200, 50  # forecasts of the memory test
GROWTH = 8 * 2**20  # bytes that are not a leak: caches of allocators


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_any_file_of_bars_is_read_or_refused_by_a_sentence():
    done, end = {"files": 0, "tables": 0, "stores": 0, "reports": 0}, time.monotonic() + SECONDS

    @settings(max_examples=COUNT, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(content=fuzz.files())
    def use(content: bytes) -> None:
        if time.monotonic() > end:
            return
        works = [fuzz.forecast, fuzz.import_]
        if done["files"] % REPORT_EVERY == 0:
            works.append(fuzz.report)
        with tempfile.TemporaryDirectory() as name:
            folder, file = Path(name), Path(name) / "bars.csv"
            file.write_bytes(content)
            for work in works:
                (folder / work.__name__).mkdir()
                found = fuzz.fault(work, file, folder / work.__name__)
                assert found is None, found
            done["files"] += 1
            for what, made in (
                ("tables", "forecast/table.csv"),
                ("stores", "import_/store"),
                ("reports", "report/report"),
            ):
                done[what] += (folder / made).exists()

    use()
    sys.stdout.write(f"{done}\n")
    assert done["tables"] > done["files"] / 10, "enough files are forecast, not only refused"
    assert done["stores"] > done["files"] / 10


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is read from Linux")
def test_memory_stays_flat_over_many_batches():
    panel = make_panel(80, "A", "B")
    windows = Windows.rolling(panel, 20, 3, "B", start="2024-02-12", end="2024-03-15")
    predictor, sizes = fuzz.predictor(), []
    for batch in range(BATCHES + WARM_UP):
        start = batch % (len(windows) - 7)  # other windows, of other digests, each time
        predictor.forecast(windows[start : start + 2 + batch % 6], fuzz.SAMPLING)
        if batch in (WARM_UP, BATCHES + WARM_UP - 1):
            gc.collect()
            sizes.append(resident())
    assert sizes[1] - sizes[0] < GROWTH, f"{(sizes[1] - sizes[0]) / 2**20:.1f} MiB in {BATCHES} batches"
