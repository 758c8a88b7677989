"""A setting changed after a forecast is the one that the next is made with, or is refused when it is set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from kronos.config import SampleConfig
from kronos.inference.settings import CHECKS, CPU_BUDGET, default_budget, default_torch_state, find_device
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from tests.kronos.builders import compiler, make_model, make_panel, make_tokenizer

H = 5
SAMPLING = SampleConfig(samples=3, T=1.0, top_p=0.95, seed=3)
NEEDS_COMPILER = pytest.mark.skipif(compiler() is None, reason="torch.compile needs a C++ compiler")


def make(**options: Any) -> KronosPredictor:
    """A predictor of a context that these windows outgrow."""
    arguments = {"model": make_model(), "tokenizer": make_tokenizer(), "device": "cpu", "max_context": 10}
    return KronosPredictor(**arguments | options)


@pytest.fixture(scope="module")
def windows() -> Windows:
    return Windows.rolling(make_panel(18, "A", "B"), 12, H, "B")


# Another value of each, and whether it gives other paths; of "compile" and "memory" others by rounding.
CHANGES = {
    "max_context": (16, True),
    "clip": (0.5, True),
    "context_overflow": ("rolling", True),
    "precision": ("bfloat16", True),
    "anchor": ("decoded_close", True),
    "compile": (True, None),
    "memory": (20_000, None),
    "device": (torch.device("cpu"), False),
    "model": (make_model(seed=8), True),
    "tokenizer": (make_tokenizer(seed=8), True),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow, NEEDS_COMPILER] * (name == "compile")) for name in CHANGES],
)
def test_a_setting_changed_after_a_forecast_is_that_of_a_predictor_built_with_it(
    name: str, windows: Windows
) -> None:
    predictor, (value, others) = make(), CHANGES[name]
    before = predictor.forecast(windows, SAMPLING)
    setattr(predictor, name, value)
    after, fresh = predictor.forecast(windows, SAMPLING), make(**{name: value}).forecast(windows, SAMPLING)
    np.testing.assert_array_equal(after.paths, fresh.paths)
    assert after.provenance == fresh.provenance
    if name in {field.name for field in dataclasses.fields(after.provenance)} - {"model"}:
        assert getattr(after.provenance, name) == value != getattr(before.provenance, name)
    assert others is None or np.array_equal(after.paths, before.paths) != others
    setattr(predictor, name, getattr(make(), name))  # and back again
    if name not in ("model", "tokenizer"):  # of the same seed, but not the same objects
        assert predictor.forecast(windows, SAMPLING).provenance == before.provenance
    np.testing.assert_array_equal(predictor.forecast(windows, SAMPLING).paths, before.paths)


def test_settings_changed_after_a_prediction_hold_for_the_next_one(windows: Windows) -> None:
    bars = make_panel(12, "A")["A"]
    later = windows.future[-1]

    def predict(predictor: KronosPredictor) -> np.ndarray:
        return predictor.predict(bars, bars.index, later, H, verbose=False, seed=1).to_numpy()

    predictor = make()
    before = predict(predictor)
    predictor.clip = 0.5
    np.testing.assert_array_equal(predict(predictor), predict(make(clip=0.5)))
    assert not np.array_equal(predict(predictor), before)


def test_sampling_changed_after_a_forecast_is_the_default_of_the_next_one(windows: Windows) -> None:
    predictor = make()
    predictor.forecast(windows)
    predictor.sampling = SAMPLING
    forecast = predictor.forecast(windows)
    assert forecast.provenance.sampling == SAMPLING
    np.testing.assert_array_equal(forecast.paths, make().forecast(windows, SAMPLING).paths)


def test_every_argument_of_the_constructor_is_checked_when_it_is_set() -> None:
    assert set(CHECKS) == {*CHANGES, "sampling"}
    assert set(CHANGES) == set(KronosPredictor.__init__.__annotations__) - {"return"}


REFUSED = [
    ("max_context", 1, "max_context=1 is too small for a window. Pass at least 2."),
    ("max_context", 64.0, "max_context=64.0 is not a whole number. Pass an int."),
    ("max_context", "64", "max_context='64' is not a whole number. Pass an int."),
    ("max_context", None, "max_context=None is not a whole number. Pass an int."),
    ("max_context", True, "max_context=True is not a whole number. Pass an int."),
    ("clip", 0, "clip=0 is not positive. Pass a positive number, e.g. 5."),
    ("clip", -2.0, "clip=-2.0 is not positive. Pass a positive number, e.g. 5."),
    ("clip", float("nan"), "clip=nan is not positive. Pass a positive number, e.g. 5."),
    ("clip", "5", "clip='5' is not a number. Pass a float."),
    ("clip", None, "clip=None is not a number. Pass a float."),
    (
        "context_overflow",
        "sliding",
        "context_overflow='sliding' is unknown. Choose one of ['recompute', 'rolling'].",
    ),
    ("precision", "float16", "precision='float16' is unknown. Choose one of ['float32', 'bfloat16']."),
    (
        "precision",
        torch.bfloat16,
        "precision='torch.bfloat16' is unknown. Choose one of ['float32', 'bfloat16'].",
    ),
    ("anchor", "close", "anchor='close' is unknown. Choose one of ['last_close', 'decoded_close']."),
    ("compile", "yes", "compile='yes' is neither True nor False. Pass one of them."),
    ("memory", 0, "memory=0 is not a positive number of bytes. Pass more, or None."),
    ("memory", 1e9, "memory=1000000000.0 is not a whole number. Pass an int."),
    ("device", "abacus", "device 'abacus' is not available here"),
    ("device", "meta", "device 'meta' is not available here (it stores no values)"),
    ("device", 3.5, "device '3.5' is not available here"),
    ("model", None, "model is a NoneType, not a Kronos. Pass one, e.g. "),
    ("model", make_tokenizer(), "model is a KronosTokenizer, not a Kronos. "),
    ("tokenizer", make_model(), "tokenizer is a Kronos, not a KronosTokenizer. "),
]


@pytest.mark.parametrize(("name", "value", "sentence"), REFUSED, ids=lambda x: str(x)[:20])
def test_values_that_the_constructor_refuses_are_refused_later_with_the_same_message(
    name: str, value: Any, sentence: str, windows: Windows
) -> None:
    with pytest.raises((ValueError, TypeError)) as at_first:
        make(**{name: value})
    predictor = make()
    wanted = predictor.forecast(windows, SAMPLING)
    with pytest.raises((ValueError, TypeError)) as later:
        setattr(predictor, name, value)
    assert str(at_first.value) == str(later.value)
    assert str(later.value).startswith(sentence)
    assert "\n" not in str(later.value)
    forecast = predictor.forecast(windows, SAMPLING)  # the old value is still there
    np.testing.assert_array_equal(forecast.paths, wanted.paths)
    assert forecast.provenance == wanted.provenance


@pytest.mark.parametrize("value", [None, {"T": 0.5}])
def test_invalid_sampling_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^sampling is a \w+, not a SampleConfig\. Pass one"):
        make().sampling = value


def test_numbers_of_numpy_are_accepted(windows: Windows) -> None:
    predictor = make(max_context=np.int64(9), clip=np.float32(0.5), memory=np.int32(10**6), compile=np.False_)
    values = predictor.max_context, predictor.clip, predictor.memory, predictor.compile
    assert [type(value) for value in values] == [int, float, int, bool]
    wanted = make(max_context=9, clip=0.5).forecast(windows, SAMPLING)
    assert predictor.forecast(windows, SAMPLING).provenance == wanted.provenance


def test_a_clip_keeps_its_type_so_that_stored_settings_stay_equal() -> None:
    assert [(type(make(clip=clip).clip), make(clip=clip).clip) for clip in (5, 5.0)] == [
        (int, 5),
        (float, 5.0),
    ]


def test_a_device_may_be_set_by_name_or_left_to_choose() -> None:
    predictor = make()
    predictor.device = "cpu"
    assert predictor.device == torch.device("cpu")
    predictor.device = None
    assert predictor.device == KronosPredictor(make_model(), make_tokenizer()).device


def test_model_and_tokenizer_may_be_swapped_one_after_the_other(windows: Windows) -> None:
    predictor = make()
    predictor.forecast(windows, SAMPLING)
    wider: dict[str, Any] = {"s1_bits": 4, "s2_bits": 4}
    predictor.model = make_model(**wider)
    with pytest.raises(ValueError, match=r"reads tokens of \(4, 4\) bits .* writes \(5, 3\).*trained with"):
        predictor.forecast(windows, SAMPLING)
    predictor.tokenizer = make_tokenizer(**wider)
    wanted = make(model=make_model(**wider), tokenizer=make_tokenizer(**wider))
    np.testing.assert_array_equal(
        predictor.forecast(windows, SAMPLING).paths, wanted.forecast(windows, SAMPLING).paths
    )


def test_networks_of_equal_weights_and_other_heads_are_other_networks(windows: Windows) -> None:
    predictor = make()
    predictor.forecast(windows, SAMPLING)
    other = make_model(n_heads=4)
    other.load_state_dict(predictor.model.state_dict())
    predictor.model = other
    np.testing.assert_array_equal(
        predictor.forecast(windows, SAMPLING).paths, make(model=other).forecast(windows, SAMPLING).paths
    )


@pytest.mark.parametrize("device", ["cuda:77", "abacus", "", "meta"])
def test_an_unavailable_device_is_refused_by_name_in_one_sentence(device: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^device '{device}' is not available here \(.+\)\. .*'cpu'"
    ) as refusal:
        find_device(device)
    assert "\n" not in str(refusal.value)


def test_of_a_long_reason_the_first_line_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*args: object, **kwargs: object) -> None:
        raise RuntimeError("\nno driver\nCUDA kernel errors might be reported elsewhere\n")

    monkeypatch.setattr("torch.empty", empty)
    with pytest.raises(ValueError, match=r"^device 'cuda' is not available here \(no driver\)\. Pass .*\.$"):
        find_device("cuda")


def test_a_device_is_found_by_name_or_passed_through() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "fastest"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_without_a_name_the_fastest_device_is_found(
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
def test_a_forecast_does_not_depend_on_the_callers_torch_settings(state: str) -> None:
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


def test_torch_settings_of_the_caller_are_restored_after_a_forecast() -> None:
    with default_type(torch.float64), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
        for error in (None, ValueError("within")):
            try:
                with default_torch_state():
                    assert not torch.is_autocast_enabled("cpu")
                    assert (torch.ones(1).dtype, torch.ones(1).device.type) == (torch.float32, "cpu")
                    if error:
                        raise error
            except ValueError:
                assert error
            assert torch.is_autocast_enabled("cpu")
            assert (torch.ones(1).dtype, torch.ones(1).device.type) == (torch.float64, "meta")
