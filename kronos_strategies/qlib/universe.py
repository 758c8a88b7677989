"""Sets of instruments as Qlib's users give them: a market's name, a list, a dict, with filters or without."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qlib.data import D

from kronos_strategies.data.qlib_bins import bin_folder

Instruments = str | Sequence[str] | Mapping[str, Any]
Config = list[str] | dict[str, Any]  # as Qlib's D.features takes them


def instruments_of(instruments: Instruments, filter_pipe: Sequence[object] | None = None) -> Config:
    """What Qlib reads features of.

    Args:
        instruments: the name of a market, symbols, or a dict of a market and its filters, as `D.instruments` has
            it, or of symbols and their spans.
        filter_pipe: Qlib's filters or their configurations, of a market by name.

    Raises:
        ValueError: no symbol, or filters without a market.
    """
    if isinstance(instruments, str):
        return dict(D.instruments(instruments, list(filter_pipe or ())))
    if filter_pipe:
        raise ValueError("filter_pipe narrows a market given by its name. Leave it out, or name a market.")
    if isinstance(instruments, Mapping):
        return dict(D.instruments(**instruments)) if "market" in instruments else dict(instruments)
    symbols = [str(each) for each in instruments]
    if not symbols:
        raise ValueError("The list of instruments is empty. Name at least one, or a market.")
    return symbols


def universe_name(config: Config) -> str:
    """A short name: that of the market, and a hash where filters or a list decide who belongs to it."""
    if isinstance(config, dict) and "market" in config and not config.get("filter_pipe"):
        return str(config["market"])
    base = str(config["market"]) if isinstance(config, dict) and "market" in config else "list"
    text = json.dumps(sorted(config) if isinstance(config, list) else config, sort_keys=True, default=str)
    return f"{base}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def check_instruments(config: Config, store: Path) -> None:
    """Demand that a store has the market or the instruments.

    Raises:
        ValueError: names those that it has, or lacks.
    """
    if isinstance(config, dict) and "market" in config:
        market, known = config["market"], sorted(path.stem for path in (store / "instruments").glob("*.txt"))
        if market not in known:
            raise ValueError(f"The store {store} has no market '{market}'. It has {known}.")
        return
    if absent := [symbol for symbol in config if not bin_folder(store, symbol).is_dir()]:
        raise ValueError(
            f"The store {store} lacks bars of {len(absent)} of {len(config)} instruments, the first '{absent[0]}'. "
            "Write them as the store does, e.g. SH600000."
        )
