"""Millions of bars need little memory: they lie on disk, and training touches what its windows need."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

INSTRUMENTS, BARS = 500, 10_000  # 5 million


def write_market(file: Path) -> None:
    """Five-minute bars of many instruments in one file."""
    random = np.random.default_rng(0)
    close = 50 * np.exp(np.cumsum(random.normal(0, 0.005, (INSTRUMENTS, BARS)), axis=1))
    opens = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
    times = pd.date_range("2023-01-02", periods=BARS, freq="5min")
    columns = {
        "instrument": np.repeat([f"I{i:03}" for i in range(INSTRUMENTS)], BARS),
        "datetime": np.tile(times.to_numpy(), INSTRUMENTS),
        "open": opens.ravel(),
        "high": np.maximum(opens, close).ravel(),
        "low": np.minimum(opens, close).ravel(),
        "close": close.ravel(),
        "volume": random.uniform(1, 9, close.size),
    }
    pd.DataFrame(columns).assign(amount=lambda bars: bars["volume"] * bars["close"]).to_parquet(file)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read where Linux keeps it")
def test_training_on_five_million_bars_needs_less_than_two_gigabytes(tmp_path: Path) -> None:
    write_market(tmp_path / "bars.parquet")
    script = """
        import sys
        from pathlib import Path
        from kronos.training.config import Source
        from kronos.training.run import run_stage
        from tests.kronos.training.builders import make_config

        bars, output = map(Path, sys.argv[1:])
        source = Source(bars, frequency="5min")
        run_stage("tokenizer", make_config(output, sources=(source,), max_steps=5))
        # getrusage would count the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))
    """
    peaks = []
    for run in ("makes the mapped", "finds the mapped"):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), tmp_path / "bars.parquet", tmp_path / run],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[0] < 2e9
    assert peaks[1] < 1e9
