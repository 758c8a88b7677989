"""Groups of windows that are calibrated apart: by exchange, and by trailing volatility. Knows no torch."""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np
import pandas as pd

POOL = ""  # the group of all windows
_EXCHANGE = re.compile(r"^([A-Z]{2})\d{4,}$|^\d{4,}\.([A-Z]{2})$")  # SH600000 or 600000.SH


def group_names(
    keys: pd.MultiIndex, trailing: np.ndarray, terciles: tuple[float, ...], known: Collection[str]
) -> np.ndarray:
    """(N,) names of the windows' groups, such as "SH", "SH high volatility"; POOL of no known one.

    Args:
        keys: (datetime, instrument).
        trailing: (N,) volatility per bar.
        terciles: the two volatilities between which groups of volatility lie; empty without such groups.
        known: groups that there are.
    """
    codes, unique = pd.factorize(keys.get_level_values("instrument").astype(str))
    exchanges = np.array([exchange_of(name) for name in unique], dtype=object)[codes]
    sizes = volatility_names(trailing, terciles)
    found = np.full(len(keys), POOL, dtype=object)
    for candidate in (sizes, exchanges, _joined(exchanges, sizes)):  # the narrowest that there is comes last
        found = np.where(np.isin(candidate.astype(str), list(known)), candidate, found)
    return found.astype(str)


def exchange_of(instrument: str) -> str:
    """SH of SH600000 and of 600000.SH; empty where a name tells no exchange."""
    found = _EXCHANGE.search(instrument)
    return (found[1] or found[2]) if found else ""


def volatility_names(trailing: np.ndarray, terciles: tuple[float, ...]) -> np.ndarray:
    """(N,) "low volatility", "middle volatility" or "high volatility"; empty without terciles, or where unknown."""
    if not terciles:
        return np.full(len(trailing), "", dtype=object)
    names = np.array(["low volatility", "middle volatility", "high volatility"], dtype=object)
    found = names[np.searchsorted(terciles, np.nan_to_num(trailing))]
    return np.where(np.isfinite(trailing), found, "")


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.array([f"{a} {b}".strip() for a, b in zip(first, second, strict=True)], dtype=object)
