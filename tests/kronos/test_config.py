from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kronos import compat
from kronos.config import ModelConfig, SampleConfig, TokenizerConfig, config_from_dict
from kronos.predictor import KronosPredictor
from kronos.training.config import Source, TrainingConfig
from kronos.windows import Windows
from kronos_strategies.portfolio import PortfolioRules
from kronos_strategies.signal import signals
from kronos_strategies.store import WindowSpec
from tests.kronos.builders import make_bars, make_model, make_panel, make_tokenizer


def released(folder: Path, part: str) -> dict[str, Any]:
    return json.loads((folder / part / "config.json").read_text())


@pytest.mark.parametrize(("part", "kind"), [("tokenizer", TokenizerConfig), ("predictor", ModelConfig)])
def test_field_names_are_the_keys_that_upstream_writes(
    part: str, kind: type[TokenizerConfig | ModelConfig], reference_folder: Path
) -> None:
    values = released(reference_folder, part)
    config = config_from_dict(kind, values, "config.json")
    assert dataclasses.asdict(config) == values


def test_an_unknown_key_is_refused_by_name_and_the_known_ones_are_listed(reference_folder: Path) -> None:
    values = released(reference_folder, "predictor") | {"n_head": 4}
    with pytest.raises(ValueError, match=r"there/config\.json has unknown keys \['n_head'\].*'n_heads'"):
        config_from_dict(ModelConfig, values, "there/config.json")


@pytest.mark.parametrize("key", ["d_model", "n_heads", "ff_dim", "s1_bits", "s2_bits"])
def test_a_missing_size_is_refused_by_name(key: str, reference_folder: Path) -> None:
    values = released(reference_folder, "tokenizer")
    del values[key]
    with pytest.raises(ValueError, match=rf"config\.json lacks \['{key}'\].*TokenizerConfig"):
        config_from_dict(TokenizerConfig, values, "config.json")


@pytest.mark.parametrize("config", [TokenizerConfig(), ModelConfig(), SampleConfig()])
def test_settings_are_frozen(config: Any) -> None:
    name = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, 1)


@pytest.mark.parametrize("kind", [TokenizerConfig, ModelConfig])
def test_a_width_that_does_not_split_into_heads_is_refused(kind: type) -> None:
    with pytest.raises(ValueError, match=r"d_model=20 .*8 heads.*multiple of 16"):
        kind(d_model=20, n_heads=8)


def test_a_model_too_narrow_for_the_dependency_layers_four_heads_is_refused() -> None:
    with pytest.raises(ValueError, match=r"d_model=12 .*4 heads.*multiple of 8"):
        ModelConfig(d_model=12, n_heads=2)


@pytest.mark.parametrize("kind", [TokenizerConfig, ModelConfig])
def test_a_half_without_bits_is_refused(kind: type) -> None:
    with pytest.raises(ValueError, match=r"s1_bits=8, s2_bits=0.*at least 1"):
        kind(s1_bits=8, s2_bits=0)


def test_a_group_that_does_not_divide_the_bits_is_refused() -> None:
    with pytest.raises(ValueError, match=r"group_size=3 does not divide the 20 bits"):
        TokenizerConfig(group_size=3)


