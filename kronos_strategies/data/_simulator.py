"""Trading sessions of the simulated market: ticks, daily limits, suspensions and splits turn returns into bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

TICK = 0.01
LIMIT = 0.10  # largest daily return
LOT = 100

_STEPS = 48  # five-minute steps of a four-hour session
_ELAPSED = np.linspace(0.0, 1.0, _STEPS + 1)
_OVERNIGHT = 0.2  # share of a day's variance that falls between close and open
_COMMON = 0.35  # share of a session's noise that is common to all instruments


class Life(NamedTuple):
    """When each instrument trades; T days, N instruments."""

    listed: np.ndarray  # (T, N) bool, between listing and delisting
    traded: np.ndarray  # (T, N) bool, listed and not suspended


@dataclass(frozen=True)
class Sessions:
    """Every session of every instrument; rows without a trade repeat the last close and have no volume.

    Attributes:
        paths: (T, N, K) raw price at the open and after each step, on the tick grid.
        reference: (T, N) previous raw close, halved on the day of a split: the base of limit and return.
        factor: (T, N) adjusted price = raw price * factor; doubles with a split.
        capital: (T, N) reference times shares outstanding, so known before the session.
        volume: (T, N) shares traded, in lots.
        amount: (T, N) value traded, in currency.
    """

    paths: np.ndarray
    reference: np.ndarray
    factor: np.ndarray
    capital: np.ndarray
    volume: np.ndarray
    amount: np.ndarray


def trade(latent: Latent, life: Life, split_days: np.ndarray, rng: np.random.Generator) -> Sessions:
    """Run the sessions in order of time; nothing in a session depends on a later one."""
    days, names = latent.returns.shape
    close = (35.0 * np.exp(rng.normal(0.0, 0.45, names)).clip(0.4, 3.0)).round(2)
    shares = 3e10 * np.exp(rng.normal(0.0, 0.9, names)) / close
    overnight, bridges = _session_noise(days, names, rng)

    paths = np.empty((days, names, _STEPS + 1))
    reference, factor = np.empty((days, names)), np.empty((days, names))
    multiple, carry = np.ones(names), np.zeros(names)
    for day in range(days):
        if split_days[day]:
            dearest = np.argmax(np.where(life.listed[day], close, 0.0))
            close[dearest] /= 2
            multiple[dearest] *= 2
        news = np.where(life.listed[day], latent.returns[day], 0.0)
        gap = carry + _OVERNIGHT * news + latent.volatility[day] * overnight[day]
        path = _session(close, gap, carry + news, latent.volatility[day], bridges[day])
        paths[day] = np.where(life.traded[day, :, None], path, close[:, None])
        reference[day], factor[day] = close, multiple
        # Moves prevented by a limit, tick or suspension carry over to the next open.
        carry += news - np.log(paths[day, :, -1] / close)
        close = paths[day, :, -1].copy()

    shares = shares * factor
    volume = _volume(latent, life, np.log(paths[:, :, -1] / reference), shares, rng)
    amount = (volume * paths.mean(axis=2)).round(2)
    return Sessions(paths, reference, factor, reference * shares, volume, amount)


def _session(
    close: np.ndarray, gap: np.ndarray, move: np.ndarray, volatility: np.ndarray, bridge: np.ndarray
) -> np.ndarray:
    """(N, K) prices from the opening auction (log return `gap`) to the close (`move`), cut at the limits."""
    drift = gap[:, None] + _ELAPSED * (move - gap)[:, None]
    path = drift + (np.sqrt(1 - _OVERNIGHT) * volatility)[:, None] * bridge
    prices = (close[:, None] * np.exp(path)).round(2)
    limits = (close[:, None] * np.array([1 - LIMIT, 1 + LIMIT])).round(2)
    return prices.clip(np.maximum(limits[:, :1], TICK), limits[:, 1:])


def _session_noise(days: int, names: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(T, N) overnight shocks and (T, N, K) Brownian bridges, partly common to all instruments.

    The overnight shock completes "a fixed part of the day's return" to a gap of variance _OVERNIGHT that is
    uncorrelated with the rest of the session.
    """
    shared = rng.standard_normal((days, 1, _STEPS + 1))
    noise = np.sqrt(_COMMON) * shared + np.sqrt(1 - _COMMON) * rng.standard_normal((days, names, _STEPS + 1))
    walk = np.zeros_like(noise)
    walk[..., 1:] = noise[..., 1:].cumsum(axis=-1) / np.sqrt(_STEPS)
    overnight = np.sqrt(_OVERNIGHT * (1 - _OVERNIGHT)) * noise[..., 0]
    return overnight, walk - _ELAPSED * walk[..., -1:]


def _volume(
    latent: Latent, life: Life, moves: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(T, N) shares traded: larger in volatile times, on large moves and for some instruments."""
    days, names = moves.shape
    usual = 0.008 * np.exp(rng.normal(0.0, 0.5, names))  # turnover on a typical day
    weather = 0.3 * autoregression(rng.standard_normal((days, names)), persistence=0.7)
    heat = 0.7 * np.log(latent.volatility / latent.usual) + 0.5 * np.log1p(np.abs(moves) / latent.usual)
    turnover = (usual * np.exp(weather + heat)).clip(max=0.5)
    lots = np.maximum((turnover * shares / LOT).round(), 1.0)
    return np.where(life.traded, lots * LOT, 0.0)


REVERSAL_DAYS = 5

# Daily standard deviations. With a typical own part of 1.7 % they give instruments about 33 % a year,
# an index of about 17 %, and pairwise correlations near .3, as large A-shares have.
_MARKET_VOLATILITY = 0.0108
_SECTOR_VOLATILITY = 0.0055
_OWN_VOLATILITY = 0.0165
_MARKET_DRIFT = 0.0002


class Latent(NamedTuple):
    """Returns before ticks, limits and suspensions; T days, N instruments."""

    returns: np.ndarray  # (T, N) log return, close to close
    volatility: np.ndarray  # (T, N) standard deviation of that return, known before the day
    usual: np.ndarray  # (N,) its long-run level
    sector: np.ndarray  # (N,) int, sector number


def latent_returns(days: int, names: int, sectors: int, reversal: float, rng: np.random.Generator) -> Latent:
    """Market + sector + own return of every instrument and day.

    All three parts have a log-AR(1) volatility and Student-t shocks. The own part carries the planted
    effect: its expectation on day t is -reversal times its mean over the REVERSAL_DAYS days before t.
    """
    sector = np.arange(names) % sectors
    beta = rng.normal(1.0, 0.25, names).clip(0.4, 1.6)

    market_clock = _volatility_path(days, 1, rng, persistence=0.97, spread=0.30)
    market_sd = _MARKET_VOLATILITY * market_clock
    sector_sd = _SECTOR_VOLATILITY * _volatility_path(days, sectors, rng, persistence=0.96, spread=0.25)
    level = _OWN_VOLATILITY * np.exp(rng.normal(0.0, 0.22, names))
    # Turbulent markets make single instruments more volatile, too.
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
    """(T, N) shocks -> own returns that partly revert their recent mean."""
    own = shocks.copy()
    for day in range(1, len(own)):
        recent = own[max(0, day - REVERSAL_DAYS) : day].sum(axis=0) / REVERSAL_DAYS
        own[day] -= reversal * recent
    return own
