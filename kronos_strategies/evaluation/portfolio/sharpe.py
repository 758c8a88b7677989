"""How sure a Sharpe ratio is: its bootstrap interval, PSR and DSR. Torch-free.

The formulas of Bailey & Lopez de Prado take ratios a bar; only what is shown is annualised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos.utils import MissingExtra
from kronos_strategies.evaluation.portfolio.returns import defined, is_constant, sharpe
from kronos_strategies.result import BARS_PER_YEAR

try:
    from arch.bootstrap import StationaryBootstrap, optimal_block_length
    from scipy import stats
except ImportError as error:
    raise MissingExtra(
        "Sharpe ratios are tested with arch: pip install 'kronos-strategies[evaluation]'"
    ) from error

LEVEL = 0.95
REPLICATIONS = 2000
MIN_BARS = 3  # a skewness needs as many
MIN_BARS_OF_BLOCKS = 20


@dataclass(frozen=True)
class SharpeStudy:
    """Of one stream of returns. All but `trials` are NaN where there are fewer than 3 bars or they are constant.

    Attributes:
        sharpe: annualised.
        low: of the 95 % interval by stationary bootstrap.
        high: of it.
        block: mean length of the bootstrap's blocks, bars.
        psr: probability that the true ratio is above 0 (Bailey & Lopez de Prado 2012).
        dsr: the same above what the best of `trials` without skill would show (2014); PSR for one trial.
        trials: settings tried.
    """

    sharpe: float
    low: float
    high: float
    block: float
    psr: float
    dsr: float
    trials: int


def study_sharpe(
    returns: pd.Series, bars_per_year: int = BARS_PER_YEAR, trials: int = 1, seed: int = 0
) -> SharpeStudy:
    """How sure the Sharpe ratio of `returns` is.

    What the other trials earned is not known here, so DSR takes their ratios to scatter as those of `trials`
    independent books without skill would over as many bars: by 1 / sqrt(n - 1), which is the error of a ratio
    whose true value is 0. Trials that resemble one another scatter less, and DSR is then too low; trials that
    differ in skill scatter more, and the original is stricter. Who has their ratios a bar gets the original as
    `probabilistic_sharpe(returns, expected_best(len(ratios), ratios.std(ddof=1)))`.

    Args:
        returns: (bars,) simple returns; NaN and infinite ones are left out.
        bars_per_year: that annualise the ratio and its interval.
        trials: settings that were tried before this one was chosen, itself counted.
        seed: of the bootstrap; equal seeds give equal intervals.

    Raises:
        ValueError: fewer than one trial.
    """
    returns = defined(returns)
    # The first checks the number of trials, whatever the returns are.
    best = expected_best(trials, 1 / math.sqrt(max(len(returns) - 1, 1)))
    if len(returns) < MIN_BARS or is_constant(returns):
        return SharpeStudy(np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, trials)
    block = block_length(returns)
    low, high = math.sqrt(bars_per_year) * bootstrap_interval(returns, block, seed)
    return SharpeStudy(
        sharpe=sharpe(returns, bars_per_year),
        low=float(low),
        high=float(high),
        block=float(block),
        psr=probabilistic_sharpe(returns),
        dsr=probabilistic_sharpe(returns, best),
        trials=trials,
    )


def probabilistic_sharpe(returns: pd.Series, threshold: float = 0.0) -> float:
    """Probability that the true ratio is above `threshold` (PSR; Bailey & Lopez de Prado 2012, equation 11).

    Phi[(SR - threshold) sqrt(n - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR**2)] with SR the ratio a bar, g3 the
    skewness and g4 the raw kurtosis (3 if normal) of the sample. NaN for fewer than 3 bars and for constant ones.

    Args:
        returns: (bars,) simple returns; NaN and infinite ones are left out.
        threshold: a ratio a bar, not annualised.
    """
    returns = defined(returns)
    if len(returns) < MIN_BARS or is_constant(returns):
        return np.nan
    ratio = sharpe(returns, bars_per_year=1)
    skewness, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    variance = 1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2
    if not variance > 0:  # of two values only, it can be zero
        return np.nan
    return float(stats.norm.cdf((ratio - threshold) * math.sqrt((len(returns) - 1) / variance)))


def expected_best(trials: int, spread: float) -> float:
    """The highest ratio that is to be expected of so many without skill (Bailey & Lopez de Prado 2014).

    spread [(1 - g) Phi^-1(1 - 1 / N) + g Phi^-1(1 - 1 / (N e))] with g Euler's constant and N `trials`; 0 for one.

    Args:
        trials: independent ones.
        spread: standard deviation of their ratios, in the unit of the result.

    Raises:
        ValueError: fewer than one trial.
    """
    if trials < 1:
        raise ValueError(f"trials={trials}: what is studied was tried itself. Pass 1 or more.")
    if trials == 1:
        return 0.0
    highest, next_to = stats.norm.ppf([1 - 1 / trials, 1 - 1 / (trials * math.e)])
    return float(spread * ((1 - np.euler_gamma) * highest + np.euler_gamma * next_to))


def block_length(returns: pd.Series) -> int:
    """Mean block of the stationary bootstrap: Politis & White's (2004) optimum, from 1 to a fifth of the bars.

    Their estimate falls below 1, to .19, on independent returns, and can pass a fifth of the sample on a trend. It
    looks at sqrt(n) + 5 lags, so that fewer than 20 bars say nothing of it and are taken one by one.
    """
    if len(returns) < MIN_BARS_OF_BLOCKS:
        return 1
    with np.errstate(divide="ignore", invalid="ignore"):  # where a stretch earns exactly nothing
        optimum = float(optimal_block_length(returns.to_numpy())["stationary"].iloc[0])
    longest = len(returns) // 5
    return min(max(math.ceil(optimum), 1), longest) if math.isfinite(optimum) else longest


def bootstrap_interval(
    returns: pd.Series, block: int, seed: int, replications: int = REPLICATIONS
) -> np.ndarray:
    """(2,) ends of the 95 % percentile interval of the ratio a bar (Politis & Romano 1994).

    Percentiles, since BCa covered no better: 90 to 95 % both, over normal, heavy-tailed, skewed, autocorrelated and
    GARCH returns of 120 and 500 bars; and its acceleration is a jackknife that takes bars to be independent. NaN
    if a replication is constant, as can be of a handful of bars.
    """
    bootstrap = StationaryBootstrap(block, returns.to_numpy(), seed=seed)
    return bootstrap.conf_int(_ratio, replications, method="percentile", size=LEVEL).ravel()


def _ratio(values: np.ndarray) -> np.ndarray:
    """(n,) -> (1,): mean / standard deviation (ddof 1), NaN if constant."""
    mean, spread = values.mean(), values.std(ddof=1)
    return np.array([mean / spread if spread > 1e-12 * np.abs(values).max() else np.nan])
