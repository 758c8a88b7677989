"""The YAML file of a sweep -> its trials: a grid of settings, or random ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import yaml

from kronos.config import as_integer
from kronos.utils import did_you_mean, load_yaml
from kronos_strategies.backtest.inputs import BacktestSettings
from kronos_strategies.backtest.parameters import Choices, Parameter, Range, check_choice, parse_parameter
from kronos_strategies.backtest.trading import TradingRules
from kronos_strategies.path_signals import PathSignalSettings
from kronos_strategies.portfolio import PortfolioRules, rules_of, with_fields

Search = Literal["grid", "random"]
DEFAULTS: dict[str, PortfolioRules | TradingRules | PathSignalSettings] = {  # by section, a mapping of fields
    "rules": PortfolioRules(),
    "trading": TradingRules(),
    "levels": PathSignalSettings(),
}
COUNTS = ("hold", "every")  # bars
MAX_TRIALS = 20_000
ATTEMPTS = 100  # draws per random setting until a new one is found


@dataclass(frozen=True)
class Trial:
    """One setting of a sweep.

    Attributes:
        parameters: values of the parameters that the sweep varies, by name: "topk", "every", "trading.price".
        settings: all settings of its backtest.
    """

    parameters: Mapping[str, object]
    settings: BacktestSettings


@dataclass(frozen=True)
class SweepConfig:
    """Contents of the YAML file of a sweep.

    Attributes:
        store: folder or URL of a forecast store, as for `kronos backtest`.
        data: Qlib data directory, file or folder of bars.
        output: folder of results.
        search: "grid" for all combinations, "random" for `settings` random ones.
        settings: number of random settings.
        seed: seed of a random search.
        start: first date to trade on; the first forecast when None.
        end: last date; the last forecast when None.
        score: "auto", "head" or "paths", as for `kronos backtest`.
        head: name of the return head, if the store has several.
        calibration: "auto", "none" or a file of `kronos calibrate`.
        benchmark: instrument of the data to compare with.
        industry: CSV with columns instrument and industry.
        hold: bars that the score spans: a number, or several to search.
        every: bars between rebalances, likewise; as many as `hold` when None.
        rules: fields of `PortfolioRules`, a value or several to search.
        trading: fields of `TradingRules`, likewise; those of the region of the data when omitted.
        levels: fields of `PathSignalSettings`, likewise.
        heat_map: two parameters of the heat map; those with most values when empty.

    Raises:
        ValueError: a field is unknown, or a value does not fit.
    """

    store: str = ""
    data: Path | None = None
    output: Path = Path("sweep")
    search: Search = "grid"
    settings: int = 0
    seed: int = 0
    start: pd.Timestamp | None = None
    end: pd.Timestamp | None = None
    score: Literal["auto", "head", "paths"] = "auto"
    head: str | None = None
    calibration: str = "auto"
    benchmark: str | None = None
    industry: Path | None = None
    hold: Any = 5
    every: Any = None
    rules: Mapping[str, Any] = field(default_factory=dict)
    trading: Mapping[str, Any] = field(default_factory=dict)
    levels: Mapping[str, Any] = field(default_factory=dict)
    heat_map: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("search", self.search, get_args(Search))
        check_choice("score", self.score, ("auto", "head", "paths"))
        for name in ("settings", "seed"):
            if as_integer(name, getattr(self, name)) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is negative. Pass 0 or more.")
        if (self.search == "random") != (self.settings > 0):
            raise ValueError(
                "A random search needs the number of its settings, and a grid has as many as its lists give. Write "
                "`search: random` and `settings: 100`, or neither."
            )
        for section in DEFAULTS:
            if not isinstance(getattr(self, section), Mapping):
                raise ValueError(
                    f"{section} is not a mapping of fields. Write lines like `topk: [20, 50]` below it."
                )
        searched = list(self.parameters)
        if self.search == "grid" and any(isinstance(each, Range) for each in self.parameters.values()):
            raise ValueError("A range of values needs a random search. Write a list, or `search: random`.")
        if self.heat_map and (len(self.heat_map) != 2 or set(self.heat_map) - set(searched)):
            raise ValueError(
                f"heat_map={list(self.heat_map)} does not name two parameters that are searched. Choose two of "
                f"{searched}."
            )

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Parameters that vary, by name."""
        return {name: each for name, each in self._values() if isinstance(each, Choices | Range)}

    def trials(self, trading: TradingRules) -> list[Trial]:
        """All settings of the sweep; a random search gives the same ones for the same seed.

        Args:
            trading: execution and costs where the file sets none.

        Raises:
            ValueError: a field is unknown, a value is out of range, or there are too many settings.
        """
        fixed = {name: each for name, each in self._values() if not isinstance(each, Choices | Range)}
        return [
            Trial(chosen, _build({**fixed, **chosen}, trading))
            for chosen in self._combinations(self.parameters)
        ]

    def _values(self) -> Iterator[tuple[str, Any]]:
        for name in COUNTS:
            if (value := getattr(self, name)) is not None:
                yield name, parse_parameter(name, value, whole=True)
        for section, base in DEFAULTS.items():
            for name, value in getattr(self, section).items():
                with_fields(base, {str(name): getattr(base, str(name), None)})  # refuses unknown names
                whole = isinstance(getattr(base, name), int)
                label = str(name) if section == "rules" else f"{section}.{name}"
                yield label, parse_parameter(label, value, whole)

    def _combinations(self, parameters: Mapping[str, Parameter]) -> list[dict[str, object]]:
        if self.search == "random":
            return _draw(parameters, self.settings, self.seed)
        lists = [each.values for each in parameters.values() if isinstance(each, Choices)]
        if (count := math.prod(map(len, lists))) > MAX_TRIALS:
            raise ValueError(
                f"The grid has {count:,} settings, more than {MAX_TRIALS:,}. Shorten its lists, or write `search: "
                "random` and `settings: 200`."
            )
        return [dict(zip(parameters, values, strict=True)) for values in product(*lists)]


