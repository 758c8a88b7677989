"""Sampled paths of one date -> a row a window: what they say, and how far off they were. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from kronos.bars import CLOSE
from kronos.forecast import Forecast
from kronos_strategies.evaluation.distribution.calibration import (
    ensemble_crps,
    fair_crps,
    inside,
    pit,
    samples_for,
)
from kronos_strategies.evaluation.distribution.volatility import sampled_variance
from kronos_strategies.signals import positive_prices, tradable_returns


def summarise_paths(
    forecast: Forecast, moved: Mapping[int, pd.Series], levels: Sequence[float]
) -> pd.DataFrame:
    """All that scoring keeps of a forecast, so that its paths can be let go.

    Args:
        forecast: at least max(h) + 1 bars, for the score trades one bar after its date.
        moved: horizon h -> log return close(t) -> close(t+h) that came, indexed by the forecast's keys; NaN
            where none did.
        levels: of central bands; those that take more samples than there are give no column.

    Returns:
        Frame indexed (datetime, instrument); columns (h, name), float64. Known at the close of t:
        score: mean over paths of path[t+1+h] / path[t+1] - 1.
        variance: mean over paths of their own sums of squared log returns over h bars.
        Known at t + h, of the log return over h bars:
        crps, ensemble_crps, pit, and inside_80 etc. for each level; bands are as wide as a calibration has them.

    Raises:
        ValueError: the paths are too short.
    """
    if forecast.horizon < max(moved) + 1:
        raise ValueError(
            f"Paths of {forecast.horizon} bars cannot be scored at {max(moved)}: a signal trades one bar later. "
            f"Forecast {max(moved) + 1} bars."
        )
    last = forecast.last_bar[:, CLOSE].astype(float)
    closes = positive_prices(forecast)  # (N, S, H)
    columns: dict[tuple[int, str], np.ndarray] = {}
    reached = [level for level in levels if forecast.samples >= samples_for(level)]
    widened = {level: forecast.band_factors(level) for level in reached}
    for horizon, came in moved.items():
        factors = {level: each[:, horizon - 1] for level, each in widened.items()}
        returns = np.log(closes[:, :, horizon - 1] / last[:, None])  # (N, S)
        columns |= {
            (horizon, "score"): tradable_returns(forecast, horizon).mean(axis=1),
            (horizon, "variance"): sampled_variance(closes, last, horizon),
            **{(horizon, name): v for name, v in _off(returns, came.to_numpy(float), factors).items()},
        }
    return pd.DataFrame(columns, index=forecast.index)


def band(level: float) -> str:
    """The column of a central band, e.g. inside_80."""
    return f"inside_{100 * level:g}"


def _off(returns: np.ndarray, came: np.ndarray, factors: Mapping[float, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "crps": fair_crps(returns, came),
        "ensemble_crps": ensemble_crps(returns, came),
        "pit": pit(returns, came),
        **{band(level): inside(returns, came, level, factor) for level, factor in factors.items()},
    }
