"""Seconds and peak memory of a forecast on one device, interleaved with upstream's algorithm on the same device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from tests.benchmarks.accelerator.shapes import make_predictor, make_windows
from tests.benchmarks.cases import MAX_CONTEXT, Case
from tests.benchmarks.plain import plain_forecast

PLAIN_ROWS = 10_000  # paths of upstream's algorithm at most; from here on a path costs the same
PLAIN_SECONDS = 20.0  # of one run of it, beyond which one is enough

Save = Callable[[], None]


class Clock:
    """How much of the time limit is left; None means no limit."""

    def __init__(self, limit: float | None) -> None:
        self.end = None if limit is None else time.monotonic() + limit

    def is_over(self) -> bool:
        """Whether nothing more is to be started."""
        return self.end is not None and time.monotonic() >= self.end


@dataclass
class Timing:
    """One way to forecast one case.

    Attributes:
        size, case, variant: what.
        shape: N, L, H, S.
        first: seconds of the first forecast, which compiles, records and warms up.
        runs: seconds of later ones.
        peak: bytes that a forecast took at its peak beyond what was there before; None where nothing counts them.
        plain_runs: seconds of upstream's algorithm in between, of `plain_rows` of the paths.
        plain_rows, rows: paths of either.
        error: why there are no times.
    """

    size: str
    case: str
    variant: str
    shape: tuple[int, int, int, int]
    rows: int
    first: float | None = None
    runs: list[float] = field(default_factory=list)
    peak: int | None = None
    plain_rows: int = 0
    plain_runs: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def seconds(self) -> float | None:
        """Median seconds of a forecast."""
        return median(self.runs) if self.runs else None

    @property
    def scale(self) -> float:
        """Paths of the case for one of upstream's algorithm."""
        return self.rows / self.plain_rows if self.plain_rows else 1.0

    @property
    def plain_seconds(self) -> float | None:
        """Median seconds of upstream's algorithm, scaled to all paths."""
        return median(self.plain_runs) * self.scale if self.plain_runs else None

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is."""
        if self.seconds is None or self.plain_seconds is None:
            return None
        return self.plain_seconds / self.seconds


class Bench:
    """Times of one case on one device.

    Args:
        device: where.
        rounds: of upstream's algorithm and ours.
        clock: ends the rounds early.
        save: called after each measurement.
        plain_rows: paths of upstream's algorithm at most.
    """

    def __init__(
        self,
        device: torch.device,
        rounds: int,
        clock: Clock,
        save: Save,
        plain_rows: int = PLAIN_ROWS,
    ) -> None:
        self.device, self.rounds, self.clock, self.save, self.plain_rows = (
            device,
            rounds,
            clock,
            save,
            plain_rows,
        )

    def measure(self, case: Case, timings: list[Timing]) -> None:
        """Fill the timings of a case, one a variant."""
        calls: list[tuple[Timing, Callable[[], object]]] = []
        for timing in timings:
            try:
                call = self._ours(case, timing.variant)
                timing.first, timing.peak = self._timed(call)
                calls.append((timing, call))
            except RuntimeError as error:  # out of memory, or a compiler is missing: the others continue
                timing.error = str(error).strip().splitlines()[0]
                self._free()
            self.save()
        plain = self._plain(case) if calls else None
        for turn in range(self.rounds):
            if turn and self.clock.is_over():
                return
            self._turn(calls, plain)

    def _turn(self, calls: list[tuple[Timing, Callable[[], object]]], plain: Plain | None) -> None:
        """Upstream's algorithm once, then each of ours."""
        repeats = not plain or not plain.last or plain.last < PLAIN_SECONDS
        if plain is not None and repeats and plain.run():
            for timing, _ in calls:
                timing.plain_rows = plain.case.rows
                timing.plain_runs = plain.runs
            self.save()
        self._free()  # what upstream's algorithm took does not measure what ours finds
        for timing, call in calls:
            seconds, peak = self._timed(call)
            timing.runs.append(seconds)
            timing.peak = None if peak is None else max(peak, timing.peak or 0)
            self.save()

    def _ours(self, case: Case, variant: str) -> Callable[[], object]:
        predictor = make_predictor(case.size, self.device, variant)
        windows, sampling = make_windows(case.assets, case.lookback, case.horizon), case.sampling
        return lambda: predictor.forecast(windows, sampling)

    def _plain(self, case: Case) -> Plain:
        return Plain(case.part(self.plain_rows), self.device, self._timed, self._free)

    def _timed(self, call: Callable[[], object]) -> tuple[float, int | None]:
        """Wall-clock seconds and peak bytes of one call. The clock is read once the device has finished."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
        start = time.perf_counter()
        call()
        if cuda:
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - start
        return seconds, torch.cuda.max_memory_allocated(self.device) - before if cuda else None

    def _free(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class Plain:
    """Upstream's algorithm on part of a case; on ever less of it while memory runs out."""

    def __init__(
        self,
        case: Case,
        device: torch.device,
        timed: Callable[[Callable[[], object]], tuple[float, Any]],
        free: Callable[[], None],
    ) -> None:
        self.case, self.timed, self.free = case, timed, free
        self.model, self.tokenizer = (network.to(device) for network in case.networks())
        self.runs: list[float] = []
        self._forecast(Case("warm-up", case.size, 1, case.lookback, 1, 1))

    @property
    def last(self) -> float | None:
        """Seconds of the latest run."""
        return self.runs[-1] if self.runs else None

    def run(self) -> bool:
        """Once more; whether memory was enough for any part."""
        while True:
            try:
                self.runs.append(self.timed(lambda: self._forecast(self.case))[0])
                return True
            except torch.cuda.OutOfMemoryError:
                self.free()
                if self.case.rows == 1:
                    return False
                self.case, self.runs = self.case.part(self.case.rows // 2), []

    def _forecast(self, case: Case) -> None:
        windows = make_windows(case.assets, case.lookback, case.horizon)
        plain_forecast(self.model, self.tokenizer, windows, case.sampling, MAX_CONTEXT)


def new_timings(case: Case, variants: list[str]) -> list[Timing]:
    """An empty timing for each variant."""
    shape = case.assets, case.lookback, case.horizon, case.samples
    return [Timing(case.size, case.name, variant, shape, case.rows) for variant in variants]


def record(timing: Timing) -> dict[str, Any]:
    """JSON-ready form of a timing."""
    figures = {name: getattr(timing, name) for name in ("seconds", "plain_seconds", "scale", "ratio")}
    return {**vars(timing), **figures}