def test_sampling_defaults_are_the_papers_for_returns() -> None:
    assert SampleConfig() == SampleConfig(samples=10, T=0.6, top_p=0.9, top_k=0, seed=0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"samples": 0}, "samples=0 .*at least 1"),
        ({"samples": -2}, "samples=-2 .*at least 1"),
        ({"samples": 2.5}, "samples=2.5 is not a whole number"),
        ({"samples": True}, "samples=True is not a whole number"),
        ({"T": -0.1}, "T=-0.1 .*0 .greedy. or a positive"),
        ({"T": float("nan")}, "T=nan .*positive"),
        ({"top_p": 0.0}, r"top_p=0.0 .*\(0, 1\]"),
        ({"top_p": 1.01}, r"top_p=1.01 .*\(0, 1\]"),
        ({"top_p": float("nan")}, r"top_p=nan .*\(0, 1\]"),
        ({"top_k": -1}, "top_k=-1 is negative.*0 .off."),
        ({"top_k": None}, "top_k=None is not a whole number"),
        ({"T": None}, "T=None is not a number"),
        ({"top_p": "0.9"}, "top_p='0.9' is not a number"),
        ({"seed": -1}, "seed=-1 is negative"),
        ({"seed": 0.5}, "seed=0.5 is not a whole number"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name_and_value(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampleConfig(**setting)


def test_the_ends_of_the_ranges_are_allowed() -> None:
    for ends in (
        {"T": 0, "top_p": 1.0, "top_k": 0, "seed": 0},
        {"T": 5.0, "top_p": 1e-9, "top_k": 10**6, "seed": 2**40},
    ):
        config = SampleConfig(samples=1, **ends)
        assert {name: getattr(config, name) for name in ends} == ends


H = 3


def predictor(**options: Any) -> KronosPredictor:
    return KronosPredictor(make_model(), make_tokenizer(), "cpu", **{"max_context": 16, **options})


def predict(**changes: Any) -> np.ndarray:
    bars = make_bars(10, freq="h")
    later = pd.date_range(bars.index[-1], periods=H + 1, freq="h")[1:]
    arguments = {"pred_len": H, "sample_count": 2, "seed": 1, "verbose": False} | changes
    return predictor().predict(bars, bars.index, later, **arguments).to_numpy()


def roll(**changes: Any) -> np.ndarray:
    sizes = {"lookback": 6, "horizon": H, "min_bars": 4} | changes
    return Windows.rolling(make_panel(9, "A"), calendar="B", **sizes).values


def forecast(**options: Any) -> np.ndarray:
    windows = Windows.rolling(make_panel(9, "A"), 6, H, "B")
    return predictor(**options).forecast(windows, SampleConfig(2)).paths


def infer(**changes: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 6, generator=generator)
    stamps = [torch.ones(2, length, 5) for length in (8, H)]
    torch.manual_seed(0)
    settings = {"max_context": 16, "pred_len": H, "sample_count": 2} | changes
    return compat.auto_regressive_inference(make_tokenizer(), make_model(), x, *stamps, **settings)


def sample(**changes: Any) -> np.ndarray:
    torch.manual_seed(0)
    logits = torch.linspace(-1, 1, 8).repeat(4, 1)
    return compat.sample_from_logits(
        logits, **{"temperature": 1.0, "top_k": 3, "top_p": 0.9, **changes}
    ).numpy()


def keep(**changes: Any) -> np.ndarray:
    return compat.top_k_top_p_filtering(torch.linspace(-1, 1, 8).repeat(4, 1), **changes).numpy()


def as_dict(kind: type, *needed: Any) -> Callable[..., dict[str, Any]]:
    return lambda **changes: asdict(kind(*needed, **changes))


def value(hold: Any) -> np.ndarray:
    windows = Windows.rolling(make_panel(9, "A"), 6, H, "B")
    return signals(predictor().forecast(windows, SampleConfig(2)), hold).to_numpy()


COUNTS = [
    (predict, {"pred_len": H}),
    (predict, {"sample_count": 2}),
    (predict, {"top_k": 4}),
    (predict, {"seed": 5}),
    (roll, {"lookback": 6}),
    (roll, {"horizon": H}),
    (roll, {"min_bars": 3}),
    (forecast, {"max_context": 8}),
    (forecast, {"memory": 100_000}),
    (infer, {"pred_len": H}),
    (infer, {"max_context": 9}),
    (infer, {"sample_count": 3}),
    (infer, {"top_k": 4}),
    (sample, {"top_k": 2}),
    (keep, {"top_k": 2}),
    (keep, {"top_p": 0.5, "min_tokens_to_keep": 4}),
    (value, {"hold": 1}),
    *[(as_dict(SampleConfig), {name: 3}) for name in ("samples", "top_k", "seed")],
    *[
        (as_dict(ModelConfig), {name: 16})
        for name in ("s1_bits", "s2_bits", "n_layers", "d_model", "n_heads")
    ],
    *[(as_dict(TokenizerConfig), {name: 4}) for name in ("n_heads", "n_enc_layers", "ff_dim", "group_size")],
    *[
        (as_dict(TrainingConfig, Path("out")), {name: 8})
        for name in ("lookback", "horizon", "max_steps", "batch_size", "patience", "seed", "workers")
    ],
    *[
        (as_dict(WindowSpec), {"universe": "all", "lookback": 9, "horizon": 3, "min_bars": 9, name: 9})
        for name in ("lookback", "horizon", "min_bars")
    ],
]
NUMBERS = [
    (predict, {"T": 0.5}),
    (predict, {"top_p": 0.5}),
    (forecast, {"clip": 2.5}),
    (infer, {"clip": 2.5}),
    (infer, {"T": 0.5}),
    (infer, {"top_p": 0.5}),
    (sample, {"temperature": 0.5}),
    (keep, {"top_p": 0.5}),
    (as_dict(SampleConfig), {"T": 0.5}),
    (as_dict(SampleConfig), {"top_p": 0.5}),
    (as_dict(ModelConfig), {"token_dropout_p": 0.5}),
    (as_dict(TokenizerConfig), {"beta": 0.5}),
    (as_dict(TrainingConfig, Path("out")), {"learning_rate": 0.5}),
    (as_dict(TrainingConfig, Path("out")), {"dropout": 0.5}),
    (as_dict(Source, Path("bars.csv")), {"weight": 0.5}),
    *[
        (as_dict(PortfolioRules), {name: 0.5})
        for name in ("target_volatility", "max_weight", "no_trade_band")
    ],
]


def last(call: dict[str, Any]) -> tuple[str, Any]:
    """The argument in question: the one that is named last."""
    return list(call.items())[-1]


def label(entry: Any) -> str:
    if isinstance(entry, dict):
        return last(entry)[0]
    return entry.__qualname__.partition(".")[0] if callable(entry) else repr(entry)


def assert_same(ours: Any, wanted: Any) -> None:
    if isinstance(ours, np.ndarray):
        np.testing.assert_array_equal(ours, wanted)
    else:
        assert ours == wanted
        json.dumps(ours, default=str)  # a numpy number would be written as text, and differ:
        assert json.dumps(ours, default=str) == json.dumps(wanted, default=str)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("function", "call"), COUNTS, ids=label)
def test_a_count_may_be_a_numpy_integer(
    function: Callable[..., Any], call: dict[str, Any], kind: type
) -> None:
    name, count = last(call)
    if kind is np.uint8 and count > 255:
        kind = np.uint32
    assert_same(function(**call | {name: kind(count)}), function(**call))


@pytest.mark.parametrize("kind", [np.float64, np.float32], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("function", "call"), NUMBERS, ids=label)
def test_a_number_may_be_a_numpy_float(
    function: Callable[..., Any], call: dict[str, Any], kind: type
) -> None:
    name, number = last(call)  # exact in float32
    assert_same(function(**call | {name: kind(number)}), function(**call))


@pytest.mark.parametrize("wrong", ["5", 2.5, np.float64(2.0), float("nan"), True, [3], Decimal(3)], ids=repr)
@pytest.mark.parametrize(("function", "call"), COUNTS, ids=label)
def test_anything_but_an_integer_is_refused_in_one_sentence(
    function: Callable[..., Any], call: dict[str, Any], wrong: Any
) -> None:
    with pytest.raises(ValueError, match="not a whole number") as refusal:
        function(**call | {last(call)[0]: wrong})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("wrong", ["0.5", True, [0.5], Decimal("0.5")], ids=repr)
@pytest.mark.parametrize(("function", "call"), NUMBERS, ids=label)
def test_anything_but_a_number_is_refused_in_one_sentence(
    function: Callable[..., Any], call: dict[str, Any], wrong: Any
) -> None:
    with pytest.raises(ValueError, match="not a number") as refusal:
        function(**call | {last(call)[0]: wrong})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("function", "call"),
    [
        (predict, {"T": None}),
        (predict, {"top_p": None}),
        (predict, {"sample_count": None}),
        (predict, {"pred_len": None}),
        (forecast, {"max_context": None}),
        (forecast, {"clip": None}),
        (forecast, {"clip": float("nan")}),
        (forecast, {"clip": 0}),
        (forecast, {"clip": -1.0}),
        (infer, {"clip": None}),
        (infer, {"clip": float("nan")}),
        (infer, {"clip": -1}),
        (infer, {"sample_count": None}),
        (predict, {"T": float("nan")}),
        (predict, {"T": float("inf")}),
        (predict, {"top_p": float("nan")}),
        (predict, {"seed": 2**64}),
        (predict, {"seed": -(2**63) - 1}),
        (predict, {"top_k": ""}),
        (as_dict(PortfolioRules), {"topk": float("nan")}),
        (as_dict(PortfolioRules), {"topk": None}),
    ],
    ids=lambda entry: repr(entry) if isinstance(entry, dict) else label(entry),
)
def test_none_nan_and_values_out_of_range_are_refused_by_name(
    function: Callable[..., Any], call: dict[str, Any]
) -> None:
    name = {"sample_count": "samples"}.get(last(call)[0], last(call)[0])
    with pytest.raises(ValueError, match=f"{name}=") as refusal:
        function(**call)
    assert "\n" not in str(refusal.value)


def test_settings_of_numpys_numbers_are_saved_and_described_like_others(tmp_path: Path) -> None:
    sizes = {"d_model": np.int64(16), "n_heads": np.int64(2), "ff_dim": np.int64(24), "n_layers": np.int64(2)}
    plain, numpys = make_model(), make_model(**sizes)
    saved = [network.save_pretrained(tmp_path / name) for name, network in (("a", plain), ("b", numpys))]
    assert len({(folder / "config.json").read_text() for folder in saved}) == 1
