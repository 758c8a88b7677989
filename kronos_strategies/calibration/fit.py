"""A calibration from past forecasts: location and spread of paths by minimum CRPS, conformal factors of bands.

It is fitted once, or again every so many dates.

With paths m + z_s around their mean m, an outcome y and k = exp(spread + trailing * r), r the log ratio of trailing
volatility to sampled deviation, the score of location * m + k z_s is

    mean_s |location m + k z_s - y| - k e G,   G = sum_st |z_s - z_t| / (2 S^2)

It is linear in its second term and piecewise linear in the first, so that it costs N S a step. The factor e is half
way between 1 and S / (S - 1): the second is fair for independent draws and flatters even ones, the first errs to
the other side (see `kronos_strategies.evaluation.distribution.metrics.crps_fair`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from kronos.calibration import Calibration, CalibrationFit, PathAdjustment
from kronos.paths import POOL, band_ends, log_ratio
from kronos.utils import MissingExtra
from kronos_strategies.calibration.past_forecasts import PastForecasts, before_and_after, split
from kronos_strategies.evaluation.distribution.metrics import min_samples_for_coverage
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.progress import ProgressReport, no_progress

try:
    from scipy.optimize import minimize
except ImportError as error:
    raise MissingExtra(
        "Fitting a calibration needs scipy: pip install 'kronos-strategies[evaluation]'"
    ) from error

BOUNDS = ((0.0, 1.0), (-1.5, 1.5), (0.0, 1.0))  # of location, spread, trailing


class Move(NamedTuple):
    """Moves of one step, see `kronos.calibration.Moves`."""

    location: float
    spread: float
    trailing: float


AS_SAMPLED = Move(0.0, 0.0, 0.0)  # zero location: without data, paths have no direction


class Spread(NamedTuple):
    """Paths of N windows at one step, prepared for scoring."""

    mean: np.ndarray  # (N,)
    deviation: np.ndarray  # (N, S) from the mean
    distance: np.ndarray  # (N,) e G
    ratio: np.ndarray  # (N,)
    realized: np.ndarray  # (N,)

    @classmethod
    def of(cls, returns: np.ndarray, ratio: np.ndarray, realized: np.ndarray) -> Spread:
        """From (N, S) log returns; rows without an outcome are left out."""
        rows = np.isfinite(realized)
        returns = returns[rows].astype(np.float64)
        samples = returns.shape[1]
        mean = returns.mean(axis=1)
        weights = 2 * np.arange(1, samples + 1) - samples - 1
        distance = np.sort(returns, axis=1) @ weights / samples**2
        fair = samples / (samples - 1) if samples > 1 else 1.0
        return cls(mean, returns - mean[:, None], distance * (1 + fair) / 2, ratio[rows], realized[rows])

    def crps(self, move: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean score, and its gradient by location, spread and trailing."""
        factor = np.exp(move[1] + move[2] * self.ratio)
        off = move[0] * self.mean[:, None] + factor[:, None] * self.deviation - self.realized[:, None]
        sign = np.sign(off)
        by_factor = (sign * self.deviation).mean(axis=1) - self.distance
        score = np.abs(off).mean(axis=1) - factor * self.distance
        grow = by_factor * factor
        gradient = [(self.mean * sign.mean(axis=1)).mean(), grow.mean(), (grow * self.ratio).mean()]
        return float(score.mean()), np.array(gradient)


def fit_move(spread: Spread, prior: Move, strength: float, trailing: bool = True) -> Move:
    """The move with the least mean CRPS, shrunk to a prior.

    Args:
        spread: paths of the windows.
        prior: move to shrink to.
        strength: share by which the loss grows where one of the three is 1 off the prior.
        trailing: whether trailing volatility may be weighed; else its weight is the prior's.
    """
    if not len(spread.realized):
        return prior
    start, at = np.array([max(prior.location, 0.5), *prior[1:]]), np.array(prior)
    unit = spread.crps(start)[0]
    if not unit > 0:
        return prior
    bounds = BOUNDS if trailing else (*BOUNDS[:2], (prior.trailing, prior.trailing))

    def loss(move: np.ndarray) -> tuple[float, np.ndarray]:
        score, gradient = spread.crps(move)
        off = move - at
        return score / unit + strength * float(off @ off), gradient / unit + 2 * strength * off

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return Move(*(float(value) for value in found.x))


