"""Trading rules by region, as in Qlib, and the region that fits a store."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kronos_strategies.data.qlib_bins import read_market
from kronos_strategies.data.qlib_store import MANIFEST, read_summary


@dataclass(frozen=True)
class Region:
    """Trading rules of a region that a backtest sets.

    Attributes:
        name: Qlib's name, which sets the lot size: 100 shares in cn, 1,000 in tw, single ones in us.
        limit: daily price limit as a return; None for no limit.
        open_cost: cost of a purchase, as a fraction of its value.
        close_cost: cost of a sale, as a fraction of its value.
        min_cost: minimum cost of a trade, in currency.
        config: workflow file in `configs/`.
    """

    name: str
    limit: float | None
    open_cost: float
    close_cost: float
    min_cost: float
    config: str

    def __str__(self) -> str:
        """Description in words."""
        lots = {"cn": "lots of 100", "tw": "lots of 1,000", "us": "single shares"}[self.name]
        limit = "no price limit" if self.limit is None else f"a price limit of {self.limit:.1%}"
        return (
            f"{self.name}: {lots}, {limit}, costs of {self.open_cost:.2%} and {self.close_cost:.2%}, at least "
            f"{self.min_cost:g}"
        )


REGIONS = {
    "cn": Region("cn", 0.095, 0.0005, 0.0015, 5, "kronos_csi300.yaml"),
    "us": Region("us", None, 0.0005, 0.0005, 0, "kronos_us.yaml"),
    "tw": Region("tw", 0.095, 0.001425, 0.004425, 20, "kronos_csi300.yaml"),
}
_PATTERNS = {
    "cn": re.compile(r"(SH|SZ|BJ)?\.?\d{6}(\.(SH|SZ|BJ|SS|XSHG|XSHE))?", re.IGNORECASE),
    "tw": re.compile(r"\d{4}\.TWO?", re.IGNORECASE),
}
_CRYPTO = re.compile(r"[A-Z0-9]{2,}[-/_]?(USDT|USDC|BUSD|TUSD|FDUSD)", re.IGNORECASE)


def guess_region(symbols: Iterable[str]) -> Region:
    """The region whose symbol format most instruments follow; us, which has the fewest rules, otherwise."""
    names = list(symbols)
    for region, pattern in _PATTERNS.items():
        if 2 * sum(bool(pattern.fullmatch(name)) for name in names) > len(names):
            return REGIONS[region]
    return REGIONS["us"]


def default_market(region: Region, symbols: Iterable[str]) -> str:
    """Default name of a market: csi300, tw, us, or crypto."""
    names = list(symbols)
    if region.name == "cn":
        return "csi300"
    return "crypto" if 2 * sum(bool(_CRYPTO.fullmatch(name)) for name in names) > len(names) else region.name


def region_of_store(store: Path) -> Region:
    """The recorded region of the import, else the one inferred from the symbols."""
    if (store / MANIFEST).is_file():
        known = read_summary(store).source.get("region")
        if known in REGIONS:
            return REGIONS[str(known)]
    return guess_region(read_market(store)["instrument"].unique())
