"""Baselines that a forecast has to beat: naive scores computed from closes, and naive distributions of returns.

Random walks and GARCH are fitted to bars that were known before the first forecast they are compared with. A
distribution of the log return close(t) -> close(t+h) is scored by the columns that `summarize_paths` has for
sampled paths: crps, crps_ensemble, pit, and covered_80 etc.; one row per window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from kronos_strategies.evaluation.distribution.metrics import crps_normal, historical_volatility, scoringrules
from kronos_strategies.evaluation.distribution.path_summary import coverage_column
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.forecasters.volatility import UNIT, filter_variances, fit_garch

MODEL = "Kronos"  # name of the evaluated score and forecast next to the baselines
MIN_COVERAGE = 0.5  # of the scored rows; differences are paired on the rows that both scores have


def momentum_12_1(closes: pd.DataFrame) -> pd.DataFrame:
    """Return from 252 to 21 bars ago (Jegadeesh & Titman 1993): past winners score high. Dates x instruments."""
    return closes.shift(21) / closes.shift(252) - 1


def reversal_5(closes: pd.DataFrame) -> pd.DataFrame:
    """Negative return of the last 5 bars (Lehmann 1990): past losers score high."""
    return 1 - closes / closes.shift(5)


def reversal_20(closes: pd.DataFrame) -> pd.DataFrame:
    """Negative return of the last 20 bars (Jegadeesh 1990): losers of the last month score high."""
    return 1 - closes / closes.shift(20)


def low_volatility_20(closes: pd.DataFrame) -> pd.DataFrame:
    """Negative standard deviation of the last 20 returns: instruments of low volatility score high."""
    return -historical_volatility(closes)


BASELINES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "12-1 momentum": momentum_12_1,
    "5-day reversal": reversal_5,
    "20-day reversal": reversal_20,
    "low 20-day volatility": low_volatility_20,
}
IN_BARS = {  # names of the baselines where bars are not days
    "12-1 momentum": "momentum of 252 to 21 bars ago",
    "5-day reversal": "5-bar reversal",
    "20-day reversal": "20-bar reversal",
    "low 20-day volatility": "low 20-bar volatility",
}


def baseline_scores(
    prices: PricePanel, index: pd.MultiIndex, daily: bool = True
) -> tuple[pd.DataFrame, list[str]]:
    """Scores of all baselines on the given rows, by one rule for every engine.

    On a day without a trade the last known close is used. A baseline that has a value on less than half of the
    rows, for lack of history, is left out.

    Args:
        prices: bars of the instruments, with the history that the baselines need.
        index: (datetime, instrument) rows to score.
        daily: whether bars are days, which decides the names of the baselines.

    Returns:
        One column per baseline, known at the close of the row's date; and one sentence per baseline left out.
    """
    scores = {
        name if daily else IN_BARS.get(name, name): prices.lookup(signal(prices.last_close), index)
        for name, signal in BASELINES.items()
    }
    scarce = [name for name, score in scores.items() if score.notna().mean() < MIN_COVERAGE]
    kept = {name: score for name, score in scores.items() if name not in scarce}
    reasons = [
        f"{name} is left out: more than half of the rows lack the history it needs." for name in scarce
    ]
    return pd.DataFrame(kept, index=index), reasons


SHAPE = 99  # quantiles of an empirical shape
WALK_HISTORY = 500  # dates before the first forecast that a random walk is fitted to at most
MIN_HISTORY = 60  # with fewer dates the baseline is left out
GARCH_INSTRUMENTS = 20  # most traded ones that GARCH is fitted to
MIN_RETURNS, MAX_RETURNS = 250, 1000  # of an instrument, before the first forecast


def score_normal(deviation: np.ndarray, realized: np.ndarray, levels: Sequence[float]) -> pd.DataFrame:
    """Scores of normal distributions with mean 0; NaN where the standard deviation is not positive."""
    deviation = np.where(deviation > 0, deviation, np.nan)
    crps, z = crps_normal(np.zeros_like(realized), deviation, realized), realized / deviation
    return _scores(crps, stats.norm.cdf(z), levels)


def score_student(
    deviation: np.ndarray, freedom: np.ndarray, realized: np.ndarray, levels: Sequence[float]
) -> pd.DataFrame:
    """Scores of Student's t distributions with mean 0, given their standard deviations; NaN where undefined."""
    known = (deviation > 0) & (freedom > 2)
    freedom = np.where(known, freedom, np.nan)
    scale = np.where(known, deviation, np.nan) * np.sqrt((freedom - 2) / freedom)
    crps = np.full(len(realized), np.nan)
    rows = known & np.isfinite(realized)
    crps[rows] = scoringrules.crps_t(realized[rows], freedom[rows], 0.0, scale[rows])
    return _scores(crps, stats.t.cdf(realized / scale, freedom), levels)


def score_shape(
    scale: np.ndarray, shape: np.ndarray, realized: np.ndarray, levels: Sequence[float]
) -> pd.DataFrame:
    """Scores of one shape, given by equally likely quantiles (Q,), times each row's scale; NaN without a scale."""
    scale = np.where(scale > 0, scale, np.nan)
    z = realized / scale
    size = len(shape)
    spread = np.sort(shape) @ (2 * np.arange(1, size + 1) - size - 1) / size**2
    crps = np.full(len(realized), np.nan)
    rows = np.isfinite(z)
    crps[rows] = scale[rows] * (np.abs(shape - z[rows, None]).mean(axis=1) - spread)
    pit = np.where(rows, np.searchsorted(np.sort(shape), z) / size, np.nan)
    return _scores(crps, pit, levels)


