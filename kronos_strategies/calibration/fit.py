"""A calibration from past forecasts: fitted once, or again every so many dates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from kronos.calibration import Calibration, CalibrationFit, PathAdjustment
from kronos.paths import POOL, exchange_of, log_ratio, volatility_names
from kronos_strategies.calibration.estimators import (
    AS_SAMPLED,
    RATE,
    Move,
    Spread,
    adapted_level,
    conformal_factor,
    conformity,
    fit_move,
)
from kronos_strategies.calibration.past_forecasts import PastForecasts, before_and_after, split
from kronos_strategies.evaluation.distribution.calibration import min_samples_for_coverage
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.progress import ProgressReport, no_progress

LEVELS = (0.5, 0.8, 0.9)  # levels of the bands
MIN_DATES = 8  # non-overlapping dates; with fewer the fit is noise
MIN_WINDOWS = 200  # per group
POOL_STRENGTH, GROUP_STRENGTH = (
    0.1,
    2.0,
)  # weight of the priors, divided by the number of non-overlapping dates
Groups = Sequence[str]
GROUPS = ("exchange", "volatility")


def fit_calibration(
    past: PastForecasts,
    known_at: pd.Timestamp,
    groups: Groups = (),
    levels: Sequence[float] = LEVELS,
    rate: float = RATE,
) -> CalibrationFit:
    """Fit to the outcomes that were known at the close of `known_at`, and to no others.

    Args:
        past: forecasts and outcomes, later ones too.
        known_at: date.
        groups: "exchange", "volatility" (terciles of trailing volatility), or both: fitted separately, shrunk to
            the pooled fit. A group of fewer than MIN_WINDOWS windows uses the pooled fit.
        levels: levels of the bands; those that need more paths have no factor.
        rate: by which a date moves the levels of the bands, see `adapted_level`; 0 for none.

    Raises:
        ValueError: outcomes of too few dates were known, or an unknown group.
    """
    if unknown := set(groups) - set(GROUPS):
        raise ValueError(f"groups={sorted(unknown)} are unknown. Choose from {list(GROUPS)}.")
    past = past.at(known_at)
    dates = past.dates.unique()
    independent = len(dates) // past.spans(past.horizon)
    if independent < MIN_DATES:
        raise ValueError(
            f"Outcomes of {len(dates)} forecast dates were known on {known_at:%Y-%m-%d}, {independent} of which do "
            f"not overlap; a calibration needs {MIN_DATES}. Forecast earlier dates too, or set a later --until."
        )
    terciles: tuple[float, ...] = ()
    if "volatility" in groups and np.isfinite(past.trailing).any():
        terciles = tuple(float(value) for value in np.nanquantile(past.trailing, [1 / 3, 2 / 3]))
    ratio = log_ratio(past.returns, past.trailing)
    pool = _fit_steps(past, ratio, None)
    found = {POOL: pool} | {
        name: _fit_steps(past[rows], ratio[rows], pool)
        for name, rows in _group_rows(past, groups, terciles)
        if rows.sum() >= MIN_WINDOWS
    }
    fit = CalibrationFit(
        known_at=f"{known_at.isoformat()}",
        first=f"{dates[0].isoformat()}",
        dates=len(dates),
        windows=len(past),
        groups=found,
        terciles=terciles,
        fewer_paths=_fewer_paths(past),
        bands={},
    )
    moved = past.returns + fit.shift(past.returns, past.trailing, past.keys)
    reached = [level for level in levels if past.samples >= min_samples_for_coverage(level)]
    bands = {level: _band(past, moved, level, rate) for level in reached}
    return replace(fit, bands=bands)


def calibrate(
    past: PastForecasts,
    market: PricePanel,
    name: str,
    lookback: int,
    until: pd.Timestamp,
    every: int | None = None,
    groups: Groups = (),
    hold_back: pd.Timestamp | None = None,
    progress: ProgressReport = no_progress,
) -> Calibration:
    """Fit a calibration, and first evaluate such a fit on a held-out part of the dates.

    Args:
        past: forecasts and outcomes.
        market: price panel of the same market, for the random walks to compare with.
        name: name of the market.
        lookback: bars per window.
        until: last date on which an outcome may be known.
        every: forecast dates from one fit to the next, each known on its own date; None fits once, on `until`.
        groups: see `fit_calibration`.
        hold_back: first date of the held-out part; the last 30 % of the dates when omitted.
        progress: called as progress(fits done, fits to do).

    Raises:
        ValueError: outcomes of too few dates, `every` counts none, or no date is held out.
    """
    if every is not None and every < 1:
        raise ValueError(f"every={every} is too small. Pass at least 1 forecast date.")
    known = past.at(until)
    if hold_back is not None and not len(known.between(hold_back, None)):
        raise ValueError(
            f"No forecast from {hold_back:%Y-%m-%d} on has an outcome until {until:%Y-%m-%d}. Hold back from an "
            "earlier date."
        )
    start = hold_back or split(known)
    if every is None:
        progress(0, 2)
        fits: tuple[CalibrationFit, ...] = (fit_calibration(past, until, groups),)
        trial = _try_fit(past, start, groups)
        progress(2, 2)
    else:
        fits = trial = tuple(_walk_forward(past, known.dates.unique(), every, groups, progress))
        start = max(start, pd.Timestamp(fits[0].known_at))
    made = _described(past, name, lookback, every is not None, fits)
    if not trial:
        return made
    tested = replace(made, fits=trial)
    return replace(made, table=before_and_after(known.between(start, None), tested, market, LEVELS))


def _described(
    past: PastForecasts, name: str, lookback: int, walk_forward: bool, fits: tuple[CalibrationFit, ...]
) -> Calibration:
    """The fits, and what they are fitted to."""
    known = past.provenance
    return Calibration(
        model=known.model,
        weights_sha256=known.weights_sha256 or "",
        T=known.sampling.T,
        top_p=known.sampling.top_p,
        top_k=known.sampling.top_k,
        samples=past.samples,
        anchor=known.anchor,
        horizon=past.horizon,
        spacing=past.spacing or 0.0,
        market=name,
        lookback=lookback,
        embargo=f"outcomes known after the date of a fit, up to {past.horizon} bars before it",
        fits=fits,
        walk_forward=walk_forward,
    )


def _walk_forward(
    past: PastForecasts, days: pd.DatetimeIndex, every: int, groups: Groups, progress: ProgressReport
) -> Iterator[CalibrationFit]:
    """Fit at every k-th date, from the first on which enough outcomes were known."""
    chosen = days[days >= _first_fit(past, days)][::every]
    for done, day in enumerate(chosen):
        progress(done, len(chosen))
        yield fit_calibration(past, day, groups)


def _try_fit(past: PastForecasts, start: pd.Timestamp, groups: Groups) -> tuple[CalibrationFit, ...]:
    """Fit to what was known at the start of the held-out part; None if that is too little."""
    try:
        return (fit_calibration(past, start, groups),)
    except ValueError:
        return ()


def _first_fit(past: PastForecasts, days: pd.DatetimeIndex) -> pd.Timestamp:
    """The first of some dates on which outcomes of enough dates were known."""
    by_date = pd.Series(past.known[:, 0]).groupby(past.dates).max()
    enough = MIN_DATES * past.spans(past.horizon)
    for day in days:
        if (by_date <= day).sum() >= enough and len(past.at(day).dates.unique()) >= enough:
            return pd.Timestamp(day)
    raise ValueError(
        f"None of the {len(days)} dates has the outcomes of {enough} forecast dates before it. Forecast earlier "
        "dates too."
    )


def _fit_steps(past: PastForecasts, ratio: np.ndarray, pool: PathAdjustment | None) -> PathAdjustment:
    """Moves of all steps; those of a group start from the pool's."""
    steps = []
    for h in range(past.horizon):
        rows = np.isfinite(past.realized[:, h])
        dates = max(1, past.dates[rows].nunique() // past.spans(h + 1))
        prior = AS_SAMPLED if pool is None else Move(pool.location[h], pool.spread[h], pool.trailing[h])
        strength = (POOL_STRENGTH if pool is None else GROUP_STRENGTH) / dates
        spread = Spread.of(past.returns[:, :, h], ratio[:, h], past.realized[:, h])
        steps.append(fit_move(spread, prior, strength, trailing=pool is None))
    location, width, trailing = zip(*steps, strict=True)
    return PathAdjustment(location, width, trailing)


def _group_rows(
    past: PastForecasts, groups: Groups, terciles: tuple[float, ...]
) -> Iterator[tuple[str, np.ndarray]]:
    instruments = past.keys.get_level_values("instrument").astype(str)
    exchanges = np.array([exchange_of(name) if "exchange" in groups else "" for name in instruments], object)
    names = np.array(
        [
            f"{a} {b}".strip()
            for a, b in zip(exchanges, volatility_names(past.trailing, terciles), strict=True)
        ]
    )
    for name in sorted(set(names) - {POOL}):
        yield name, names == name


def _fewer_paths(past: PastForecasts) -> dict[int, tuple[float, ...]]:
    """By number of paths k, the regression of the mean of all paths on the mean of the first k."""
    counts = sorted({2**i for i in range(past.samples.bit_length())} - {past.samples})
    mean = past.returns.mean(axis=1, dtype=np.float64)  # (N, H)
    found = {}
    for count in (count for count in counts if count < past.samples):
        part = past.returns[:, :count].mean(axis=1, dtype=np.float64)
        size = (part**2).sum(axis=0)
        slope = np.divide((part * mean).sum(axis=0), size, out=np.ones_like(size), where=size > 0)
        found[count] = tuple(float(value) for value in slope.clip(0, 1))
    return found | {past.samples: (1.0,) * past.horizon}


def _band(past: PastForecasts, moved: np.ndarray, level: float, rate: float) -> tuple[float, ...]:
    dates, factors = past.dates.to_numpy("datetime64[ns]"), []
    for h in range(past.horizon):
        rows = np.isfinite(past.realized[:, h])
        scores = conformity(moved[rows, :, h], past.realized[rows, h], level)
        asked = adapted_level(scores, dates[rows], past.known[rows, h], level, rate) if rate else level
        factors.append(conformal_factor(scores, asked))
    return tuple(factors)
