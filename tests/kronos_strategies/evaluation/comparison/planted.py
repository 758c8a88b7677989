"""Panels whose answer is known."""

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from kronos_strategies.evaluation.comparison.version import Version


def rows(dates: int = 120, names: int = 30, start: str = "2022-06-01") -> pd.MultiIndex:
    """(datetime, instrument), complete."""
    days = pd.bdate_range(start, periods=dates, name="datetime")
    return pd.MultiIndex.from_product(
        [days, pd.Index([f"N{i:03d}" for i in range(names)], name="instrument")]
    )


def drawn(index: pd.MultiIndex, seed: int) -> pd.Series:
    """Standard normal."""
    return pd.Series(np.random.default_rng(seed).standard_normal(len(index)), index)


def version(name: str, label: pd.Series, skill: float, seed: int) -> Version:
    """A version with correlation `skill` with the label, independent of the others."""
    noise = drawn(label.index, seed)
    return Version(name, skill * label / label.std() + np.sqrt(1 - skill**2) * noise)


def random_coefficients(
    skill: float, noises: tuple[float, float], runs: int, dates: int = 500, names: int = 100
) -> np.ndarray:
    """(2, runs, dates) ICs of two persistent versions against the returns of the next 10 days.

    Both see one score that moves each next day's return by `skill`, under persistent noise of their own: with
    `noises` (n, n) the first has n of it and so has the second; with (n, m) and m > n the second has the first's
    and more.
    """
    rng = np.random.default_rng(0)

    def persistent() -> np.ndarray:
        shocks = rng.standard_normal((runs, dates + 150, names), np.float32)
        return (lfilter([1], [1, -0.97], shocks, axis=1)[:, 150:] * np.sqrt(1 - 0.97**2)).astype(np.float32)

    true = persistent()
    returns = rng.standard_normal((runs, dates + 10, names), np.float32)
    returns[:, 1 : dates + 1] += skill * true
    total = np.cumsum(returns, axis=1)
    label = total[:, 10:] - total[:, :dates]
    first = true + noises[0] * persistent()
    if noises[0] == noises[1]:
        second = true + noises[1] * persistent()
    else:
        second = first + np.sqrt(noises[1] ** 2 - noises[0] ** 2) * persistent()
    return np.array([_correlations(score, label) for score in (first, second)])


def _correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = (v - v.mean(axis=-1, keepdims=True) for v in (x, y))
    return (x * y).sum(axis=-1) / np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
