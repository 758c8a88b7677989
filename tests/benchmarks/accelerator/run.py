"""Check and time forecasts on one device: `python -m tests.benchmarks --device cuda`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from kronos.inference.settings import find_device
from tests.benchmarks.accelerator import shapes, times
from tests.benchmarks.accelerator.checks import questions
from tests.benchmarks.accelerator.output import Output, environment

CHECKED_ASSETS = 40
TINY_PLAIN_ROWS = 6  # so that a tiny run scales upstream's algorithm too


def main(arguments: Sequence[str]) -> int:
    """Measure; 0, or 1 if a check fails."""
    options = _parser().parse_args(arguments)
    console = Console(soft_wrap=True)
    try:
        device = find_device(options.device)
        run = Run(device, options, console)
    except ValueError as error:
        console.print(f"[red]{error}[/red]")
        return 2
    try:
        run.check()
        run.time()
    except KeyboardInterrupt:
        console.print("Stopped.")
    run.output.save()
    console.print(run.output.markdown(), markup=False, highlight=False)
    console.print(f"{run.output.folder}/results.json and results.md have what was measured.")
    return 0 if all(check.holds for check in run.output.checks) else 1


class Run:
    """One run of the command.

    Raises:
        ValueError: there is no such size, case or variant, or there are no rounds.
    """

    def __init__(self, device: torch.device, options: argparse.Namespace, console: Console) -> None:
        if options.rounds < 1:
            raise ValueError(f"--rounds {options.rounds} measures nothing. Pass at least 1.")
        self.device, self.console, self.tiny = device, console, options.tiny
        sizes, cases = (
            (shapes.TINY_SIZES, shapes.TINY_SHAPES) if options.tiny else (shapes.SIZES, shapes.SHAPES)
        )
        variants = list(shapes.VARIANTS_HERE)
        if device.type != "cuda":
            variants.remove("bfloat16 compiled")  # it pays on accelerators only
        self.sizes = _chosen("size", options.sizes, sizes)
        self.cases = {name: cases[name] for name in _chosen("case", options.cases, cases)}
        self.variants = _chosen("variant", options.variants, variants)
        self.clock = times.Clock(options.time_limit)
        self.output = Output(
            options.output, environment(device, vars(options) | {"output": str(options.output)})
        )
        rows = TINY_PLAIN_ROWS if options.tiny else times.PLAIN_ROWS
        self.bench = times.Bench(device, options.rounds, self.clock, self.output.save, rows)

    def check(self) -> None:
        """The table of comparisons, with the smallest model."""
        assets = 4 if self.tiny else CHECKED_ASSETS
        compiled = any("compiled" in variant for variant in self.variants)
        for one in questions(self.device, self.sizes[0], assets, compiled):
            if self.clock.is_over():
                self.output.left_out.append(one.name)
            else:
                self.output.checks.append(one.answer())
                self.console.print(f"[dim]{one.name}[/dim]")
            self.output.save()

    def time(self) -> None:
        """All sizes and cases: first what needs no compiler, then what does, for it takes long to start."""
        for compiled in (False, True):
            variants = [variant for variant in self.variants if ("compiled" in variant) == compiled]
            for size in self.sizes if variants else ():
                for name, shape in self.cases.items():
                    self._case(size, name, shape, variants)

    def _case(self, size: str, name: str, shape: tuple[int, int, int, int], variants: list[str]) -> None:
        if self.clock.is_over():
            self.output.left_out += [f"{size}, {name}, {variant}" for variant in variants]
            self.output.save()
            return
        case = shapes.make_case(name, size, shape)
        timings = times.new_timings(case, variants)
        self.output.timings += timings
        self.bench.measure(case, timings)
        self.console.print(f"[dim]{size}, {name}: {', '.join(variants)}[/dim]")


def _chosen(kind: str, names: str | None, known: Sequence[str] | dict[str, object]) -> list[str]:
    chosen = list(known) if names is None else names.split(",")
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(f"There is no {kind} {unknown[0]!r}. Pass some of {', '.join(known)}.")
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--device", required=True, help="cuda, cuda:1, cpu")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and shapes: seconds on a CPU")
    parser.add_argument("--sizes", help=f"some of {','.join(shapes.SIZES)}")
    parser.add_argument("--cases", help=f"some of {','.join(shapes.SHAPES)}")
    parser.add_argument("--variants", help=f"some of {','.join(shapes.VARIANTS_HERE)}")
    parser.add_argument("--rounds", type=int, default=3, help="of upstream's algorithm and ours (default 3)")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="nothing is started after them")
    parser.add_argument(
        "--output", type=Path, default=Path("out/accelerator"), help="folder (default %(default)s)"
    )
    return parser
