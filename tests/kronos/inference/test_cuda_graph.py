"""Steps that the device counts, over memory that stays in place, draw the tokens of steps that the host counts."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from kronos.config import SampleConfig
from kronos.inference import cuda_graph
from kronos.inference.cuda_graph import DecodeSteps, StepRecorder
from kronos.inference.fused import ExecutionConfig, FusedKronos
from kronos.inference.generate import Prompt, generate, prefill
from kronos.inference.pipeline import Pipeline
from kronos.sampling import SobolSampler, TorchSampler
from kronos.tokenizer import Tokens
from tests.kronos.builders import fuse, make_model, make_tokenizer
from tests.kronos.inference.test_cuda_graph_chunks import Silent, some_windows, uniforms_of
from tests.kronos.inference.test_generate import (
    FILTERS,
    REGIMES,
    ROLLING,
    assert_same,
    draws_of_dates,
    make_windows,
    together,
)

CPU = torch.device("cpu")
LENGTHS = {"even": (0, 0, 0), "ragged": (0, -3, -7)}  # of three windows, beyond the longest
NUCLEUS = SampleConfig(3, T=1.0, top_p=0.9)


def chunk(lengths: list[int], horizon: int, samples: int, seed: int = 0) -> tuple[Prompt, SobolSampler]:
    """Windows of these lengths and draws of as many dates, both by the seed."""
    model = make_model()
    windows = make_windows(model, [1] * seed + lengths, horizon)[seed:]
    draws = draws_of_dates(model, seed + len(lengths), samples, horizon)
    draws.uniforms = draws.uniforms[seed:]
    return together(windows), draws


def both_ways(
    recorder: StepRecorder,
    prompt: Prompt,
    draws: SobolSampler,
    sampling: SampleConfig,
    context: int,
    context_overflow: Any = "recompute",
    model: FusedKronos | None = None,
) -> tuple[Tokens, Tokens]:
    """Tokens with the recorder and without one."""
    model = model or fuse(make_model())
    ours = generate(model, prompt, sampling, draws, context, context_overflow, recorder=recorder)
    return ours, generate(model, prompt, sampling, draws, context, context_overflow)


def took_part(recorder: StepRecorder) -> int:
    """Steps that went through the recorder, in its latest recording."""
    return sum(list(recorder.kept.values())[-1].launched.values())


@pytest.fixture(autouse=True)
def _few_steps_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "MIN_STEPS", 1)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("shorter", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize(("length", "horizon", "context"), REGIMES.values(), ids=REGIMES)
def test_steps_counted_on_the_device_draw_the_tokens_of_steps_counted_on_the_host(
    length: int, horizon: int, context: int, shorter: tuple[int, ...], filters: dict[str, float], samples: int
) -> None:
    prompt, draws = chunk([max(1, length + less) for less in shorter], horizon, samples)
    recorder, sampling = StepRecorder(CPU), SampleConfig(samples, **{"top_p": 1.0} | filters)
    assert_same(*both_ways(recorder, prompt, draws, sampling, context))
    cached = max(1, min(horizon, context - min(length, context) + 1))
    if cached > 1:  # the rest is read again, which no step can do
        assert took_part(recorder) == cached - 1
    else:
        assert not recorder.kept


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("filters", [FILTERS["greedy"], FILTERS["top-p"]], ids=["greedy", "top-p"])
@pytest.mark.parametrize("shorter", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize(("length", "horizon", "context"), ROLLING.values(), ids=ROLLING)
def test_a_rolling_window_takes_all_of_its_steps_on_the_device(
    length: int, horizon: int, context: int, shorter: tuple[int, ...], filters: dict[str, float], samples: int
) -> None:
    prompt, draws = chunk([max(1, length + less) for less in shorter], horizon, samples)
    recorder, sampling = StepRecorder(CPU), SampleConfig(samples, **filters)
    model = fuse(make_model(n_layers=3))
    assert_same(*both_ways(recorder, prompt, draws, sampling, context, "rolling", model))
    assert not recorder.kept if horizon == 1 else took_part(recorder) == horizon - 1


@pytest.mark.parametrize("context_overflow", ["recompute", "rolling"])
@pytest.mark.parametrize("lengths", [[10, 10], [10, 4]], ids=["even", "ragged"])
def test_chunks_of_one_shape_share_memory_and_leave_nothing_to_the_next(
    context_overflow: Any, lengths: list[int]
) -> None:
    recorder, model = StepRecorder(CPU), fuse(make_model())
    places, outcomes = set(), []
    for seed in range(3):
        prompt, draws = chunk(lengths, 10, 3, seed)
        ours, wanted = both_ways(recorder, prompt, draws, NUCLEUS, 16, context_overflow, model)
        assert_same(ours, wanted)
        outcomes.append((ours, wanted))
        (recording,) = recorder.kept.values()
        caches = [*recording.steps.state.trunk, recording.steps.state.dependency]
        places.add(
            tuple(x.data_ptr() for cache in caches for x in (cache.keys, cache.values, cache.own_keys))
        )
    assert len(places) == 1
    assert not torch.equal(outcomes[0][0].s1, outcomes[1][0].s1)
    for ours, wanted in outcomes:  # what was handed out earlier is not overwritten by later chunks
        assert_same(ours, wanted)


def test_values_that_are_none_in_one_chunk_do_not_reach_the_next() -> None:
    recorder, model = StepRecorder(CPU), fuse(make_model())
    prompt, draws = chunk([10, 10], 6, 3)
    both_ways(recorder, prompt, draws, NUCLEUS, 64, model=model)
    (recording,) = recorder.kept.values()
    with torch.inference_mode():
        recording.steps.state.trunk[0].own_values.fill_(torch.nan)
    assert_same(*both_ways(recorder, prompt, draws, NUCLEUS, 64, model=model))


def test_a_mask_of_ragged_windows_survives_a_chunk_that_slid() -> None:
    recorder, model = StepRecorder(CPU), fuse(make_model())
    for lengths in ([10, 4, 7], [10, 9, 2], [10, 3, 3]):
        prompt, draws = chunk(lengths, 12, 3)
        assert_same(*both_ways(recorder, prompt, draws, NUCLEUS, 16, "rolling", model))
    (recording,) = recorder.kept.values()
    assert recording.steps.mask is not None
    assert (
        recording.steps.mask is not recording.steps.state.cursor.prefix
    )  # the latter is the last sliding step's


def test_the_prompt_is_unchanged_by_its_chunk_and_by_the_next_one() -> None:
    recorder, model = StepRecorder(CPU), fuse(make_model())
    prompt, draws = chunk([10, 4], 8, 3)
    parts = [*prompt.tokens, *prompt[1:4], draws.uniforms, *draws.order]
    before = [part.clone() for part in parts]
    both_ways(recorder, prompt, draws, NUCLEUS, 64, model=model)
    both_ways(recorder, *chunk([10, 6], 8, 3, seed=1), NUCLEUS, 64, model=model)
    for old, new in zip(before, parts, strict=True):
        assert torch.equal(old, new)


def test_a_step_is_recorded_separately_for_everything_that_it_depends_on() -> None:
    recorder, model, other = StepRecorder(CPU), fuse(make_model()), fuse(make_model(seed=1))
    prompt, draws = chunk([10, 10], 6, 3)
    once = [(NUCLEUS, 64, model), (SampleConfig(3, T=0.7, top_p=0.9), 64, model), (NUCLEUS, 14, model)]
    once += [(SampleConfig(3, T=1.0, top_k=4), 64, model), (NUCLEUS, 64, other)]
    for _ in range(2):
        for sampling, context, network in once:
            assert_same(*both_ways(recorder, prompt, draws, sampling, context, model=network))
    assert len(recorder.kept) == len(once)
    seeded = SampleConfig(3, T=1.0, top_p=0.9, seed=5)  # draws are inputs
    assert_same(*both_ways(recorder, prompt, draws, seeded, 64, model=model))
    assert len(recorder.kept) == len(once)


def test_draws_along_another_order_of_tokens_are_taken_over_too() -> None:
    recorder, model = StepRecorder(CPU), fuse(make_model())
    prompt, draws = chunk([10, 10], 6, 3)
    for order in (draws.order, Tokens(*(half.flip(0) for half in draws.order))):
        draws.order = order
        assert_same(*both_ways(recorder, prompt, draws, NUCLEUS, 64, model=model))
    assert len(recorder.kept) == 1


def test_the_number_of_shapes_that_are_kept_is_bounded_and_the_latest_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda_graph, "MAX_RECORDINGS", 3)
    recorder, model = StepRecorder(CPU), fuse(make_model())
    for horizon in (4, 5, 6, 4, 7, 8):
        assert_same(*both_ways(recorder, *chunk([9, 9], horizon, 3), NUCLEUS, 64, model=model))
    assert [one.steps.tokens.s1.shape[-1] for one in recorder.kept.values()] == [4, 7, 8]


def test_the_memory_that_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, model = StepRecorder(CPU), fuse(make_model())
    both_ways(recorder, *chunk([9, 9], 6, 3), NUCLEUS, 64, model=model)
    (recording,) = recorder.kept.values()
    # Of three layers, keys and values of 9 bars seen and 6 bars of each of 3 paths, 16 numbers of 4 bytes each.
    assert recording.steps.memory() == 3 * 2 * 2 * (9 + 3 * 6) * 16 * 4
    monkeypatch.setattr(cuda_graph, "MAX_BYTES", int(1.5 * recording.steps.memory()))
    both_ways(recorder, *chunk([9, 9], 5, 3), NUCLEUS, 64, model=model)
    assert [one.steps.tokens.s1.shape[-1] for one in recorder.kept.values()] == [5]
    both_ways(recorder, *chunk([9] * 4, 6, 3), NUCLEUS, 64, model=model)  # too much alone
    assert not recorder.kept


def test_many_rows_few_steps_and_upstreams_draws_run_without_a_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda_graph, "MIN_STEPS", 4)
    monkeypatch.setattr(cuda_graph, "MAX_PATHS", 6)
    model = fuse(make_model())
    for taken, lengths, horizon in ((True, [9, 9], 5), (False, [9, 9], 4), (False, [9, 9, 9], 5)):
        recorder = StepRecorder(CPU)
        assert_same(*both_ways(recorder, *chunk(lengths, horizon, 3), NUCLEUS, 64, model=model))
        assert bool(recorder.kept) == taken
    recorder, (prompt, _) = StepRecorder(CPU), chunk([9, 9], 6, 3)
    streams = [TorchSampler(3, torch.Generator().manual_seed(4)) for _ in range(2)]
    ours = generate(model, prompt, NUCLEUS, streams[0], 64, recorder=recorder)
    assert_same(ours, generate(model, prompt, NUCLEUS, streams[1], 64))
    assert not recorder.kept


@pytest.mark.parametrize(("horizon", "context"), [(6, 64), (6, 10)])
def test_every_bar_is_announced_once(horizon: int, context: int) -> None:
    prompt, draws = chunk([8, 8], horizon, 2)
    announced: list[int] = []
    sampling, model = SampleConfig(2), fuse(make_model())
    generate(
        model, prompt, sampling, draws, context,
        on_step=lambda: announced.append(1), recorder=StepRecorder(CPU),
    )  # fmt: skip
    assert len(announced) == horizon


def test_a_chunk_that_is_cut_short_leaves_nothing_for_the_next_one() -> None:
    recorder, model = StepRecorder(CPU), fuse(make_model())
    prompt, draws = chunk([8, 8], 6, 3)
    left = iter(range(3))
    with pytest.raises(StopIteration):
        generate(model, prompt, NUCLEUS, draws, 64, on_step=lambda: next(left) and None, recorder=recorder)
    assert_same(*both_ways(recorder, prompt, draws, NUCLEUS, 64, model=model))


def test_threads_that_share_a_recorder_take_turns() -> None:
    recorder, model = StepRecorder(CPU), fuse(make_model())
    chunks = [chunk([9, 9], 12, 3, seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda one: both_ways(recorder, *one, NUCLEUS, 64, model=model), chunks))
    for ours, wanted in outcomes:
        assert_same(ours, wanted)


def test_a_pipeline_records_the_steps_of_shared_draws_on_cuda_without_being_asked() -> None:
    def made(device: str) -> Pipeline:
        return Pipeline(
            make_model(), make_tokenizer(), torch.device(device), 64, 5, "recompute", ExecutionConfig()
        )

    assert made("cuda").recorder is not None
    ours, plain = made("cpu"), made("cpu")
    assert ours.recorder is None
    ours.recorder = StepRecorder(CPU)
    windows = some_windows(ragged=True)
    ours.sample_with(windows, NUCLEUS, TorchSampler(3, torch.Generator().manual_seed(1)), None)
    assert not ours.recorder.kept
    paths = [one.sample_shared(windows, NUCLEUS, uniforms_of(windows, 3)).paths for one in (ours, plain)]
    assert len(ours.recorder.kept) == 1
    np.testing.assert_array_equal(*paths)


# What a graph demands


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("slides", [False, True])
@pytest.mark.parametrize("lengths", [[9, 9], [9, 4]], ids=["even", "ragged"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_reads_nothing_from_the_device(
    precision: Any, lengths: list[int], slides: bool, filters: dict[str, float]
) -> None:
    one = some_steps(
        FusedKronos(make_model(), ExecutionConfig(precision)), lengths, SampleConfig(3, **filters)
    )
    with torch.inference_mode(), Silent() as silent:
        one.step(slides)
    assert {"bmm", "index_select", "index_copy_"} <= silent.names  # all of it went past


@pytest.mark.parametrize("slides", [False, True])
@pytest.mark.parametrize("lengths", [[9, 9], [9, 4]], ids=["even", "ragged"])
def test_no_tensor_of_the_host_takes_part_in_a_step(lengths: list[int], slides: bool) -> None:
    meta = torch.device("meta")  # it holds no values, so that none can be asked for
    one = some_steps(FusedKronos(make_model().to(meta), ExecutionConfig()), lengths, NUCLEUS, meta)
    with torch.inference_mode(), Silent():
        one.step(slides)


@pytest.mark.parametrize("slides", [False, True])
def test_every_step_is_the_same_sequence_of_operators_on_the_same_shapes(slides: bool) -> None:
    one = some_steps(fuse(make_model()), [9, 4], NUCLEUS)
    sequences = []
    for _ in range(3):
        with torch.inference_mode(), Sequence() as sequence:
            one.step(slides)
        sequences.append(sequence.calls)
    assert sequences[0] == sequences[1] == sequences[2]
    assert one.at.item() == 4


class Sequence(Silent):
    """Notes every operator with the shapes and the numbers it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = torch.utils._pytree.tree_leaves((args, kwargs))
        shown = [tuple(x.shape) if isinstance(x, torch.Tensor) else x for x in leaves]
        self.calls.append((str(func), shown))
        return super().__torch_dispatch__(func, types, args, kwargs)


