"""Log returns of the simulated market before any exchange rule: factors, volatility and the planted reversal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

REVERSAL_DAYS = 5

# Daily standard deviations. With a typical own part of 1.7 % they give names of about 33 % a year,
# an index of about 17 %, and pairwise correlations near .3, as large A-shares have.
_MARKET_VOLATILITY = 0.0108
_SECTOR_VOLATILITY = 0.0055
_OWN_VOLATILITY = 0.0165
_MARKET_DRIFT = 0.0002


class Latent(NamedTuple):
    """What each name would return without tick, limit or suspension; T days, N names."""

    returns: np.ndarray  # (T, N) log return, close to close
    volatility: np.ndarray  # (T, N) standard deviation of that return, known before the day
    usual: np.ndarray  # (N,) its long-run level
    sector: np.ndarray  # (N,) int, sector number


def latent_returns(days: int, names: int, sectors: int, reversal: float, rng: np.random.Generator) -> Latent:
    """Market + sector + own return of every name and day.

    All three parts have a log-AR(1) volatility and Student-t shocks. The own part carries the planted
    effect: its expectation on day t is -reversal times its mean over the REVERSAL_DAYS days before t.
    """
    sector = np.arange(names) % sectors
    beta = rng.normal(1.0, 0.25, names).clip(0.4, 1.6)

    market_clock = _volatility_path(days, 1, rng, persistence=0.97, spread=0.30)
    market_sd = _MARKET_VOLATILITY * market_clock
    sector_sd = _SECTOR_VOLATILITY * _volatility_path(days, sectors, rng, persistence=0.96, spread=0.25)
    level = _OWN_VOLATILITY * np.exp(rng.normal(0.0, 0.22, names))
    # Turbulent markets make single names more volatile too.
    own_sd = level * np.sqrt(market_clock) * _volatility_path(days, names, rng, persistence=0.93, spread=0.28)

    market = _MARKET_DRIFT + market_sd * _student(rng, 5.0, (days, 1))
    sectors_part = sector_sd * _student(rng, 5.0, (days, sectors))
    own = _revert(own_sd * _student(rng, 3.5, (days, names)), reversal)

    variance = (beta * market_sd) ** 2 + sector_sd[:, sector] ** 2 + own_sd**2
    returns = beta * market + sectors_part[:, sector] + own - variance / 2  # no drift from convexity
    usual = np.sqrt((beta * _MARKET_VOLATILITY) ** 2 + _SECTOR_VOLATILITY**2 + level**2)
    return Latent(returns, np.sqrt(variance), usual, sector)


def autoregression(shocks: np.ndarray, persistence: float) -> np.ndarray:
    """(T, K) standard normal shocks -> (T, K) stationary AR(1) of unit variance."""
    path = shocks.copy()
    for day in range(1, len(path)):
        path[day] = persistence * path[day - 1] + np.sqrt(1 - persistence**2) * shocks[day]
    return path


def _volatility_path(
    days: int, width: int, rng: np.random.Generator, persistence: float, spread: float
) -> np.ndarray:
    """(T, width) multipliers of mean square 1 whose logarithm is an AR(1) of standard deviation `spread`."""
    path = autoregression(rng.standard_normal((days, width)), persistence)
    return np.exp(spread * path - spread**2)


def _student(rng: np.random.Generator, degrees: float, shape: tuple[int, int]) -> np.ndarray:
    """Student-t shocks of unit variance."""
    return rng.standard_t(degrees, shape) * np.sqrt((degrees - 2) / degrees)


def _revert(shocks: np.ndarray, reversal: float) -> np.ndarray:
    """(T, N) shocks -> own returns that give back a part of their recent mean."""
    own = shocks.copy()
    for day in range(1, len(own)):
        recent = own[max(0, day - REVERSAL_DAYS) : day].sum(axis=0) / REVERSAL_DAYS
        own[day] -= reversal * recent
    return own
