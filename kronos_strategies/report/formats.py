"""Numbers and lists as a reader sees them. What is not a number is a dash."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

DASH = "–"
Show = Callable[[float], str]


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


def two(value: float) -> str:
    """Two decimals."""
    return decimals(value, 2)


def four(value: float) -> str:
    """Four decimals."""
    return decimals(value, 4)


def fine(value: float) -> str:
    """Five decimals, for losses."""
    return decimals(value, 5)


def percent_two(value: float) -> str:
    """A share as percent, with two decimals."""
    return percent(value, 2)


def signed(value: float) -> str:
    """Four decimals and the sign, also of what is positive."""
    return _with_sign(value, four)


def fine_signed(value: float) -> str:
    """Five decimals and the sign."""
    return _with_sign(value, fine)


def signed_percent(value: float) -> str:
    """A share as percent, with two decimals and the sign."""
    return _with_sign(value, percent_two)


def _with_sign(value: float, show: Show) -> str:
    return f"+{show(value)}" if value > 0 and np.isfinite(value) else show(value)


def probability(value: float) -> str:
    """Of a test; a small one is never written as zero."""
    return "< 0.001" if value < 0.001 else decimals(value)


def interval(low: float, high: float, show: Show) -> str:
    """Both ends, or a dash where one of them is undefined."""
    return f"{show(low)} to {show(high)}" if np.isfinite(low) and np.isfinite(high) else DASH


def bars(number: object) -> str:
    """So many bars."""
    return f"{number} bar{'' if number == 1 else 's'}"


def is_timed(dates: pd.Index | pd.Series) -> bool:
    """Whether one of these is a time of day, as of bars within the day."""
    index = pd.DatetimeIndex(dates).dropna()
    return bool((index != index.normalize()).any())


def moment(date: pd.Timestamp, timed: bool) -> str:
    """A date, with the time of day where bars have one."""
    return f"{date:%Y-%m-%d %H:%M}" if timed else f"{date:%Y-%m-%d}"


def span(dates: pd.DatetimeIndex) -> str:
    """From the first to the last of ascending dates."""
    timed = is_timed(dates)
    return f"{moment(dates[0], timed)} to {moment(dates[-1], timed)}"