def some_steps(
    model: FusedKronos, lengths: list[int], sampling: SampleConfig, device: torch.device = CPU
) -> DecodeSteps:
    prompt, draws = chunk(lengths, 6, sampling.samples)
    tokens, future = Tokens(*(half.to(device) for half in prompt.tokens)), prompt.future.to(device)
    prompt = Prompt(tokens, prompt.lengths.to(device), prompt.stamps.to(device), future, prompt.even)
    draws = SobolSampler(draws.uniforms.to(device), Tokens(*(half.to(device) for half in draws.order)))
    out = torch.zeros(len(lengths), sampling.samples, 6, dtype=torch.int64, device=device)
    with torch.inference_mode():
        past = prefill(model, prompt, sampling.samples, 6)
        return DecodeSteps(model, past, future, draws, Tokens(out, out.clone()), sampling, max_context=12)


# Graphs


class Graph:
    """Replaces a CUDA graph: calls the function and counts the calls."""

    def __init__(self, step: Any) -> None:
        self.replay = step


def on_cuda(monkeypatch: pytest.MonkeyPatch, record: Any) -> StepRecorder:
    """A recorder that takes the CPU for a CUDA device, whose graphs are made by `record`."""
    monkeypatch.setattr(cuda_graph, "_recorded", record)
    monkeypatch.setattr(cuda_graph, "STEPS_BEFORE_RECORDING", 3)
    recorder = StepRecorder(CPU)
    recorder.records = True
    return recorder


