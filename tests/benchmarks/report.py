"""Cost of a report: four years of 300 instruments, from artifacts on disk to the page."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kronos.config import SampleConfig
from kronos.forecast import Provenance
from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.evaluation.baselines import baseline_scores
from kronos_strategies.evaluation.distribution.path_summary import PathSummary
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.evaluation.signal.neutralization import price_exposures
from kronos_strategies.run_artifacts import RunArtifacts, RunMetadata

DATES, NAMES, HORIZONS, SAMPLES = 1000, 300, (1, 5, 10), 20
# A process of its own, whose peak is its own. Imports are counted: a user waits for them too.
PROGRAM = """
import json, resource, sys
from pathlib import Path
from kronos_strategies.run_artifacts import RunArtifacts
from kronos_strategies.report.export import save_report
from kronos_strategies.report.report import build_report
evidence = RunArtifacts.read(Path(sys.argv[1]))
page = save_report(build_report(evidence), Path(sys.argv[2]))[0]
used = resource.getrusage(resource.RUSAGE_SELF)
# ru_maxrss would begin with what the parent held when it started this process.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"cpu_seconds": used.ru_utime + used.ru_stime, "peak_gb": peak / 2**20,
                  "page_mb": page.stat().st_size / 1e6}))
"""


def measure(repeats: int = 3) -> dict[str, Any]:
    """CPU seconds and peak memory of making a report, and the size of its page; medians of processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        evidence_of_years().write(folder / "artifacts")
        runs = []
        for _ in range(repeats):
            command = [sys.executable, "-c", PROGRAM, str(folder / "artifacts"), str(folder / "report")]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append(json.loads(done.stdout))
    found = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
    return {"dates": DATES, "names": NAMES, "repeats": repeats, **found}


def evidence_of_years(dates: int = DATES, names: int = NAMES) -> RunArtifacts:
    """Random walks, scores without skill, and a portfolio of the first 50 instruments; all parts of a report."""
    rng = np.random.default_rng(0)
    days = pd.bdate_range("2020-01-02", periods=dates + 300, name="datetime")
    labels = pd.Index([f"SH{600000 + i}" for i in range(names)], name="instrument")
    steps = 0.02 * rng.standard_normal((len(days), names))
    closes = pd.DataFrame(20 * np.exp(steps.cumsum(axis=0)), days, labels)
    market = PricePanel(
        closes.shift(1).bfill(), closes, closes * rng.uniform(1e5, 1e7, names), 0 * closes + 4e-4
    )
    keys = pd.MultiIndex.from_product([days[270 : 270 + dates], labels])
    scores = pd.DataFrame({"Kronos": rng.standard_normal(len(keys))}, keys)
    scores = scores.join(baseline_scores(market, keys)[0])
    exposures = {k: market.lookup(v, keys) for k, v in price_exposures(market.closes, market.amounts).items()}
    sampling = SampleConfig(samples=SAMPLES)
    return RunArtifacts(
        metadata=RunMetadata("Benchmark", 1, 1, 1, {"model": "none"}, {"member rows": len(keys)}, (), 252),
        scores=scores,
        labels=pd.DataFrame({h: market.lookup(market.forward_return(h), keys) for h in (1, 2, 3, 5, 10, 20)}),
        exposures=pd.DataFrame(exposures),
        market=market,
        paths=_paths(keys, rng),
        provenance=Provenance(
            "none", None, None, None, sampling, "none", 512, 5, "recompute", "float32", "last_close", ""
        ),
        result=_book(pd.DatetimeIndex(keys.levels[0]), labels[:50], rng),
    )


def _paths(keys: pd.MultiIndex, rng: np.random.Generator) -> PathSummary:
    columns: dict[tuple[int, str], np.ndarray] = {}
    for horizon in HORIZONS:
        size, scale = len(keys), 0.02 * horizon**0.5
        crps = scale * rng.uniform(0.2, 1.2, size)
        columns |= {
            (horizon, "score"): rng.standard_normal(size),
            (horizon, "variance"): scale**2 * rng.uniform(0.5, 2, size),
            (horizon, "crps"): crps,
            (horizon, "crps_ensemble"): 1.02 * crps,
            (horizon, "pit"): rng.integers(0, SAMPLES + 1, size) / SAMPLES,
            (horizon, "covered_80"): (rng.uniform(size=size) < 0.8).astype(float),
            (horizon, "covered_90"): (rng.uniform(size=size) < 0.9).astype(float),
        }
    scores = {k: rng.standard_normal(len(keys)) for k in (1, 2, 4, 8, 16, SAMPLES)}
    return PathSummary(pd.DataFrame(columns, keys), pd.DataFrame(scores, keys), _fan_charts(keys, rng))


def _fan_charts(keys: pd.MultiIndex, rng: np.random.Generator) -> pd.DataFrame:
    parts = []
    for date in keys.levels[0][::100]:
        for name in keys.levels[1][:6]:
            steps = np.arange(-39, 11)
            middle = 20 * np.exp(0.02 * rng.standard_normal(len(steps)).cumsum())
            bands = {q: np.where(steps > 0, middle * (1 + d), np.nan) for q, d in
                     (("q05", -0.05), ("q25", -0.02), ("q50", 0.0), ("q75", 0.02), ("q95", 0.05))}  # fmt: skip
            times = pd.bdate_range(end=date, periods=40).append(pd.bdate_range(date, periods=11)[1:])
            fan = {
                "datetime": date,
                "instrument": name,
                "step": steps,
                "timestamp": times,
                "close": middle,
                **bands,
            }
            parts.append(pd.DataFrame(fan))
    return pd.concat(parts, ignore_index=True)


def _book(days: pd.DatetimeIndex, held: pd.Index, rng: np.random.Generator) -> BacktestResult:
    gross = pd.Series(0.01 * rng.standard_normal(len(days)), days)
    rows = pd.MultiIndex.from_product([days, held], names=["datetime", "instrument"])
    market = {
        "benchmark": 0.01 * rng.standard_normal(len(days)),
        "equal weight": 0.01 * rng.standard_normal(len(days)),
    }
    return BacktestResult(
        returns=pd.DataFrame({"gross": gross, "net": gross - 2e-4}),
        benchmarks=pd.DataFrame(market, days),
        turnover=pd.Series(0.1, days),
        cost=pd.Series(2e-4, days),
        weights=pd.Series(0.95 / len(held), rows),
    )
