"""Baselines by name: models that are functions of the window alone, without training."""

from __future__ import annotations

from collections.abc import Callable

from kronos_strategies.forecasters.garch import Garch, GarchSettings
from kronos_strategies.forecasters.historical import (
    Baseline,
    Bootstrap,
    BootstrapSettings,
    Ewma,
    EwmaSettings,
    Har,
    HarSettings,
    NoSettings,
    RandomWalk,
)
from kronos_strategies.forecasters.registry import ForecasterName, read_settings, suggestion

BASELINES: dict[str, tuple[Callable[..., Baseline], type]] = {
    "random-walk": (RandomWalk, NoSettings),
    "ewma": (Ewma, EwmaSettings),
    "garch": (Garch, GarchSettings),
    "har": (Har, HarSettings),
    "bootstrap": (Bootstrap, BootstrapSettings),
}


def load(name: ForecasterName, device: str | None = None) -> Baseline:
    """The baseline of a name, e.g. `parse_name("baseline:ewma?decay=0.97")`.

    Raises:
        ValueError: no such baseline, or a setting is unknown or invalid.
        MissingExtra: GARCH is named and arch is not installed.
    """
    if name.which not in BASELINES:
        raise ValueError(f"'{name}' is not a baseline. {suggestion(name.which, BASELINES)}")
    kind, settings = BASELINES[name.which]
    return kind(read_settings(settings(), name), device)
