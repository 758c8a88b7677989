"""The store that is used when no data are given: the simulated market, made once and kept in the user's cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from kronos_strategies.data.qlib_store import MANIFEST, StoreSummary, read_summary, write_store
from kronos_strategies.data.simulate import SIMULATION_VERSION, MarketConfig, simulate_market
from kronos_strategies.data.tidy import LISTING

log = logging.getLogger(__name__)


def default_store() -> Path:
    """Where the default store lies: in $XDG_CACHE_HOME or ~/.cache, under the version of the simulation."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "kronos-strategies" / f"simulated-v{SIMULATION_VERSION}"


def ensure_store(path: Path) -> Path:
    """Return `path`, after simulating a market there if it holds no store yet.

    Two processes may call this at once: each builds aside, one comes first, both use its store.
    """
    if not (path / MANIFEST).is_file():
        log.info("Simulating a market in %s ...", path)
        try:
            write_simulated(path, MarketConfig(), "csi300")
        except FileExistsError:
            if not (path / MANIFEST).is_file():
                raise
    return path


def store_notices(path: Path) -> list[str]:
    """What whoever reads figures from the store at `path` must know, as far as its manifest tells."""
    if not (path / MANIFEST).is_file():
        return []
    source = read_summary(path).source
    if source.get("kind") == "simulation":
        return [
            f"The market in {path} is SIMULATED: figures from it say nothing about a real one. For real bars: "
            "`kronos data import FILE... --to DIR`, then KRONOS_QLIB_DATA=DIR."
        ]
    if source.get("membership") == LISTING:
        return [
            "Members are taken from their first to their last bar: if the names were chosen with hindsight, the "
            "figures favour survivors (`kronos data import --membership FILE` gives dated membership)."
        ]
    return []


def write_simulated(
    to: Path,
    config: MarketConfig,
    market: str,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> StoreSummary:
    """Simulate a market and write it as a Qlib store, its index members as `market`."""
    simulated = simulate_market(config)
    return write_store(
        simulated.bars,
        to,
        membership={market: simulated.membership},
        benchmarks=simulated.benchmark,
        source={"kind": "simulation", "version": SIMULATION_VERSION, "config": asdict(config)},
        overwrite=overwrite,
        progress=progress,
    )
