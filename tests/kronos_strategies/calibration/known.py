"""Past forecasts whose miscalibration is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from kronos.config import SampleConfig
from kronos.forecast import Provenance
from kronos_strategies.calibration import PastForecasts

H, S = 3, 40
PROVENANCE = Provenance(
    "known",
    None,
    "c" * 64,
    None,
    SampleConfig(S, 1.0, 1.0),
    "none",
    512,
    5,
    "recompute",
    "float32",
    "last_close",
    "",
)


def known_past(
    location: float = 0.4,
    spread: float = 0.4,
    trailing: float = 0.0,
    dates: int = 120,
    names: int = 40,
    seed: int = 0,
    prefix: str = "SH6",
) -> PastForecasts:
    """Gaussian outcomes, and paths that are moved to them by this location, spread and weight of volatility.

    Paths are the quantiles of a normal distribution, in random order, so that they are as even as paths can be.
    """
    random = np.random.default_rng(seed)
    n = dates * names
    days = pd.bdate_range("2020-01-01", periods=dates + H + 1)
    instruments = [f"{prefix}{i:05d}" for i in range(names)]
    keys = pd.MultiIndex.from_product([days[:dates], instruments], names=["datetime", "instrument"])
    steps = np.sqrt(np.arange(1, H + 1))
    sampled, seen = (0.02 * np.exp(0.4 * random.standard_normal(n)) for _ in range(2))
    mean = 0.02 * random.standard_normal(n)[:, None] * steps  # (N, H)
    even = stats.norm.ppf((np.arange(S) + 0.5) / S)
    even = random.permuted(np.tile(even / even.std(), (n, 1)), axis=1)[:, :, None]
    returns = mean[:, None] + even * (sampled[:, None] * steps)[:, None]
    true = np.exp(spread) * sampled ** (1 - trailing) * seen**trailing
    walk = random.standard_normal((n, H)).cumsum(axis=1)
    realized = location * mean + true[:, None] * walk
    at = np.repeat(np.arange(dates), names)[:, None] + np.arange(1, H + 1)
    known = days.to_numpy("datetime64[ns]")[at]
    return PastForecasts(returns.astype(np.float32), realized, known, seen, keys, 1, 86400.0, PROVENANCE)


def joined(*parts: PastForecasts) -> PastForecasts:
    """Past forecasts joined in order of dates."""
    keys = parts[0].keys.append([part.keys for part in parts[1:]])
    order = np.argsort(keys.get_level_values("datetime"), kind="stable")
    arrays = (
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("returns", "realized", "known", "trailing")
    )
    return PastForecasts(*arrays, keys[order], 1, 86400.0, PROVENANCE)