def test_a_graph_is_recorded_once_for_each_kind_of_step_after_some_that_ran_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded: list[Graph] = []

    def record(step: Any, device: torch.device) -> Graph:
        recorded.append(Graph(step))
        return recorded[-1]

    recorder, model = on_cuda(monkeypatch, record), fuse(make_model())
    prompt, draws = chunk([10, 10], 12, 3)  # of 16: six steps that fit and five that slide
    for _ in range(3):
        assert_same(*both_ways(recorder, prompt, draws, NUCLEUS, 16, "rolling", model))
    assert len(recorded) == 2
    (recording,) = recorder.kept.values()
    assert recording.launched[True] == 3
    assert recording.graphs.keys() == {False, True}


def test_a_graph_that_cannot_be_recorded_is_reported_once_and_steps_run_without_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(step: Any, device: torch.device) -> Graph:
        raise RuntimeError("operation not permitted when stream is capturing\nsome hints")

    recorder, model = on_cuda(monkeypatch, refuse), fuse(make_model())
    prompt, draws = chunk([10, 10], 12, 3)
    with caplog.at_level(logging.WARNING):
        for context in (16, 16, 15):  # another context is another shape
            assert_same(*both_ways(recorder, prompt, draws, NUCLEUS, context, "rolling", model))
    (record,) = caplog.records
    assert "operation not permitted when stream is capturing)" in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("context_overflow", ["recompute", "rolling"])
@pytest.mark.parametrize("lengths", [[10, 10], [10, 4]], ids=["even", "ragged"])
def test_on_cuda_replayed_steps_draw_the_tokens_of_launched_ones(
    context_overflow: Any, lengths: list[int]
) -> None:
    device = torch.device("cuda")
    recorder, model = StepRecorder(device), FusedKronos(make_model().to(device), ExecutionConfig())
    for seed in range(3):
        prompt, draws = chunk(lengths, 40, 3, seed)
        tokens = Tokens(*(half.to(device) for half in prompt.tokens))
        prompt = Prompt(tokens, *(x.to(device) for x in prompt[1:4]), prompt.even)
        draws = SobolSampler(draws.uniforms.to(device), Tokens(*(half.to(device) for half in draws.order)))
        assert_same(*both_ways(recorder, prompt, draws, NUCLEUS, 48, context_overflow, model))
    assert all(one.graphs for one in recorder.kept.values())
