"""Do outcomes fall where the samples say? PIT, coverage, fair CRPS and pinball loss. Torch-free.

Samples are (N, S), outcomes (N,), in one unit. A row with a missing sample or outcome is NaN in every result,
so that a mean over rows must leave it out (`np.nanmean`) and can count it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kronos.paths import band_ends
from kronos.utils import MissingExtra

try:
    import scoringrules
except ImportError as error:
    raise MissingExtra(
        "Calibration needs scoringrules: pip install 'kronos-strategies[evaluation]'"
    ) from error


def pit(samples: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Mid-rank probability integral transform, (#below + #equal / 2) / S: (N,) in [0, 1].

    Uniform for a calibrated forecast; a hump in the middle says too wide, a bowl too narrow.
    """

    def ranks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x < y[:, None]).mean(axis=1) + (x == y[:, None]).mean(axis=1) / 2

    return _of_complete_rows(ranks, samples, outcomes)


def calibrated_deviation(samples: int) -> float:
    """Standard deviation of `pit` for a calibrated forecast of S independent samples: sqrt((S + 2) / (12 S)).

    Each of the ranks 0 to S is then as likely. It is .316 at S = 10 and nears the .289 of a continuous uniform as
    S grows, so that a deviation in between does not say that a forecast of few samples is too narrow.
    """
    return float(np.sqrt((samples + 2) / (12 * samples)))


def pit_shares(pits: np.ndarray, samples: int, bins: int) -> np.ndarray:
    """Share of outcomes in each of `bins` equal parts of [0, 1]: (bins,), 1 / bins each if calibrated.

    An outcome above r of S samples is spread evenly over [r, r + 1] / (S + 1), the span that such a rank covers
    if the outcome is one more draw (the non-randomised histogram of Czado, Gneiting & Held 2009). Counting r / S as
    it stands would pile S + 1 possible values into bins that hold unequal numbers of them.

    Args:
        pits: (N,) by `pit`; NaN is left out.
        samples: S, of each forecast.
        bins: number of parts.

    Returns:
        NaN throughout without an outcome.
    """
    ranks = pits[np.isfinite(pits)] * samples
    edges = np.linspace(0, 1, bins + 1) * (samples + 1)
    below = (edges - ranks[:, None]).clip(0, 1)  # (N, bins + 1), share of each outcome below each edge
    return np.diff(below.mean(axis=0)) if len(ranks) else np.full(bins, np.nan)


def inside(
    samples: np.ndarray, outcomes: np.ndarray, level: float, factor: np.ndarray | float = 1.0
) -> np.ndarray:
    """1.0 where the outcome lies within the central band at `level`, 0.0 outside: (N,). Their mean is coverage.

    The band's ends are quantiles at Weibull positions i / (S + 1), which cover `level` on average over samples
    that are drawn independently from the true distribution. Those of even draws lie further out: at S = 32
    their 90 % band covered 93 % of the same model's next closes, that of independent draws 91 %.

    Args:
        samples: (N, S).
        outcomes: (N,).
        level: of the band.
        factor: (N,) or one, of the distance of either end from the median.

    Raises:
        ValueError: S samples reach no band wider than (S - 1) / (S + 1), so that coverage would fall short
            however good they are.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level} is no band. Pass a number in (0, 1).")
    if samples.shape[1] < (needed := samples_for(level)):
        raise ValueError(
            f"{samples.shape[1]} samples reach no {level:.0%} band: it takes {needed}. "
            "Draw more or ask for less."
        )

    def within(x: np.ndarray, y: np.ndarray, factor: np.ndarray) -> np.ndarray:
        low, high = band_ends(x, level, factor)
        return ((low <= y) & (y <= high)).astype(float)

    return _of_complete_rows(within, samples, outcomes, np.broadcast_to(factor, np.shape(outcomes)))


def samples_for(level: float) -> int:
    """The fewest samples whose range, covering (S - 1) / (S + 1), reaches `level`: 9 for 80 %, 19 for 90 %."""
    return int(np.ceil((1 + level) / (1 - level) - 1e-9))


def fair_crps(samples: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of each row, in the outcome's unit: (N,), lower is better.

    mean |x_i - y| - sum_ij |x_i - x_j| / (2 S (S - 1)), without bias for samples drawn independently, at any S
    (Ferro 2014); S^2 in its place punishes few samples. Even draws, such as the net of `kronos.sampling`, spread
    further than independent ones, and for them this flatters: on the next close of 297 windows kronos-nano
    scored about 2 % less with 32 paths than with 512, and 6 % less with 8. `ensemble_crps` errs to the other side,
    by about 1 % and 6 %; up to noise the truth lies between the two, mean |x_i - x_j| / (2 S) apart.

    Raises:
        ValueError: a single sample has no spread.
    """
    if samples.shape[1] < 2:
        raise ValueError("One sample is no distribution. Draw at least 2.")
    return _of_complete_rows(_crps("fair"), samples, outcomes)


def ensemble_crps(samples: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """As `fair_crps`, with S^2 for S (S - 1): the samples taken as the whole distribution; never flatters."""
    return _of_complete_rows(_crps("nrg"), samples, outcomes)


def normal_crps(mean: np.ndarray, deviation: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """CRPS of a normal distribution, in closed form (Gneiting & Raftery 2007); NaN without deviation: (N,)."""
    deviation = np.where(deviation > 0, deviation, np.nan)
    return np.asarray(scoringrules.crps_normal(outcomes, mean, deviation))


def pinball(samples: np.ndarray, outcomes: np.ndarray, level: float) -> np.ndarray:
    """Loss of the sampled `level` quantile q (Weibull position): max(level (y - q), (level - 1) (y - q)), (N,)."""

    def loss(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return scoringrules.quantile_score(y, np.quantile(x, level, axis=1, method="weibull"), level)

    return _of_complete_rows(loss, samples, outcomes)


Score = Callable[..., np.ndarray]  # of samples, outcomes and whatever else there is a row a window of


def _crps(estimator: str) -> Score:
    return lambda x, y: scoringrules.crps_ensemble(y, x, estimator=estimator)


def _of_complete_rows(
    score: Score, samples: np.ndarray, outcomes: np.ndarray, *others: np.ndarray
) -> np.ndarray:
    samples, outcomes = np.asarray(samples, float), np.asarray(outcomes, float)
    if samples.ndim != 2 or outcomes.shape != samples.shape[:1]:
        raise ValueError(
            f"Samples of shape {samples.shape} and outcomes of shape {outcomes.shape} do not go together. "
            "Pass (N, S) and (N,)."
        )
    complete = np.isfinite(samples).all(axis=1) & np.isfinite(outcomes)
    result = np.full(len(outcomes), np.nan)
    if complete.any():
        result[complete] = score(samples[complete], outcomes[complete], *(each[complete] for each in others))
    return result
