"""Times of the plain loop and of the predictor, interleaved so that a busy neighbor slows both equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch

from kronos.predictor import KronosPredictor
from tests.benchmarks import rates
from tests.benchmarks.cases import MAX_CONTEXT, VARIANTS, Case, available, slides
from tests.benchmarks.flops import least_flops, plain_flops
from tests.benchmarks.plain import plain_forecast

GUESS = 60.0  # GFLOPS of the plain loop, to choose how much of it fits a time; nothing else uses it
# The plain loop slows down by a third once its tensors outgrow the allocator's pools (32 MiB in glibc), so that
# few rows would flatter it. From here on a row costs the same however many there are.
PLAIN_ROWS = 600

Seconds = dict[str, float]  # "cpu" of all threads and "wall", of one call
Record = dict[str, Any]  # what goes into the JSON
Save = Callable[[Record], None]


def timed(call: Callable[[], object]) -> Seconds:
    """Seconds that one call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def ours(case: Case, variant: str) -> Callable[[], object]:
    """A forecast of the whole case through `KronosPredictor.forecast`, by a predictor of its own."""
    predictor = KronosPredictor(*case.networks(), device="cpu", max_context=MAX_CONTEXT, **VARIANTS[variant])
    windows, sampling = case.windows(), case.sampling
    return lambda: predictor.forecast(windows, sampling)


def plain(case: Case) -> Callable[[], object]:
    """The same by the plain loop, after a warm-up."""
    model, tokenizer = case.networks()
    first = replace(case.part(1), horizon=1)
    plain_forecast(model, tokenizer, first.windows(), first.sampling, MAX_CONTEXT)
    windows, sampling = case.windows(), case.sampling
    return lambda: plain_forecast(model, tokenizer, windows, sampling, MAX_CONTEXT)


def plain_part(case: Case, seconds: float | None) -> Case:
    """The rows, up to `PLAIN_ROWS`, and as many steps as take about that time; None: all of both."""
    if seconds is None:
        return case
    part = case.part(PLAIN_ROWS)
    steps = round(case.horizon * seconds * GUESS * 1e9 / plain_flops(part).total)
    return part.middle(min(max(1, steps), case.horizon))


def usable(case: Case, variants: Iterable[str]) -> list[str]:
    """The variants that this checkout knows and that make a difference to the case."""
    return [name for name in variants if available(name) and ("window" not in VARIANTS[name] or slides(case))]


def compare(
    case: Case, variants: list[str], repeats: int, plain_seconds: float | None, limits: Record, save: Save
) -> Record:
    """Plain and each variant interleaved, `repeats` times; `save` gets the record after every measurement.

    The plain loop's times are those of the rows and steps that it ran; times `scale`, the ratio of FLOPs, they
    are those of the case.
    Each of ours comes with the rate of a matrix product measured right after it, in GFLOPS.
    """
    part = plain_part(case, plain_seconds)
    least = {name: least_flops(case, rolling="window" in VARIANTS[name]).total for name in variants}
    record: Record = {
        "size": case.size,
        "shape": {"N": case.assets, "L": case.lookback, "H": case.horizon, "S": case.samples},
        "rows": case.rows,
        "targets": case.targets,
        "plain": {
            "rows": part.rows,
            "steps": part.horizon,
            "flops": plain_flops(case).total,
            "scale": plain_flops(case).total / plain_flops(part).total,
            "runs": [],
        },
        "ours": {name: {"flops": least[name], "first": None, "runs": [], "limits": []} for name in variants},
    }
    slow = plain(part)
    fast = {name: ours(case, name) for name in variants}
    for name, call in fast.items():
        record["ours"][name]["first"] = timed(call)  # packs, compiles, warms up: reported separately
    for _ in range(repeats):
        record["plain"]["runs"].append(timed(slow))
        save(record)
        for name, call in fast.items():
            record["ours"][name]["runs"].append(timed(call))
            precision = VARIANTS[name].get("precision", "float32")
            rate = rates.Rate(*limits[case.size][precision])
            record["ours"][name]["limits"].append(rates.again(rate, precision))
            save(record)
    return record


def threads(case: Case, variant: str, counts: Iterable[int], repeats: int) -> list[Record]:
    """Ours with different numbers of threads, interleaved."""
    call = ours(case, variant)
    usual = torch.get_num_threads()
    records: list[Record] = [
        {"case": case.name, "variant": variant, "threads": count, "runs": []} for count in counts
    ]
    call()
    for _ in range(repeats):
        for record in records:
            torch.set_num_threads(record["threads"])
            record["runs"].append(timed(call))
    torch.set_num_threads(usual)
    return records
