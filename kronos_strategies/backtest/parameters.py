"""Parameters of a sweep: lists of values, or ranges for a random search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

RANGE = ("min", "max", "scale")


@dataclass(frozen=True)
class Choices:
    """Values of a parameter, each as likely as the others in a random search."""

    values: tuple[object, ...]

    def draw(self, rng: np.random.Generator) -> object:
        """One of them."""
        return self.values[int(rng.integers(len(self.values)))]


@dataclass(frozen=True)
class Range:
    """Values of a parameter from `low` to `high` for a random search, both included.

    Attributes:
        low: smallest value.
        high: largest value.
        log: whether the logarithm is uniform, in place of the value.
        whole: whether values are whole numbers.
    """

    low: float
    high: float
    log: bool
    whole: bool

    def draw(self, rng: np.random.Generator) -> object:
        """A value, with four significant digits."""
        # Whole numbers at both ends are as likely as those between them.
        low, high = (
            (self.low - 0.5, self.high + 0.5) if self.whole and not self.log else (self.low, self.high)
        )
        if self.log:
            low, high = math.log(low), math.log(high)
        value = float(rng.uniform(low, high))
        value = math.exp(value) if self.log else value
        rounded = round(value) if self.whole else float(f"{value:.4g}")
        return type(rounded)(min(max(rounded, self.low), self.high))


Parameter = Choices | Range


def parse_parameter(name: str, value: object, whole: bool) -> object:
    """A list of values as choices, a mapping as a range, anything else as it is.

    Args:
        name: name of the parameter in messages.
        value: number or text, a list of these, or a mapping with min, max and scale.
        whole: whether values of a range are whole numbers.

    Raises:
        ValueError: the value is of another kind, a list is empty or has a value twice, or a range is none.
    """
    if isinstance(value, Mapping):
        return _range(name, value, whole)
    if not isinstance(value, list):
        return _plain(name, value)
    if not value:
        raise ValueError(f"{name} has an empty list. Write its values, e.g. [20, 50].")
    values = tuple(_plain(name, each) for each in value)
    if twice := [each for place, each in enumerate(values) if each in values[:place]]:
        raise ValueError(f"{name} lists {twice[0]} twice. Write it once.")
    return Choices(values) if len(values) > 1 else values[0]


def _range(name: str, value: Mapping[Any, Any], whole: bool) -> Range:
    if unknown := [each for each in value if each not in RANGE]:
        raise ValueError(
            f"The range of {name} has no '{unknown[0]}'. Write {{min: 0.02, max: 0.3, scale: log}}."
        )
    low, high, scale = (
        _plain(name, value.get("min")),
        _plain(name, value.get("max")),
        value.get("scale", "linear"),
    )
    if not isinstance(low, int | float) or not isinstance(high, int | float) or not low < high:
        raise ValueError(
            f"The range of {name} needs two numbers, min below max. Write {{min: 0.02, max: 0.3}}."
        )
    check_choice(f"The scale of {name}", str(scale), ("linear", "log"))
    if scale == "log" and low <= 0:
        raise ValueError(
            f"The range of {name} starts at {low}, and a logarithm needs more than 0. Raise min."
        )
    if whole and not (float(low).is_integer() and float(high).is_integer()):
        raise ValueError(f"{name} is a whole number, and its range is {low} to {high}. Write whole numbers.")
    return Range(low, high, scale == "log", whole)


def _plain(name: str, value: object) -> object:
    """A number or text; text that is a number in Python but not in YAML, such as 1e-3, as that number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{name} has the value {value!r}. Write a number or a word, or a list of these.")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a word that is not among the known ones.

    Raises:
        ValueError: it is not.
    """
    if value not in known:
        raise ValueError(f"{name}='{value}' is unknown. Choose one of {', '.join(known)}.")
