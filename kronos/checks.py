"""Numbers that callers pass: integers and real numbers of any kind, numpy's too; booleans and text are neither.

Knows no torch.
"""

from __future__ import annotations

from dataclasses import fields
from numbers import Integral, Real
from typing import Any


def as_integer(name: str, value: object) -> int:
    """A count, as Python's own int, so that it can be written as JSON and hashed alike wherever it came from.

    Raises:
        ValueError: it is not an integer (2.5, 2.0, True, "2", None).
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name}={value!r} is not a whole number. Pass an int.")
    return int(value)


def as_number(name: str, value: object) -> int | float:
    """A real number, as Python's own int or float; NaN and infinity are for the caller to judge.

    Raises:
        ValueError: it is not a number (True, "0.9", None).
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name}={value!r} is not a number. Pass a float.")
    return int(value) if isinstance(value, Integral) else float(value)


def as_choice(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    """One of several words.

    Raises:
        ValueError: it is another one; names all.
    """
    if value not in choices:
        raise ValueError(f"{name}='{value}' is none of {list(choices)}.")
    return value


def check_numbers(config: Any) -> None:
    """Make every field that a frozen dataclass declares as int or float one, or refuse it by name.

    Annotations are read as they are written, so the dataclass needs `from __future__ import annotations`.

    Raises:
        ValueError: a field is something else; names it.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        kind, _, optional = str(field.type).partition(" | ")
        if kind not in ("int", "float") or (value is None and optional == "None"):
            continue
        check = as_integer if kind == "int" else as_number
        object.__setattr__(config, field.name, check(field.name, value))
