"""Simulated markets with one planted effect, with a chosen RankIC of the best possible forecast.

Instruments are independent random walks of equal volatility, apart from the effect. The bars of a date
decide a signal of each name, and two bars later its return follows it. Two bars, because a score of date t is
traded at close(t + 1): the first return that it can earn is that of close(t + 1) to close(t + 2).

The optimum is known. Within each date the signal is turned into normal scores z of unit variance, and

    x(t + 2) = rho z(t) + sqrt(1 - rho^2) e,  e standard normal,

so that (z, x) is bivariate normal with correlation rho, z orders instruments by their conditional expectation, and
no forecast has a larger expected RankIC than z: 6 / pi * arcsin(rho / 2) (Pearson 1907). In a market of volatility
clustering z scales the shock instead, x(t + 2) = e exp(kappa z(t) - kappa^2); what can be forecast is the size of a
return, and z orders that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm

from kronos.bars import FEATURES

Effect = Literal["reversal", "momentum", "volume", "lead-lag", "volatility", "none"]
EFFECTS: tuple[Effect, ...] = get_args(Effect)
DELAY = 2  # bars from the signal to the return that follows it
MEMORY = 5  # bars of the signal; that of volume and of the leading name is one bar
STRONGEST = 0.9

_DAILY = 0.02  # standard deviation of a log return
_GAP, _WICK = 0.3, 0.4  # share of it for the overnight gap, and for high and low beyond open and close
_VOLUME_SPREAD = 0.5  # standard deviation of log volume
_NODES = 64  # nodes of the Gauss-Hermite quadrature


@dataclass(frozen=True)
class PlantedConfig:
    """Configuration of a market.

    Attributes:
        effect: what is planted. "reversal" and "momentum": returns of five bars are given back or continue.
            "volume": a return follows the last volume. "lead-lag": a name follows the last return of the next
            name, of which its own bars show nothing. "volatility": large returns follow large returns, of either
            sign. "none": nothing.
        strength: RankIC of the optimum; 0 for "none" only.
        instruments: number of instruments.
        days: number of business days.
        seed: seed of the generator.
        start: first day.
    """

    effect: Effect = "reversal"
    strength: float = 0.1
    instruments: int = 100
    days: int = 1000
    seed: int = 0
    start: str = "2010-01-04"

    def __post_init__(self) -> None:
        if self.effect not in EFFECTS:
            raise ValueError(f"effect='{self.effect}' is unknown. Choose one of {list(EFFECTS)}.")
        if self.effect == "none" and self.strength != 0:
            raise ValueError(f"effect='none' has a strength of {self.strength}. Pass 0, or another effect.")
        if self.effect != "none" and not 0 < self.strength <= STRONGEST:
            raise ValueError(
                f"strength={self.strength} is not a possible RankIC. Pass one in (0, {STRONGEST}]."
            )
        if self.instruments < 20:
            raise ValueError(
                f"instruments={self.instruments} is too small. Pass at least 20, so that heads can be fitted."
            )
        if self.days <= DELAY + MEMORY:
            raise ValueError(f"days={self.days} are too few. Simulate at least {DELAY + MEMORY + 1}.")

    @property
    def on_size(self) -> bool:
        """Whether the size of returns can be forecast rather than their sign."""
        return self.effect == "volatility"


@dataclass(frozen=True)
class PlantedMarket:
    """Bars, and the best possible forecast.

    Attributes:
        panel: name -> bars indexed by datetime, columns FEATURES.
        optimum: (days, instruments) z of each date and instrument, known at its close; 0 before the first signal
            and everywhere without an effect.
        target: (days, instruments) what a score of that date is to rank: the log return of close(t + 1) to
            close(t + 2), or its absolute value in a market of volatility clustering; NaN where the bars end.
        config: its configuration.
    """

    panel: dict[str, pd.DataFrame]
    optimum: pd.DataFrame
    target: pd.DataFrame
    config: PlantedConfig


def plant(config: PlantedConfig) -> PlantedMarket:
    """Simulate the market of `config`; equal configurations give equal markets."""
    rng = np.random.Generator(np.random.Philox(config.seed))
    shape = (config.days, config.instruments)
    shocks, busy = rng.standard_normal((2, *shape))
    optimum, returns = np.zeros(shape), _DAILY * shocks
    coefficient = planted_coefficient(config)
    for day in range(DELAY, config.days if coefficient else 0):
        known = day - DELAY
        if known >= MEMORY - 1:
            optimum[known] = _signal(config.effect, returns[: known + 1], busy[known])
            returns[day] = _DAILY * _follow(config, coefficient, optimum[known], shocks[day])
    days = pd.bdate_range(config.start, periods=config.days, name="datetime")
    names = pd.Index([f"N{number:04d}" for number in range(config.instruments)], name="instrument")
    wide = pd.DataFrame(returns, days, names)
    return PlantedMarket(
        panel=_bars(wide, busy, rng),
        optimum=pd.DataFrame(optimum, days, names),
        target=(wide.abs() if config.on_size else wide).shift(-DELAY),
        config=config,
    )


def planted_coefficient(config: PlantedConfig) -> float:
    """Rho or kappa of the module's docstring, for which the optimum's RankIC is `config.strength`."""
    if not config.strength:
        return 0.0
    if config.on_size:
        return float(brentq(lambda kappa: size_rank_ic(kappa) - config.strength, 0.0, 20.0))
    return float(2 * np.sin(np.pi * config.strength / 6))


def size_rank_ic(kappa: float) -> float:
    """Spearman's correlation of z and |e| exp(kappa z), z and e independent standard normals.

    12 E[Phi(z) F(|e| exp(kappa z))] - 3, F the distribution function of the second. The ratio of two |e| is
    half-Cauchy, so that the expectation over both is (2 / pi) arctan(exp(kappa (z - z'))), which leaves an
    integral over z and z'.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / weights.sum()
    below = 2 / np.pi * np.arctan(np.exp(kappa * (nodes[:, None] - nodes)))
    return float(12 * (weights * norm.cdf(nodes)) @ below @ weights - 3)


def _signal(effect: Effect, past: np.ndarray, busy: np.ndarray) -> np.ndarray:
    """(instruments,) normal scores of the signal of a date, from the returns (days, instruments) up to it."""
    recent = past[-MEMORY:]
    signal = {
        "reversal": -recent.sum(axis=0),
        "momentum": recent.sum(axis=0),
        "volume": busy,
        "lead-lag": np.roll(past[-1], -1),
        "volatility": np.abs(recent).sum(axis=0),
    }[effect]
    ranks = signal.argsort().argsort()
    scores = norm.ppf((np.arange(len(signal)) + 0.5) / len(signal))
    return (scores / scores.std())[ranks]


def _follow(config: PlantedConfig, coefficient: float, z: np.ndarray, shocks: np.ndarray) -> np.ndarray:
    """(instruments,) returns in units of the daily deviation."""
    if config.on_size:
        return shocks * np.exp(coefficient * z - coefficient**2)
    return coefficient * z + np.sqrt(1 - coefficient**2) * shocks


def _bars(returns: pd.DataFrame, busy: np.ndarray, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Bars with given closes and random open, high and low."""
    close = 50 * np.exp(returns.to_numpy().cumsum(axis=0))
    before = np.concatenate([np.full_like(close[:1], 50.0), close[:-1]])
    gap, above, below = rng.standard_normal((3, *close.shape))
    open_ = before * np.exp(_GAP * _DAILY * gap)
    high = np.maximum(open_, close) * np.exp(_WICK * _DAILY * np.abs(above))
    low = np.minimum(open_, close) * np.exp(-_WICK * _DAILY * np.abs(below))
    volume = np.exp(13 + _VOLUME_SPREAD * busy).round()
    values = np.stack([open_, high, low, close, volume, volume * (high + low + close) / 3], axis=-1)
    return {
        name: pd.DataFrame(values[:, column], returns.index, list(FEATURES))
        for column, name in enumerate(returns.columns)
    }
