"""Whether a device computes the right paths: comparisons of two ways to ask for the same forecast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from kronos.bars import CLOSE
from kronos.config import SampleConfig
from kronos.inference.cuda_graph import StepRecorder
from kronos.inference.pipeline import WindowBytes
from kronos.predictor import KronosPredictor
from kronos.upstream_calls import series_windows
from kronos.windows import Windows
from tests.benchmarks.accelerator.shapes import make_predictor, make_windows
from tests.benchmarks.cases import MAX_CONTEXT
from tests.benchmarks.plain import plain_forecast
from tests.kronos.builders import make_bars

CLOSE_TO = 1e-4  # of a close: more is another token, not rounding
OTHER_PATHS = 0.005  # share of the paths that may take another token where a draw meets a rounded boundary
SAMPLING = SampleConfig(samples=5, T=1.0, top_p=0.9)

Paths = np.ndarray  # (N, S, H, 6)


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: of what is compared.
        demand: "equal bits", or "close": within `CLOSE_TO`, but for a share `OTHER_PATHS` of the paths.
        largest: relative difference of a close, over all paths.
        other_paths: paths that differ by more than `CLOSE_TO` somewhere.
        paths: all of them.
        equal_bits: whether all numbers are the same.
        error: why it could not be made.
    """

    name: str
    demand: str
    largest: float = float("nan")
    other_paths: int = 0
    paths: int = 0
    equal_bits: bool = False
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether the demand is met."""
        if self.error:
            return False
        if self.demand == "equal bits":
            return self.equal_bits
        # A comparison with NaN is false.
        return self.largest < np.inf and self.other_paths <= OTHER_PATHS * self.paths

    def record(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "holds": self.holds}


Pair = tuple[Paths, Paths]  # of the two ways that a check compares


@dataclass(frozen=True)
class Question:
    """A check to be made: `ask` forecasts in both ways."""

    name: str
    demand: str
    ask: Callable[[], Pair]

    def answer(self) -> Check:
        """Make it; what fails on the device is part of the answer."""
        try:
            return compare(self.name, self.demand, *self.ask())
        except RuntimeError as error:
            return Check(self.name, self.demand, error=str(error).strip().splitlines()[0])


def compare(name: str, demand: str, ours: Paths, theirs: Paths) -> Check:
    """Closes of two sets of paths."""
    apart = np.abs(ours[..., CLOSE] / theirs[..., CLOSE] - 1.0)  # (N, S, H)
    other = int((~(apart <= CLOSE_TO)).any(axis=-1).sum())
    return Check(
        name, demand, float(apart.max()), other, apart[..., 0].size, bool(np.array_equal(ours, theirs))
    )


def questions(device: torch.device, size: str, assets: int, compiled: bool) -> Iterator[Question]:
    """All comparisons by a model of `size`; with `compiled` the last one compiles, which takes the longest."""
    predictor = make_predictor(size, device)
    windows = Windows.stack([make_windows(assets, 90, 10), make_windows(assets, 60, 10)])  # ragged
    shuffled = np.random.default_rng(0).permutation(len(windows))

    def paths(one: KronosPredictor = predictor, some: Windows = windows) -> Paths:
        return one.forecast(some, SAMPLING).paths

    def other(**options: Any) -> KronosPredictor:
        return KronosPredictor(predictor.model, predictor.tokenizer, device, MAX_CONTEXT, **options)

    cpu = torch.device("cpu")
    quarter = _memory_of(predictor, windows[: -(-len(windows) // 4)])
    yield Question("CPU and device, same draws", "close", lambda: (paths(), paths(make_predictor(size, cpu))))
    yield Question("greedy and upstream's algorithm", "close", lambda: _greedy(predictor, assets))
    yield Question("the same forecast twice", "equal bits", lambda: (paths(), paths()))
    yield Question(
        "windows in another order", "equal bits", lambda: (paths(some=windows[shuffled]), paths()[shuffled])
    )
    yield Question("several chunks and one", "close", lambda: (paths(other(memory=quarter)), paths()))
    yield Question("steps replayed and launched one by one", "close", lambda: _recorded(predictor))
    if compiled:
        yield Question("compiled and eager", "close", lambda: (paths(other(compile=True)), paths()))


def _greedy(predictor: KronosPredictor, assets: int) -> Pair:
    """The most likely tokens, by `predict_batch` and by upstream's algorithm on the same device."""
    bars = [make_bars(100, seed) for seed in range(assets)]
    frames = [frame.iloc[:90] for frame in bars]
    x, y = [frame.index for frame in frames], [frame.index[90:] for frame in bars]
    ours = predictor.predict_batch(frames, x, y, 10, top_k=1, verbose=False)
    windows = series_windows(frames, x, y, 10)
    sampling = SampleConfig(1, T=1.0, top_k=1)
    plain = plain_forecast(predictor.model, predictor.tokenizer, windows, sampling, MAX_CONTEXT)
    means = np.stack([frame.to_numpy() for frame in ours])
    return means[:, None], plain.mean[:, None]


def _recorded(predictor: KronosPredictor) -> Pair:
    """A long horizon, whose steps the device counts, and the same with steps that the host counts."""
    windows, pipeline = make_windows(1, 60, 60), predictor._pipeline()
    usual, found = pipeline.recorder, []
    try:
        for recorder in (StepRecorder(predictor.device), None):
            pipeline.recorder = recorder
            found.append(predictor.forecast(windows, SAMPLING).paths)
    finally:
        pipeline.recorder = usual
    return found[0], found[1]


def _memory_of(predictor: KronosPredictor, windows: Windows) -> int:
    """Bytes that a chunk of these windows takes."""
    networks = predictor.model.config, predictor.tokenizer.config
    need = WindowBytes(
        *networks, SAMPLING.samples, windows.horizon, predictor.max_context, predictor.context_overflow
    )
    return need(windows.width) * len(windows)
