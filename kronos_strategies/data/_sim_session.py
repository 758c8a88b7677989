"""Trading sessions of the simulated market: ticks, daily limits, suspensions and splits turn returns into bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kronos_strategies.data._sim_returns import Latent, autoregression

TICK = 0.01
LIMIT = 0.10  # largest move of a close against the previous one
LOT = 100

_STEPS = 48  # five-minute steps of a four-hour session
_ELAPSED = np.linspace(0.0, 1.0, _STEPS + 1)
_OVERNIGHT = 0.2  # share of a day's variance that falls between close and open
_COMMON = 0.35  # share of a session's noise that all names feel at once


class Life(NamedTuple):
    """When each name trades; T days, N names."""

    listed: np.ndarray  # (T, N) bool, between listing and delisting
    traded: np.ndarray  # (T, N) bool, listed and not suspended


@dataclass(frozen=True)
class Sessions:
    """Every session of every name; rows without a trade repeat the last close and have no volume.

    Attributes:
        paths: (T, N, K) raw price at the open and after each step, on the tick grid.
        reference: (T, N) previous raw close, halved on the day of a split: the base of limit and return.
        factor: (T, N) adjusted price = raw price * factor; doubles with a split.
        capital: (T, N) reference times shares outstanding, so known before the session.
        volume: (T, N) shares traded, in lots.
        amount: (T, N) price paid for them.
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
        # What limit, tick or suspension held back is still wanted at the next open.
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
    """(T, N) overnight shocks and (T, N, K) Brownian bridges, in part common to all names.

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
    """(T, N) shares traded: more of them in volatile times, on large moves and in some names."""
    days, names = moves.shape
    usual = 0.008 * np.exp(rng.normal(0.0, 0.5, names))  # turnover of an ordinary day
    weather = 0.3 * autoregression(rng.standard_normal((days, names)), persistence=0.7)
    heat = 0.7 * np.log(latent.volatility / latent.usual) + 0.5 * np.log1p(np.abs(moves) / latent.usual)
    turnover = (usual * np.exp(weather + heat)).clip(max=0.5)
    lots = np.maximum((turnover * shares / LOT).round(), 1.0)
    return np.where(life.traded, lots * LOT, 0.0)