def _scores(crps: np.ndarray, pit: np.ndarray, levels: Sequence[float]) -> pd.DataFrame:
    within = {
        coverage_column(level): np.where(np.isnan(pit), np.nan, np.abs(pit - 0.5) <= level / 2)
        for level in levels
    }
    return pd.DataFrame({"crps": crps, "crps_ensemble": crps, "pit": pit, **within}, dtype=float)


@dataclass(frozen=True)
class ShrunkWalk:
    """A random walk whose volatility is shrunk to its average, with the empirical shape of past returns.

    The strongest baseline without a model of each instrument: it uses the volatility of the last 20 bars and the
    past returns of all instruments.

    Attributes:
        slope: regression slope of log |outcome| on log historical volatility, in [0, 1].
        center: mean of log historical volatility.
        shape: (SHAPE,) quantiles of outcome / exp(slope (log volatility - center)).
    """

    slope: float
    center: float
    shape: np.ndarray

    @classmethod
    def fit(cls, prices: PricePanel, horizon: int, first: pd.Timestamp) -> ShrunkWalk | None:
        """Fit to outcomes known at the close of `first`; None where there are too few dates."""
        last = int(prices.calendar.searchsorted(first, side="right")) - 1 - horizon
        rows = slice(max(0, last + 1 - WALK_HISTORY), max(0, last + 1))
        wide = (prices.historical_volatility, prices.log_return(horizon))
        volatility, realized = (each.to_numpy()[rows] for each in wide)
        both = np.isfinite(realized) & (volatility > 0)
        if both.any(axis=1).sum() < MIN_HISTORY:
            return None
        size, realized = np.log(volatility[both]), realized[both]
        center, moved = float(size.mean()), realized != 0
        slope = float(np.polyfit(size[moved], np.log(np.abs(realized[moved])), 1)[0])
        slope = float(np.clip(slope, 0.0, 1.0))
        levels = (np.arange(SHAPE) + 0.5) / SHAPE
        return cls(slope, center, np.quantile(realized / np.exp(slope * (size - center)), levels))

    def scale(self, volatility: np.ndarray) -> np.ndarray:
        """Scale of each row's distribution, from its historical volatility; NaN where that is not positive."""
        size = np.log(np.where(volatility > 0, volatility, np.nan))
        return np.exp(self.slope * (size - self.center))


@dataclass(frozen=True)
class GarchModels:
    """GARCH(1, 1) models with Student's t innovations, the standard volatility model, as a baseline.

    Fitted once to bars before the first forecast, for a few instruments only: one fit per instrument and date would
    take hours.

    Attributes:
        variances: dates x instruments, variance of the next bar's log return, known at each close.
        parameters: parameters by instrument, columns omega, persistence (alpha + beta), freedom.
    """

    variances: pd.DataFrame
    parameters: pd.DataFrame

    @classmethod
    def fit(cls, prices: PricePanel, instruments: pd.Index, first: pd.Timestamp) -> GarchModels | None:
        """Fit to the returns of the most traded instruments up to `first`; None where all histories are too short.

        Args:
            prices: bars of the market.
            instruments: candidates.
            first: date of the first forecast, on which the most traded instruments are chosen.
        """
        amounts = prices.amounts.loc[:first].iloc[-20:].mean().reindex(instruments)
        chosen = amounts.sort_values(ascending=False, kind="stable").index[:GARCH_INSTRUMENTS]
        variances, parameters = {}, {}
        for name in chosen:
            returns = prices.closes[name].dropna().apply(np.log).diff().dropna() * UNIT
            known = returns.loc[:first].iloc[-MAX_RETURNS:].to_numpy()
            found = fit_garch(known) if len(known) >= MIN_RETURNS else None
            if found is not None:
                model = found.model
                average = np.array([found.omega / (1 - model.persistence)])
                after = filter_variances(model, returns.to_numpy()[None], average)[0, 1:]
                variances[name] = pd.Series(after, returns.index)
                parameters[name] = {
                    "omega": found.omega, "persistence": model.persistence, "freedom": found.freedom,
                }  # fmt: skip
        if not variances:
            return None
        wide = pd.DataFrame(variances).reindex(prices.calendar)
        return cls(wide, pd.DataFrame(parameters).T)

    def forecast(self, index: pd.MultiIndex, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """Standard deviation of the log return over `horizon` bars and degrees of freedom, each (rows,).

        The excess kurtosis of a sum of h returns is 1 / h of that of one return, which determines the degrees of
        freedom. NaN for instruments without a model.
        """
        rows = self.variances.index.get_indexer(index.get_level_values("datetime"))
        columns = self.variances.columns.get_indexer(index.get_level_values("instrument"))
        next_bar = np.where((rows < 0) | (columns < 0), np.nan, self.variances.to_numpy()[rows, columns])
        omega, persistence, freedom = (
            np.where(columns < 0, np.nan, self.parameters[name].to_numpy()[columns])
            for name in ("omega", "persistence", "freedom")
        )
        mean = omega / (1 - persistence)
        total = horizon * mean + (next_bar - mean) * (1 - persistence**horizon) / (1 - persistence)
        freedom = np.where(freedom > 4, 4 + horizon * (freedom - 4), freedom)
        return np.sqrt(total) / UNIT, freedom
