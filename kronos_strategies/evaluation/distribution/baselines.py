"""Baseline distributions of returns: random walks and GARCH."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from kronos.extras import MissingExtra
from kronos_strategies.evaluation.distribution.calibration import crps_normal, scoringrules
from kronos_strategies.evaluation.distribution.path_summary import band
from kronos_strategies.evaluation.price_panel import PricePanel

try:
    from arch import arch_model
except ImportError as error:
    raise MissingExtra("GARCH needs arch: pip install 'kronos-strategies[evaluation]'") from error


SHAPE = 99  # quantiles of an empirical shape
HISTORY = 500  # dates before the first forecast that a baseline is fitted to at most
MIN_HISTORY = 60  # below that it is left out


def score_normal(deviation: np.ndarray, came: np.ndarray, levels: Sequence[float]) -> pd.DataFrame:
    """Of normal distributions around 0; NaN without deviation."""
    deviation = np.where(deviation > 0, deviation, np.nan)
    crps, z = crps_normal(np.zeros_like(came), deviation, came), came / deviation
    return _scores(crps, stats.norm.cdf(z), levels)


def score_student(
    deviation: np.ndarray, freedom: np.ndarray, came: np.ndarray, levels: Sequence[float]
) -> pd.DataFrame:
    """Of Student's t distributions around 0, by their standard deviation; NaN where they have none."""
    known = (deviation > 0) & (freedom > 2)
    freedom = np.where(known, freedom, np.nan)
    scale = np.where(known, deviation, np.nan) * np.sqrt((freedom - 2) / freedom)
    crps = np.full(len(came), np.nan)
    rows = known & np.isfinite(came)
    crps[rows] = scoringrules.crps_t(came[rows], freedom[rows], 0.0, scale[rows])
    return _scores(crps, stats.t.cdf(came / scale, freedom), levels)


def score_shape(
    deviation: np.ndarray, shape: np.ndarray, came: np.ndarray, levels: Sequence[float]
) -> pd.DataFrame:
    """Of one shape, given by equally likely quantiles (Q,), times each row's deviation; NaN without deviation."""
    deviation = np.where(deviation > 0, deviation, np.nan)
    z = came / deviation
    size = len(shape)
    spread = np.sort(shape) @ (2 * np.arange(1, size + 1) - size - 1) / size**2
    crps = np.full(len(came), np.nan)
    rows = np.isfinite(z)
    crps[rows] = deviation[rows] * (np.abs(shape - z[rows, None]).mean(axis=1) - spread)
    pit = np.where(rows, np.searchsorted(np.sort(shape), z) / size, np.nan)
    return _scores(crps, pit, levels)


def _scores(crps: np.ndarray, pit: np.ndarray, levels: Sequence[float]) -> pd.DataFrame:
    within = {
        band(level): np.where(np.isnan(pit), np.nan, np.abs(pit - 0.5) <= level / 2) for level in levels
    }
    return pd.DataFrame({"crps": crps, "ensemble_crps": crps, "pit": pit, **within}, dtype=float)


@dataclass(frozen=True)
class ShrunkWalk:
    """A random walk whose volatility is drawn to its average, with the shape that returns had.

    The fair baseline: what the last 20 days and the past of all names tell, without a model.

    Attributes:
        slope: of the log of outcomes' sizes on the log of 20-day volatility, in [0, 1].
        center: mean of that log volatility.
        shape: (SHAPE,) quantiles of outcomes over exp(slope (log volatility - center)).
    """

    slope: float
    center: float
    shape: np.ndarray

    @classmethod
    def fit(cls, market: PricePanel, horizon: int, first: pd.Timestamp) -> ShrunkWalk | None:
        """To outcomes that were known at the close of `first`; None where they are of too few dates."""
        last = int(market.calendar.searchsorted(first, side="right")) - 1 - horizon
        rows = slice(max(0, last + 1 - HISTORY), max(0, last + 1))
        volatility, came = (wide.to_numpy()[rows] for wide in (market.deviation, market.log_return(horizon)))
        both = np.isfinite(came) & (volatility > 0)
        if both.any(axis=1).sum() < MIN_HISTORY:
            return None
        size, came = np.log(volatility[both]), came[both]
        center, moved = float(size.mean()), came != 0
        slope = float(np.polyfit(size[moved], np.log(np.abs(came[moved])), 1)[0])
        slope = float(np.clip(slope, 0.0, 1.0))
        levels = (np.arange(SHAPE) + 0.5) / SHAPE
        return cls(slope, center, np.quantile(came / np.exp(slope * (size - center)), levels))

    def deviation(self, volatility: np.ndarray) -> np.ndarray:
        """Of rows by their 20-day volatility; NaN where it is not positive."""
        size = np.log(np.where(volatility > 0, volatility, np.nan))
        return np.exp(self.slope * (size - self.center))


