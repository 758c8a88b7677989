"""GARCH(1, 1) with Student's t: the volatility model that desks use, as a baseline. Torch-free, engine-free.

Fitted once, to bars before the first forecast, of a few names only: a fit a name and date would take hours.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos.utils import MissingExtra
from kronos_strategies.evaluation.scorecard.market import Market

try:
    from arch import arch_model
except ImportError as error:
    raise MissingExtra("GARCH needs arch: pip install 'kronos-strategies[evaluation]'") from error

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
    def fit(cls, market: Market, names: pd.Index, first: pd.Timestamp) -> GarchModels | None:
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
