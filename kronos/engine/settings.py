"""Settings of a predictor: each is checked where it is set, by the constructor or later."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np

from kronos.checks import as_choice, as_integer, as_number
from kronos.config import SampleConfig
from kronos.engine.device import find_device
from kronos.engine.fused import Precision
from kronos.engine.generate import Window
from kronos.forecast import Anchor
from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer
from kronos.windows import MIN_BARS


def _max_context(value: Any) -> int:
    bars = as_integer("max_context", value)
    if bars < MIN_BARS:
        raise ValueError(f"max_context={bars} leaves no window. Pass at least {MIN_BARS}.")
    return bars


def _clip(value: Any) -> float:
    clip = as_number("clip", value)
    if not clip > 0:
        raise ValueError(f"clip={clip} leaves no bar as it is. Pass a positive number, e.g. 5.")
    return clip


def _memory(value: Any) -> int | None:
    if value is None:
        return None
    size = as_integer("memory", value)
    if size < 1:
        raise ValueError(f"memory={size} bytes hold no window. Pass more, or None.")
    return size


def _compile(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"compile={value!r} is neither True nor False. Pass one of them.")
    return bool(value)


def _instance(name: str, kind: type, example: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"{name} is a {type(value).__name__}, not a {kind.__name__}. Pass {example}.")
        return value

    return check


CHECKS: dict[str, Callable[[Any], Any]] = {
    "model": _instance("model", Kronos, "one, e.g. Kronos.from_pretrained('kronos-nano')"),
    "tokenizer": _instance("tokenizer", KronosTokenizer, "the one that the model was trained with"),
    "device": find_device,
    "max_context": _max_context,
    "clip": _clip,
    "window": partial(as_choice, "window", choices=get_args(Window)),
    "precision": partial(as_choice, "precision", choices=get_args(Precision)),
    "anchor": partial(as_choice, "anchor", choices=get_args(Anchor)),
    "compile": _compile,
    "memory": _memory,
    "sampling": _instance("sampling", SampleConfig, "one, e.g. SampleConfig(samples=10, T=0.6)"),
}
"""By name of the setting: its value as the predictor keeps it, or an error that says what to pass."""
