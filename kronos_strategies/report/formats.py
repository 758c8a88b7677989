"""Numbers and lists as a reader sees them. What is not a number is a dash."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DASH = "–"


def decimals(value: float, places: int = 3) -> str:
    """A fixed number of decimals, with a true minus sign and no minus zero."""
    if not np.isfinite(value):
        return DASH
    return f"{round(float(value), places) + 0.0:,.{places}f}".replace("-", "−")


def percent(value: float, places: int = 1) -> str:
    """A share, as percent."""
    return f"{decimals(100 * value, places)}%" if np.isfinite(value) else DASH


def count(value: float) -> str:
    """A whole number, its thousands apart."""
    return decimals(value, 0)


def general(value: float) -> str:
    """Four significant digits of anything; whole numbers in full."""
    if not np.isfinite(value):
        return DASH
    if float(value).is_integer():
        return count(value)
    return f"{float(value):,.4g}".replace("-", "−")


def listing(words: Sequence[str]) -> str:
    """Words in a row: a, b and c."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
