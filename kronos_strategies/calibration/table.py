"""What a calibration is worth on dates that it was not fitted to, compared with random walks. Knows no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kronos.calibration import Calibration
from kronos.paths import band_ends
from kronos_strategies.calibration.past import PastForecasts
from kronos_strategies.evaluation.distribution.baselines import ShrunkWalk, score_normal, score_shape
from kronos_strategies.evaluation.distribution.calibration import (
    crps_ensemble,
    crps_fair,
    min_samples_for_coverage,
    pit,
)
from kronos_strategies.evaluation.distribution.path_summary import coverage_column
from kronos_strategies.evaluation.distribution.scores import RANDOM_WALK, SHRUNK_WALK
from kronos_strategies.evaluation.price_panel import PricePanel

HELD_BACK = 0.3  # of the dates, the last ones
STEPS = (1, 2, 5, 10)  # bars ahead, as far as the paths reach; and the last
RAW, CALIBRATED = "as sampled", "calibrated"


def split(past: PastForecasts, share: float = HELD_BACK) -> pd.Timestamp:
    """The first of the last `share` of the dates."""
    dates = past.dates.unique()
    return pd.Timestamp(dates[int(len(dates) * (1 - share))])


def before_and_after(
    past: PastForecasts, calibration: Calibration, market: PricePanel, levels: Sequence[float]
) -> tuple[dict[str, object], ...]:
    """A row a step and forecast.

    Args:
        past: to judge by: of dates on which the calibration was known.
        calibration: to judge.
        market: that the forecasts are of.
        levels: of bands.

    Returns:
        Rows with horizon, forecast, crps and ensemble_crps (means over dates of a date's mean, in log return),
        skill and ensemble_skill (against the Gaussian random walk), coverage_50 etc., pit_deviation, dates,
        outcomes, first, last.
    """
    moved = past.returns + calibration.shift(past.returns, past.trailing, past.keys)
    volatility = market.lookup(market.historical_volatility, past.keys).to_numpy(float)
    dates = past.dates
    rows = []
    for step in sorted({step for step in STEPS if step <= past.horizon} | {past.horizon}):
        came = np.where(volatility > 0, past.came[:, step - 1], np.nan)  # that all have
        factors = {level: calibration.band_factors(level, past.keys, step)[:, -1] for level in levels}
        found = {
            RAW: _scores(past.returns[:, :, step - 1], came, dict.fromkeys(levels, 1.0)),
            CALIBRATED: _scores(moved[:, :, step - 1], came, factors),
            RANDOM_WALK: score_normal(volatility * np.sqrt(step), came, levels),
        }
        fair = ShrunkWalk.fit(market, step, pd.Timestamp(dates[0]))
        if fair is not None:
            found[SHRUNK_WALK] = score_shape(fair.scale(volatility), fair.shape, came, levels)
        walk = found[RANDOM_WALK]["crps"].groupby(np.asarray(dates)).mean().mean()
        rows += [
            {"horizon": step, "forecast": name, **_row(each, dates, walk)} for name, each in found.items()
        ]
    return tuple(rows)


def _scores(
    returns: np.ndarray, came: np.ndarray, factors: dict[float, np.ndarray] | dict[float, float]
) -> pd.DataFrame:
    columns = {
        "crps": crps_fair(returns, came) if returns.shape[1] > 1 else np.abs(returns[:, 0] - came),
        "crps_ensemble": crps_ensemble(returns, came),
        "pit": pit(returns, came),
    }
    for level, factor in factors.items():
        if returns.shape[1] >= min_samples_for_coverage(level):
            low, high = band_ends(returns, level, factor)
            within = ((low <= came) & (came <= high)).astype(float)
            columns[coverage_column(level)] = np.where(np.isfinite(came), within, np.nan)
    return pd.DataFrame(columns)


def _row(scores: pd.DataFrame, dates: pd.DatetimeIndex, walk: float) -> dict[str, object]:
    known = scores["crps"].notna().to_numpy()
    means = scores.groupby(np.asarray(dates)).mean().mean()
    coverage = {
        name.replace("covered", "coverage"): float(means[name])
        for name in scores.columns
        if name.startswith("covered")
    }
    return {
        "crps": float(means["crps"]),
        "ensemble_crps": float(means["crps_ensemble"]),
        "skill": float(1 - means["crps"] / walk),
        "ensemble_skill": float(1 - means["crps_ensemble"] / walk),
        **coverage,
        "pit_deviation": float(scores["pit"].std()),
        "dates": int(dates[known].nunique()),
        "outcomes": int(known.sum()),
        "first": f"{dates[known].min():%Y-%m-%d}" if known.any() else None,
        "last": f"{dates[known].max():%Y-%m-%d}" if known.any() else None,
    }