RATE = 0.01  # step by which a missed date raises the level
CHUNKS = 60  # dates between updates of the factor; more frequent ones cost time and change little


def conformity(returns: np.ndarray, realized: np.ndarray, level: float) -> np.ndarray:
    """(N,) factors by which the band at `level` of (N, S) log returns just covers the outcome; NaN without one."""
    low, high = band_ends(returns, level)
    middle = np.median(returns, axis=1)
    below, above = np.maximum(middle - low, 0), np.maximum(high - middle, 0)
    off = realized - middle
    width = np.where(off < 0, below, above)
    far = np.where(off == 0, 0.0, np.inf)
    return np.where(np.isfinite(realized), np.divide(np.abs(off), width, out=far, where=width > 0), np.nan)


def conformal_factor(scores: np.ndarray, level: float) -> float:
    """The ceil((n + 1) level)-th smallest of n scores, at most the largest finite one; 1 where there is none."""
    ordered = np.sort(scores[np.isfinite(scores)])
    if not len(ordered):
        return 1.0
    place = int(np.ceil((len(scores) + 1) * level - 1e-9))
    return float(ordered[min(max(place, 1), len(ordered)) - 1])


def adapted_level(
    scores: np.ndarray, dates: np.ndarray, known: np.ndarray, level: float, rate: float = RATE
) -> float:
    """The level of the next quantile, adapted to the misses of each past date.

    Args:
        scores: (N,) of past outcomes, by date.
        dates: (N,) datetime64, of the forecasts, ascending.
        known: (N,) datetime64, of the outcomes.
        level: level of the band.
        rate: step per date.
    """
    asked, days = level, np.unique(dates)
    for chunk in np.array_split(days, min(CHUNKS, len(days)))[1:]:
        before = scores[known <= chunk[0]]  # known when the first of these forecasts was made
        if not len(before):
            continue
        factor = conformal_factor(before, asked)
        rows = (dates >= chunk[0]) & (dates <= chunk[-1])
        held = np.array([(scores[rows & (dates == day)] <= factor).mean() for day in chunk])
        asked += rate * float((level - held).sum())
    return float(np.clip(asked, level - 0.1, level + (1 - level) / 2))


LEVELS = (0.5, 0.8, 0.9)  # levels of the bands
MIN_DATES = 8  # non-overlapping dates; with fewer the fit is noise
MIN_WINDOWS = 200  # per group
POOL_STRENGTH, GROUP_STRENGTH = 0.1, 2.0  # of priors, divided by the number of non-overlapping dates
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
        rate: step by which a date moves the levels of the bands, see `adapted_level`; 0 for none.

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
        for name, rows in past.rows_by_group(groups, terciles)
        if rows.sum() >= MIN_WINDOWS
    }
    fit = CalibrationFit(
        known_at=f"{known_at.isoformat()}",
        first=f"{dates[0].isoformat()}",
        dates=len(dates),
        windows=len(past),
        groups=found,
        terciles=terciles,
        fewer_paths=past.fewer_paths(),
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


def _band(past: PastForecasts, moved: np.ndarray, level: float, rate: float) -> tuple[float, ...]:
    dates, factors = past.dates.to_numpy("datetime64[ns]"), []
    for h in range(past.horizon):
        rows = np.isfinite(past.realized[:, h])
        scores = conformity(moved[rows, :, h], past.realized[rows, h], level)
        asked = adapted_level(scores, dates[rows], past.known[rows, h], level, rate) if rate else level
        factors.append(conformal_factor(scores, asked))
    return tuple(factors)
