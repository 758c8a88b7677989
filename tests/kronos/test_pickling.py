"""A predictor goes to other processes and is copied, whether it has forecast or not."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kronos.config import SampleConfig
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.kronos.builders import make_model, make_panel, make_tokenizer

SAMPLING = SampleConfig(samples=3, T=1.0, top_p=0.95, seed=3)
OPTIONS: dict[str, Any] = {
    "max_context": 16,
    "clip": 4,
    "context_overflow": "rolling",
    "precision": "bfloat16",
    "memory": 10**6,
    "anchor": "decoded_close",
}


def make(**options: Any) -> KronosPredictor:
    return KronosPredictor(make_model(), make_tokenizer(), "cpu", **options)


@pytest.fixture(scope="module")
def windows() -> Windows:
    return Windows.rolling(make_panel(14, "A", "B"), 12, 3, "B")


def pickled(predictor: KronosPredictor) -> KronosPredictor:
    return pickle.loads(pickle.dumps(predictor))


WAYS = [pickled, copy.deepcopy, copy.copy]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["defaults", "options"])
def test_a_predictor_pickled_after_a_forecast_forecasts_the_same_bits(
    options: dict[str, Any], way: Callable[[KronosPredictor], KronosPredictor], windows: Windows
) -> None:
    predictor = make(**options)
    wanted = predictor.forecast(windows, SAMPLING)
    other = way(predictor)
    forecast = other.forecast(windows, SAMPLING)
    np.testing.assert_array_equal(forecast.paths, wanted.paths)
    assert forecast.provenance == wanted.provenance
    assert other.device == predictor.device
    assert {name: getattr(other, name) for name in options} == options


@pytest.mark.parametrize("way", WAYS[:2], ids=lambda way: way.__name__)
def test_a_copy_shares_no_weights_with_its_original(
    way: Callable[[KronosPredictor], KronosPredictor], windows: Windows
) -> None:
    predictor = make()
    wanted = predictor.forecast(windows, SAMPLING).paths
    other = way(predictor)
    with torch.no_grad():
        for weight in other.model.parameters():
            weight.mul_(0.5)
    assert not np.array_equal(other.forecast(windows, SAMPLING).paths, wanted)
    np.testing.assert_array_equal(predictor.forecast(windows, SAMPLING).paths, wanted)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_settings_of_a_copy_are_its_own(
    way: Callable[[KronosPredictor], KronosPredictor], windows: Windows
) -> None:
    predictor = make()
    wanted = predictor.forecast(windows, SAMPLING).paths
    other = way(predictor)
    other.max_context = 8
    assert not np.array_equal(other.forecast(windows, SAMPLING).paths, wanted)
    assert predictor.max_context == 512
    np.testing.assert_array_equal(predictor.forecast(windows, SAMPLING).paths, wanted)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_copy_keeps_origin_and_sampling(
    way: Callable[[KronosPredictor], KronosPredictor], reference_folder: Path, windows: Windows
) -> None:
    predictor = KronosPredictor.from_pretrained(reference_folder, device="cpu", max_context=16)
    predictor.sampling = SAMPLING
    wanted = predictor.forecast(windows)
    other = way(predictor)
    assert other.checkpoint_info == predictor.checkpoint_info is not None
    assert other.forecast(windows).provenance == wanted.provenance
    with torch.no_grad():
        other.model.norm.weight.mul_(2)
    assert other.checkpoint_info is None


@pytest.mark.parametrize("make_in", [torch.no_grad, torch.inference_mode], ids=lambda mode: mode.__name__)
def test_a_copy_keeps_networks_of_any_mode_and_type(make_in: Callable[[], Any], windows: Windows) -> None:
    with make_in():
        predictor = make()
    predictor.tokenizer.train()
    predictor.model.half()
    wanted = predictor.forecast(windows, SAMPLING).paths
    for way in WAYS:
        np.testing.assert_array_equal(way(predictor).forecast(windows, SAMPLING).paths, wanted)


def test_a_predictor_from_an_unavailable_device_computes_on_the_fastest_available_one(
    windows: Windows, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = make()
    wanted = predictor.forecast(windows, SAMPLING).paths
    state = predictor.__getstate__() | {"device": "cuda:77"}  # as a machine with 78 of them writes it
    other = KronosPredictor.__new__(KronosPredictor)
    with caplog.at_level(logging.WARNING):
        other.__setstate__(copy.deepcopy(state))
    assert other.device == KronosPredictor(make_model(), make_tokenizer()).device
    (message,) = caplog.messages
    assert message.startswith("device 'cuda:77' is not available here")
    assert message.endswith(f"The predictor uses '{other.device}' instead.")
    if other.device.type == "cpu":
        np.testing.assert_array_equal(other.forecast(windows, SAMPLING).paths, wanted)


def test_a_pickle_is_on_the_cpu_and_contains_no_pipeline(windows: Windows) -> None:
    predictor = make()
    before = len(pickle.dumps(predictor))
    predictor.forecast(windows, SAMPLING)
    assert len(pickle.dumps(predictor)) == before
    state = predictor.__getstate__()
    weights = [*state["model"].parameters(), *state["tokenizer"].parameters()]
    assert {weight.device.type for weight in weights} == {"cpu"}


def paths_of(predictor: KronosPredictor, part: slice) -> np.ndarray:
    """Forecast some windows in the current process."""
    torch.set_num_threads(1)
    panel = Windows.rolling(make_panel(14, "A", "B"), 12, 3, "B")
    return predictor.forecast(panel[part], SAMPLING).paths


@pytest.mark.slow
def test_a_spawned_process_gets_a_predictor_and_forecasts_the_same(windows: Windows) -> None:
    predictor = make()
    wanted = predictor.forecast(windows, SAMPLING).paths
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        got = pool.submit(paths_of, predictor, slice(None)).result()
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.slow
def test_joblib_spreads_a_predictor_over_processes(windows: Windows) -> None:
    joblib = pytest.importorskip("joblib")
    predictor = make()
    wanted = [predictor.forecast(windows[i : i + 1], SAMPLING).paths for i in range(2)]
    got = joblib.Parallel(n_jobs=2)(joblib.delayed(paths_of)(predictor, slice(i, i + 1)) for i in range(2))
    np.testing.assert_array_equal(np.concatenate(got), np.concatenate(wanted))
