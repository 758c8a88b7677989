"""From a name to a forecaster, e.g. "kronos-nano", "baseline:garch" or "chronos:amazon/chronos-2".

A name is `KIND:WHICH?SETTING=VALUE,SETTING=VALUE`; one without a kind is a Kronos checkpoint. Another package
adds a kind by an entry point in the group `kronos_strategies.forecasters`: a function
`load(name: ForecasterName, device: str | None) -> Forecaster`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kronos.utils import closest, did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from kronos.forecast import Anchor
    from kronos.inference.fused import Precision
    from kronos.inference.generate import ContextOverflow
    from kronos_strategies.forecasters.protocol import Forecaster

GROUP = "kronos_strategies.forecasters"
# Kinds of this package: module and function, imported when named.
KINDS = {
    "baseline": "kronos_strategies.forecasters.registry:load_baseline",
    "chronos": "kronos_strategies.forecasters.foundation:load",
    "tirex": "kronos_strategies.forecasters.foundation:load",
    "lightgbm-quantiles": "kronos_strategies.forecasters.lightgbm_quantiles:load",
}
# Baselines, models that are functions of the window alone: module, class and settings, imported when named.
BASELINES = {
    "random-walk": ("historical", "RandomWalk", "NoSettings"),
    "ewma": ("historical", "Ewma", "EwmaSettings"),
    "garch": ("garch", "Garch", "GarchSettings"),
    "har": ("historical", "Har", "HarSettings"),
    "bootstrap": ("historical", "Bootstrap", "BootstrapSettings"),
}
_NAME = re.compile(r"(?P<kind>[A-Za-z][\w.-]+):(?!//)(?P<which>[^?]*)(\?(?P<settings>.*))?")

_Settings = TypeVar("_Settings", bound="DataclassInstance")


@dataclass(frozen=True)
class ForecasterName:
    """The parts of a forecaster's name.

    Attributes:
        kind: kind of forecaster, e.g. "baseline".
        which: one of its kind, e.g. "garch", a folder or a hub id.
        settings: values by name, as text.
    """

    kind: str
    which: str
    settings: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        settings = ",".join(f"{name}={value}" for name, value in sorted(self.settings.items()))
        return f"{self.kind}:{self.which}" + (f"?{settings}" if settings else "")


def parse_name(name: str | Path) -> ForecasterName | None:
    """The parts of a name; None for a Kronos checkpoint.

    Raises:
        ValueError: a setting has no value, or is set twice.
    """
    found = _NAME.fullmatch(str(name))
    if found is None or (found["kind"] not in known_kinds() and Path(name).expanduser().exists()):
        return None
    settings: dict[str, str] = {}
    for part in filter(None, re.split("[,&]", found["settings"] or "")):
        key, _, value = (each.strip() for each in part.partition("="))
        if not key or not value or key in settings:
            example = f"{found['kind']}:{found['which']}?{key if key.isidentifier() else 'name'}=0.5"
            raise ValueError(
                f"'{name}' has the setting '{part}', which is not one setting=value. Write e.g. '{example}', "
                "with a decimal point, each setting once, and commas between settings."
            )
        settings[key] = value
    return ForecasterName(found["kind"], found["which"], settings)


def known_kinds() -> list[str]:
    """Kinds of forecasters with a name: those of this package and of installed ones."""
    return sorted({*KINDS, *(point.name for point in entry_points(group=GROUP))})


def load_forecaster(
    name: str | Path = "kronos-nano",
    tokenizer: str | Path | None = None,
    revision: str | None = None,
    device: str | None = None,
    *,
    max_context: int = 512,
    context_overflow: ContextOverflow = "recompute",
    precision: Precision = "float32",
    compile: bool = False,
    anchor: Anchor = "last_close",
) -> Forecaster:
    """Load a forecaster by its name.

    Args:
        name: bundled name, folder or hub id of a Kronos checkpoint, or `KIND:WHICH?SETTING=VALUE`.
        tokenizer, revision: as in `KronosPredictor.from_pretrained`; only for Kronos checkpoints.
        device: "cpu", "cuda" or "mps"; the fastest available when empty or None.
        max_context, context_overflow, precision, compile, anchor: as in `KronosPredictor`; other kinds have
            settings of their own and do not use them.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: no such kind or forecaster, or a setting is unknown or invalid.
        MissingExtra: the forecaster needs a package that is not installed.
    """
    parsed = parse_name(name)
    if parsed is not None:
        if unused := [key for key, value in (("tokenizer", tokenizer), ("revision", revision)) if value]:
            raise ValueError(
                f"{unused[0]} is a setting of Kronos checkpoints, and '{name}' is not one. Leave it out, or set it "
                f"in the name, such as '{parsed.kind}:{parsed.which}?{unused[0]}=...', where that kind has it."
            )
        return _find(parsed)(parsed, device or None)
    _check_forgotten_kind(str(name))
    from kronos.predictor import KronosPredictor  # imports torch

    return KronosPredictor.from_pretrained(
        name,
        tokenizer or None,
        revision or None,
        device or None,
        max_context,
        context_overflow=context_overflow,
        precision=precision,
        compile=compile,
        anchor=anchor,
    )


def load_baseline(name: ForecasterName, device: str | None = None) -> Forecaster:
    """The baseline of a name, e.g. `parse_name("baseline:ewma?decay=0.97")`.

    Raises:
        ValueError: no such baseline, or a setting is unknown or invalid.
        MissingExtra: GARCH is named and arch is not installed.
    """
    if name.which not in BASELINES:
        raise ValueError(f"'{name}' is not a baseline. {suggestion(name.which, BASELINES)}")
    place, kind, settings = BASELINES[name.which]
    module = import_module(f"kronos_strategies.forecasters.{place}")
    return getattr(module, kind)(read_settings(getattr(module, settings)(), name), device)


def read_settings(defaults: _Settings, name: ForecasterName) -> _Settings:
    """A frozen dataclass of settings with the values that a name sets, converted to the types of the defaults.

    Raises:
        ValueError: an unknown setting, or a value of another type.
    """
    known = {each.name: getattr(defaults, each.name) for each in fields(defaults)}
    values: dict[str, Any] = {}
    for key, text in name.settings.items():
        if key not in known:
            rest = suggestion(key, known) if known else "It has none."
            raise ValueError(f"'{name.kind}:{name.which}' has no setting '{key}'. {rest}")
        values[key] = _converted(known[key], key, text, name)
    return replace(defaults, **values)


def suggestion(word: str, known: Iterable[str]) -> str:
    """A sentence with the closest of the known words, or with all of them."""
    known = list(known)
    return did_you_mean(word, known) or f"Choose one of {known}."


def _converted(default: object, key: str, text: str, name: ForecasterName) -> Any:
    kind: Callable[[str], Any] = type(default)
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(
            f"'{name}' sets {key}={text}, which is not {what}. Write e.g. {key}={default}."
        ) from None


def _find(name: ForecasterName) -> Callable[[ForecasterName, str | None], Forecaster]:
    """The function that loads forecasters of a kind; those of this package come first."""
    if name.kind in KINDS:
        module, _, function = KINDS[name.kind].partition(":")
        return getattr(import_module(module), function)
    points: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=GROUP)}
    if name.kind not in points:
        raise ValueError(
            f"'{name}' names a forecaster of the kind '{name.kind}', which does not exist. "
            f"{suggestion(name.kind, known_kinds())} A name without a colon is a Kronos checkpoint."
        )
    return points[name.kind].load()


def _check_forgotten_kind(name: str) -> None:
    """Refuse what is nearly the name of a baseline, or a kind alone; both would be looked for on the hub."""
    which, question, settings = name.partition("?")
    if "/" in which or Path(name).expanduser().exists():  # a hub id or a path
        return
    if which in known_kinds():
        example = "baseline:ewma" if which == "baseline" else f"{which}:FOLDER"
        raise ValueError(f"'{name}' is a kind of forecasters. Name one of them, such as '{example}'.")
    if near := closest(which.replace("_", "-"), BASELINES):
        raise ValueError(
            f"'{name}' is not a Kronos checkpoint. Did you mean 'baseline:{near}{question}{settings}'?"
        )