def read_config(file: Path) -> SweepConfig:
    """Read the YAML file of a sweep.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, a field is unknown, or a value does not fit; names the file.
    """
    file = file.expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not a file. Write one with `kronos init configs`: configs/sweep.yaml."
        )
    try:
        values = load_yaml(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError for impossible dates and characters
        raise ValueError(f"{file} is not YAML ({' '.join(str(error).split())}). Fix it.") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file} is not a mapping of settings. Write lines like `store: ~/forecasts`.")
    try:
        config = SweepConfig(**_typed(values))
        config.trials(TradingRules())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from None
    return config


def _typed(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Values of the fields of `SweepConfig` in their types; empty ones are left out."""
    known = [each.name for each in fields(SweepConfig)]
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"'{name}' is not a setting of a sweep. {_hint(str(name), known)}")
        if value is not None:
            found[name] = _KINDS[name](value) if name in _KINDS else value
    return found


def _hint(name: str, known: list[str]) -> str:
    for section, base in DEFAULTS.items():
        if name in (each.name for each in fields(base)):
            return f"Write it below `{section}:`."
    return did_you_mean(name, known) or f"Choose among {known}."


def _path(value: object) -> Path:
    return Path(str(value)).expanduser()


def _date(value: object) -> pd.Timestamp:
    try:
        return pd.Timestamp(str(value))
    except ValueError:
        raise ValueError(f"'{value}' is not a date. Write it like 2022-01-04.") from None


def _names(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),)


_KINDS: dict[str, Callable[[object], object]] = {
    "store": str, "data": _path, "output": _path, "industry": _path, "start": _date, "end": _date,
    "heat_map": _names, "head": str, "calibration": str, "benchmark": str,
}  # fmt: skip


def _draw(parameters: Mapping[str, Parameter], count: int, seed: int) -> list[dict[str, object]]:
    """Different random values of the parameters."""
    rng = np.random.default_rng(seed)
    found: dict[tuple[object, ...], dict[str, object]] = {}
    for _ in range(min(count, MAX_TRIALS) * ATTEMPTS):
        values = {name: each.draw(rng) for name, each in parameters.items()}
        found.setdefault(tuple(values.values()), values)
        if len(found) == count:
            return list(found.values())
    if count > MAX_TRIALS:
        raise ValueError(f"settings={count} is more than {MAX_TRIALS:,}. Lower it.")
    raise ValueError(
        f"The lists and ranges have only some {len(found):,} different settings, and {count:,} are to be drawn. "
        "Lower `settings`, or search a grid."
    )


def _build(values: Mapping[str, Any], trading: TradingRules) -> BacktestSettings:
    """Settings from the values of all parameters by name."""
    parts: dict[str, dict[str, Any]] = {section: {} for section in DEFAULTS}
    for label, value in values.items():
        section, _, name = label.rpartition(".")
        if label not in COUNTS:
            parts[section or "rules"][name] = value
    hold = as_integer("hold", values.get("hold", 5))
    every = as_integer("every", values.get("every", hold))
    for name, bars in (("hold", hold), ("every", every)):
        if bars < 1:
            raise ValueError(f"{name}={bars} is out of range. Pass at least 1 bar.")
    return BacktestSettings(
        rules_of(parts["rules"]),
        with_fields(trading, parts["trading"]),
        hold,
        every,
        with_fields(PathSignalSettings(), parts["levels"]),
    )
