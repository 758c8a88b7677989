from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch

from kronos.config import SampleConfig
from kronos.engine.device import CPU_BUDGET, default_budget, find_device, plain_torch
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.kronos.builders import make_model, make_panel, make_tokenizer


@pytest.mark.parametrize("device", ["cuda:77", "abacus", "", "meta"])
def test_a_device_that_is_not_there_is_refused_by_name_in_one_sentence(device: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^device '{device}' cannot be used here \(.+\)\. .*'cpu'"
    ) as refusal:
        find_device(device)
    assert "\n" not in str(refusal.value)


def test_of_a_long_reason_the_first_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*args: object, **kwargs: object) -> None:
        raise RuntimeError("\nno driver\nCUDA kernel errors might be reported elsewhere\n")

    monkeypatch.setattr("torch.empty", empty)
    with pytest.raises(ValueError, match=r"^device 'cuda' cannot be used here \(no driver\)\. Pass .*\.$"):
        find_device("cuda")


def test_a_device_is_found_by_name_and_taken_as_it_is() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "fastest"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_without_a_name_the_fastest_there_is_is_found(
    cuda: bool, mps: bool, fastest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    assert find_device(None).type == fastest


def test_an_accelerator_gives_a_part_of_what_it_has_and_a_cpu_little(monkeypatch: pytest.MonkeyPatch) -> None:
    free, total = 10 * 2**30, 80 * 2**30
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, total))
    monkeypatch.setattr("torch.mps.recommended_max_memory", lambda: free)
    assert default_budget(torch.device("cpu")) == CPU_BUDGET < 2**30
    for accelerator in ("cuda", "mps"):
        assert 0.25 * free < default_budget(torch.device(accelerator)) < 0.75 * free
        assert isinstance(default_budget(torch.device(accelerator)), int)


# The caller's torch


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


STATES = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "double precision": lambda: default_type(torch.float64),
    "half precision": lambda: default_type(torch.float16),
    "another device": lambda: torch.device("meta"),
    "gradients": torch.enable_grad,
    "inference mode": torch.inference_mode,
}


@pytest.mark.parametrize("state", STATES)
def test_a_forecast_is_the_same_whatever_its_caller_set_in_torch(state: str) -> None:
    windows, sampling = Windows.rolling(make_panel(12, "A"), 10, 3, "B"), SampleConfig(3, T=1.0)
    bars, later = make_panel(12, "A")["A"], windows.future[-1]
    made, fresh, wanted = (KronosPredictor(make_model(), make_tokenizer(), "cpu", 16) for _ in range(3))
    paths = wanted.forecast(windows, sampling).paths
    frame = wanted.predict(bars, bars.index, later, 3, verbose=False, seed=1)
    made.forecast(windows, sampling)
    context: AbstractContextManager[object] = STATES[state]()
    with context:
        for predictor in (made, fresh):  # networks rewritten before and within
            np.testing.assert_array_equal(predictor.forecast(windows, sampling).paths, paths)
            again = predictor.predict(bars, bars.index, later, 3, verbose=False, seed=1)
            np.testing.assert_array_equal(again, frame)
    np.testing.assert_array_equal(fresh.forecast(windows, sampling).paths, paths)


def test_what_the_caller_set_is_there_again_afterwards() -> None:
    with default_type(torch.float64), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        for error in (None, ValueError("within")):
            try:
                with plain_torch():
                    assert not torch.is_autocast_enabled("cpu")
                    assert (torch.ones(1).dtype, torch.ones(1).device.type) == (torch.float32, "cpu")
                    if error:
                        raise error
            except ValueError:
                assert error
            assert torch.is_autocast_enabled("cpu")
            assert (torch.ones(1).dtype, torch.ones(1).device.type) == (torch.float64, "meta")
