"""Does the return fall where the paths say, compared with random walks, EWMA and GARCH? Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from kronos_strategies.evaluation.scorecard.garch import GarchModels
from kronos_strategies.evaluation.scorecard.paths import band
from kronos_strategies.evaluation.scorecard.rows import MODEL, HorizonRows
from kronos_strategies.evaluation.scorecard.walks import (
    ShrunkWalk,
    score_normal,
    score_shape,
    score_student,
)
from kronos_strategies.evaluation.significance import MeanTest

RANDOM_WALK = "Gaussian random walk"
UNCALIBRATED = "as sampled, uncalibrated"
SHRUNK_WALK = "shrunk random walk"
EWMA = "EWMA, Gaussian"
GARCH = "GARCH-t"


@dataclass(frozen=True)
class DistributionScore:
    """Of one distribution of the log return close(t) -> close(t+h).

    Attributes:
        horizon: h, bars.
        name: MODEL; RANDOM_WALK, normal with mean 0 and the deviation of the last 20 daily returns times sqrt(h);
            UNCALIBRATED, the model's paths before a calibration moved them; SHRUNK_WALK, EWMA or GARCH, see
            `kronos_strategies.evaluation.scorecard.walks` and `garch`.
        coverage: level of a central band -> share of outcomes within; None where the samples are too few to
            reach it.
        crps: fair, in log return, lower is better.
        ensemble_crps: with the samples taken as the whole distribution. For even draws `crps` is a little too
            low and this a little too high (see `fair_crps`); for the random walk they are equal.
        excess: CRPS of the model less this one's, paired, so that negative is better; None for the model.
        skill: 1 - CRPS / CRPS of the random walk, over rows that have both; 0 for the random walk.
        ensemble_skill: the same from `ensemble_crps`: skill that holds by this one is no matter of the draws.
        pit_mean: over rows; .5 if the centre is right.
        pit_deviation: over rows; .289 if the width is right (for S samples sqrt((S + 2) / (12 S))), less if too
            wide, more if too narrow.
        outcomes: rows with one.
        by_date: columns crps, and inside_80 etc.
    """

    horizon: int
    name: str
    coverage: dict[float, MeanTest | None]
    crps: MeanTest
    ensemble_crps: MeanTest
    excess: MeanTest | None
    skill: float
    ensemble_skill: float
    pit_mean: float
    pit_deviation: float
    outcomes: int
    by_date: pd.DataFrame = field(repr=False, compare=False)


def score_distributions(
    rows: HorizonRows, levels: Sequence[float], garch: GarchModels | None = None
) -> tuple[DistributionScore, ...]:
    """The model, then the Gaussian random walk, the model's paths as sampled, and the other baselines.

    Args:
        rows: of one horizon.
        levels: of central bands.
        garch: fitted to bars before the first forecast; None leaves GARCH out.
    """
    walk = _baseline(rows, RANDOM_WALK, levels, None)
    assert walk is not None  # it takes no history
    found = {MODEL: rows.said, RANDOM_WALK: walk}
    if rows.sampled is not None:
        found[UNCALIBRATED] = rows.sampled
    for name in (SHRUNK_WALK, EWMA, GARCH):
        if (scores := _baseline(rows, name, levels, garch)) is not None:
            found[name] = scores
    return tuple(_score(rows, name, figures, walk["crps"], levels) for name, figures in found.items())


def _baseline(
    rows: HorizonRows, name: str, levels: Sequence[float], garch: GarchModels | None
) -> pd.DataFrame | None:
    """The same columns as `summarise_paths` gives, in closed form; None where the past is too short to fit to."""
    market, horizon = rows.market, rows.horizon
    came = rows.of(market.moved(horizon)).to_numpy(float)
    if name == RANDOM_WALK:
        found = score_normal(rows.of(market.deviation).to_numpy(float) * np.sqrt(horizon), came, levels)
    elif name == EWMA:
        found = score_normal(rows.of(market.ewma).to_numpy(float) * np.sqrt(horizon), came, levels)
    elif name == SHRUNK_WALK:
        shrunk = ShrunkWalk.fit(market, horizon, rows.dates[0])
        if shrunk is None:
            return None
        deviation = shrunk.deviation(rows.of(market.deviation).to_numpy(float))
        found = score_shape(deviation, shrunk.shape, came, levels)
    else:
        if garch is None:
            return None
        found = score_student(*garch.forecast(rows.keys, horizon), came, levels)
    return found.set_axis(rows.keys)


def _score(
    rows: HorizonRows, name: str, figures: pd.DataFrame, walk: pd.Series, levels: Sequence[float]
) -> DistributionScore:
    bands = {level: band(level) for level in levels if band(level) in figures}
    by_date = pd.DataFrame({name: rows.by_date(figures[name]) for name in ("crps", *bands.values())})
    return DistributionScore(
        horizon=rows.horizon,
        name=name,
        coverage={level: rows.test(by_date[bands[level]]) if level in bands else None for level in levels},
        crps=rows.test(by_date["crps"]),
        ensemble_crps=rows.test(rows.by_date(figures["ensemble_crps"])),
        excess=None if name == MODEL else rows.test(rows.by_date(rows.said["crps"] - figures["crps"])),
        skill=_skill(rows, figures["crps"], walk),
        ensemble_skill=_skill(rows, figures["ensemble_crps"], walk),
        pit_mean=float(figures["pit"].mean()),
        pit_deviation=float(figures["pit"].std()),
        outcomes=int(figures["crps"].notna().sum()),
        by_date=by_date,
    )


def _skill(rows: HorizonRows, crps: pd.Series, walk: pd.Series) -> float:
    both = crps.notna() & walk.notna()
    mean, reference = (rows.by_date(losses.where(both)).mean() for losses in (crps, walk))
    return float(1 - mean / reference) if reference > 0 else np.nan
