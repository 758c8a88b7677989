"""Past forecasts as sampled, their outcomes and when these were known; scores before and after calibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kronos.calibration import Calibration
from kronos.forecast import Forecast, Provenance
from kronos.paths import POOL, band_ends, exchange_of, volatility_names
from kronos_strategies.evaluation.baselines import ShrunkWalk, score_normal, score_shape
from kronos_strategies.evaluation.distribution.metrics import (
    crps_ensemble,
    crps_fair,
    min_samples_for_coverage,
    pit,
)
from kronos_strategies.evaluation.distribution.path_summary import coverage_column
from kronos_strategies.evaluation.distribution.scores import RANDOM_WALK, SHRUNK_WALK
from kronos_strategies.evaluation.panel import PricePanel

MAX_WINDOWS = 40_000  # more add little information, and paths take memory


@dataclass(frozen=True)
class PastForecasts:
    """N windows of any dates, in order of dates.

    Attributes:
        returns: (N, S, H) float32 log returns of sampled closes since the last one.
        realized: (N, H) float64 realized log returns; NaN where an instrument did not trade on either end.
        known: (N, H) datetime64[ns], at whose close each was known; NaT of those that the market does not reach.
        trailing: (N,) float64 volatility per bar, NaN where unknown.
        keys: (N,) (datetime, instrument).
        bars_between: fewest bars between successive forecast dates.
        spacing: seconds between bars; None of paths of one step.
        provenance: provenance of the first forecast.
    """

    returns: np.ndarray
    realized: np.ndarray
    known: np.ndarray
    trailing: np.ndarray
    keys: pd.MultiIndex
    bars_between: int
    spacing: float | None
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: np.ndarray) -> PastForecasts:
        """Some of the windows, by mask or integer array."""
        names = ("returns", "realized", "known", "trailing", "keys")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    @property
    def dates(self) -> pd.DatetimeIndex:
        """(N,) of the forecasts."""
        return pd.DatetimeIndex(self.keys.get_level_values("datetime"))

    @property
    def horizon(self) -> int:
        """H, bars."""
        return self.returns.shape[2]

    @property
    def samples(self) -> int:
        """S, paths."""
        return self.returns.shape[1]

    def at(self, date: pd.Timestamp) -> PastForecasts:
        """Forecasts as known at the close of `date`: later outcomes are NaN, windows without any are excluded."""
        known = self.known <= np.datetime64(date, "ns")  # NaT is not
        rows = np.asarray(known.any(axis=1))
        return replace(self[rows], realized=np.where(known, self.realized, np.nan)[rows])

    def between(self, start: pd.Timestamp | None, end: pd.Timestamp | None) -> PastForecasts:
        """The forecasts dated from `start` to `end`."""
        dates = self.dates
        rows = np.ones(len(self), bool)
        rows &= np.asarray(dates >= start) if start is not None else rows
        rows &= np.asarray(dates <= end) if end is not None else rows
        return self[rows]

    def spans(self, step: int) -> int:
        """Successive forecast dates that an outcome `step` bars ahead spans."""
        return max(1, -(-step // self.bars_between))

    def rows_by_group(
        self, groups: Sequence[str], terciles: tuple[float, ...]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Names of groups, by exchange and by tercile of volatility, and the mask of each group's windows."""
        instruments = self.keys.get_level_values("instrument").astype(str)
        exchanges = [exchange_of(name) if "exchange" in groups else "" for name in instruments]
        volatilities = volatility_names(self.trailing, terciles)
        names = np.array([f"{a} {b}".strip() for a, b in zip(exchanges, volatilities, strict=True)])
        for name in sorted(set(names) - {POOL}):
            yield name, names == name

    def fewer_paths(self) -> dict[int, tuple[float, ...]]:
        """Number of paths k -> the regression of the mean of all paths on the mean of the first k."""
        counts = sorted({2**i for i in range(self.samples.bit_length())} - {self.samples})
        mean = self.returns.mean(axis=1, dtype=np.float64)  # (N, H)
        found = {}
        for count in (count for count in counts if count < self.samples):
            part = self.returns[:, :count].mean(axis=1, dtype=np.float64)
            size = (part**2).sum(axis=0)
            slope = np.divide((part * mean).sum(axis=0), size, out=np.ones_like(size), where=size > 0)
            found[count] = tuple(float(value) for value in slope.clip(0, 1))
        return found | {self.samples: (1.0,) * self.horizon}


