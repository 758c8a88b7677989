"""Inference on a Sharpe ratio: bootstrap confidence interval, PSR and DSR.

The formulas of Bailey & Lopez de Prado use ratios per bar; only reported values are annualized.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos.utils import MissingExtra
from kronos_strategies.backtest_result import BARS_PER_YEAR
from kronos_strategies.evaluation.portfolio.returns import dropna_finite, is_constant, sharpe

try:
    from arch.bootstrap import StationaryBootstrap, optimal_block_length
    from scipy import stats
except ImportError as error:
    raise MissingExtra(
        "Inference on Sharpe ratios needs arch: pip install 'kronos-strategies[evaluation]'"
    ) from error

LEVEL = 0.95
REPLICATIONS = 2000
MIN_BARS = 3  # needed for a skewness
MIN_BARS_OF_BLOCKS = 20


@dataclass(frozen=True)
class SharpeInference:
    """Sharpe ratio of one series of returns. All but `trials` are NaN for fewer than 3 or constant returns.

    Attributes:
        sharpe: annualized.
        low: lower end of the 95 % interval by stationary bootstrap.
        high: its upper end.
        block: mean block length of the bootstrap, bars.
        psr: probability that the true ratio is above 0 (Bailey & Lopez de Prado 2012).
        dsr: probability that it is above the expected maximum of `trials` without skill (2014); PSR for one trial.
        trials: number of settings tried.
    """

    sharpe: float
    low: float
    high: float
    block: float
    psr: float
    dsr: float
    trials: int


def infer_sharpe(
    returns: pd.Series,
    bars_per_year: int = BARS_PER_YEAR,
    trials: int = 1,
    seed: int = 0,
    trials_deviation: float | None = None,
) -> SharpeInference:
    """Confidence interval, PSR and DSR of the Sharpe ratio of `returns`.

    Where the ratios of the other trials are not known, DSR assumes that they vary as those of `trials` independent
    series of this length without skill, with a standard deviation of 1 / sqrt(n - 1) per bar. Similar trials vary
    less, which makes this DSR too low; trials that differ in skill vary more, which makes it too high.

    Args:
        returns: (bars,) simple returns; NaN and infinite ones are left out.
        bars_per_year: bars per year, used to annualize the ratio and its interval.
        trials: number of settings tried before this one was chosen, including it.
        seed: seed of the bootstrap; equal seeds give equal intervals.
        trials_deviation: standard deviation (ddof 1) of the ratios per bar of all trials; None if unknown.

    Raises:
        ValueError: fewer than one trial.
    """
    returns = dropna_finite(returns)
    if trials_deviation is None:
        trials_deviation = 1 / math.sqrt(max(len(returns) - 1, 1))
    best = expected_max_sharpe(trials, trials_deviation)  # first, since it checks the number of trials
    if len(returns) < MIN_BARS or is_constant(returns):
        return SharpeInference(np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, trials)
    block = sharpe_block_length(returns)
    low, high = math.sqrt(bars_per_year) * bootstrap_interval(returns, block, seed)
    return SharpeInference(
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

    Phi[(SR - threshold) sqrt(n - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR**2)] with SR the ratio per bar, g3 the
    skewness and g4 the raw kurtosis (3 if normal) of the sample. NaN for fewer than 3 bars and for constant ones.

    Args:
        returns: (bars,) simple returns; NaN and infinite ones are left out.
        threshold: ratio per bar, not annualized.
    """
    returns = dropna_finite(returns)
    if len(returns) < MIN_BARS or is_constant(returns):
        return np.nan
    ratio = sharpe(returns, bars_per_year=1)
    skewness, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    variance = 1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2
    if not variance > 0:  # of two values only, it can be zero
        return np.nan
    return float(stats.norm.cdf((ratio - threshold) * math.sqrt((len(returns) - 1) / variance)))


def expected_max_sharpe(trials: int, spread: float) -> float:
    """Expected maximum Sharpe ratio of so many trials without skill (Bailey & Lopez de Prado 2014).

    spread [(1 - g) Phi^-1(1 - 1 / N) + g Phi^-1(1 - 1 / (N e))] with g Euler's constant and N `trials`; 0 for one.

    Args:
        trials: number of independent trials.
        spread: standard deviation of their ratios, in the unit of the result.

    Raises:
        ValueError: fewer than one trial.
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, the evaluated setting itself, got {trials}.")
    if trials == 1:
        return 0.0
    highest, next_to = stats.norm.ppf([1 - 1 / trials, 1 - 1 / (trials * math.e)])
    return float(spread * ((1 - np.euler_gamma) * highest + np.euler_gamma * next_to))


def sharpe_block_length(returns: pd.Series) -> int:
    """Mean block length of the stationary bootstrap (Politis & White 2004), from 1 to a fifth of the bars.

    Their estimate falls below 1, to .19, on independent returns, and can exceed a fifth of the sample on a trend.
    It uses sqrt(n) + 5 lags, so that fewer than 20 bars are too few for it and get blocks of length 1.
    """
    if len(returns) < MIN_BARS_OF_BLOCKS:
        return 1
    with np.errstate(divide="ignore", invalid="ignore"):  # where a stretch of returns is exactly zero
        optimum = float(optimal_block_length(returns.to_numpy())["stationary"].iloc[0])
    longest = len(returns) // 5
    return min(max(math.ceil(optimum), 1), longest) if math.isfinite(optimum) else longest


def bootstrap_interval(
    returns: pd.Series, block: int, seed: int, replications: int = REPLICATIONS
) -> np.ndarray:
    """(2,) ends of the 95 % percentile interval of the ratio per bar (Politis & Romano 1994).

    Percentile intervals, since BCa covered no better: 90 to 95 % for both, over normal, heavy-tailed, skewed,
    autocorrelated and GARCH returns of 120 and 500 bars; and the acceleration of BCa is a jackknife that assumes
    independent bars. NaN if a replication is constant, which can happen with very few bars.
    """
    bootstrap = StationaryBootstrap(block, returns.to_numpy(), seed=seed)
    return bootstrap.conf_int(_ratio, replications, method="percentile", size=LEVEL).ravel()


def _ratio(values: np.ndarray) -> np.ndarray:
    """(n,) -> (1,): mean / standard deviation (ddof 1), NaN if constant."""
    mean, spread = values.mean(), values.std(ddof=1)
    return np.array([mean / spread if spread > 1e-12 * np.abs(values).max() else np.nan])
