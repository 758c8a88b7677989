from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from kronos.config import ModelConfig, SampleConfig, TokenizerConfig, config_from_dict


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
