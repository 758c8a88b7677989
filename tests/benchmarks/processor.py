"""Run the benchmarks of a CPU: `python -m tests.benchmarks`, some ten minutes of one otherwise idle core.

With `--device cuda` it measures that device instead: `python -m tests.benchmarks --device cuda --help`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from cyclopts import App
from rich.console import Console

from tests.benchmarks import (
    backtest,
    backtrader,
    cold_start,
    evaluation,
    growth,
    measure,
    memory,
    rates,
    report,
    results,
    table,
    training,
)
from tests.benchmarks.cases import MODELS, Case, available, find_cases

PARTS = (
    "cases", "memory", "growth", "threads", "training", "evaluation", "backtest", "backtrader", "cold start",
)  # fmt: skip
THREADED = ("b-small", "c-mini", "e-small")
TRAINING_STEPS = 5
GROWTH_SECONDS = 1.0  # of the plain loop, about, for a point of the growth tables

app = App(help=__doc__)


@app.default
def run(
    *,
    cases: str = "a,b,c,d,e",
    variants: str = "float32,bfloat16,rolling,rolling bfloat16",
    parts: str = ",".join(PARTS),
    repeats: int = 2,
    plain_seconds: float = 20.0,
    growth_size: str = "mini",
    threads: int = 1,
    json: Path = Path("out/benchmarks.json"),
    quick: bool = False,
    full: bool = False,
    show: Path | None = None,
    compare: Path | None = None,
) -> None:
    """Measure, print tables, write JSON.

    Args:
        cases: letters (a to e, at the sizes of the notes) or names such as d-small.
        variants: ways to run ours; those that this checkout does not know are left out.
        parts: some of cases, memory, growth, threads, training, evaluation, backtest, backtrader, cold start.
        repeats: rounds of plain and ours.
        plain_seconds: what one run of the plain loop may take; it is cut to that many of its steps.
        growth_size: mini or small.
        threads: of torch, but for the table of threads.
        json: where results are written after every measurement.
        quick: one turn of short plain runs, cases only.
        full: the plain loop runs whole; some twenty minutes a turn.
        show: print this file instead of measuring.
        compare: an older file, to set ours against.
    """
    console = Console(width=None if sys.stdout.isatty() else 165)
    if quick:
        repeats, plain_seconds, parts = 1, 8.0, "cases"
    if show is None:
        torch.set_num_threads(threads)
        options = {"repeats": repeats, "plain_seconds": None if full else plain_seconds}
        found = {"environment": results.environment(options), "rates": {}, "cases": {}}
        found |= {"memory": [], "growth": [], "threads": [], "training": [], "evaluation": {}}
        bench = Bench(found, json, console, [name for name in variants.split(",") if available(name)])
        try:
            bench.measure(
                find_cases(cases), parts.split(","), repeats, None if full else plain_seconds, growth_size
            )
        except KeyboardInterrupt:
            console.print(f"Stopped; {json} has what was measured.")
    else:
        found = results.load(show)
    for one in table.tables(found):
        console.print(one)
    if compare is not None:
        console.print(table.comparison(results.load(compare), found))


class Bench:
    """One run: its results so far, kept on disk."""

    def __init__(self, found: dict[str, Any], path: Path, console: Console, variants: list[str]) -> None:
        self.found, self.path, self.console, self.variants = found, path, console, variants

    def measure(
        self, cases: list[Case], parts: list[str], repeats: int, plain_seconds: float | None, size: str
    ) -> None:
        """All parts in order; what is fast comes first."""
        if unknown := sorted(set(parts) - set(PARTS)) + sorted({size} - set(MODELS)):
            raise ValueError(f"There is no {unknown[0]!r}. Parts are {PARTS}, sizes {tuple(MODELS)}.")
        if "cases" in parts:
            for one in dict.fromkeys(case.size for case in cases):
                self.found["rates"][one] = {name: rates.fastest(one, name) for name in rates.PRECISIONS}
            self.save("rates of matrix products")
            for case in cases:
                self.case(case, repeats, plain_seconds)
        if "memory" in parts and memory.SUPPORTED:
            for case in cases:
                self.memory(case, full=plain_seconds is None)
        if "growth" in parts:
            for name, case in growth.points(size):
                one = growth.grow(name, case, self.variants[:2], repeats, GROWTH_SECONDS)
                self.found["growth"].append(one)
                self.save(f"growth in {one['sweep']}: {one['value']}")
        if "threads" in parts:
            for case in cases:
                if case.name in THREADED:
                    self.found["threads"] += measure.threads(case, "float32", (1, 2), max(3, repeats))
                    self.save(f"threads of {case.name}")
        if "training" in parts:
            for lesson in training.LESSONS:
                training.compare(lesson, ("plain", *training.WAYS), TRAINING_STEPS, self.lesson)
        if "evaluation" in parts:
            self.evaluation(max(3, repeats))
            self.found["evaluation"]["report"] = report.measure(max(3, repeats))
            self.save("a report")
        if "backtest" in parts and backtest.SUPPORTED:
            self.found["backtest"] = backtest.compare(max(3, repeats))
            self.found["backtest"]["signals"] = backtest.path_statistics(repeats)
            self.found["backtest"]["scenarios"] = backtest.scenario_portfolios(repeats)
            self.save("backtests")
        if "backtrader" in parts:
            self.backtrader()
        if "cold start" in parts:
            self.found["cold_start"] = cold_start.measure(max(3, repeats))
            self.save("the cold start of kronos forecast")

    def case(self, case: Case, repeats: int, plain_seconds: float | None) -> None:
        """The plain loop and ours interleaved."""

        def keep(record: dict[str, Any]) -> None:
            self.found["cases"][case.name] = record
            done = sum(len(one["runs"]) for one in (record["plain"], *record["ours"].values()))
            self.save(f"{case.name}: {done} of {repeats * (1 + len(record['ours']))} runs")

        names = measure.usable(case, self.variants)
        measure.compare(case, names, repeats, plain_seconds, self.found["rates"], keep)

    def lesson(self, record: dict[str, Any]) -> None:
        """Training steps of one stage and size."""
        self.found["training"].append(record)
        self.save(f"training of the {record['stage']}, {record['size']}")

    def evaluation(self, repeats: int) -> None:
        """Coefficients compared with Qlib's, if Qlib is installed."""
        if not evaluation.SUPPORTED:
            self.console.print("[dim]coefficients: left out, Qlib is not installed[/dim]")
            return
        records = self.found["evaluation"].setdefault("coefficients", [])
        for dates, names in evaluation.SHAPES:
            evaluation.compare(dates, names, repeats, records.append)
            self.save(f"coefficients of {dates} dates x {names} names")

    def backtrader(self) -> None:
        """The adapter compared with the model's own calls, if Backtrader is installed."""
        if not backtrader.SUPPORTED:
            self.console.print("[dim]backtrader: left out, it is not installed[/dim]")
            return
        self.found["backtrader"] = backtrader.compare(backtrader.ASSETS, backtrader.BARS)
        self.save("the Backtrader adapter")

    def memory(self, case: Case, full: bool) -> None:
        """Peaks of ours and of the plain loop, of which some rows are enough."""
        ways = {"plain": case if full else case.part(300)}
        ways |= dict.fromkeys(measure.usable(case, self.variants), case)
        for way, part in ways.items():
            mib = memory.extra_memory(part, way)
            one = {"case": case.name, "way": way, "rows": part.rows, "of": case.rows, "mib": mib}
            self.found["memory"].append(one)
            self.save(f"memory of {case.name}, {way}")

    def save(self, what: str) -> None:
        """Write all so far and say what was added."""
        results.save(self.found, self.path)
        self.console.print(f"[dim]{what}[/dim]")
