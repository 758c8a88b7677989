"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from rich.table import Table

from tests.benchmarks.cases import TARGET_MEMORY, TARGET_SHARE
from tests.benchmarks.cold_start import GOAL
from tests.benchmarks.results import middle, ratio

Results = dict[str, Any]


def tables(results: Results) -> Iterator[Table]:
    """All that was measured."""
    if results["rates"]:
        yield _rates(results)
    if results["cases"]:
        yield _cases(results)
    if results["memory"]:
        yield _memory(results)
    if results["growth"]:
        yield from _growth(results)
    if results["threads"]:
        yield _threads(results)
    if results.get("training"):
        yield _training(results)
    if records := results.get("evaluation", {}).get("coefficients"):
        yield _coefficients(records)
    if "report" in results.get("evaluation", {}):
        yield _report(results["evaluation"]["report"])
    if "backtest" in results:
        yield _backtest(results["backtest"])
    if "backtrader" in results:
        yield _backtrader(results["backtrader"])
    if "cold_start" in results:
        yield _cold_start(results["cold_start"])


def comparison(old: Results, new: Results) -> Table:
    """CPU seconds of ours in two files; above 1 the new one is faster."""
    title = f"ours, {old['environment']['commit']} -> {new['environment']['commit']}"
    table = _table(title, "case", "variant", ">old s", ">new s", ">old / new", ">old x", ">new x")
    for name, record in new["cases"].items():
        for variant in record["ours"]:
            before = old["cases"].get(name)
            if before is None or variant not in before["ours"]:
                continue
            was, now = ratio(before, variant), ratio(record, variant)
            if was is None or now is None:
                continue
            figures = (f"{was.ours:.3f}", f"{now.ours:.3f}", f"{was.ours / now.ours:.2f}")
            table.add_row(name, variant, *figures, f"{was.times:.1f}", f"{now.times:.1f}")
    return table


def _rates(results: Results) -> Table:
    table = _table("fastest matrix products, one thread", "size", "precision", ">GFLOPS", "m x k x n", "kind")
    for size, rates in results["rates"].items():
        for precision, (gflops, rows, inner, outer, kind) in rates.items():
            table.add_row(size, precision, f"{gflops:.0f}", f"{rows} x {inner} x {outer}", kind)
    return table


def _cases(results: Results) -> Table:
    table = _table(
        "forecasts, medians of CPU seconds; plain is upstream's algorithm",
        *(
            "case",
            "N L H S",
            "variant",
            ">plain s",
            ">of rows",
            ">of steps",
            ">ours s",
            ">ratio",
            ">pairs",
            ">by wall",
        ),
        *(">target", ">limit", ">FLOP ratio"),
    )
    for name, record in results["cases"].items():
        shape = " ".join(str(value) for value in record["shape"].values())
        rows = f"{record['plain']['rows']}/{record['rows']}"
        steps = f"{record['plain']['steps']}/{record['shape']['H']}"
        for variant, fast in record["ours"].items():
            found, target = ratio(record, variant), record["targets"].get(variant)
            if found is None:
                continue
            limit = f"{found.limit:.0%}"
            if variant == "float32" and name in TARGET_SHARE:
                limit += f" of {TARGET_SHARE[name]:.0%}"
            table.add_row(
                *(name, shape, variant, f"{found.plain:.1f}", rows, steps, f"{found.ours:.2f}"),
                _met(found.times, target),
                *(f"{found.low:.1f}-{found.high:.1f}", f"{found.wall:.1f}"),
                *(f"{target:g}" if target else "", limit, f"{record['plain']['flops'] / fast['flops']:.1f}"),
            )
    return table


def _met(times: float, target: float | None) -> str:
    text = f"{times:.1f}x"
    if target is None:
        return text
    return f"[green]{text}[/green]" if times >= target else f"[yellow]{text}[/yellow]"


def _memory(results: Results) -> Table:
    table = _table(
        "peak memory in addition to weights and windows, MiB",
        "case",
        "way",
        ">rows",
        ">MiB",
        ">all rows",
        ">target",
    )
    for one in results["memory"]:
        whole = one["mib"] * one["of"] / one["rows"]
        target = TARGET_MEMORY.get(one["case"]) if one["way"] == "float32" else None
        rows = f"{one['rows']}/{one['of']}"
        table.add_row(
            *(one["case"], one["way"], rows, f"{one['mib']:.0f}", f"{whole:.0f}", f"{target or '':}")
        )
    return table


def _growth(results: Results) -> Iterator[Table]:
    for sweep in dict.fromkeys(one["sweep"] for one in results["growth"]):
        points = [one for one in results["growth"] if one["sweep"] == sweep]
        variants = list(points[0]["ours"])
        table = _table(
            f"growth in {sweep}, {points[0]['size']}, CPU seconds; the rest of N=5 S=5 L=90 H=10",
            *(
                f">{sweep}",
                ">plain s",
                *(f">{name} s" for name in variants),
                ">ratio",
                ">plain grew",
                ">ours grew",
            ),
        )
        first = points[0]
        for one in points:
            plain, ours = one["plain"]["cpu"], [middle(one["ours"][name]) for name in variants]
            table.add_row(
                *(str(one["value"]), f"{plain:.2f}", *(f"{value:.3f}" for value in ours)),
                *(f"{plain / ours[0]:.1f}", f"{plain / first['plain']['cpu']:.1f}"),
                f"{ours[0] / middle(first['ours'][variants[0]]):.1f}",
            )
        yield table