NAMES = 20  # the most traded ones
MIN_RETURNS, MAX_RETURNS = 250, 1000  # of a name, before the first forecast
UNIT = 100.0  # returns in percent, as the optimiser wants them
MAX_PERSISTENCE = 0.999
MAX_RATIO = 4.0  # of a model's average variance to that of the returns, or of that to it


@dataclass(frozen=True)
class GarchModels:
    """Of a few names.

    Attributes:
        variances: dates x names, of the next bar's log return, known at each close.
        parameters: by name, columns omega, persistence (alpha + beta), freedom.
    """

    variances: pd.DataFrame
    parameters: pd.DataFrame

    @classmethod
    def fit(cls, market: PricePanel, names: pd.Index, first: pd.Timestamp) -> GarchModels | None:
        """To the returns of the most traded of `names` up to `first`; None where all are too short.

        Args:
            market: of the bars.
            names: that may be chosen.
            first: date of the first forecast; what is traded most is decided on it.
        """
        amounts = market.amounts.loc[:first].iloc[-20:].mean().reindex(names)
        chosen = amounts.sort_values(ascending=False, kind="stable").index[:NAMES]
        variances, parameters = {}, {}
        for name in chosen:
            returns = market.closes[name].dropna().apply(np.log).diff().dropna() * UNIT
            found = _fit(returns.loc[:first].iloc[-MAX_RETURNS:])
            if found is not None:
                parameters[name] = found.drop("alpha")
                variances[name] = _filter(returns, found)
        if not variances:
            return None
        wide = pd.DataFrame(variances).reindex(market.calendar)
        return cls(wide, pd.DataFrame(parameters).T)

    def forecast(self, keys: pd.MultiIndex, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """Deviation of the log return over `horizon` bars and degrees of freedom, (rows,); NaN of other names.

        The excess kurtosis of a sum of h returns is an h-th of one's, which its degrees of freedom are to match.
        """
        rows = self.variances.index.get_indexer(keys.get_level_values("datetime"))
        columns = self.variances.columns.get_indexer(keys.get_level_values("instrument"))
        next_bar = np.where((rows < 0) | (columns < 0), np.nan, self.variances.to_numpy()[rows, columns])
        omega, persistence, freedom = (
            np.where(columns < 0, np.nan, self.parameters[name].to_numpy()[columns])
            for name in ("omega", "persistence", "freedom")
        )
        mean = omega / (1 - persistence)
        total = horizon * mean + (next_bar - mean) * (1 - persistence**horizon) / (1 - persistence)
        freedom = np.where(freedom > 4, 4 + horizon * (freedom - 4), freedom)
        return np.sqrt(total) / UNIT, freedom


def _fit(returns: pd.Series) -> pd.Series | None:
    if len(returns) < MIN_RETURNS or not returns.std() > 0:
        return None
    model = arch_model(returns.to_numpy(), mean="Zero", vol="GARCH", p=1, q=1, dist="t", rescale=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that does not converge is left out below
        result = model.fit(disp="off", show_warning=False)
    values = result.params
    alpha, beta = float(values["alpha[1]"]), float(values["beta[1]"])
    if result.convergence_flag != 0 or not 0 < alpha + beta < MAX_PERSISTENCE:
        return None
    ratio = float(values["omega"]) / (1 - alpha - beta) / float(returns.var())
    if not 1 / MAX_RATIO < ratio < MAX_RATIO:
        return None  # a fit on the edge, whose variance runs off to nothing or beyond all bounds
    found = {"omega": values["omega"], "alpha": alpha, "persistence": alpha + beta, "freedom": values["nu"]}
    return pd.Series(found, dtype=float)


def _filter(returns: pd.Series, found: pd.Series) -> pd.Series:
    """Variance of the bar after each one, from its return and the variance before."""
    beta = found["persistence"] - found["alpha"]
    variance, variances = found["omega"] / (1 - found["persistence"]), []
    for value in returns.to_numpy():
        variance = found["omega"] + found["alpha"] * value**2 + beta * variance
        variances.append(variance)
    return pd.Series(variances, returns.index)