def collect(
    forecasts: Iterable[Forecast], market: PricePanel, limit: int = MAX_WINDOWS, dates: int | None = None
) -> PastForecasts:
    """Collect what a calibration needs of forecasts.

    Args:
        forecasts: raw forecasts of one date each, ascending.
        market: the bars that were forecast, and later ones.
        limit: windows to keep; if there are more, every k-th of each date is kept.
        dates: number of dates, if known; then windows that are left out are never held in memory.

    Raises:
        ValueError: no forecast, calibrated ones, or forecasts of another market.
    """
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, pd.MultiIndex]] = []
    first: Forecast | None = None
    moved: list[pd.DataFrame] = []
    for place, forecast in enumerate(forecasts):
        if forecast.provenance.calibration is not None:
            raise ValueError("The forecasts are already calibrated. Fit a calibration to raw forecasts.")
        if first is None:
            first = forecast
            moved = [market.log_return(step) for step in range(1, forecast.horizon + 1)]
        if dates:
            every = max(1, -(-len(forecast) * dates // limit))
            forecast = forecast[np.arange(place % every, len(forecast), every)]
        parts.append(_outcomes(forecast, market, moved))
    if first is None:
        raise ValueError("There are no forecasts to calibrate. Fill a store with `kronos store fill`.")
    returns, realized, known, trailing = (np.concatenate([part[i] for part in parts]) for i in range(4))
    keys = parts[0][4].append([part[4] for part in parts[1:]])
    steps = np.diff(market.calendar.get_indexer(pd.DatetimeIndex(keys.get_level_values("datetime")).unique()))
    between = int(steps.min()) if len(steps) else first.horizon
    return PastForecasts(returns, realized, known, trailing, keys, between, first.spacing, first.provenance)


def _outcomes(
    forecast: Forecast, market: PricePanel, moved: list[pd.DataFrame]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, pd.MultiIndex]:
    n, horizon = forecast.timestamps.shape
    realized = (
        np.column_stack([market.lookup(wide, forecast.index) for wide in moved])
        if n
        else np.empty((0, horizon))
    )
    at = market.calendar.get_indexer(pd.DatetimeIndex(forecast.index.get_level_values("datetime")))
    ends = at[:, None] + np.arange(1, horizon + 1)
    times = market.calendar.to_numpy("datetime64[ns]")
    known = np.where(ends < len(times), times[np.minimum(ends, len(times) - 1)], np.datetime64("NaT", "ns"))
    trailing = np.full(n, np.nan) if forecast.trailing_volatility is None else forecast.trailing_volatility
    return forecast.log_returns().astype(np.float32), realized, known, trailing.astype(float), forecast.index


HELD_BACK = 0.3  # share of the dates, at the end
STEPS = (1, 2, 5, 10)  # bars ahead, within the horizon, and the last
RAW, CALIBRATED = "as sampled", "calibrated"


def split(past: PastForecasts, share: float = HELD_BACK) -> pd.Timestamp:
    """The first of the last `share` of the dates."""
    dates = past.dates.unique()
    return pd.Timestamp(dates[int(len(dates) * (1 - share))])


def before_and_after(
    past: PastForecasts, calibration: Calibration, market: PricePanel, levels: Sequence[float]
) -> tuple[dict[str, object], ...]:
    """One row per step and forecast.

    Args:
        past: forecasts and outcomes of dates on which the calibration was known.
        calibration: calibration to evaluate.
        market: price panel of the forecast instruments.
        levels: levels of the bands.

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
        realized = np.where(volatility > 0, past.realized[:, step - 1], np.nan)  # common ones
        factors = {level: calibration.band_factors(level, past.keys, step)[:, -1] for level in levels}
        found = {
            RAW: _scores(past.returns[:, :, step - 1], realized, dict.fromkeys(levels, 1.0)),
            CALIBRATED: _scores(moved[:, :, step - 1], realized, factors),
            RANDOM_WALK: score_normal(volatility * np.sqrt(step), realized, levels),
        }
        fair = ShrunkWalk.fit(market, step, pd.Timestamp(dates[0]))
        if fair is not None:
            found[SHRUNK_WALK] = score_shape(fair.scale(volatility), fair.shape, realized, levels)
        walk = found[RANDOM_WALK]["crps"].groupby(np.asarray(dates)).mean().mean()
        rows += [
            {"horizon": step, "forecast": name, **_row(each, dates, walk)} for name, each in found.items()
        ]
    return tuple(rows)


def _scores(
    returns: np.ndarray, realized: np.ndarray, factors: dict[float, np.ndarray] | dict[float, float]
) -> pd.DataFrame:
    columns = {
        "crps": crps_fair(returns, realized) if returns.shape[1] > 1 else np.abs(returns[:, 0] - realized),
        "crps_ensemble": crps_ensemble(returns, realized),
        "pit": pit(returns, realized),
    }
    for level, factor in factors.items():
        if returns.shape[1] >= min_samples_for_coverage(level):
            low, high = band_ends(returns, level, factor)
            within = ((low <= realized) & (realized <= high)).astype(float)
            columns[coverage_column(level)] = np.where(np.isfinite(realized), within, np.nan)
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