def _threads(results: Results) -> Table:
    table = _table("threads, wall-clock seconds of ours", "case", "variant", ">threads", ">wall s", ">CPU s")
    for one in results["threads"]:
        seconds = (f"{middle(one['runs'], clock):.2f}" for clock in ("wall", "cpu"))
        table.add_row(one["case"], one["variant"], str(one["threads"]), *seconds)
    return table


def _training(results: Results) -> Table:
    table = _table(
        "training, tokens a CPU second of one thread, medians; plain is upstream's step",
        *("stage", "size", "variant", ">plain", ">ours", ">ratio", ">pairs"),
    )
    for one in results["training"]:
        plain = one["runs"]["plain"]
        for way, runs in one["runs"].items():
            if way == "plain":
                continue
            pairs = [slow["cpu"] / fast["cpu"] for slow, fast in zip(plain, runs, strict=True)]
            rates = (f"{one['tokens'] / middle(each):,.0f}" for each in (plain, runs))
            spread = f"{min(pairs):.2f}-{max(pairs):.2f}"
            table.add_row(one["stage"], one["size"], way, *rates, f"{median(pairs):.2f}x", spread)
    return table


def _coefficients(records: list[dict[str, Any]]) -> Table:
    table = _table(
        "IC and RankIC from long series, medians of CPU seconds; plain is Qlib's calc_ic",
        *(">dates", ">names", ">plain s", ">ours s", ">ratio", ">pairs", ">by wall"),
    )
    for one in records:
        plain, ours = one["runs"]["qlib"], one["runs"]["ours"]
        pairs = [slow["cpu"] / fast["cpu"] for slow, fast in zip(plain, ours, strict=True)]
        ratios = [middle(plain, clock) / middle(ours, clock) for clock in ("cpu", "wall")]
        table.add_row(
            *(str(one["dates"]), str(one["names"]), f"{middle(plain):.2f}", f"{middle(ours):.3f}"),
            *(f"{ratios[0]:.1f}x", f"{min(pairs):.1f}-{max(pairs):.1f}", f"{ratios[1]:.1f}x"),
        )
    return table


def _backtest(record: dict[str, Any]) -> Table:
    table = _table(
        f"backtest of {record['names']} names x {record['days']} days, medians of CPU seconds; plain is Qlib",
        *("tester", ">plain s", ">ours s", ">ratio", ">pairs"),
    )
    plain = record["runs"]["qlib"]
    for way in ("rules", "weights"):
        ours = record["runs"][way]
        pairs = [slow["cpu"] / fast["cpu"] for slow, fast in zip(plain, ours, strict=True)]
        figures = (f"{middle(plain):.2f}", f"{middle(ours):.4f}", f"{middle(plain) / middle(ours):.0f}x")
        table.add_row(way, *figures, f"{min(pairs):.0f}-{max(pairs):.0f}")
    one = record["signals"]
    size = f"{one['names']} x {one['samples']} x {one['horizon']}"
    table.add_row(f"signals of {size} paths", "", f"{middle(one['runs']):.4f}", "", "")
    if "sweep" in record:  # older files have none
        many = record["sweep"]
        size = f"{many['settings']} settings, {many['names']} x {many['days']}"
        table.add_row(f"sweep of {size}", "", f"{middle(many['runs']):.1f}", "", "")
    weightings = record.get("scenarios", {"runs": {}})  # older files have none
    for weighting, runs in weightings["runs"].items():
        size = f"{weightings['names']} names x {weightings['samples']} scenarios"
        table.add_row(f"{weighting} of {size}", "", f"{middle(runs):.4f}", "", "")
    return table


def _report(record: dict[str, Any]) -> Table:
    table = _table(
        "A report, from evidence on disk to the page, imports counted; medians of processes",
        *(">dates", ">names", ">CPU s", ">peak GB", ">page MB"),
    )
    figures = (record["cpu_seconds"], record["peak_gb"], record["page_mb"])
    table.add_row(str(record["dates"]), str(record["names"]), *(f"{figure:.2f}" for figure in figures))
    return table


def _cold_start(records: list[dict[str, Any]]) -> Table:
    table = _table(
        "kronos forecast of one file, imports counted, CPU seconds; medians of processes",
        *("picture", ">model s", ">all else s", ">goal s", ">peak GB"),
    )
    for one in records:
        figures = (one["model"], one["others"], GOAL, one["peak_gb"])
        table.add_row(one["picture"], *(f"{figure:.2f}" for figure in figures))
    return table


def _backtrader(record: Results) -> Table:
    naive = record["naive"]
    table = _table(
        f"Backtrader, {record['assets']} assets x {record['bars']} bars, a forecast every {record['every']} bars, "
        f"CPU seconds; naive calls predict in each next, {naive['measured']} of {naive['calls']} calls measured",
        *("mode", ">calls", ">windows", ">run", ">model", ">Backtrader", ">ours", ">of the run", ">again"),
        *(">naive", ">at our bars"),
    )
    for mode, one in record["modes"].items():
        ours = one["whole"] - one["model"] - one["bare"]
        seconds = (f"{value:.2f}" for value in (one["whole"], one["model"], one["bare"], ours))
        same = naive["scaled"] * one["windows"] / naive["calls"]
        table.add_row(
            *(mode, str(one["calls"]), str(one["windows"]), *seconds, f"{ours / one['whole']:.1%}"),
            *(f"{one['again']:.2f}", f"{naive['scaled']:.0f}", f"{same:.0f}"),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    """A column whose name starts with > is set to the right."""
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name.removeprefix(">"), justify="right" if name[0] == ">" else "left", no_wrap=True)
    return table
