"""Sizes of the two networks, settings of a forecast, and checks of the numbers that callers pass.

Field names of `TokenizerConfig` and `ModelConfig` are the keys of a released `config.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from kronos.bars import FEATURES

PRETRAINED = Path(__file__).parent / "pretrained"
CARD = "README.md"  # the model card in a checkpoint's folder


def as_integer(name: str, value: object) -> int:
    """An integer of any type, numpy's included, as a Python int, so that equal values have equal JSON and hashes.

    Raises:
        ValueError: not an integer (2.5, 2.0, True, "2", None).
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name}={value!r} is not a whole number. Pass an int.")
    return int(value)


def as_number(name: str, value: object) -> int | float:
    """A real number of any type as a Python int or float; the caller checks for NaN and infinity.

    Raises:
        ValueError: not a number (True, "0.9", None).
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name}={value!r} is not a number. Pass a float.")
    return int(value) if isinstance(value, Integral) else float(value)


def as_choice(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    """One of several strings.

    Raises:
        ValueError: it is not one of them; lists all.
    """
    if value not in choices:
        raise ValueError(f"{name}='{value}' is unknown. Choose one of {list(choices)}.")
    return value


def check_numbers(config: Any) -> None:
    """Convert every int or float field of a frozen dataclass, or refuse it by name.

    Annotations are read as text, so the dataclass needs `from __future__ import annotations`.

    Raises:
        ValueError: a field has another type.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        kind, _, optional = str(field.type).partition(" | ")
        if kind not in ("int", "float") or (value is None and optional == "None"):
            continue
        check = as_integer if kind == "int" else as_number
        object.__setattr__(config, field.name, check(field.name, value))


_Config = TypeVar("_Config", bound="TokenizerConfig | ModelConfig")


@dataclass(frozen=True)
class TokenizerConfig:
    """Size and loss weights of the tokenizer; `n_enc_layers` of 4 builds 3 blocks, as released."""

    d_in: int = len(FEATURES)
    d_model: int = 256
    n_heads: int = 4
    ff_dim: int = 512
    n_enc_layers: int = 4
    n_dec_layers: int = 4
    ffn_dropout_p: float = 0.0
    attn_dropout_p: float = 0.0
    resid_dropout_p: float = 0.0
    s1_bits: int = 10
    s2_bits: int = 10
    beta: float = 0.05  # weight of the commitment loss
    gamma0: float = 1.0  # weight of the per-sample entropy
    gamma: float = 1.1  # weight of the codebook entropy
    zeta: float = 0.05  # weight of the whole entropy term
    group_size: int = (
        4  # in upstream's checkpoints; sets the size of a stored constant and has no other effect
    )

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_heads(self.d_model, self.n_heads)
        _check_bits(self.s1_bits, self.s2_bits)
        if (self.s1_bits + self.s2_bits) % self.group_size:
            raise ValueError(
                f"group_size={self.group_size} does not divide the {self.s1_bits + self.s2_bits} bits of a "
                "token. Choose a group_size that does."
            )


@dataclass(frozen=True)
class ModelConfig:
    """Size of the decoder-only transformer."""

    s1_bits: int = 10
    s2_bits: int = 10
    n_layers: int = 8
    d_model: int = 512
    n_heads: int = 8
    ff_dim: int = 1024
    ffn_dropout_p: float = 0.0
    attn_dropout_p: float = 0.0
    resid_dropout_p: float = 0.0
    token_dropout_p: float = 0.0
    learn_te: bool = True  # learned calendar embeddings; False: fixed sinusoids

    def __post_init__(self) -> None:
        check_numbers(self)
        _check_heads(self.d_model, self.n_heads)
        _check_heads(self.d_model, DEPENDENCY_HEADS)
        _check_bits(self.s1_bits, self.s2_bits)


@dataclass(frozen=True)
class SampleConfig:
    """How a forecast is sampled; the defaults are those of the paper for returns (section 4).

    Attributes:
        samples: paths per window.
        T: temperature; 0 takes the most likely token at each step.
        top_p: nucleus size: the smallest set of tokens whose mass exceeds it is kept; 1 keeps all.
        top_k: keep the k most likely tokens and ignore `top_p`; 0 is off.
        seed: random seed; draws depend on it and on the forecast date only.
    """

    samples: int = 10
    T: float = 0.6
    top_p: float = 0.9
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.samples < 1:
            raise ValueError(f"samples={self.samples} gives no path. Pass at least 1.")
        if not 0 <= self.T < float("inf"):
            raise ValueError(f"T={self.T} is not a temperature. Pass 0 (greedy) or a positive number.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is not a probability mass. Pass a number in (0, 1].")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k} is negative. Pass 0 (off) or a positive number.")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} is negative. Pass 0 or a positive number.")

    def with_overrides(
        self, samples: int, T: float | None, top_p: float | None, top_k: int | None, seed: int
    ) -> SampleConfig:
        """These settings with another number of paths, seed and, where not None, temperature and filters."""
        return SampleConfig(
            samples,
            self.T if T is None else T,
            self.top_p if top_p is None else top_p,
            self.top_k if top_k is None else top_k,
            seed,
        )


DEPENDENCY_HEADS = 4  # the dependency-aware layer has 4 heads in every released size


def config_from_dict(kind: type[_Config], values: dict[str, Any], where: str) -> _Config:
    """Build a config from a `config.json`, refusing missing and unknown keys by name.

    Raises:
        ValueError: a size is missing, or a key is unknown.
    """
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{where} has unknown keys {unknown}. Known ones are {sorted(known)}.")
    if missing := sorted({"d_model", "n_heads", "ff_dim", "s1_bits", "s2_bits"} - set(values)):
        raise ValueError(f"{where} lacks {missing}. Is it the config.json of a {kind.__name__}?")
    return kind(**values)


def read_json(path: Path) -> dict[str, Any]:
    """An object in a JSON file of a checkpoint.

    Raises:
        ValueError: it is not JSON, or not an object.
    """
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}). Download the checkpoint again.") from None
    if not isinstance(values, dict):
        raise ValueError(
            f"{path} contains a {type(values).__name__}, not an object. Download the checkpoint again."
        )
    return values


def card_trained_until(folder: Path) -> str | None:
    """Last date of the training data (ISO) in the front matter of a folder's model card; None without one."""
    card = folder / CARD
    if not card.is_file():
        return None
    for line in card.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "trained_until":
            return value.strip().strip("'\"")
    return None


def _check_heads(d_model: int, n_heads: int) -> None:
    if d_model % (2 * n_heads):
        raise ValueError(
            f"d_model={d_model} does not split into {n_heads} heads of even width. "
            f"Choose a multiple of {2 * n_heads}."
        )


def _check_bits(s1_bits: int, s2_bits: int) -> None:
    if min(s1_bits, s2_bits) < 1:
        raise ValueError(f"s1_bits={s1_bits}, s2_bits={s2_bits}: each needs at least 1.")
